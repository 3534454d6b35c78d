"""CSV files, in the dialect and the encoding of the data set where it is one."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from rayclean.errors import DataError
from rayclean.exports.cells import text_cells
from rayclean.exports.formats import ExportRows, FileFormat, packed, part_chunks
from rayclean.folder import Folder
from rayclean.plain_values import defused


class CsvFiles(FileFormat):
    """Nulls are empty fields, lists and structs JSON, times ISO 8601, bytes base64 where they are no text."""

    def write_part(self, batches: Iterable[ExportRows], path: str) -> None:
        """Write records without a header."""
        style = self.output.style
        # An encoding with a byte-order mark would write one into every part.
        with open(
            path, "w", encoding=_without_mark(style.encoding), errors="backslashreplace", newline=""
        ) as file:
            writer = self._writer(file)
            for rows in batches:
                assert isinstance(rows, pa.Table), "a CSV has columns"
                columns = [text_cells(column) for column in rows.columns]
                if style.is_safe:
                    columns = [[defused(cell) for cell in column] for column in columns]
                if not style.quote and not style.escape:
                    columns = self._unquoted(columns, rows.column_names)
                writer.writerows(zip(*columns, strict=True))

    def join(self, parts: Folder, names: Sequence[str], path: str) -> None:
        """A header, and the records of all parts."""
        style, schema = self.output.style, self.output.schema
        assert schema is not None, "a CSV has columns"
        header = io.StringIO(newline="")
        if style.has_header:
            self._writer(header).writerow(schema.names)
        with packed(path, self.output.compression) as file:
            if style.has_mark:
                file.write(_mark(style.encoding))
            file.write(header.getvalue().encode(_without_mark(style.encoding), "backslashreplace"))
            for name in names:
                for chunk in part_chunks(parts, name):
                    file.write(chunk)

    def _writer(self, file: Any) -> Any:
        style = self.output.style
        return csv.writer(
            _Lines(file),
            delimiter=style.delimiter,
            quotechar=style.quote or None,
            quoting=csv.QUOTE_MINIMAL if style.quote else csv.QUOTE_NONE,
            escapechar=style.escape or None,
            doublequote=not style.escape,
            lineterminator="\r\n",
        )

    def _unquoted(self, columns: list[list[str]], names: Sequence[str]) -> list[list[str]]:
        """Cells of a CSV that has neither quotes nor an escape: delimiters and line breaks in added columns become blanks.

        Raises:
            DataError: a cell of the data holds one, which files of other dialects may.
        """
        delimiter = self.output.style.delimiter
        ends = re.compile(f"[{re.escape(delimiter)}\r\n]")
        own = len(names) - self.output.added
        for name, column in zip(names[:own], columns, strict=False):
            if wrong := next(filter(ends.search, column), None):
                raise DataError(
                    f"{wrong!r} in the column {name!r} cannot be a field of a CSV without quotes, whose fields end at "
                    f"{delimiter!r} and at line breaks; export to a folder, where every file keeps its own dialect, or to "
                    ".parquet or .jsonl"
                )
        return [*columns[:own], *([ends.sub(" ", cell) for cell in column] for column in columns[own:])]


class _Lines:
    """Ends lines by a line feed. `csv` itself quotes just the line breaks that it ends lines with, so it is told of both."""

    def __init__(self, file: Any):
        self.file = file

    def write(self, record: str) -> None:
        self.file.write(f"{record[:-2]}\n")


def _without_mark(encoding: str) -> str:
    """The encoding that writes the same bytes without a byte-order mark."""
    name = codecs.lookup(encoding).name
    return {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name, name)


def _mark(encoding: str) -> bytes:
    return "\ufeff".encode(_without_mark(encoding))
