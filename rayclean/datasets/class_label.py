"""Columns of numbers whose names the file itself holds: the `ClassLabel` of the Hugging Face format.

Two files may number the same names in different orders, so numbers become names as soon as they are read, and no later
step sees the number. https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def names_in_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Column -> names, from the metadata that the Hugging Face library writes into Parquet and Arrow files.

    >>> feature = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}}}'
    >>> names_in_metadata({b"huggingface": feature.encode()})
    {'label': ['no', 'yes']}
    """
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = found["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    named = (
        {column: _names(feature) for column, feature in features.items()}
        if isinstance(features, dict)
        else {}
    )
    return {column: names for column, names in named.items() if names}


def with_names(value: Any, names: Sequence[str]) -> Any:
    """A value, or each value of a list, by its name; what is no number of a name stays as it is.

    >>> with_names(1, ["no", "yes"]), with_names([0, 1], ["no", "yes"]), with_names(-1, ["no", "yes"])
    ('yes', ['no', 'yes'], -1)
    """
    if isinstance(value, list):
        return [with_names(item, names) for item in value]
    is_position = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names)
    return names[value] if is_position else value


def _names(feature: Any) -> list[str] | None:
    """Names of a feature, or of the items of a list."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return [str(name) for name in feature["names"]]
    return _names(feature.get("feature"))
