"""Columns of numbers whose names the file itself holds: the `ClassLabel` of the Hugging Face format.

Two files may number the same names in different orders, so numbers become names as soon as they are read, and no later
step sees the number. https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rayclean.datasets.base import FileSegment, Reader
from rayclean.datasets.rejected_rows import RejectedRow


def named_rows(
    reader: Reader, segment: FileSegment, columns: Sequence[str]
) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
    """The rows of a segment (`Reader.rows`), numbers that the file names as their names."""
    names = [reader.label_names(segment.file, column) for column in columns]
    rows = reader.rows(segment, columns)
    return ((row, _named(values, names)) for row, values in rows) if any(names) else rows


def _named(values: list[Any] | RejectedRow, names: Sequence[Sequence[str] | None]) -> list[Any] | RejectedRow:
    if isinstance(values, RejectedRow):
        return values
    return [with_names(value, among or ()) for value, among in zip(values, names, strict=True)]


def names_in_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Column, or path to a field of a struct -> names, from what the Hugging Face library writes into Parquet files.

    >>> feature = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}}}'
    >>> names_in_metadata({b"huggingface": feature.encode()})
    {'label': ['no', 'yes']}
    """
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = found["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return dict(_named_columns("", features))


def with_names(value: Any, names: Sequence[str]) -> Any:
    """A value, or each value of a list, by its name; what is no number of a name stays as it is.

    >>> with_names(1, ["no", "yes"]), with_names([0, 1], ["no", "yes"]), with_names(-1, ["no", "yes"])
    ('yes', ['no', 'yes'], -1)
    """
    if isinstance(value, list):
        return [with_names(item, names) for item in value]
    is_position = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names)
    return names[value] if is_position else value


def _named_columns(above: str, features: Any) -> Iterator[tuple[str, list[str]]]:
    """Paths and names of the columns of a struct, at any depth."""
    if isinstance(features, dict) and "_type" not in features:
        for column, feature in features.items():
            if names := _names(feature):
                yield f"{above}{column}", names
            else:
                yield from _named_columns(f"{above}{column}.", feature)


def _names(feature: Any) -> list[str] | None:
    """Names of a feature, or of the items of a list."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return [str(name) for name in feature["names"]]
    return _names(feature.get("feature"))
