"""Bring your own probabilities: Parquet files of (key, probabilities), put in the order of the examples.

They are read once, a batch at a time, validated, and written to a memory-mapped file on the driver's disk (4
x N x K bytes); memory holds 17 bytes per example whatever K is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.datasets.example_id import key_id
from rayclean.errors import ConfigError, DataError
from rayclean.folder import filesystem
from rayclean.functional.lookup import lookup
from rayclean.plugins import did_you_mean

_COLUMN = "probabilities"
_BATCH_ROWS = 8192
_SUM_TOLERANCE = 1e-3
"""Largest deviation of a row's sum from 1; rows are divided by their sum."""


def find_probability_files(path: str | Sequence[str]) -> list[str]:
    """The Parquet files of a file, folder or glob, or of several.

    Raises:
        DataError: there is none.
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


def check_probability_columns(files: Sequence[str], key: str) -> None:
    """Stop unless every file has the columns of keys and probabilities.

    Raises:
        DataError: a file cannot be read or lacks a column.
    """
    for file in files:
        with _open_parquet(file) as parquet:
            found = parquet.schema_arrow.names
        for column in (key, _COLUMN):
            if column not in found:
                raise DataError(
                    f"{file}: no column {column!r}; {did_you_mean(column, found)}. Expected {key!r} (the "
                    f"key of your data set, dataset.id) and {_COLUMN!r} (a list of one number per class)"
                )


def column_places(columns: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """For each class, the place of its probability among the named columns.

    >>> column_places(["low", "high"], ["high", "low"])
    array([1, 0])

    Raises:
        ConfigError: the columns are not the classes, each once.
    """
    unknown = [column for column in columns if column not in names]
    if unknown:
        raise ConfigError(
            f"predict.columns: {unknown[0]!r} is no class of the data set; {did_you_mean(unknown[0], list(names))}"
        )
    missing = [name for name in names if name not in columns]
    if missing or len(columns) != len(names):
        wrong = f"{missing[0]!r} is missing" if missing else "a class is named twice"
        raise ConfigError(
            f"predict.columns: {wrong}; name each of the {len(names)} classes once, in the order of the probabilities"
        )
    return np.array([columns.index(name) for name in names], dtype=np.int64)


def gather_probabilities(
    files: Sequence[str],
    key: str,
    ids: npt.NDArray[np.int64],
    num_classes: int,
    spill: Path,
    *,
    not_needed: npt.NDArray[np.int64],
    rejected: int,
    columns: npt.NDArray[np.int64] | None = None,
) -> tuple[npt.NDArray[np.float32], int]:
    """Probabilities in the order of `ids`.

    Args:
        files: from `find_probability_files`.
        key: column of the user's key, or `example_id`.
        ids: [N] of all examples.
        num_classes: K.
        spill: file that the result is mapped to.
        not_needed: ids that may occur and are passed over (test examples).
        rejected: number of rows that load rejected. Their keys are unknown, so as many unknown keys are
            passed over.
        columns: [K] for each class the place of its probability in a row, from `column_places`; None: its own.

    Returns:
        [N, K] float32, rows that sum to 1; and the number of rows passed over.

    Raises:
        DataError: a NaN, infinite or negative value, a wrong sum or number of classes, or a key that is
            unknown, missing or occurs twice.
    """
    order = np.argsort(ids, kind="stable")
    sorted_ids, sorted_not_needed = ids[order], np.sort(not_needed)
    values = np.memmap(spill, mode="w+", dtype=np.float32, shape=(len(ids), num_classes))
    seen = np.zeros(len(ids), dtype=np.bool_)
    unknown: list[Any] = []
    passed_over = 0
    for file, keys, rows in _read_batches(files, key, num_classes):
        found = np.array(keys if key == "example_id" else [key_id(each) for each in keys], dtype=np.int64)
        position, hit = lookup(sorted_ids, found)
        _, is_not_needed = lookup(sorted_not_needed, found)
        passed_over += int((~hit & is_not_needed).sum())
        unknown += [keys[row] for row in np.flatnonzero(~hit & ~is_not_needed)[: rejected + 1]]
        if len(unknown) > rejected:
            raise DataError(
                f"{file}: key {unknown[-1]!r} is not in the data set"
                + (f" (nor are {rejected} others; load rejected as many rows)" if rejected else "")
                + f"; remove its row, or check that {key!r} holds the same keys as dataset.id, of the same "
                "type"
            )
        target = order[position[hit]]
        unique, first = np.unique(target, return_index=True)
        repeated = np.ones(len(target), dtype=np.bool_)
        repeated[first] = False
        repeated |= seen[target]
        if repeated.any():
            twice = keys[int(np.flatnonzero(hit)[np.flatnonzero(repeated)[0]])]
            raise DataError(f"{file}: key {twice!r} occurs twice; keep one row of probabilities per example")
        seen[unique] = True
        values[target] = rows[hit] if columns is None else rows[hit][:, columns]
    missing = ~seen
    if missing.any():
        raise DataError(
            f"predict.path: no probabilities for {missing.sum()} of {len(ids)} examples (first example_id "
            f"{ids[missing][0]}, row {missing.argmax()} of load/examples); every example needs a row"
        )
    return values, passed_over + len(unknown)


def _read_batches(
    files: Sequence[str], key: str, num_classes: int
) -> Iterator[tuple[str, list[Any], npt.NDArray[np.float32]]]:
    """File, keys and validated probabilities of a few thousand rows each."""
    for file in files:
        start = 0
        with _open_parquet(file) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=[key, _COLUMN]):
                keys = batch.column(key).to_pylist()
                if None in keys:
                    raise DataError(
                        f"{file}, row {start + keys.index(None)}: {key!r} is null; every row needs its key"
                    )
                wrong = next(
                    (each for each in keys if isinstance(each, bool) or not isinstance(each, str | int)), None
                )
                if wrong is not None:
                    raise DataError(f"{file}: {key!r} holds {wrong!r}; keys are strings or integers")
                yield file, keys, _validated(batch.column(_COLUMN), keys, num_classes, file, start)
                start += len(keys)


def _validated(
    column: pa.Array, keys: list[Any], num_classes: int, file: str, start: int
) -> npt.NDArray[np.float32]:
    """The probabilities of a batch [rows, K], each row divided by its sum.

    Raises:
        DataError: the first row that holds no probabilities of K classes.
    """

    def fail(row: int, got: str, fix: str) -> DataError:
        return DataError(f"{file}, row {start + row} (key {keys[row]!r}): {got}; {fix}")

    wrong_type = DataError(
        f"{file}: {_COLUMN!r} is {column.type}; expected a list of {num_classes} numbers in each row"
    )
    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(check(column.type) for check in is_list):
        raise wrong_type
    lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(lengths != num_classes)[:1]:
        got = "no probabilities" if lengths[row] < 0 else f"{lengths[row]} probabilities"
        raise fail(
            int(row),
            got,
            f"expected {num_classes}, one per label in the order of load/labels.json or predict.columns",
        )
    try:
        flat = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise wrong_type from error
    values = np.asarray(flat, dtype=np.float64).reshape(-1, num_classes)  # a null in a list is a NaN now
    for bad, fix in (
        (~np.isfinite(values), "replace NaN, null and infinity, or predict this row again"),
        (values < 0, "probabilities are not negative: apply a softmax to logits"),
    ):
        for row, index in np.argwhere(bad)[:1]:
            raise fail(int(row), f"probability {values[row, index]} of class {index}", fix)
    sums = values.sum(axis=1)
    for row in np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE)[:1]:
        got = f"probabilities sum to {sums[row]:.6g}"
        raise fail(int(row), got, f"expected 1 (within {_SUM_TOLERANCE:g}): normalise the row")
    return np.asarray(values / sums[:, None], np.float32)


@contextmanager
def _open_parquet(file: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file on any file system.

    Raises:
        DataError: it is no Parquet file.
    """
    fs, path = filesystem(file)
    with fs.open(path, "rb") as stream:
        try:
            parquet = pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{file} is no Parquet file ({error}); write your probabilities as Parquet"
            ) from error
        yield parquet
