"""The dialect of a CSV, recognised by its first bytes.

RFC 4180 (commas, double quotes, quotes inside a field doubled) is what a file is taken for wherever that reads its first
bytes without a fault. Elsewhere the other dialects that programs write are tried: another delimiter where it is the one
that finds the columns which the config names; quotes escaped by a backslash (MySQL, Label Studio), or blanks before quotes,
where that leaves fewer faults; and, between tabs, quotes that are characters like any other (as databases dump tables)
where that leaves none. What is malformed in the chosen dialect is rejected.
"""

import io
import re
from collections import Counter
from dataclasses import dataclass, replace

from rayclean.datasets.base import ReadOptions, SourceFile
from rayclean.datasets.csv_dialect import Dialect, Records
from rayclean.datasets.encodings import sniff_encoding
from rayclean.datasets.text_files import encoding_name, first_bytes, uncompressed_name

DELIMITERS = (",", ";", "\t", "|")
"""Characters that are tried, in this order."""
_FAULTS = 100
"""Faults in a sample at which a dialect is given up."""
_CONSISTENT = 0.8
"""Least share of the records that have as many fields as the first one, for a delimiter that no column name confirms."""


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
    said_or_usual = replace(
        usual,
        delimiter=options.delimiter or usual.delimiter,
        quote=usual.quote if options.quote is None else options.quote,
        escape=options.escape or "",
    )
    if dialect != said_or_usual:
        told = f"{dialect}; set dataset.delimiter, dataset.quote or dataset.escape if that is wrong"
        remark = f"{told}; {remark}" if remark else told
    return SniffedCsv(dialect, encoding, remark, tuple(lines), int(said is not None))


def _sniff_dialect(lines: list[str], usual: Dialect, options: ReadOptions) -> Dialect:
    dialect = replace(
        usual, quote='"' if options.quote is None else options.quote, escape=options.escape or ""
    )
    if options.quote is None and lines and lines[0].startswith("'"):
        single = _with_delimiter(lines, replace(dialect, quote="'"), options)
        if _faults(lines, single) == 0 or _named(lines, single, options) > _named(lines, dialect, options):
            return single
    dialect = _with_delimiter(lines, dialect, options)
    faults = _faults(lines, dialect)
    tried = []
    if options.escape is None and dialect.quote:
        tried.append(replace(dialect, escape="\\"))
    if dialect.quote:
        tried.append(replace(dialect, blanks=True))
    for other in tried:
        if faults and (fewer := _faults(lines, other)) < faults:
            dialect, faults = other, fewer
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
        found = [_named(lines, each, options) for each in tried]
        if max(found):
            return tried[found.index(max(found))]
    even = [_evenness(lines, each) for each in tried]
    return tried[even.index(max(even))] if max(even) >= _CONSISTENT else dialect


def _named(lines: list[str], dialect: Dialect, options: ReadOptions) -> int:
    """Number of the columns that the config names which the first record holds."""
    return len(set(_first(lines, dialect)) & set(options.columns)) if options.header else 0


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
