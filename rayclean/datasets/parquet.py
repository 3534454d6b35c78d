"""Apache Parquet: https://parquet.apache.org. Cut at row groups, read in small batches.

An example row, as the shared benchmark sets have them: `{"text": "How far is it from Denver to Aspen ?", "label": 5}`.

Only plain columns are read: Arrow extension types whose metadata holds pickled Python objects (`ray.data.*`,
`arrow.py_extension_type`) could run code when opened, so files that carry them are refused.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.datasets.base import FileSegment, Reader, RowFault, SourceFile, decoded
from rayclean.errors import DataError

ROWS_PER_BATCH = 1024
PICKLED = ("ray.data.", "arrow.py_extension_type")


class Parquet(Reader):
    """Parquet files; labels may be dictionary-encoded."""

    def columns(self, file: SourceFile) -> list[str]:
        """Names of the top-level columns."""
        with _opened(file) as parquet:
            return list(parquet.schema_arrow.names)

    def cut(self, file: SourceFile, size: int) -> list[FileSegment]:
        """At row groups."""
        if file.size <= size:
            return [FileSegment(file)]
        with _opened(file) as parquet:
            sizes = [parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups)]
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
    ) -> Iterator[tuple[int, list[Any] | RowFault]]:
        """Values as Python objects; a string that is not UTF-8 faults its row."""
        with _opened(segment.file) as parquet:
            stop = parquet.num_row_groups if segment.stop is None else segment.stop
            row = sum(parquet.metadata.row_group(i).num_rows for i in range(segment.start))
            groups = list(range(segment.start, stop))
            for batch in parquet.iter_batches(ROWS_PER_BATCH, row_groups=groups, columns=list(columns)):
                values = [_python(batch.column(name)) for name in columns]
                for offset, cells in enumerate(zip(*values, strict=True)):
                    bad = next((cell for cell in cells if isinstance(cell, RowFault)), None)
                    yield row + offset, bad or list(cells)
                row += batch.num_rows


@contextmanager
def _opened(file: SourceFile) -> Iterator[pq.ParquetFile]:
    try:
        with fsspec.open(file.url, "rb") as handle:
            parquet = pq.ParquetFile(handle)
            for field in parquet.schema_arrow:
                kind = _extension(field)
                if kind.startswith(PICKLED):
                    raise DataError(
                        f"{file.name}: column {field.name!r} is of the Arrow extension type {kind!r}, which may hold "
                        "pickled Python objects; write it again with plain types (strings, numbers, lists)"
                    )
            yield parquet
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{file.url}: not a whole Parquet file ({str(error).splitlines()[0]}); it may be half written or of another "
            "format. Write it again or take it out of dataset.path"
        ) from error
    except OSError as error:
        raise DataError(
            f"{file.url}: cannot be read ({error}); check the path, permissions and credentials"
        ) from error


def _extension(field: pa.Field) -> str:
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    return str((field.metadata or {}).get(b"ARROW:extension:name", b""), "utf-8", "replace")


def _python(column: pa.Array) -> list[Any]:
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not text and not pa.types.is_binary(column.type) and not pa.types.is_large_binary(column.type):
        return list(column.to_pylist())
    try:
        return list(column.cast(pa.large_string()).to_pylist())
    except (pa.ArrowInvalid, UnicodeDecodeError):
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if cell is None else decoded(cell) for cell in raw]
