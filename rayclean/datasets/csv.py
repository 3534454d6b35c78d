"""CSV as of RFC 4180 with a header line, and TSV; possibly compressed (`.gz`, `.bz2`, `.xz`, `.zst`).

An example: `text,label` / `"Oil, gas and coal",business`. Quoted fields may hold line breaks. CSV has no
types: every value is a string. A malformed record (an open quote, a wrong number of fields, bytes that are
not UTF-8) is rejected and reading goes on at the next line, so that one stray quote does not swallow the rest
of the file.
"""

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from rayclean.datasets.base import FileSegment, Reader, SourceFile, open_compressed
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import DataError

_MAX_RECORD = 16 * 1024 * 1024
"""Longest record in characters; a longer one is taken for an open quote."""


class Csv(Reader):
    """CSV and TSV with a header."""

    def columns(self, file: SourceFile) -> list[str]:
        """Fields of the header."""
        return _header(file, next(_records(file), []))

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Records after the header; fields are strings, an empty field is ''."""
        records = _records(segment.file)
        header = _header(segment.file, next(records, []))
        positions = [header.index(name) for name in columns]
        for row, record in enumerate(records):
            if isinstance(record, RejectedRow):
                yield row, record
            elif len(record) != len(header):
                found = f"{len(record)} fields, the header has {len(header)}: {record}"
                yield row, RejectedRow("malformed CSV line", _escaped(found))
            else:
                yield row, _check_utf8([record[position] for position in positions])


def _header(file: SourceFile, record: list[str] | RejectedRow) -> list[str]:
    if isinstance(record, RejectedRow):
        raise DataError(f"{file.url}: its first line is no CSV header ({record.value})")
    if isinstance(_check_utf8(record), RejectedRow) or any("\0" in name for name in record):
        raise DataError(f"{file.url}: its header is not UTF-8 text; is this a CSV file? Convert it to UTF-8")
    header = [name.removeprefix("\ufeff") for name in record]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{file.url}: the header names {twice} more than once; rename the columns")
    return header


def _check_utf8(values: list[str]) -> list[str] | RejectedRow:
    """The values, unless bytes were not UTF-8: `surrogateescape` turned those into lone surrogates."""
    for value in values:
        try:
            value.encode()
        except UnicodeEncodeError:
            raw = value.encode("utf-8", "surrogateescape")
            return RejectedRow("not UTF-8", raw[:200].decode("utf-8", "backslashreplace"))
    return values


def _escaped(text: str) -> str:
    """The text with lone surrogates written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _records(file: SourceFile) -> Iterator[list[str] | RejectedRow]:
    """Fields of each record, the header included; blank lines are skipped."""
    delimiter = "\t" if ".tsv" in file.name.lower() else ","
    csv.field_size_limit(_MAX_RECORD)
    with open_compressed(file) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8", errors="surrogateescape", newline="")
        lines = _RecordLines(text)
        parser = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            lines.begin_record()
            try:
                record = next(parser)
            except StopIteration:
                return
            except csv.Error as error:
                yield RejectedRow("malformed CSV line", _escaped(f"{error}: {lines.retract()[:100]}"))
                parser = csv.reader(lines, delimiter=delimiter, strict=True)  # the old one is inside a quote
                continue
            if record:
                yield record


class _RecordLines:
    """Lines of a text, with those of the current record kept so that a malformed record can be read again."""

    def __init__(self, text: Any):
        self.text = text
        self.ahead: deque[str] = deque()
        self.record: list[str] = []
        self.length = 0

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line = self.ahead.popleft() if self.ahead else next(self.text)
        self.record.append(line)
        self.length += len(line)
        if self.length > _MAX_RECORD and len(self.record) > 1:
            raise csv.Error(f"a record longer than {_MAX_RECORD} characters")
        return line

    def begin_record(self) -> None:
        """Let a new record start with the next line."""
        self.record, self.length = [], 0

    def retract(self) -> str:
        """Put all lines of the record but the first back, and return the first."""
        first, *rest = self.record
        self.ahead.extendleft(reversed(rest))
        self.begin_record()
        return first
