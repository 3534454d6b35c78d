"""Tables in memory as a data set: staged in the run folder as Parquet, under a hash of what they hold.

So a table has the same fingerprints, resumes and exports as a file, whatever library it belongs to.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.errors import DataError
from rayclean.folder import Folder

_ROWS = 8192
_SPLITS = {"data": ("train",), "dev": ("validation", "dev", "valid"), "test": ("test",)}
"""Role -> names of the splits of a `DatasetDict` that play it."""
_HASH_FILE = "content.json"

Batches = tuple[pa.Schema, Iterator[pa.Table]]
"""The columns of a table, and its rows in batches."""


def is_in_memory(data: Any) -> bool:
    """Whether something is a table in memory that can be staged: a DataFrame of pandas or polars, a table of Arrow, a data set of
    the Hugging Face library or of Ray Data, or whatever else speaks Arrow's C stream.
    """
    return _library(data) in ("pandas", "polars", "pyarrow", "datasets", "ray") or hasattr(
        data, "__arrow_c_stream__"
    )


def roles_of(data: Any) -> dict[str, Any]:
    """The tables of some data by the role that they play: `data`, `dev`, `test`.

    Raises:
        DataError: several splits, none of which is the training data.
    """
    if not hasattr(data, "column_names") or not isinstance(data, dict):  # `DatasetDict` is a dict
        return {"data": data}
    found = {role: data[name] for role, names in _SPLITS.items() for name in reversed(names) if name in data}
    if "data" not in found:
        raise DataError(
            f"the data set has the splits {sorted(data)}, and none of them is {_SPLITS['data'][0]!r}: give the one to clean, for "
            f"example data[{min(data, default='train')!r}]"
        )
    return found


def table_batches(data: Any, read_ray: Callable[[Any], Iterator[pa.Table]]) -> Batches:
    """The columns and rows of a table.

    Args:
        data: for which `is_in_memory` holds.
        read_ray: reads a data set of Ray Data in order.

    Raises:
        DataError: a column holds values of several types, which no file could.
    """
    library = _library(data)
    if library == "pandas":
        return _of_table(_from_pandas(data))
    if library == "polars":
        data = data.collect() if hasattr(data, "collect") else data
        data = data.to_arrow(
            compat_level=sys.modules["polars"].CompatLevel.oldest()
        )  # strings as other readers know them
    if library == "datasets":
        schema = data.features.arrow_schema
        return schema, (batch.cast(schema) for batch in data.with_format("arrow").iter(_ROWS))
    if library == "ray":
        batches = read_ray(data)
        first = next(batches, None)
        if first is None:
            raise DataError("the data set of Ray Data holds no rows; give one with rows")
        schema = first.schema
        return schema, (batch.cast(schema) for batch in _chained(first, batches))
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return _of_table(data)
    reader = pa.RecordBatchReader.from_stream(data)
    return reader.schema, (pa.Table.from_batches([batch]) for batch in reader)


def stage(data: Any, folder: Folder, name: str, read_ray: Callable[[Any], Iterator[pa.Table]]) -> str:
    """Write a table to `<folder>/<name>.parquet` whole or not at all, unless it is there already.

    Returns:
        A hash of its columns and rows.
    """
    known: dict[str, str] = folder.read_json(_HASH_FILE) if folder.exists(_HASH_FILE) else {}
    digest = ""

    def fill(path: str) -> None:
        nonlocal digest
        schema, batches = table_batches(data, read_ray)
        hashed = hashlib.blake2b(schema.serialize().to_pybytes(), digest_size=16)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in batches:
                for batch in table.combine_chunks().to_batches():
                    hashed.update(_bytes(batch))
                writer.write_table(table)
        digest = hashed.hexdigest()

    try:
        folder.write_file(fill, f"{name}.new.parquet")
    except pa.ArrowNotImplementedError as error:
        raise DataError(
            f"a column of the table is of a type that no file holds ({error}); leave it out, or make it text, for example "
            "df[column].astype(str)"
        ) from error
    if known.get(name) == digest and folder.exists(f"{name}.parquet"):
        folder.remove(f"{name}.new.parquet")
    else:
        folder.fs.mv(folder.path(f"{name}.new.parquet"), folder.path(f"{name}.parquet"))
        folder.write_json({**known, name: digest}, _HASH_FILE)
    return digest


def _bytes(batch: pa.RecordBatch) -> bytes:
    return bytes(batch.serialize())


def _of_table(table: pa.Table) -> Batches:
    return table.schema, (pa.Table.from_batches([batch]) for batch in table.to_batches(_ROWS))


def _from_pandas(frame: Any) -> pa.Table:
    """A DataFrame as a table, with its index.

    Raises:
        DataError: names the column that holds values of several types.
    """
    if hasattr(frame, "to_frame"):  # a Series
        frame = frame.to_frame()
    if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
        raise TypeError(
            f"expected a DataFrame, got pandas' {type(frame).__name__}; give its rows, for example grouped.obj or "
            "frame.reset_index()"
        )
    twice = [name for name, times in Counter(map(str, frame.columns)).items() if times > 1]
    if twice:
        raise DataError(
            f"the DataFrame names the column {twice[0]!r} more than once, and only one of them can be meant; keep one, for "
            "example df.loc[:, ~df.columns.duplicated()]"
        )
    try:
        return pa.Table.from_pandas(frame)
    except (pa.ArrowException, TypeError) as error:
        for column in frame.columns:
            kinds = sorted({type(value).__name__ for value in frame[column].dropna().head(100_000)})
            if len(kinds) > 1:
                raise DataError(
                    f"column {column!r} holds values of several types ({', '.join(kinds[:5])}), which no table can; make them "
                    f"one, for example df[{column!r}] = df[{column!r}].astype(str), or leave the column out"
                ) from error
        raise DataError(
            f"the DataFrame cannot become a table of Arrow: {error}; leave the column out (df.drop(columns=...)), or make it "
            "text (astype(str))"
        ) from error


def _chained(first: pa.Table, rest: Iterable[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _library(data: Any) -> str:
    return type(data).__module__.partition(".")[0]
