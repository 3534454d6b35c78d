"""JSON: an object per line, or an array of objects."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rayclean.exports.cells import json_text, json_values
from rayclean.exports.formats import ExportRows, FileFormat, packed, part_chunks
from rayclean.folder import Folder


class JsonFiles(FileFormat):
    """Objects keep their keys in their order; a null of a table is null."""

    def write_part(self, batches: Iterable[ExportRows], path: str) -> None:
        """Write a line per row."""
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            for rows in batches:
                file.writelines(f"{json_text(each)}\n" for each in _objects(rows))

    def join(self, parts: Folder, names: Sequence[str], path: str) -> None:
        """The lines of all parts, with commas between them in an array."""
        with packed(path, self.output.compression) as file:
            if not self.output.is_array:
                for name in names:
                    for chunk in part_chunks(parts, name):
                        file.write(chunk)
                return
            before = b"[\n"
            for name in names:
                with parts.fs.open(parts.path(name), "rb") as part:
                    for line in part:
                        file.write(before + line.rstrip(b"\n"))
                        before = b",\n"
            file.write(b"\n]\n" if before == b",\n" else b"[]\n")


def _objects(rows: ExportRows) -> Iterator[dict[str, Any]]:
    if isinstance(rows, list):
        yield from rows
        return
    columns = [json_values(column) for column in rows.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(rows.column_names, values, strict=True))
