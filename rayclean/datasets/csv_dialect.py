"""The dialect of a CSV: which characters divide, quote and escape its fields.

RFC 4180 (commas, double quotes, quotes inside a field doubled) is what a file is taken for wherever that reads its first
bytes without a fault. Elsewhere the other dialects that programs write are tried: another delimiter where it is the one
that finds the columns which the config names; quotes escaped by a backslash (MySQL, Label Studio); and, between tabs, quotes
that are characters like any other (as databases dump tables). What fits no dialect is read as RFC 4180, and its malformed
records are rejected: a dialect is never chosen because it reads a part.
"""

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rayclean.datasets.base import ReadOptions, SourceFile
from rayclean.datasets.encodings import sniff_encoding
from rayclean.datasets.text_files import MAX_LINE, encoding_name, first_bytes, uncompressed_name

DELIMITERS = (",", ";", "\t", "|")
"""Characters that are tried, in this order."""
_NAMES = {"\t": "tab", " ": "blank"}
_FAULTS = 100
"""Faults in a sample at which a dialect is given up."""
_CONSISTENT = 0.8
"""Least share of the records that have as many fields as the first one, for a delimiter that no column name confirms."""


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written."""

    delimiter: str = ","
    quote: str = '"'
    """"" where fields are not quoted."""
    escape: str = ""
    """Takes the special meaning from a quote, a delimiter, a line end or itself; before all else it is itself."""

    def __str__(self) -> str:
        parts = [f"{_NAMES.get(self.delimiter) or repr(self.delimiter)} between fields"]
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
            strict=True,
        )

    def prepared(self, line: str) -> str:
        """A line as `parser` takes it, with escape characters that escape nothing doubled."""
        if not self.escape or self.escape not in line:
            return line
        return self._escapes.sub(lambda found: found[0] if found[1] else self.escape * 2, line)

    def field(self, value: str) -> str:
        r"""A parsed field; `\N`, which databases that escape by a backslash write for null, is empty."""
        return "" if self.escape == "\\" and value == "\\N" else value

    def is_strict(self, record: str) -> bool:
        """Whether quotes stand only around fields and escaped inside of them.

        >>> Dialect().is_strict('a,"b, c"'), Dialect().is_strict('5" pipe,b')
        (True, False)
        """
        return not self.quote or self.quote not in record or self._strict.fullmatch(record) is not None

    @cached_property
    def _escapes(self) -> re.Pattern[str]:
        special = re.escape(f"{self.escape}{self.quote}{self.delimiter}\r\n")
        return re.compile(f"{re.escape(self.escape)}([{special}])|{re.escape(self.escape)}")

    @cached_property
    def _strict(self) -> re.Pattern[str]:
        quote, escape, delimiter = map(re.escape, (self.quote, self.escape, self.delimiter))
        pair = f"{quote}{quote}|{escape}." if escape else f"{quote}{quote}"
        quoted = f"{quote}[^{quote}{escape}]*(?:(?:{pair})[^{quote}{escape}]*)*{quote}"
        plain = f"[^{quote}{delimiter}{escape}\r\n]*"
        plain = f"{plain}(?:{escape}.{plain})*" if escape else plain
        field = f"(?:{quoted}|{plain})"
        return re.compile(f"{field}(?:{delimiter}{field})*", re.DOTALL)


@dataclass(frozen=True)
class CsvRecord:
    """One record of a file, or a line at which none can be read."""

    number: int
    """Of its first line, from 1."""
    lines: tuple[str, ...]
    """As they are written, with their ends."""
    fields: list[str]
    fault: str = ""
    """Why `fields` could not be read; "" where they could."""

    @property
    def text(self) -> str:
        """The record as it is written, without its line end."""
        return "".join(self.lines).rstrip("\r\n")


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
            record = CsvRecord(number, tuple(self.taken), list(map(self.dialect.field, fields)), fault)
            if fault:
                record = self.first_line(record)
            if record.fields or record.fault:
                yield record

    def first_line(self, record: CsvRecord) -> CsvRecord:
        """Only the first line of the last record; the others are read again."""
        first, *rest = record.lines
        self.ahead.extendleft(reversed(rest))
        self.number -= len(rest)
        return replace(record, lines=(first,))

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


@dataclass(frozen=True)
class SniffedCsv:
    """What the first bytes of a CSV say about it."""

    dialect: Dialect
    encoding: str
    remark: str
    """What people should check; "" where nothing was guessed."""
    sample: tuple[str, ...]
    """Its first lines, without the preamble."""
    preamble: int
    """Lines before the header: 1 where Excel says in the first line which delimiter follows (`sep=;`), otherwise 0."""

    def __str__(self) -> str:
        return f"CSV: {self.dialect}, {encoding_name(self.encoding)}"


def sniff_csv(file: SourceFile, options: ReadOptions) -> SniffedCsv:
    """The encoding and the dialect of a file, by its first bytes and by what the config says.

    Raises:
        DataError: the file cannot be read, or its encoding must be named.
    """
    content, whole = first_bytes(file)
    encoding, remark = (options.encoding, "") if options.encoding else sniff_encoding(file, content, whole)
    text = content.decode(encoding, "rayclean.mark")
    lines = list(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    if not whole and len(lines) > 1:
        del lines[-1]  # it may be cut
    said = re.fullmatch('"?sep=(.)"?[\r\n]*', lines[0]) if lines else None
    if said is not None:
        del lines[0]
        options = replace(options, delimiter=options.delimiter or said[1])
    usual = Dialect("\t" if uncompressed_name(file.name).endswith((".tsv", ".tab")) else ",")
    dialect = _sniff_dialect(lines, usual, options)
    guessed = replace(usual, **{name: value for name, value in _given(options).items() if value is not None})
    if dialect != guessed:
        told = f"{dialect}; set dataset.delimiter, dataset.quote or dataset.escape if that is wrong"
        remark = f"{told}; {remark}" if remark else told
    return SniffedCsv(dialect, encoding, remark, tuple(lines), int(said is not None))


def _given(options: ReadOptions) -> dict[str, str | None]:
    return {"delimiter": options.delimiter, "quote": options.quote, "escape": options.escape}


def _sniff_dialect(lines: list[str], usual: Dialect, options: ReadOptions) -> Dialect:
    dialect = replace(
        usual, quote='"' if options.quote is None else options.quote, escape=options.escape or ""
    )
    if options.quote is None and lines and lines[0].startswith("'"):
        single = _with_delimiter(lines, replace(dialect, quote="'"), options)
        if _faults(lines, single) == 0:
            return single
    dialect = _with_delimiter(lines, dialect, options)
    faults = _faults(lines, dialect)
    text = "".join(lines)
    if faults and options.escape is None and dialect.quote and f"\\{dialect.quote}" in text:
        escaped = replace(dialect, escape="\\")
        if (fewer := _faults(lines, escaped)) < faults:
            dialect, faults = escaped, fewer
    if faults and options.quote is None and not options.escape and dialect.delimiter == "\t":
        plain = replace(dialect, quote="", escape="")
        quoted = sum(
            re.fullmatch('".+"', value) is not None
            for line in lines
            for value in line.rstrip("\r\n").split("\t")
        )
        if quoted <= faults and _faults(lines, plain) == 0:
            return plain
    return dialect


def _with_delimiter(lines: list[str], dialect: Dialect, options: ReadOptions) -> Dialect:
    """The dialect with the delimiter that finds most of the columns which the config names, or else gives the most even table."""
    if options.delimiter is not None:
        return replace(dialect, delimiter=options.delimiter)
    usual = dialect.delimiter
    tried = [replace(dialect, delimiter=each) for each in (usual, *(d for d in DELIMITERS if d != usual))]
    if options.header and options.columns:
        found = [len(set(_first(lines, each)) & set(options.columns)) for each in tried]
        if max(found):
            return tried[found.index(max(found))]
    even = [_evenness(lines, each) for each in tried]
    return tried[even.index(max(even))] if max(even) >= _CONSISTENT else dialect


def _first(lines: list[str], dialect: Dialect) -> list[str]:
    record = next(iter(Records(lines, dialect)), None)
    return [] if record is None else [name.strip() for name in record.fields]


def _evenness(lines: list[str], dialect: Dialect) -> float:
    """Share of the records that have as many fields as the first one; 0 if that is a single field."""
    widths = Counter(len(record.fields) for record in Records(lines, dialect))
    first = len(_first(lines, dialect))
    return widths[first] / max(widths.total(), 1) if first > 1 else 0.0


def _faults(lines: list[str], dialect: Dialect) -> int:
    """Records that are malformed, or have more or fewer fields than the first one, or stray quotes; at most `_FAULTS`."""
    width, faults = None, 0
    for record in Records(lines, dialect):
        width = len(record.fields) if width is None else width
        faults += bool(record.fault) or len(record.fields) != width or not dialect.is_strict(record.text)
        if faults >= _FAULTS:
            break
    return faults
