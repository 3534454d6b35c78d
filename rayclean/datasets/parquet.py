"""Apache Parquet: https://parquet.apache.org. Cut at row groups, read in small batches.

An example row: `{"text": "How far is it from Denver to Aspen ?", "label": 5}`.

Only plain columns are read: Arrow extension types whose metadata holds pickled Python objects (`ray.data.*`,
`arrow.py_extension_type`) could run code when opened, so files that carry them are refused.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.datasets.base import (
    ROWS_PER_BATCH,
    FileSegment,
    Reader,
    SourceFile,
    WholeRows,
    check_unique,
)
from rayclean.datasets.class_label import names_in_metadata
from rayclean.datasets.encodings import what_is_no_text
from rayclean.datasets.nested_fields import nested_value
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import DataError

_MAX_CHUNK = 8 * 1024**3
"""Largest unpacked size in bytes of a row group; writers make groups of some hundred megabytes."""
_PICKLED = ("ray.data.", "arrow.py_extension_type")


class Parquet(Reader):
    """Parquet files; labels may be dictionary-encoded."""

    def columns(self, file: SourceFile) -> list[str]:
        """Names of the columns, and paths to the fields of structs."""
        with _opened(file) as parquet:
            schema = parquet.schema_arrow
            check_unique(file, schema.names)
            paths = [path for field in schema for path in _paths(field.type, field.name)]
            wanted = [name for name in self.options.columns if _leads_somewhere(schema, name)]
            return list(dict.fromkeys([*schema.names, *paths, *wanted]))

    def label_names(self, file: SourceFile, column: str) -> list[str] | None:
        """Class names of a column that the Hugging Face library wrote as a `ClassLabel`; None for any other column."""
        return _class_names(file).get(column)

    def cut(self, file: SourceFile, size: int) -> list[FileSegment]:
        """Segments that begin and end at row groups."""
        if file.size <= size:
            return [FileSegment(file)]
        with _opened(file) as parquet:
            sizes = [
                parquet.metadata.row_group(group).total_byte_size for group in range(parquet.num_row_groups)
            ]
        scale = file.size / max(sum(sizes), 1)  # sizes in the footer are uncompressed
        segments, start, filled = [], 0, 0.0
        for group, group_size in enumerate(sizes):
            filled += group_size * scale
            if filled >= size or group == len(sizes) - 1:
                segments.append(FileSegment(file, start, group + 1))
                start, filled = group + 1, 0.0
        return segments or [FileSegment(file)]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Values as Python objects; a row with a string that is not UTF-8 is rejected."""
        with _opened(segment.file) as parquet:
            row, groups = _row_groups(parquet, segment)
            names = parquet.schema_arrow.names
            roots = {name: name if name in names else name.split(".")[0] for name in columns}
            read = list(dict.fromkeys(roots.values()))
            for batch in parquet.iter_batches(ROWS_PER_BATCH, row_groups=groups, columns=read):
                values = {root: _python_values(batch.column(root)) for root in read}
                for offset, cells in enumerate(zip(*values.values(), strict=True)):
                    rejected = next((cell for cell in cells if isinstance(cell, RejectedRow)), None)
                    found = dict(zip(read, cells, strict=True))
                    yield row + offset, rejected or [nested_value(found, name) for name in columns]
                row += batch.num_rows

    def schema(self, file: SourceFile) -> pa.Schema:
        """Types of the columns with what other libraries keep beside them (pandas, Hugging Face)."""
        with _opened(file) as parquet:
            return parquet.schema_arrow

    def whole_rows(self, segment: FileSegment) -> Iterator[WholeRows]:
        """Rows as Arrow holds them: no value passes through Python."""
        with _opened(segment.file) as parquet:
            row, groups = _row_groups(parquet, segment)
            for batch in parquet.iter_batches(ROWS_PER_BATCH, row_groups=groups):
                numbers = np.arange(row, row + batch.num_rows, dtype=np.int64)
                yield WholeRows(numbers, pa.Table.from_batches([batch]))
                row += batch.num_rows


@contextmanager
def _opened(file: SourceFile) -> Iterator[pq.ParquetFile]:
    try:
        with fsspec.open(file.url, "rb") as handle:
            parquet = pq.ParquetFile(handle)
            for field in parquet.schema_arrow:
                kind = _extension_type(field)
                if kind.startswith(_PICKLED):
                    raise DataError(
                        f"{file.name}: column {field.name!r} is of the Arrow extension type {kind!r}, "
                        "which may hold pickled Python objects; write it again with plain types (strings, "
                        "numbers, lists)"
                    )
            yield parquet
    except pa.ArrowInvalid as error:
        with fsspec.open(file.url, "rb") as handle:
            what = what_is_no_text(handle.read(100))
        if what is not None and what[0] != "Parquet":
            fix = (
                what[1]
                if "pointer" in what[0] or "page" in what[0]
                else "unpack it, or set dataset.format to what it holds"
            )
            raise DataError(f"{file.url}: it is no Parquet but {what[0]}; {fix}") from error
        raise DataError(
            f"{file.url}: not a whole Parquet file ({str(error).splitlines()[0]}); it may be half written "
            "or of another format. Write it again or take it out of dataset.path"
        ) from error
    except OSError as error:
        raise DataError(
            f"{file.url}: cannot be read ({error}); check the path, permissions and credentials"
        ) from error


