"""Parquet files: types, nulls and what other libraries keep beside the schema come back as they were."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.exports.formats import ExportRows, FileFormat
from rayclean.folder import Folder

_ROWS, _BYTES = 65_536, 64 * 1024 * 1024
"""A row group is written when it has so many rows, or bytes."""


class ParquetFiles(FileFormat):
    """Compressed by zstd, in row groups of some ten thousand rows."""

    def write_part(self, batches: Iterable[ExportRows], path: str) -> None:
        """Write rows as a Parquet file."""
        self._write((each for each in batches if isinstance(each, pa.Table)), path)

    def join(self, parts: Folder, names: Sequence[str], path: str) -> None:
        """Copy the rows of all parts, a batch at a time."""
        self._write(self._tables(parts, names), path)

    def _tables(self, parts: Folder, names: Sequence[str]) -> Iterator[pa.Table]:
        for name in names:
            with parts.fs.open(parts.path(name), "rb") as handle:
                for batch in pq.ParquetFile(handle).iter_batches(8192):
                    yield pa.Table.from_batches([batch]).cast(self.output.schema)

    def _write(self, tables: Iterable[pa.Table], path: str) -> None:
        with pq.ParquetWriter(path, self.output.schema, compression="zstd") as writer:
            for group in gathered(tables):
                writer.write_table(group)


def gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in larger tables."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= _ROWS or sum(each.nbytes for each in waiting) >= _BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
