"""Columns in the names of folders, as Hive and Spark write them.

`label=spam/part-0.csv` gives every row of the file the label spam. Values are strings, with `%2F` and the
like decoded. A column of the file itself comes before a folder of the same name.
"""

import posixpath
from collections.abc import Container, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from rayclean.datasets.base import FileForm, FileSegment, Reader, SourceFile, WholeRows
from rayclean.datasets.rejected_rows import RejectedRow

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions(file: SourceFile) -> dict[str, str | None]:
    """The columns that the folders of a file name.

    >>> partitions(SourceFile("/data/label=so%2Fso/year=2024/a.csv", "a.csv", 1))
    {'label': 'so/so', 'year': '2024'}
    """
    folders = posixpath.dirname(file.url).split("/")
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return {unquote(key): None if value == _NULL else unquote(value) for key, _, value in pairs if key}


class PartitionedReader(Reader):
    """A reader of files, with the columns of their folders beside those of the files."""

    def __init__(self, reader: Reader):
        super().__init__(reader.split, reader.options)
        self.reader = reader
        self.sparse = reader.sparse  # type: ignore[misc]  # of the class elsewhere

    def columns(self, file: SourceFile) -> list[str]:
        """Columns of the file, then those of its folders; [] for an empty file."""
        found = self.reader.columns(file)
        return [*found, *(name for name in partitions(file) if name not in found)] if found else []

    def describe(self, file: SourceFile) -> FileForm | None:
        """How the file is written."""
        return self.reader.describe(file)

    def label_names(self, file: SourceFile, column: str) -> list[str] | None:
        """Names that the file itself gives."""
        return self.reader.label_names(file, column)

    def cut(self, file: SourceFile, size: int) -> list[FileSegment]:
        """Segments of the file."""
        return self.reader.cut(file, size)

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Rows of the file, each with the values of its folders."""
        values = partitions(segment.file)
        if not values:
            yield from self.reader.rows(segment, columns)
            return
        own = self.reader.columns(segment.file)
        fixed = {name: values[name] for name in columns if name in values and name not in own}
        read = [name for name in columns if name not in fixed] or own[
            :1
        ]  # a reader must read something to count rows
        for row, found in self.reader.rows(segment, read):
            if isinstance(found, RejectedRow):
                yield row, found
            else:
                cells = {**fixed, **dict(zip(read, found, strict=True))}
                yield row, [cells[name] for name in columns]

    def schema(self, file: SourceFile) -> pa.Schema | None:
        """Types of the file's columns; those of its folders are strings."""
        schema = self.reader.schema(file)
        return None if schema is None else _with_folders(schema, file)

    def whole_rows(self, segment: FileSegment) -> Iterator[WholeRows]:
        """Rows of the file, each with the values of its folders."""
        values = partitions(segment.file)
        for batch in self.reader.whole_rows(segment):
            if isinstance(batch.rows, list):
                yield WholeRows(batch.numbers, [{**row, **_missing(values, row)} for row in batch.rows])
                continue
            table, schema = batch.rows, _with_folders(batch.rows.schema, segment.file)
            for name in schema.names[len(table.schema) :]:
                table = table.append_column(name, pa.array([values[name]] * len(table), pa.string()))
            yield WholeRows(batch.numbers, table)


def _missing(values: dict[str, str | None], among: Container[str]) -> dict[str, str | None]:
    """The columns of folders that a file does not have itself."""
    return {name: value for name, value in values.items() if name not in among}


def _with_folders(schema: pa.Schema, file: SourceFile) -> pa.Schema:
    for name in _missing(partitions(file), schema.names):
        schema = schema.append(pa.field(name, pa.string()))
    return schema
