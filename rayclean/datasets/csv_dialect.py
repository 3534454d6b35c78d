"""How a CSV is written, and its records in that dialect.

RFC 4180 (commas, double quotes, quotes inside a field doubled) is the usual one; `csv_sniffer.py` recognises others.
"""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from rayclean.datasets.text_files import MAX_LINE

_NULL_MARK = "\ufdd0"
"""Stands between an escape character and N, so that null differs from an escaped escape character and N; no character."""
_NAMES = {"\t": "tab", " ": "blank"}


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


class Records:
    """The records of a file in a dialect, blank lines aside. A malformed one costs its first line: the others are read again.

    Args:
        lines: of the file.
        dialect: of the file.
        before: how many lines of the file come before.
    """

    def __init__(self, lines: Iterable[str], dialect: Dialect, before: int = 0):
        self.lines, self.dialect = iter(lines), dialect
        self.ahead: deque[str] = deque()
        self.taken: list[str] = []
        self.length = 0
        self.number = before  # of lines that were taken
        self.parser = dialect.parser(self._feed())

    def __iter__(self) -> Iterator[CsvRecord]:
        quote = self.dialect.quote
        while True:
            self.taken, self.length = [], 0
            try:
                fields, fault = next(self.parser), ""
            except StopIteration:
                return
            except csv.Error as error:
                fields, fault = [], str(error)
                self.parser = self.dialect.parser(self._feed())  # the old one is inside a quote
            number = self.number - len(self.taken) + 1
            if self.dialect.escape:
                fields = list(map(self.dialect.field, fields))
            text = "".join(self.taken).rstrip("\r\n")
            has_quote = quote in text if quote else False
            record = CsvRecord(number, tuple(self.taken), text, has_quote, fields, self.number, fault)
            if fault:
                record = self.first_line(record)
            if len(fields) > 1 or fault or has_quote or (fields and fields[0].strip()):
                yield record

    def first_line(self, record: CsvRecord) -> CsvRecord:
        """Only the first line of the last record; the others are read again."""
        first, *rest = record.lines
        self.ahead.extendleft(reversed(rest))
        self.number -= len(rest)
        return record._replace(lines=(first,), text=first.rstrip("\r\n"))

    def _feed(self) -> Iterator[str]:
        while True:
            line = self.ahead.popleft() if self.ahead else next(self.lines, None)
            if line is None:
                return
            self.number += 1
            self.taken.append(line)
            self.length += len(line)
            if self.length > MAX_LINE:
                raise csv.Error(f"a record longer than {MAX_LINE:,} characters; is a quote open?")
            yield self.dialect.prepared(line)
