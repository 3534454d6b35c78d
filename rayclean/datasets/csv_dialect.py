"""How a CSV is written, and its records in that dialect.

RFC 4180 (commas, double quotes, quotes inside a field doubled) is the usual one; `csv_sniffer.py` recognises others.
"""

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from rayclean.datasets.text_files import MAX_LINE

_NULL_MARK = "\ufdd0"
"""Between an escape character and N, so that null differs from an escaped escape character and N; no character."""
_NAMES = {"\t": "tab", " ": "blank"}
_CHUNK = 64 * 1024  # characters of the lines that are read at once


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written."""

    delimiter: str = ","
    quote: str = '"'
    """"" where fields are not quoted."""
    escape: str = ""
    """Takes the special meaning from a quote, a delimiter, a line end or itself; before all else it is itself."""
    blanks: bool = False
    """Whether blanks follow a delimiter that are no part of the field: `"a", "b"`."""

    def __str__(self) -> str:
        parts = [f"{_NAMES.get(self.delimiter) or repr(self.delimiter)} between fields"]
        if self.blanks:
            parts.append("blanks before them left out")
        if self.quote != '"':
            parts.append(f"fields quoted by {self.quote!r}" if self.quote else "quotes as plain characters")
        if self.escape:
            parts.append(f"quotes escaped by {self.escape}")
        return ", ".join(parts)

    def parser(self, lines: Iterable[str]) -> Any:
        """A strict parser of lines."""
        csv.field_size_limit(MAX_LINE + 1)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar=self.escape or None,
            skipinitialspace=self.blanks,
            strict=True,
        )

    def prepared(self, line: str) -> str:
        """A line as `parser` takes it, with escape characters that escape nothing doubled."""
        if not self.escape or self.escape not in line:
            return line
        return self._escapes.sub(
            lambda found: found[0] if found[1] else self.escape * 2 + (_NULL_MARK if found[2] else ""), line
        )

    def field(self, value: str) -> str:
        r"""A parsed field; `\N`, which databases that escape by a backslash write for null, is empty."""
        if _NULL_MARK not in value:
            return value
        return "" if value == f"\\{_NULL_MARK}N" else value.replace(_NULL_MARK, "")

    def is_strict(self, record: str) -> bool:
        """Whether quotes stand only around fields and escaped inside of them.

        >>> Dialect().is_strict('a,"b, c"'), Dialect().is_strict('5" pipe,b')
        (True, False)
        """
        return not self.quote or self.quote not in record or self._strict.fullmatch(record) is not None

    def closes(self, record: str) -> bool:
        """Whether a record can be the end of one whose first lines, with an open quote, are missing.

        >>> Dialect().closes('and stir it",b'), Dialect().closes('5" pipe,b'), Dialect().closes('"a",b')
        (True, False, False)
        """
        return bool(self.quote) and self.quote in record and self._closing.fullmatch(record) is not None

    def joins_records(self, lines: Sequence[str], width: int, labels: Mapping[int, Collection[str]]) -> bool:
        """Whether every line of a record would be one by itself, with known labels, if its quotes were plain characters.

        An open quote in one line and an inch mark in a later one make one record of all between them.

        >>> Dialect().joins_records(['"a boat,x', 'a cake,y', 'a screen of 27",x'], 2, {1: {"x", "y"}})
        True
        """
        if len(lines) < 2 or not labels or not self.quote:
            return False
        for line in filter(str.strip, lines):
            fields = line.rstrip("\r\n").replace(self.quote, "").split(self.delimiter)
            spare = len(fields) - width  # a text may hold delimiters inside of its quotes
            if spare < 0 or (spare and width - 1 not in labels):
                return False
            for column, known in labels.items():
                if fields[column + spare if column == width - 1 else column] not in known:
                    return False
        return True

    @cached_property
    def _escapes(self) -> re.Pattern[str]:
        special = re.escape(f"{self.escape}{self.quote}{self.delimiter}\r\n")
        return re.compile(f"{re.escape(self.escape)}(?:([{special}])|(?=(N))|)")

    @cached_property
    def _field(self) -> str:
        """Pattern of a field in which quotes are in order."""
        quote, escape, delimiter = map(re.escape, (self.quote, self.escape, self.delimiter))
        plain = f"[^{quote}{delimiter}{escape}\r\n]*"
        plain = f"{plain}(?:{escape}.{plain})*" if escape else plain
        return f"{' *' if self.blanks else ''}(?:{quote}{self._inside}{quote}|{plain})"

    @cached_property
    def _inside(self) -> str:
        """Pattern of what stands between two quotes."""
        quote, escape = re.escape(self.quote), re.escape(self.escape)
        pair = f"{quote}{quote}|{escape}." if escape else f"{quote}{quote}"
        return f"[^{quote}{escape}]*(?:(?:{pair})[^{quote}{escape}]*)*"

    @cached_property
    def _strict(self) -> re.Pattern[str]:
        return re.compile(f"{self._field}(?:{re.escape(self.delimiter)}{self._field})*", re.DOTALL)

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        quote, delimiter = re.escape(self.quote), re.escape(self.delimiter)
        return re.compile(f"(?!{quote}){self._inside}{quote}(?:{delimiter}{self._field})*", re.DOTALL)


class CsvRecord(NamedTuple):
    """One record of a file, or a line at which none can be read; a tuple, since there is one for every row."""

    number: int
    """Of its first line, from 1."""
    lines: tuple[str, ...]
    """As they are written, with their ends."""
    text: str
    """The lines together, without the last line end."""
    has_quote: bool
    """Whether a quote character stands anywhere in it."""
    fields: list[str]
    last: int
    """Number of its last line; where none can be read, of the line in which the fault was found."""
    fault: str = ""
    """Why `fields` could not be read; "" where they could."""

    @property
    def is_whole(self) -> bool:
        """Whether a line end shows that the file was not cut inside of it."""
        return self.lines[-1].endswith(("\n", "\r"))


class PlainRecords(NamedTuple):
    """Records one after another that need no second look."""

    rows: list[list[str]]
    """Fields of each."""
    last: list[CsvRecord]
    """The last ones of them, with all that is known of them."""


class Records:
    """The records of a file in a dialect, blank lines aside. A malformed one costs its first line: the others are read again.

    Args:
        lines: of the file.
        dialect: of the file.
        before: how many lines of the file come before.
    """

    def __init__(self, lines: Iterable[str], dialect: Dialect, before: int = 0):
        self.lines, self.dialect = iter(lines), dialect
        self.chunk: list[str] = []
        self.characters = 0  # of the chunk
        self.has_quote = self.has_escape = False  # whether one may stand in the chunk
        self.next = 0  # position in the chunk of the line that is taken next
        self.taken: list[str] = []
        self.length = 0  # of the lines that were taken
        self.number = before  # of the line that was taken last
        self.parser = dialect.parser(self._feed())

    def __iter__(self) -> Iterator[CsvRecord]:
        while True:
            self.taken, self.length = [], 0
            try:
                fields, fault = next(self.parser), ""
            except StopIteration:
                return
            except csv.Error as error:
                fields, fault = [], str(error)
                self.parser = self.dialect.parser(self._feed())  # the old one is inside a quote
            if self.dialect.escape:
                fields = list(map(self.dialect.field, fields))
            record = self._record(self.number - len(self.taken) + 1, self.taken, fields, fault)
            if fault:
                record = self.first_line(record)
            if len(fields) > 1 or fault or record.has_quote or (fields and fields[0].strip()):
                yield record

    def first_line(self, record: CsvRecord) -> CsvRecord:
        """Only the first line of the last record; the others are read again."""
        (first, *rest) = record.lines
        self.next -= len(rest)
        self.number -= len(rest)
        return record._replace(lines=(first,), text=first.rstrip("\r\n"))

    def plain(self, width: int, labels: Mapping[int, Collection[str]], last: int) -> PlainRecords:
        """The next records as long as none of them needs a second look: many at once, in a fraction of the time.

        A plain record has `width` fields, of which the labels are known, and a line end; its quotes do not seem
        to close a field that begins in a record before it, or to join records. The iterator goes on after them.

        Args:
            width: number of the columns, at least 2.
            labels: known values by column.
            last: of how many of the last ones more than the fields is wanted.
        """
        self.taken, self.length = [], 0
        rows: list[list[str]] = []
        spans: list[tuple[int, int]] = []
        if (self.next == len(self.chunk) and not self._fill()) or self.characters > MAX_LINE:
            return PlainRecords([], [])
        chunk, first, known = self.chunk, self.next, list(labels.items())
        has_quote, has_escape = self.has_quote, self.has_escape
        whole = len(chunk) - (not chunk[-1].endswith(("\n", "\r")))
        lines: Iterator[str] = islice(chunk, first, whole)
        parser = self.dialect.parser(map(self.dialect.prepared, lines) if has_escape else lines)
        start = first
        with suppress(csv.Error):  # at a malformed record, or at one that goes on in the next chunk
            for fields in parser:
                end = first + parser.line_num
                if fields:  # otherwise a blank line
                    if has_escape:
                        fields = list(map(self.dialect.field, fields))
                    if len(fields) != width or (has_quote and self._closes(start, end)):
                        break
                    if end - start > 1 and self.dialect.joins_records(chunk[start:end], width, labels):
                        break
                    unknown = False
                    for column, values in known:
                        unknown |= fields[column] not in values
                    if unknown:
                        break
                    rows.append(fields)
                    spans.append((start, end))
                start = end
        before = self.number - first + 1  # number of the chunk's first line
        self.next, self.number = start, self.number + start - first
        kept = zip(rows[-last:], spans[-last:], strict=True)
        return PlainRecords(
            rows, [self._record(before + begin, chunk[begin:end], fields) for fields, (begin, end) in kept]
        )

    def _closes(self, start: int, end: int) -> bool:
        """Whether the record of some lines of the chunk may end a field that begins in a record before it."""
        quote = self.dialect.quote
        text = self.chunk[start] if end == start + 1 else "".join(self.chunk[start:end])
        return quote in text and text[0] != quote and self.dialect.closes(text.rstrip("\r\n"))

    def _record(self, number: int, lines: list[str], fields: list[str], fault: str = "") -> CsvRecord:
        """The record whose first line has a number."""
        text = "".join(lines).rstrip("\r\n")
        has_quote = bool(self.dialect.quote) and self.dialect.quote in text
        return CsvRecord(number, tuple(lines), text, has_quote, fields, number + len(lines) - 1, fault)

    def _feed(self) -> Iterator[str]:
        while self.next < len(self.chunk) or self._fill():
            line = self.chunk[self.next]
            self.next += 1
            self.number += 1
            self.taken.append(line)
            self.length += len(line)
            if self.length > MAX_LINE:
                raise csv.Error(f"a record longer than {MAX_LINE:,} characters; is a quote open?")
            yield self.dialect.prepared(line)

    def _fill(self) -> bool:
        """Get more lines, behind those of the record that is read, which may be read again; returns whether there are any."""
        lines, length = [], 0
        for line in self.lines:
            lines.append(line)
            length += len(line)
            if length >= _CHUNK:
                break
        text, goes_on = "".join(lines), bool(self.taken)
        self.chunk, self.next = [*self.taken, *lines], len(self.taken)
        self.characters = self.length + length
        quote, escape = self.dialect.quote, self.dialect.escape
        self.has_quote = bool(quote) and (quote in text or (goes_on and self.has_quote))
        special = escape in text or _NULL_MARK in text or (goes_on and self.has_escape)
        self.has_escape = bool(escape) and special
        return bool(lines)
