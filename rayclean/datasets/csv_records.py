"""The records of a CSV, and where reading goes on after a malformed one.

A text with line breaks whose quotes are broken is a malformed record that spans several lines, and some of its lines may
look like records: `first the bread, then the boat` has two fields. Reading must not go on there, or a text and a class
are invented. So after a fault, a line is read as a record again only if it is one that the rest of the file makes
plausible: its quotes are in order, it has as many fields as the header, and its label is one that other records have. All
lines before it belong to the malformed record.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from rayclean.datasets.csv_dialect import CsvRecord, Dialect, Records
from rayclean.datasets.rejected_rows import WHOLE_CHARACTERS, RejectedRow
from rayclean.datasets.text_files import unmarked

MALFORMED = "malformed CSV line"
"""Reason for rejecting records."""

_CALM = 10
"""Well-formed records after a fault before records of the sample count as examples of what the file holds."""
_LABELS = 10_000
"""Most values of a label column that are remembered."""
_RECORDS = 4
"""Fewest records that show what all records have in common."""
_MANY = 20
"""Distinct labels are a set of classes if they are few, or if there are fewer records than this."""
_RUN = 3
"""Records one after another with the same unknown label that make it known: files may be sorted by label."""
_LINES = 20
"""Most lines with delimiters that one malformed record may hold; each further one is rejected by itself, and counts."""


class Expectation:
    """What records of a file look like.

    Args:
        sample: the first lines of the file.
        dialect: of the file.
        width: number of its columns.
        labels: positions of the columns that hold labels.
        header: whether the first record names the columns.
    """

    def __init__(
        self, sample: Iterable[str], dialect: Dialect, width: int, labels: Sequence[int], header: bool = True
    ):
        self.dialect, self.width, self.header = dialect, width, header
        healthy = list(self._healthy(sample))[header:]
        values = {column: [record.fields[column] for record in healthy] for column in labels}
        self.labels = {
            column: set(found)
            for column, found in values.items()
            if found and (len(found) < _MANY or 2 * len(set(found)) <= len(found))
        }
        enough = len(healthy) >= _RECORDS
        self.numbers = [
            column
            for column in range(width)
            if enough and all(re.fullmatch(r"-?\d+", record.fields[column]) for record in healthy)
        ]
        quote = dialect.quote
        self.quoted = bool(quote) and enough and all(record.text.startswith(quote) for record in healthy)
        self.text_first = 0 not in labels and 0 not in self.numbers
        self.run: tuple[tuple[str, ...], int] = ((), 0)

    def _healthy(self, sample: Iterable[str]) -> Iterator[CsvRecord]:
        """Records far enough behind a fault not to be parts of a malformed one."""
        calm = _CALM
        for record in Records(sample, self.dialect):
            calm = 0 if self.fault(record) or not self.dialect.is_strict(record.text) else calm + 1
            if calm > _CALM:
                yield record

    def fault(self, record: CsvRecord) -> str:
        """Why a record is malformed by itself; "" if it is not."""
        if record.fault or len(record.fields) == self.width:
            return record.fault
        return f"{_fields(len(record.fields))}, the header has {self.width}"

    def learn(self, record: CsvRecord) -> None:
        """Remember the labels of a record."""
        for column, known in self.labels.items():
            if len(known) < _LABELS:
                known.add(record.fields[column])

    def doubt(self, record: CsvRecord) -> str:
        """Why a line after a malformed record may not begin a record; "" if it is plausible that it does."""
        if fault := self.fault(record):
            return fault
        if not self.dialect.is_strict(record.text):
            return "quotes inside a field"
        if self.quoted and not record.text.startswith(self.dialect.quote):
            return "no quote at its beginning"
        if any(not re.fullmatch(r"-?\d+", record.fields[column]) for column in self.numbers):
            return "no number where all records have one"
        unknown = tuple(record.fields[c] for c, known in self.labels.items() if record.fields[c] not in known)
        self.run = (unknown, self.run[1] + 1 if unknown == self.run[0] else 1)
        return (
            f"the label {unknown[0][:50]!r}, which no other record has"
            if unknown and self.run[1] < _RUN
            else ""
        )


def checked_records(
    lines: Iterable[str], expectation: Expectation, before: int = 0
) -> Iterator[list[str] | RejectedRow]:
    """The fields of every record but the header, as many as the header has, or why it is malformed.

    Args:
        lines: of the file.
        expectation: what its records look like.
        before: how many lines of the file come before.
    """
    records = Records(lines, expectation.dialect, before)
    unread = iter(records)
    if expectation.header:
        next(unread, None)
    block: _Block | None = None
    wary = False  # whether the record before was malformed
    for record in unread:
        doubt = expectation.doubt(record) if wary else expectation.fault(record)
        if block is not None:
            if doubt or block.ends_with(record, expectation):
                record = records.first_line(record) if len(record.lines) > 1 and doubt else record
                if block.is_full and len(record.fields) > 1:
                    yield _rejected(f"inside the malformed record of line {block.first}", record.text)
                else:
                    block.add(record)
                continue
            yield block.rejected(record.number, expectation.dialect)
            block = None
        if not doubt:
            wary = False
            expectation.learn(record)
            yield record.fields
            continue
        if record.fault or len(record.fields) == 1:
            block = _Block(record, doubt)
        else:
            after = "after a malformed line " if wary and len(record.fields) == expectation.width else ""
            yield _rejected(f"{after}{doubt}", record.text)
        wary = True
    if block is not None:
        yield block.rejected(None, expectation.dialect)


class _Block:
    """A malformed record of one line, and those lines after it at which reading cannot go on."""

    def __init__(self, record: CsvRecord, fault: str):
        self.first = self.last = record.number
        self.fault = fault
        self.text = ""
        self.lines = 0
        self.width = 0 if record.fault else 1
        self.add(record)

    def add(self, record: CsvRecord) -> None:
        """Take a record, or the line at which none can be read."""
        self.last = record.number + len(record.lines) - 1
        self.lines += len(record.fields) > 1
        self.width += bool(self.width) * (len(record.fields) - 1)
        if len(self.text) < WHOLE_CHARACTERS:
            self.text += "".join(record.lines)[: WHOLE_CHARACTERS + 1]

    @property
    def is_full(self) -> bool:
        """Whether it holds more lines that look like records than one text should."""
        return self.lines >= _LINES

    def ends_with(self, record: CsvRecord, expectation: Expectation) -> bool:
        """Whether a well-formed record may be the end of a text whose line break is not quoted.

        One line without any delimiter before it, and together they have as many fields as the header.
        """
        return self.width == 1 and expectation.width > 1 and expectation.text_first and not expectation.quoted

    def rejected(self, next_line: int | None, dialect: Dialect) -> RejectedRow:
        """The malformed record, with the line at which reading goes on."""
        if dialect.quote and not dialect.escape and f"\\{dialect.quote}" in self.text:
            self.fault += f"; if the backslash before {dialect.quote} escapes it, set dataset.escape"
        place = f"line {self.first}" if self.first == self.last else f"lines {self.first} to {self.last}"
        go_on = "the file ends" if next_line is None else f"goes on at line {next_line}"
        return _rejected(f"{self.fault}; {place} left out, {go_on}", self.text.rstrip("\r\n"))


def _rejected(why: str, text: str) -> RejectedRow:
    return RejectedRow(MALFORMED, unmarked(f"{why}: {text}"), whole=True)


def _fields(number: int) -> str:
    return "1 field" if number == 1 else f"{number} fields"
