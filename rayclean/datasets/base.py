"""The interface of a format: which columns a file has, where a large file may be cut, and its rows."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import DataError

ROWS_PER_BATCH = 1024
"""Rows that a reader holds in memory at once, where the format allows reading in batches."""


@dataclass(frozen=True)
class SourceFile:
    """One file, one split of a Hugging Face data set, or one built-in data set."""

    url: str
    """Where to open it, with its protocol."""
    name: str
    """Its identity: the path relative to the common root of the given paths, or the data set's name."""
    size: int
    """Bytes, used only to cut work into pieces; `sys.maxsize` where the size is unknown."""
    stamp: tuple[str, ...] = ()
    """Values that change when the content changes: a digest, ETag, checksum, time or version."""


@dataclass(frozen=True)
class FileSegment:
    """A part of a file that is read in one go."""

    file: SourceFile
    start: int = 0
    """First row group of a Parquet file, first row of a Hugging Face data set."""
    stop: int | None = None
    """End of the range [start, stop); None: the end of the file."""


@dataclass(frozen=True)
class FileForm:
    """How a file is written, as people read it."""

    words: str
    """For example `CSV: ';' between fields, quotes escaped by '\\', cp1252`."""
    remark: str = ""
    """What a reader of the terminal should check, because it was guessed; "" where it is plain or was said."""


@dataclass(frozen=True)
class ReadOptions:
    """What a config says about how files are written; what is None, a reader finds out by a sample of the file."""

    encoding: str | None = None
    """Encoding of text files."""
    delimiter: str | None = None
    """Character between the fields of a CSV."""
    quote: str | None = None
    """Character around the fields of a CSV; "" where none are quoted."""
    escape: str | None = None
    """Character before a quote inside a quoted field; "" where such quotes are doubled instead."""
    header: bool = True
    """Whether the first record of a CSV names the columns."""
    columns: tuple[str, ...] = ()
    """All columns that the config names: a reader recognises a header by them."""
    labels: tuple[str, ...] = ()
    """Those among them that hold labels: a reader recognises records by their values."""


@dataclass(frozen=True)
class WholeRows:
    """Some rows of a file with all of its columns."""

    numbers: npt.NDArray[np.int64]
    """[B] 0-based number of each row in the file, rising."""
    rows: pa.Table | list[dict[str, Any]]
    """[B] Values as the file holds them; of a row that cannot be read nulls, or no values."""


class Reader:
    """Base class of all formats. A reader holds options alone; it opens files in the worker."""

    sparse: ClassVar[bool] = False
    """Whether a row may leave out columns, so that some may first appear far down in a file."""

    def __init__(self, split: str = "train", options: ReadOptions = ReadOptions()):
        self.split = split
        self.options = options

    def describe(self, file: SourceFile) -> FileForm | None:
        """How a file is written, where the format leaves a choice; None where it leaves none.

        Raises:
            DataError: the file cannot be read.
        """
        return None

    def columns(self, file: SourceFile) -> list[str]:
        """Names of the columns of a file; [] for an empty file.

        Raises:
            DataError: the file cannot be read or is of another format.
        """
        raise NotImplementedError

    def label_names(self, file: SourceFile, column: str) -> list[str] | None:
        """Names that the file itself gives to a column of integers, or of lists of them (Hugging Face `ClassLabel`).

        `class_label.named_rows` puts these names in the place of the integers that `rows` yields.
        """
        return None

    def cut(self, file: SourceFile, size: int) -> list[FileSegment]:
        """Segments of about `size` units of `SourceFile.size`, in row order, for files larger than that."""
        return [FileSegment(file)]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RejectedRow]]:
        """The rows of a segment, of which at most a batch is in memory.

        Yields:
            0-based number of the row in the file, and the values of `columns` or why the row is unreadable.

        Raises:
            DataError: the file cannot be read further.
        """
        raise NotImplementedError

    # What follows is for giving a data set back: all columns, whether a config names them or not.

    def schema(self, file: SourceFile) -> pa.Schema | None:
        """Types of all columns of a file; None where every row has columns and types of its own.

        Raises:
            DataError: the file cannot be read.
        """
        return pa.schema([(name, pa.string()) for name in self.columns(file)])

    def whole_rows(self, segment: FileSegment) -> Iterator[WholeRows]:
        """All rows of a segment with all columns of `schema`, in batches.

        Raises:
            DataError: the file cannot be read further.
        """
        schema = self.schema(segment.file)
        assert schema is not None, "a format without a schema reads its rows itself"
        rows = self.rows(segment, schema.names)
        nothing = [None] * len(schema)
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            values = [nothing if isinstance(each, RejectedRow) else each for _, each in batch]
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(zip(*values, strict=True), schema, strict=True)
            ]
            yield WholeRows(_numbers(row for row, _ in batch), pa.Table.from_arrays(arrays, schema=schema))


def _numbers(rows: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.fromiter(rows, np.int64)


def check_unique(file: SourceFile, names: Sequence[str]) -> None:
    """Stop at a file in which two columns have one name: which one is meant cannot be known.

    Raises:
        DataError: names the columns.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{file.url}: it names {twice} more than once; rename the columns")
