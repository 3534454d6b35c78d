"""CSV and TSV, possibly compressed (`.gz`, `.bz2`, `.xz`, `.zst`).

An example: `text,label` / `"Oil, gas and coal",business`. Quoted fields may hold line breaks. CSV has no types: every value
is a string. Encoding and dialect are recognised by the first bytes (`encodings.py`, `csv_sniffer.py`), one file at a time,
unless the config names them. A malformed record (an open quote, a wrong number of fields) is rejected with all its lines
(`csv_records.py`), so that one stray quote does not swallow the rest of the file.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from rayclean.datasets.base import FileForm, FileSegment, Reader, ReadOptions, SourceFile, check_unique
from rayclean.datasets.csv_dialect import Records
from rayclean.datasets.csv_expectation import Expectation
from rayclean.datasets.csv_records import checked_records
from rayclean.datasets.csv_sniffer import DELIMITERS, SniffedCsv, sniff_csv
from rayclean.datasets.rejected_rows import BLANK_ROW, RejectedRow
from rayclean.datasets.text_files import encoding_name, has_marks, open_text, unmarked
from rayclean.errors import DataError

_LINES_FOR_TITLE = 50
"""Lines among which the header is looked for."""
_ROWS_FOR_HEADER = 1000
"""Records in which a value of the first one must come again to show that it is no header."""


class Csv(Reader):
    """CSV and TSV; without a header (`dataset.header = false`) the columns are `column_1`, `column_2` and so on."""

    _sniffed: tuple[SourceFile, SniffedCsv] | None = None

    def columns(self, file: SourceFile) -> list[str]:
        """Fields of the header."""
        sniffed = self.sniff(file)
        header = _header(file, sniffed, self.options)
        if header and self.options.header and self.options.columns:
            _check_header(file, sniffed, header, self.options.columns)
        return header

    def describe(self, file: SourceFile) -> FileForm:
        """Dialect and encoding."""
        sniffed = self.sniff(file)
        return FileForm(str(sniffed), sniffed.remark)

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """Records after the header; fields are strings, an empty field is ''."""
        sniffed = self.sniff(segment.file)
        header = _header(segment.file, sniffed, self.options)
        positions, named = [header.index(name) for name in columns], self.options.header
        labels = [header.index(name) for name in self.options.labels if name in header]
        expected = Expectation(sniffed.sample, sniffed.dialect, len(header), labels, self.options.header)
        with open_text(segment.file, sniffed.encoding, newline="") as lines:
            for row, record in enumerate(
                checked_records(islice(lines, sniffed.preamble, None), expected, sniffed.preamble)
            ):
                if isinstance(record, RejectedRow):
                    yield row, record
                elif named and record[0].strip() in ("", header[0]) and _all_named(record) == header:
                    yield row, RejectedRow("header repeated", str(record))
                elif not any(map(str.strip, record)):
                    yield row, RejectedRow(BLANK_ROW)
                else:
                    yield row, _decoded([record[position] for position in positions], sniffed.encoding)

    def sniff(self, file: SourceFile) -> SniffedCsv:
        """What the first bytes of a file say of its dialect and encoding."""
        if self._sniffed is None or self._sniffed[0] != file:
            self._sniffed = file, sniff_csv(file, self.options)
        return self._sniffed[1]


def _header(file: SourceFile, sniffed: SniffedCsv, options: ReadOptions) -> list[str]:
    """Names of the columns, without blanks around them unless the config has those, too."""
    record = next(iter(Records(sniffed.sample, sniffed.dialect)), None)
    if record is None:
        return []
    if record.fault:
        raise DataError(
            f"{file.url}: its first line is no CSV header ({record.fault}: {unmarked(record.text[:100])}); mend its quotes, or "
            "say how the file is written: dataset.quote, dataset.escape, dataset.delimiter"
        )
    if not options.header:
        return [f"column_{number}" for number in range(1, len(record.fields) + 1)]
    if any(has_marks(name) or "\0" in name for name in record.fields):
        raise DataError(
            f"{file.url}: its header is not {encoding_name(sniffed.encoding)} text; is this a CSV file? Convert it to UTF-8, or "
            "set dataset.encoding"
        )
    names = _all_named(record.fields, options.columns)
    check_unique(file, names)
    return names


def _all_named(fields: Sequence[str], as_they_are: Sequence[str] = ()) -> list[str]:
    """The names of a header without blanks around them; where several columns have none, their numbers are their names.

    >>> _all_named([" text", "label", "", ""])
    ['text', 'label', 'column_3', 'column_4']
    """
    names = [name if name in as_they_are else name.strip() for name in fields]
    if names.count("") > 1:
        return [name or f"column_{number}" for number, name in enumerate(names, 1)]
    return names


def _check_header(file: SourceFile, sniffed: SniffedCsv, header: list[str], wanted: Sequence[str]) -> None:
    """Stop at a first line that names none of the columns, where it shows why.

    Raises:
        DataError: it is divided by another character, or is no header.
    """
    if set(header) & set(wanted):
        return
    _check_title(file, sniffed, header, wanted)
    (name, *others) = header
    divided = Counter(re.sub(r"[\w \"'-]", "", name)).most_common(1)
    if not others and divided:
        raise DataError(
            f"{file.url}: its header is one column, {name!r}; if {divided[0][0]!r} is between its columns, set "
            f"dataset.delimiter = {divided[0][0]!r}"
        )
    records = [record.fields for record in Records(sniffed.sample[:_ROWS_FOR_HEADER], sniffed.dialect)][1:]
    again = {
        column: value
        for column, value in enumerate(header, 1)
        if value.strip()
        and sum(column <= len(fields) and fields[column - 1] == value for fields in records) > 1
    }
    if again:
        column, value = next(iter(again.items()))
        raise DataError(
            f"{file.url}: its first line names none of the columns {', '.join(wanted)}, and {value!r} stands in column "
            f"{column} of other lines, too: it has no header. Set dataset.header = false, and name the columns column_1 to "
            f'column_{len(header)}, for example dataset.text = "column_1"; or write a header into the file'
        )


def _check_title(file: SourceFile, sniffed: SniffedCsv, header: list[str], wanted: Sequence[str]) -> None:
    """Stop where a line below the first one names the columns.

    Raises:
        DataError: there is such a line.
    """
    for delimiter in DELIMITERS:
        for record in Records(
            sniffed.sample[:_LINES_FOR_TITLE], replace(sniffed.dialect, delimiter=delimiter)
        ):
            found = [name for name in wanted if name in map(str.strip, record.fields)]
            if record.number > 1 and len(found) > 1:
                number = record.number + sniffed.preamble
                raise DataError(
                    f"{file.url}: line {number} names the columns {', '.join(found)}, and the first line is {header[0][:50]!r}: "
                    f"remove the {number - 1} lines before the header, for example with tail -n +{number}"
                )


def _decoded(values: list[str], encoding: str) -> list[str] | RejectedRow:
    """The values, unless bytes of them are no text in the encoding."""
    for value in values:
        if has_marks(value):
            return RejectedRow(f"not {encoding_name(encoding)}", unmarked(value[:200]))
    return values
