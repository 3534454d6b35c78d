"""The first rows of a data set, read by the readers that `load` uses."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from rayclean.class_names import class_key, is_numeric
from rayclean.config import DatasetConfig
from rayclean.datasets.base import FileSegment, Reader, ReadOptions, SourceFile
from rayclean.datasets.class_label import named_rows
from rayclean.datasets.columns import SCORING_HINT
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.sources import Source, find_sources
from rayclean.errors import DataError

MOST_ROWS = 100_000
"""Most rows that are looked at."""
MOST_FILES = 100
"""Most files that are looked at, evenly over all of them; each gives its first rows."""
MOST_COLUMNS = 100
"""Most columns that are looked at."""
_HEADER_ROWS = 1000
"""First rows in which a value of the first line must come again to show that it is no header."""


@dataclass
class FirstRows:
    """Some rows of a data set, which may be read again and again."""

    source: Source
    files: tuple[SourceFile, ...]
    """Those that are read, in the order of their names."""
    columns: tuple[str, ...]
    """Of all of these files, in the order in which they appear."""
    left_out: int
    """Columns beyond `MOST_COLUMNS`, which nobody looks at."""
    header: bool
    """Whether the first line of a CSV names the columns."""
    forms: dict[str, str] = field(default_factory=dict)
    """How files are written, in words -> what was guessed about it, which people should check; "" where nothing was."""
    rows: int = 0
    """Rows of the last reading."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Reasons for which rows of the last reading cannot be used -> how many."""
    is_whole: bool = True
    """Whether the last reading came to the end of all files of the data set."""

    def read(self, columns: Sequence[str], most: int = MOST_ROWS) -> Iterator[list[Any]]:
        """The values of some columns, row by row, None where a file has no such column.

        `rows`, `rejected` and `is_whole` say afterwards how far it came.

        Args:
            columns: some of `columns`.
            most: most rows, the same number of every file.

        Raises:
            DataError: a file cannot be read.
        """
        self.rows, self.rejected, self.is_whole = 0, Counter(), len(self.files) == len(self.source.files)
        reader = self.source.reader()
        for number, file in enumerate(self.files):
            quota = -(-(most - self.rows) // (len(self.files) - number))
            rows = self._rows(reader, file, columns)
            for values in islice(rows, quota):
                self.rows += 1
                if isinstance(values, RejectedRow):
                    self.rejected[values.reason] += 1
                else:
                    yield values
            self.is_whole &= next(rows, None) is None

    def _rows(
        self, reader: Reader, file: SourceFile, columns: Sequence[str]
    ) -> Iterator[list[Any] | RejectedRow]:
        held = set(reader.columns(file)) if file.size else set()
        if not held:
            return
        read = [name for name in columns if name in held or reader.sparse]
        places = [read.index(name) if name in read else None for name in columns]
        for _, values in named_rows(reader, FileSegment(file), read):
            if isinstance(values, RejectedRow):
                yield values
            else:
                yield [None if place is None else values[place] for place in places]

    def class_names(self, column: str) -> list[str]:
        """The names that the files themselves give to the numbers of a column; [] if they give none."""
        reader = self.source.reader()
        found = [name for file in self.files for name in reader.label_names(file, column) or ()]
        return list(dict.fromkeys(found))


def first_rows(dataset: DatasetConfig) -> FirstRows:
    """Find the files of a data set and what they are written in; no row is kept.

    Args:
        dataset: its `path`, and how its files are written where that is known (`encoding`, `delimiter`, `header`, ...).

    Raises:
        ConfigError: the format cannot be told.
        DataError: no file is there, none holds a table, or they cannot be read.
    """
    source = next(each for each in find_sources(dataset) if each.role == "data")
    said = ReadOptions(dataset.encoding, dataset.delimiter, dataset.quote, dataset.escape, dataset.header)
    source = replace(source, options=said)
    step = -(-len(source.files) // MOST_FILES)
    files = source.files[::step]
    filled = next((file for file in files if file.size > 0), None)
    if filled is None:
        raise DataError(f"{source.files[0].url}: empty; give a file with rows")
    if dataset.header and source.format == "csv" and not _has_header(source.reader(), filled):
        source = replace(source, options=replace(said, header=False))
    reader = source.reader()
    columns: dict[str, None] = {}
    found = FirstRows(source, files, (), 0, source.options.header)
    for file in files:
        if file.size:
            columns.update(dict.fromkeys(reader.columns(file)))
            if form := reader.describe(file):
                found.forms.setdefault(form.words, form.remark)
    _check_table(filled, list(columns))
    found.columns, found.left_out = tuple(columns)[:MOST_COLUMNS], max(0, len(columns) - MOST_COLUMNS)
    return found


def _has_header(reader: Reader, file: SourceFile) -> bool:
    """Whether the first line of a CSV is a header: no number is among its fields, and none is a frequent value below it."""
    names = reader.columns(file)
    if any(not name.strip() for name in names[1:]):  # pandas leaves the name of its index blank
        return False
    numbered = [name for name in names if name.strip()] == [str(number) for number in range(len(names))]
    if (
        any(is_numeric(class_key(name)) for name in names) and not numbered
    ):  # pandas numbers what has no names
        return False
    again = Counter[str]()
    for _, values in islice(reader.rows(FileSegment(file), names), _HEADER_ROWS):
        if isinstance(values, RejectedRow):
            again.update([str(values.value)] if values.reason == "header repeated" else [])
        else:
            again.update(name for name, value in zip(names, values, strict=True) if value == name)
    return not any(again[name] > 1 for name in names)


def _check_table(file: SourceFile, columns: Sequence[str]) -> None:
    """Refuse what has no two columns.

    Raises:
        DataError: it has one column or none.
    """
    if len(columns) < 2:
        held = f"one column, {columns[0][:100]!r}" if columns else "no column"
        raise DataError(
            f"{file.url}: it has {held}, and a table with a text and a label is expected. If it is a CSV with another character "
            'between its columns, say which (dataset.delimiter=";"); otherwise write a table with a column for each'
            f"{SCORING_HINT}, for a data file with --text COLUMN"
        )