@lru_cache(maxsize=16)
def _class_names(file: SourceFile) -> dict[str, list[str]]:
    with _opened(file) as parquet:
        return names_in_metadata(parquet.schema_arrow.metadata)


def _row_groups(parquet: pq.ParquetFile, segment: FileSegment) -> tuple[int, list[int]]:
    """The number of the first row of a segment, and its row groups.

    Raises:
        DataError: one of them would fill the memory.
    """
    stop = parquet.num_row_groups if segment.stop is None else segment.stop
    groups = list(range(segment.start, stop))
    for group in groups:
        _check_size(segment.file, parquet, group)
    return sum(parquet.metadata.row_group(group).num_rows for group in range(segment.start)), groups


def _check_size(file: SourceFile, parquet: pq.ParquetFile, group: int) -> None:
    """Stop at a row group that would fill the memory.

    Raises:
        DataError: its size by the footer of the file.
    """
    size = parquet.metadata.row_group(group).total_byte_size
    if size > _MAX_CHUNK:
        raise DataError(
            f"{file.url}: row group {group} unpacks to {size:,} bytes, more than {_MAX_CHUNK:,}; write the file with smaller row "
            "groups (row_group_size)"
        )


def _paths(type_: pa.DataType, above: str) -> Iterator[str]:
    """Paths to the fields of a struct, at any depth."""
    if pa.types.is_struct(type_):
        for field in type_:
            yield f"{above}.{field.name}"
            yield from _paths(field.type, f"{above}.{field.name}")


def _leads_somewhere(schema: pa.Schema, path: str) -> bool:
    """Whether a dotted path leads through structs and lists of a schema."""
    name, *parts = path.split(".")
    if not parts or name not in schema.names:
        return False
    type_ = schema.field(name).type
    for part in parts:
        if pa.types.is_struct(type_) and type_.get_field_index(part) >= 0:
            type_ = type_.field(part).type
        elif part.isdecimal() and (pa.types.is_list(type_) or pa.types.is_large_list(type_)):
            type_ = type_.value_type
        else:
            return False
    return True


def _extension_type(field: pa.Field) -> str:
    """Name of a column's Arrow extension type; '' for a plain column."""
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    return str((field.metadata or {}).get(b"ARROW:extension:name", b""), "utf-8", "replace")


def _python_values(column: pa.Array) -> list[Any]:
    """Python objects of a column, with a `RejectedRow` in the place of what holds bytes that are not UTF-8.

    A UUID becomes its text, as other formats write it.
    """
    if isinstance(column.type, pa.UuidType):
        return [None if cell is None else str(cell) for cell in column.to_pylist()]
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    if pa.types.is_float16(column.type) or pa.types.is_float32(column.type):
        # The shortest text of the column's precision: 1.1, where the same bits as a float64 would be 1.100000023841858.
        return [None if each is None else float(str(each)) for each in _numpy_scalars(column)]
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not text and not pa.types.is_binary(column.type) and not pa.types.is_large_binary(column.type):
        return _nested_values(column)
    try:
        return list(column.cast(pa.large_string()).to_pylist())
    except (pa.ArrowInvalid, UnicodeDecodeError):
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if cell is None else _decoded(cell) for cell in raw]


def _numpy_scalars(column: pa.Array) -> Iterator[Any]:
    values, valid = column.fill_null(0).to_numpy(zero_copy_only=False), column.is_valid().to_pylist()
    return (value if known else None for value, known in zip(values, valid, strict=True))


def _nested_values(column: pa.Array) -> list[Any]:
    """Numbers, lists and others as Python objects; where a list holds bytes that are not UTF-8, its row is rejected."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_nested_value(cell) for cell in column]


def _nested_value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return _decoded(error.object)


def _decoded(content: bytes) -> str | RejectedRow:
    r"""UTF-8 bytes as text, or the reason for rejecting their row.

    >>> _decoded(b"caf\xe9").value
    'caf\\xe9'
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        return RejectedRow("not UTF-8", content[:200].decode("utf-8", "backslashreplace"))
