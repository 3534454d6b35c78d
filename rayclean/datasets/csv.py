"""CSV as of RFC 4180 with a header line, and TSV; possibly compressed (`.gz`, `.bz2`, `.xz`, `.zst`).

An example: `text,label` / `"Oil, gas and coal",business`. Quoted fields may hold line breaks. CSV has no types: every
value is a string. A record that is broken (an open quote, a wrong number of fields, bytes that are not UTF-8) faults
its row and reading goes on at the next line, so that one stray quote does not swallow the rest of the file.
"""

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec

from rayclean.datasets.base import READ_ERRORS, FileSegment, Reader, RowFault, SourceFile
from rayclean.errors import DataError

MAX_RECORD = 16 * 1024 * 1024
"""Characters of a record; a longer one is taken for an open quote."""


class Csv(Reader):
    """CSV and TSV with a header."""

    def columns(self, file: SourceFile) -> list[str]:
        """The header."""
        return _header(file, next(_records(file), (0, [])))

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RowFault]]:
        """Records after the header, 0-based; fields are strings, an empty field is ''."""
        records = _records(segment.file)
        header = _header(segment.file, next(records, (0, [])))
        positions = [header.index(name) for name in columns]
        for row, (_, record) in enumerate(records):
            if isinstance(record, RowFault):
                yield row, record
            elif len(record) != len(header):
                found = f"{len(record)} fields, the header has {len(header)}: {record}"
                yield row, RowFault("malformed CSV line", found.encode("utf-8", "backslashreplace").decode())
            else:
                yield row, _utf8([record[position] for position in positions])


def _header(file: SourceFile, first: tuple[int, list[str] | RowFault]) -> list[str]:
    record = first[1]
    if isinstance(record, RowFault):
        raise DataError(f"{file.url}: its first line is no CSV header ({record.value})")
    if isinstance(_utf8(record), RowFault) or any("\0" in name for name in record):
        raise DataError(f"{file.url}: its header is not UTF-8 text; is this a CSV file? Convert it to UTF-8")
    header = [name.removeprefix("\ufeff") for name in record]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{file.url}: the header names {twice} more than once; rename the columns")
    return header


def _utf8(values: list[str]) -> list[str] | RowFault:
    """The values, unless bytes were no UTF-8 (`surrogateescape` turned them into lone surrogates)."""
    for value in values:
        try:
            value.encode()
        except UnicodeEncodeError:
            raw = value.encode("utf-8", "surrogateescape")
            return RowFault("not UTF-8", raw[:200].decode("utf-8", "backslashreplace"))
    return values


def _records(file: SourceFile) -> Iterator[tuple[int, list[str] | RowFault]]:
    """Physical line and fields of each record; blank lines are skipped."""
    delimiter = "\t" if ".tsv" in file.name.lower() else ","
    csv.field_size_limit(MAX_RECORD)
    try:
        with fsspec.open(file.url, "rb", compression="infer") as handle:
            text = io.TextIOWrapper(handle, encoding="utf-8", errors="surrogateescape", newline="")
            lines = _Lines(text)
            parser = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                lines.begin()
                try:
                    record = next(parser)
                except StopIteration:
                    return
                except csv.Error as error:
                    first = lines.give_back()
                    excerpt = first[:100].encode("utf-8", "backslashreplace").decode()
                    yield lines.number, RowFault("malformed CSV line", f"{error}: {excerpt}")
                    parser = csv.reader(
                        lines, delimiter=delimiter, strict=True
                    )  # the old one is inside a quote
                    continue
                if record:
                    yield lines.number, record
    except READ_ERRORS as error:
        raise DataError(
            f"{file.url}: cannot be read ({error}); check the path, permissions and compression"
        ) from error


class _Lines:
    """Lines of a text, remembering those of the record under way so that a broken record can be given back."""

    def __init__(self, text: Any):
        self.text = text
        self.ahead: deque[str] = deque()
        self.record: list[str] = []
        self.length = 0
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.ahead.popleft() if self.ahead else next(self.text)
        self.record.append(line)
        self.length += len(line)
        if self.length > MAX_RECORD and len(self.record) > 1:
            raise csv.Error(f"a record longer than {MAX_RECORD} characters")
        return line

    def begin(self) -> None:
        """A new record starts with the next line."""
        self.number += len(self.record)
        self.record, self.length = [], 0

    def give_back(self) -> str:
        """Drop the first line of the record and put the others back."""
        first, *rest = self.record
        self.ahead.extendleft(reversed(rest))
        self.record, self.length = [first], 0
        return first
