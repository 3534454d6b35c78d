"""Hugging Face data sets (https://huggingface.co/docs/datasets), of the hub or saved with `save_to_disk`.

`hf://ag_news`, `hf://glue:sst2`, `hf://owner/name:config@revision`. An example row of `hf://ag_news`:
`{"text": "Wall St. Bears Claw Back Into the Black ...", "label": 2}`, where `label` is a `ClassLabel` that
names its classes (see `class_label.py`). Code that a data set brings is never run. A folder may hold one split or several;
`dataset.hf_split` chooses.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow as pa

from rayclean.datasets.base import ROWS_PER_BATCH, FileSegment, Reader, SourceFile, WholeRows
from rayclean.datasets.nested_fields import nested_value
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import DataError
from rayclean.plugins import did_you_mean

if TYPE_CHECKING:
    import datasets

_ROWS_PER_SEGMENT = 65536
PREFIX = "hf://"


class HuggingFace(Reader):
    """One split of a data set, memory-mapped from the local cache."""

    def columns(self, file: SourceFile) -> list[str]:
        """Names of the features."""
        data = _open(file.url, self.split)
        names = list(data.column_names)
        nested = [name for name in self.options.columns if name not in names and name.split(".")[0] in names]
        first = data[0] if nested and len(data) else {}
        return names + [name for name in nested if nested_value(first, name) is not None]

    def label_names(self, file: SourceFile, column: str) -> list[str] | None:
        """Class names of a column of `ClassLabel` or of lists of it; None for any other column."""
        from datasets import ClassLabel

        features = _open(file.url, self.split).features
        feature = features.get(column)
        if feature is None and "." in column:  # a path to a field of a struct
            feature = reduce(
                lambda each, name: each.get(name) if isinstance(each, dict) else None,
                column.split("."),
                features,
            )
        feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
        return list(feature.names) if isinstance(feature, ClassLabel) else None

    def cut(self, file: SourceFile, size: int) -> list[FileSegment]:
        """Segments of a fixed number of rows, whatever `size` is: the bytes of a row are unknown."""
        rows = len(_open(file.url, self.split))
        starts = range(0, max(rows, 1), _ROWS_PER_SEGMENT)
        return [FileSegment(file, start, min(start + _ROWS_PER_SEGMENT, rows)) for start in starts]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Rows [start, stop) of the split."""
        data = _open(segment.file.url, self.split)
        read = list(
            dict.fromkeys(name if name in data.column_names else name.split(".")[0] for name in columns)
        )
        data = data.select_columns(read)
        stop = len(data) if segment.stop is None else segment.stop
        for start in range(segment.start, stop, ROWS_PER_BATCH):
            batch = data[start : min(start + ROWS_PER_BATCH, stop)]
            for offset, cells in enumerate(zip(*(batch[name] for name in read), strict=True)):
                found = dict(zip(read, cells, strict=True))
                yield start + offset, [nested_value(found, name) for name in columns]

    def schema(self, file: SourceFile) -> pa.Schema:
        """Types of the columns, with the library's features beside them."""
        return _open(file.url, self.split).features.arrow_schema

    def whole_rows(self, segment: FileSegment) -> Iterator[WholeRows]:
        """Rows as Arrow holds them."""
        data = _open(segment.file.url, self.split).with_format("arrow")
        stop = len(data) if segment.stop is None else segment.stop
        for start in range(segment.start, stop, ROWS_PER_BATCH):
            end = min(start + ROWS_PER_BATCH, stop)
            yield WholeRows(np.arange(start, end, dtype=np.int64), data[start:end])


def source_file(url: str) -> SourceFile:
    """A data set on the hub, or a folder saved with `save_to_disk`, as one file; the hub is not contacted.

    Raises:
        DataError: the folder was not written by `save_to_disk`.
    """
    if url.startswith(PREFIX):
        return SourceFile(url, url, sys.maxsize)
    fs, plain = fsspec.core.url_to_fs(url)
    folder = plain.rstrip("/")
    states = sorted(fs.glob(f"{folder}/*/state.json")) if has_splits(url) else [f"{folder}/state.json"]
    try:
        stamp = tuple(str(json.loads(fs.cat_file(state)).get("_fingerprint")) for state in states)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{url}: no folder written by `save_to_disk` (its state.json: {error}); give such a folder, or say in dataset.format "
            "what its files are"
        ) from error
    return SourceFile(str(fs.unstrip_protocol(plain)), folder.rsplit("/", 1)[-1], sys.maxsize, stamp)


def has_splits(url: str) -> bool:
    """Whether a split can be chosen: always on the hub, and in a folder that holds several."""
    if url.startswith(PREFIX):
        return True
    fs, plain = fsspec.core.url_to_fs(url)
    return bool(fs.exists(f"{plain.rstrip('/')}/dataset_dict.json"))


def is_saved(fs: fsspec.AbstractFileSystem, folder: str) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any(fs.exists(f"{folder.rstrip('/')}/{name}") for name in ("dataset_dict.json", "state.json"))


@lru_cache(maxsize=4)
def _open(url: str, split: str) -> "datasets.Dataset":
    import datasets  # brings pandas; few data sets are of this kind

    try:
        if not url.startswith(PREFIX):
            found = datasets.load_from_disk(url)
        else:
            name, _, revision = url.removeprefix(PREFIX).partition("@")
            name, _, config = name.partition(":")
            found = datasets.load_dataset(name, config or None, split=split, revision=revision or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{url}: cannot open this Hugging Face data set ({str(error).splitlines()[0]}); check the name, "
            f"the config after ':' and the split {split!r} (dataset.hf_split, dev.split, test.split), or the network "
            "(HF_HUB_OFFLINE reads the local cache alone)"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise DataError(
                f"{url}: no split {split!r} (dataset.hf_split, dataset.dev.split, dataset.test.split); "
                f"{did_you_mean(split, list(found))}"
            )
        found = found[split]
    return found.with_format(None)
