"""The interface of a format: which columns a file has, where a large file may be cut, and its rows."""

import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import fsspec

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


class Reader:
    """Base class of all formats. A reader holds the split's name alone; it opens files in the worker."""

    sparse: ClassVar[bool] = False
    """Whether a row may leave out columns, so that some may first appear far down in a file."""

    def __init__(self, split: str = "train"):
        self.split = split

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


@contextmanager
def open_compressed(file: SourceFile) -> Iterator[Any]:
    """Open a file for reading bytes, decompressed by the ending of its name.

    Raises:
        DataError: the file cannot be opened or read, or is damaged.
    """
    try:
        with fsspec.open(file.url, "rb", compression="infer") as handle:
            yield handle
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{file.url}: cannot be read ({error}); check the path, permissions and compression"
        ) from error


def decode_utf8(content: bytes) -> str | RejectedRow:
    r"""UTF-8 bytes as text, or the reason for rejecting their row.

    >>> decode_utf8(b"caf\xe9").value
    'caf\\xe9'
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        return RejectedRow("not UTF-8", content[:200].decode("utf-8", "backslashreplace"))
