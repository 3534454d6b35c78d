"""CSV files, in the dialect and the encoding of the data set where it is one."""

import codecs
import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

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
            file,
            delimiter=style.delimiter,
            quotechar=style.quote or '"',
            escapechar=style.escape or None,
            doublequote=not style.escape,
            lineterminator="\n",
        )


def _without_mark(encoding: str) -> str:
    """The encoding that writes the same bytes without a byte-order mark."""
    name = codecs.lookup(encoding).name
    return {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name, name)


def _mark(encoding: str) -> bytes:
    return "\ufeff".encode(_without_mark(encoding))
