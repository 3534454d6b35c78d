"""Bring your own probabilities: Parquet files of (key, probabilities) in any order, checked and put in the order of the examples.

They are read once, a batch at a time, into a memory-mapped file on the driver's disk (4 x N x K bytes); memory holds
17 bytes per example whatever K is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.datasets.example_id import key_id
from rayclean.errors import DataError
from rayclean.folder import filesystem
from rayclean.functional.lookup import lookup
from rayclean.plugins import did_you_mean

COLUMN = "probabilities"
BATCH_ROWS = 8192
TOLERANCE = 1e-3
"""A row's sum may differ from 1 by so much; rows are divided by their sum."""


def find_files(path: str | Sequence[str]) -> list[str]:
    """The Parquet files of a path, folder or glob, or several.

    Raises:
        DataError: nothing is there.
    """
    files = []
    for one in [path] if isinstance(path, str) else path:
        fs, plain = filesystem(one)
        pattern = f"{plain.rstrip('/')}/**/*.parquet" if fs.isdir(plain) else plain
        found = sorted(str(fs.unstrip_protocol(name)) for name in fs.glob(pattern))
        if not found:
            raise DataError(f"predict.path: no Parquet file at {one!r}; give a file, a folder or a glob")
        files += found
    return files


def check_columns(files: Sequence[str], key: str) -> None:
    """Both columns are in every file.

    Raises:
        DataError: a file cannot be read, or lacks one.
    """
    for file in files:
        with _opened(file) as parquet:
            found = parquet.schema_arrow.names
        for column in (key, COLUMN):
            if column not in found:
                raise DataError(
                    f"{file}: no column {column!r}; {did_you_mean(column, found)}. Expected {key!r} (the key of your data set, "
                    f"dataset.id) and {COLUMN!r} (a list of one number per class)"
                )


def gather(
    files: Sequence[str], key: str, ids: npt.NDArray[np.int64], num_classes: int, spill: Path, *,
    elsewhere: npt.NDArray[np.int64], unusable: int,
) -> tuple[npt.NDArray[np.float32], int]:  # fmt: skip
    """Probabilities in the order of `ids`.

    Args:
        files: from `find_files`.
        key: column of the user's key, or `example_id`.
        ids: [N] of all examples.
        num_classes: K.
        spill: file that the result is mapped to.
        elsewhere: ids that may occur and are not needed (test examples).
        unusable: rows that load rejected, whose keys nobody knows: so many unknown keys are passed over.

    Returns:
        [N, K] float32, rows that sum to 1; and the number of rows passed over.

    Raises:
        DataError: a NaN, infinite or negative value, a wrong sum or number of classes, a key twice, unknown or missing.
    """
    order = np.argsort(ids, kind="stable")
    sorted_ids, known = ids[order], np.sort(elsewhere)
    values = np.memmap(spill, mode="w+", dtype=np.float32, shape=(len(ids), num_classes))
    seen = np.zeros(len(ids), dtype=np.bool_)
    strangers: list[Any] = []
    passed = 0
    for where, keys, rows in _batches(files, key, num_classes):
        found_ids = np.array(keys if key == "example_id" else [key_id(k) for k in keys], dtype=np.int64)
        position, hit = lookup(sorted_ids, found_ids)
        _, tolerated = lookup(known, found_ids)
        passed += int((~hit & tolerated).sum())
        strangers += [keys[row] for row in np.flatnonzero(~hit & ~tolerated)[: unusable + 1]]
        if len(strangers) > unusable:
            raise DataError(
                f"{where}: key {strangers[-1]!r} is not in the data set"
                + (f" (nor are {unusable} others; load rejected as many rows)" if unusable else "")
                + f"; remove its row, or check that {key!r} holds the same keys as dataset.id, of the same type"
            )
        target = order[position[hit]]
        unique, first = np.unique(target, return_index=True)
        repeated = np.ones(len(target), dtype=np.bool_)
        repeated[first] = False
        repeated |= seen[target]
        if repeated.any():
            twice = keys[int(np.flatnonzero(hit)[np.flatnonzero(repeated)[0]])]
            raise DataError(f"{where}: key {twice!r} occurs twice; keep one row of probabilities per example")
        seen[unique] = True
        values[target] = rows[hit]
    if not seen.all():
        raise DataError(
            f"predict.path: no probabilities for {int((~seen).sum())} of {len(ids)} examples (first example_id "
            f"{ids[~seen][0]}, row {int(np.flatnonzero(~seen)[0])} of load/examples); every example needs a row"
        )
    return values, passed + len(strangers)


def _batches(
    files: Sequence[str], key: str, num_classes: int
) -> Iterator[tuple[str, list[Any], npt.NDArray[np.float32]]]:
    """(place, keys, checked probabilities) of a few thousand rows each."""
    for file in files:
        start = 0
        with _opened(file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=[key, COLUMN]):
                keys = batch.column(key).to_pylist()
                if None in keys:
                    raise DataError(
                        f"{file}, row {start + keys.index(None)}: {key!r} is null; every row needs its key"
                    )
                wrong = next((k for k in keys if isinstance(k, bool) or not isinstance(k, str | int)), None)
                if wrong is not None:
                    raise DataError(f"{file}: {key!r} holds {wrong!r}; keys are strings or integers")
                yield file, keys, _checked(batch.column(COLUMN), keys, num_classes, file, start)
                start += len(keys)


def _checked(
    column: pa.Array, keys: list[Any], num_classes: int, file: str, start: int
) -> npt.NDArray[np.float32]:
    def fail(row: int, got: str, fix: str) -> DataError:
        return DataError(f"{file}, row {start + row} (key {keys[row]!r}): {got}; {fix}")

    if not (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
    ):
        raise DataError(
            f"{file}: {COLUMN!r} is {column.type}; expected a list of {num_classes} numbers in each row"
        )
    lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != num_classes)
    if len(wrong):
        got = "no probabilities" if lengths[wrong[0]] < 0 else f"{lengths[wrong[0]]} probabilities"
        raise fail(
            int(wrong[0]), got, f"expected {num_classes}, one per label in the order of load/labels.json"
        )
    try:
        flat = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{file}: {COLUMN!r} is {column.type}; expected a list of {num_classes} numbers in each row"
        ) from error
    values = np.asarray(flat, dtype=np.float64).reshape(-1, num_classes)  # a null in a list is a NaN here
    for bad, fix in (
        (~np.isfinite(values), "replace NaN, null and infinity, or predict this row again"),
        (values < 0, "probabilities are not negative: apply a softmax to logits"),
    ):
        if bad.any():
            row, index = np.argwhere(bad)[0]
            raise fail(int(row), f"probability {values[row, index]} of class {index}", fix)
    sums = values.sum(axis=1)
    off = np.flatnonzero(np.abs(sums - 1) > TOLERANCE)
    if len(off):
        raise fail(
            int(off[0]),
            f"probabilities sum to {sums[off[0]]:.6g}",
            f"expected 1 (within {TOLERANCE:g}): normalise the row",
        )
    return np.asarray(values / sums[:, None], np.float32)


class _opened:
    """A Parquet file on any file system; what is not Parquet is a DataError."""

    def __init__(self, file: str):
        fs, path = filesystem(file)
        self.name, self.stream = file, fs.open(path, "rb")

    def __enter__(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.stream)
        except pa.ArrowInvalid as error:
            self.stream.close()
            raise DataError(
                f"{self.name} is no Parquet file ({error}); write your probabilities as Parquet"
            ) from error

    def __exit__(self, *exception: object) -> None:
        self.stream.close()
