"""What records of a CSV look like: which lines are well-formed, and which plausibly begin a record after a malformed one.

It is learnt from the first bytes of the file, from records that are certainly no parts of a malformed one, and from the records
that are read since.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from rayclean.datasets.csv_dialect import CsvRecord, Dialect, Records
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.text_files import MAX_LINE

_CALM = (10, 5, 2)
"""Well-formed records after a fault before records of the sample count as examples of what the file holds; fewer in a file
that has not enough otherwise."""
_LABELS = 10_000
"""Most values of a label column that are remembered."""
_RECORDS = 4
"""Fewest records that show what all records have in common."""
_MANY = 20
"""Distinct labels are a set of classes if they are few, or if there are fewer records than this."""
_RUN = 3
"""Records one after another with the same unknown label that make it known: files may be sorted by label."""


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
        self.labels: dict[int, set[str]] = {}
        read = list(Records(sample, dialect))[header:]
        healthy: list[CsvRecord] = []
        for calm in _CALM:
            if len(healthy) < _RECORDS:
                healthy = list(self._healthy(read, calm))
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
        self.text_first = 0 not in {*labels, *self.numbers}
        self.text_last = width - 1 not in {*labels, *self.numbers}
        self.run: tuple[tuple[str, ...], int] = ((), 0)

    def _healthy(self, records: Iterable[CsvRecord], least: int) -> Iterator[CsvRecord]:
        """Records not right before a fault, and far enough behind one, so that they are no parts of a malformed one."""
        calm, held = least, None
        for record in records:
            fault = self.fault(record) or not self.dialect.is_strict(record.text)
            if held is not None and not fault:
                yield held
            calm = 0 if fault else calm + 1
            held = record if calm > least and record.is_whole else None
        if held is not None:
            yield held

    def fault(self, record: CsvRecord) -> str:
        """Why a record is malformed by itself; "" if it is not."""
        if record.fault:
            return record.fault
        if len(record.fields) != self.width:
            return f"{_fields(len(record.fields))}, the header has {self.width}"
        if (
            record.has_quote
            and (unknown := self.unknown(record.fields))
            and not self.dialect.is_strict(record.text)
        ):
            return f"quotes inside a field, and the label {unknown[0][:50]!r}"
        if record.is_whole:
            return ""
        last, known = record.fields[-1], self.labels.get(self.width - 1)
        if known is None or last in known:
            return ""
        cut = record.has_quote or any(label.startswith(last) for label in known)
        return f"the file ends inside of it, with the label {last[:50]!r}" if cut else ""

    def unknown(self, fields: Sequence[str]) -> tuple[str, ...]:
        """Labels of a record that no other record has."""
        return tuple(fields[column] for column, known in self.labels.items() if fields[column] not in known)

    def is_complete(self, line: str) -> bool:
        """Whether a line with quotes out of order has all fields of a record nonetheless, with a known label."""
        if len(line) > MAX_LINE:  # the rest of it was skipped
            return True
        fields = line.replace(self.dialect.quote, "").split(self.dialect.delimiter)
        if self.width - 1 in self.labels:
            return fields[-1] in self.labels[self.width - 1]
        return len(fields) >= self.width and not self.unknown(fields)

    def joins_records(self, record: CsvRecord) -> bool:
        """Whether a record of several lines is several records that an open quote makes one (`Dialect.joins_records`)."""
        return not record.fault and self.dialect.joins_records(record.lines, self.width, self.labels)

    def goes_on(self, record: CsvRecord, continues: bool) -> bool:
        """Whether a malformed record may be a part of the one before it.

        It may be the end of a text that comes last, or of a text in which one of its quotes made a label, which is a new one.

        Args:
            record: the one before it.
            continues: whether the malformed one begins with a line without any delimiter.
        """
        return (continues and self.text_last) or bool(self.unknown(record.fields))

    def released(self, item: CsvRecord | RejectedRow) -> list[str] | RejectedRow:
        """The fields of a record that is one for certain, whose labels others may have."""
        if isinstance(item, RejectedRow):
            return item
        for column, known in self.labels.items():
            if len(known) < _LABELS:
                known.add(item.fields[column])
        return item.fields

    def doubt(self, record: CsvRecord) -> str:
        """Why a line after a malformed record may not begin a record; "" if it is plausible that it does."""
        why = self.fault(record)
        if not why and not self.dialect.is_strict(record.text):
            why = "quotes inside a field"
        if not why and self.quoted and not record.text.startswith(self.dialect.quote):
            why = "no quote at its beginning"
        if not why and any(not re.fullmatch(r"-?\d+", record.fields[column]) for column in self.numbers):
            why = "no number where all records have one"
        unknown = () if why else self.unknown(record.fields)
        self.run = (unknown, self.run[1] + 1 if unknown == self.run[0] else 1)
        if unknown and self.run[1] < _RUN:
            why = f"the label {unknown[0][:50]!r}, which no other record has"
        return why


def _fields(number: int) -> str:
    return "1 field" if number == 1 else f"{number} fields"
