"""The records of a CSV, and where reading goes on after a malformed one.

A text with line breaks whose quotes are broken is a malformed record that spans several lines, and some of its lines may
look like records: `add salt, then rice` has two fields. Reading must not go on there, or a text and a class
are invented. So after a fault, a line is read as a record again only if it is one that the rest of the file makes
plausible: its quotes are in order, it has as many fields as the header, and its label is one that other records have. All
lines before it belong to the malformed record. A later line may show that records before it were parts of one text, too:
`and stir it",recipe` ends a field that must have begun above. So some records are held back, and rejected with it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rayclean.datasets.csv_dialect import CsvRecord, PlainRecords, Records
from rayclean.datasets.csv_expectation import Expectation
from rayclean.datasets.rejected_rows import WHOLE_CHARACTERS, RejectedRow
from rayclean.datasets.text_files import unmarked

MALFORMED = "malformed CSV line"
"""Reason for rejecting records."""
_OPEN_QUOTE = "a quote that is never closed, as each line up to the next quote is a record by itself"

_HELD = 20
"""Most records after one with a quote that are held back, until it is clear that no later line ends its text."""
_LINES = 20
"""Most lines with delimiters that one malformed record may hold, or of any kind if none has a quote, and so no text with line
breaks was quoted; each further one is rejected by itself, and counts."""
_LONG = 200
"""Most lines of any kind of one malformed record."""


class _Item(NamedTuple):
    """A record, and how it was judged by what comes before it."""

    record: CsvRecord
    """Of a malformed record of several lines, the first line."""
    last: int
    """Number of its last line."""
    closes: bool = False
    """Whether it ends a field that begins in a line before it."""
    continues: bool = False
    """Whether it begins with a line without any delimiter."""
    rejected: RejectedRow | None = None
    """Why it cannot be used; None if it can."""


def checked_records(
    lines: Iterable[str], expectation: Expectation, before: int = 0
) -> Iterator[list[str] | RejectedRow]:
    """The fields of every record but the header, as many as the header has, or why it is malformed.

    Args:
        lines: of the file.
        expectation: what its records look like.
        before: how many lines of the file come before.
    """
    dialect = expectation.dialect

    held: list[CsvRecord | RejectedRow] = []  # the last one, or those since one with a quote
    quoted = False  # whether the first of them has a quote
    for item in _resumed(Records(lines, dialect, before), expectation):
        if isinstance(item, PlainRecords):
            begin = max((at for at, record in enumerate(item.last) if record.has_quote), default=None)
            if begin is None and quoted and len(held) + len(item.rows) <= _HELD + 1:
                held += item.last
                continue
            quoted = begin is not None
            kept = item.last[-1:] if begin is None else item.last[begin:]
            yield from map(expectation.released, held)
            yield from item.rows[: len(item.rows) - len(kept)]
            held = [*kept]
            continue
        if item.closes and quoted:
            why = f"it may be a part of a text that begins before it and ends in line {item.last}"
            yield from (each if isinstance(each, RejectedRow) else _rejected(why, each.text) for each in held)
            yield item.rejected or _rejected(
                "it ends a field that begins in a line before it", item.record.text
            )
            held, quoted = [], False
            continue
        previous = held[-1] if held else None
        malformed = item.rejected is not None
        if malformed and isinstance(previous, CsvRecord) and expectation.goes_on(previous, item.continues):
            held[-1] = _rejected(f"the malformed line {item.record.number} may belong to it", previous.text)
        if not quoted or item.record.has_quote or len(held) > _HELD:
            yield from map(expectation.released, held)
            held, quoted = [], item.record.has_quote
        held.append(item.rejected or item.record)
    yield from map(expectation.released, held)


def _resumed(records: Records, expectation: Expectation) -> Iterator[_Item | PlainRecords]:
    """Records that are well-formed and, after a malformed one, plausible, plain ones together; and what is malformed."""
    unread = iter(records)
    if expectation.header:
        next(unread, None)
    block: _Block | None = None
    wary = False  # whether the record before was malformed
    joined = 0  # last line of records that an open quote makes one
    while True:
        if block is None and not wary and expectation.width > 1:
            plain = records.plain(expectation.width, expectation.labels, _HELD + 1)
            if plain.rows:
                yield plain
        record = next(unread, None)
        if record is None:
            break
        if expectation.joins_records(record):
            joined = record.last
            record = records.first_line(record)._replace(fields=[], fault=_OPEN_QUOTE, has_quote=False)
        closes = record.has_quote and record.last > joined and expectation.dialect.closes(record.text)
        doubt = expectation.doubt(record) if wary else expectation.fault(record)
        if block is not None:
            if doubt or block.ends_with(record):
                record = records.first_line(record) if len(record.lines) > 1 and doubt else record
                if block.is_full and (len(record.fields) > 1 or not block.may_be_text):
                    why = f"inside the malformed record of line {block.record.number}"
                    yield _Item(record, record.last, rejected=_rejected(why, record.text))
                    block.follow(record, ends=closes or not doubt)
                else:
                    block.add(record, ends=closes or not doubt)
                continue
            yield block.item(record.number)
            block = None
        if not doubt:
            wary = False
            yield _Item(record, record.last, closes)
            continue
        if record.fault or len(record.fields) == 1:
            block = _Block(record, doubt, expectation)
        else:
            after = "after a malformed line " if wary and len(record.fields) == expectation.width else ""
            yield _Item(record, record.last, closes, rejected=_rejected(f"{after}{doubt}", record.text))
        wary = True
    if block is not None:
        yield block.item(None)


class _Block:
    """A malformed record of one line, and those lines after it at which reading cannot go on."""

    def __init__(self, record: CsvRecord, fault: str, expectation: Expectation):
        self.record, self.fault, self.expectation = record, fault, expectation
        self.text = ""
        self.lines = self.all_lines = 0
        self.has_quote = False
        self.closes = False
        self.add(record, ends=False)

    def add(self, record: CsvRecord, ends: bool) -> None:
        """Take a record, or the line at which none can be read; `ends`: whether it is the last line of the malformed one."""
        self.follow(record, ends)
        self.last = record.number + len(record.lines) - 1
        self.lines += len(record.fields) > 1
        self.all_lines += len(record.lines)
        self.has_quote |= record.has_quote
        self.closes |= not self.record.fault and self.expectation.dialect.closes(record.text)
        if len(self.text) < WHOLE_CHARACTERS:
            self.text += "".join(record.lines)[: WHOLE_CHARACTERS + 1]

    def follow(self, record: CsvRecord, ends: bool) -> None:
        """Note whether the end of the malformed one is still to come after a record."""
        if record.fault or record is self.record:  # another malformed record may follow at once
            self.opener = record
            self.open = not self.expectation.is_complete(record.text) and self.expectation.width > 1
        elif ends:
            self.open = False

    @property
    def is_full(self) -> bool:
        """Whether it holds more lines, or more that look like records, than one text should."""
        return self.lines >= _LINES or not self.may_be_text

    @property
    def may_be_text(self) -> bool:
        """Whether its lines may be those of one text with line breaks, as far as their number tells."""
        return self.all_lines < (_LONG if self.has_quote else _LINES)

    def ends_with(self, record: CsvRecord) -> bool:
        """Whether a plausible record may be the rest of the malformed one, whose end was not seen yet.

        Either the text comes first in a record, so that the last line of one looks like a record; or its quote is the one at
        which the malformed record, with an open quote, could not be read further.
        """
        if not self.open or not (self.has_quote or self.may_be_text):
            return False
        if self.expectation.dialect.quote and record.text.startswith(self.expectation.dialect.quote):
            return self.expectation.text_first or record.number == self.opener.last
        return self.expectation.text_first and not self.expectation.quoted

    def item(self, next_line: int | None) -> _Item:
        """The malformed record, with the line at which reading goes on."""
        dialect = self.expectation.dialect
        hint = ""
        if dialect.quote and not dialect.escape and f"\\{dialect.quote}" in self.text:
            hint = f"; if the backslash before {dialect.quote} escapes it, set dataset.escape"
        first = self.record.number
        place = f"line {first}" if first == self.last else f"lines {first} to {self.last}"
        go_on = "the file ends" if next_line is None else f"goes on at line {next_line}"
        why = f"{self.fault}{hint}; {place} left out, {go_on}"
        rejected = _rejected(why, self.text.rstrip("\r\n"))
        return _Item(self.record, self.last, self.closes, not self.record.fault, rejected)


def _rejected(why: str, text: str) -> RejectedRow:
    return RejectedRow(MALFORMED, unmarked(f"{why}: {text}"), whole=True)
