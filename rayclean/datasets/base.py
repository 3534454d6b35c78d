"""The reader seam: a format says which columns a file has, where a large file may be cut, and what its rows are."""

import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class SourceFile:
    """One file (or one split of a Hugging Face data set, or a built-in data set)."""

    url: str
    """Where to open it, with its protocol."""
    name: str
    """What identifies it: the path relative to the common root of the given paths, or the data set's name."""
    size: int
    """Bytes; only decides how work is cut. `sys.maxsize` where it is only known once the file is open."""
    stamp: tuple[str, ...] = ()
    """What changes when the content changes: a digest, ETag, checksum, time or version."""


@dataclass(frozen=True)
class FileSegment:
    """A part of a file that is read in one go: parquet row groups or rows [start, stop); None: all of it."""

    file: SourceFile
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class RowFault:
    """Why a row cannot be used; `value` is what was found."""

    reason: str
    value: str = ""


def decoded(content: bytes) -> str | RowFault:
    r"""UTF-8 bytes as text, or why not.

    >>> decoded(b"caf\xe9").value
    'caf\\xe9'
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        return RowFault("not UTF-8", content[:200].decode("utf-8", "backslashreplace"))


READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What opening and reading a file, compressed or not, may raise."""


class Reader:
    """Base of all formats. Readers hold no state but the split; they open files where the work is done."""

    sparse: ClassVar[bool] = False
    """Whether a row may leave out columns, so that some may first appear far down in a file."""

    def __init__(self, split: str = "train"):
        self.split = split

    def columns(self, file: SourceFile) -> list[str]:
        """Names of the columns of a file; [] for a file of no bytes.

        Raises:
            DataError: the file cannot be read or is of another format.
        """
        raise NotImplementedError

    def label_names(self, file: SourceFile, column: str) -> list[str] | None:
        """Names that the file itself gives to an integer label column (Hugging Face `ClassLabel`)."""
        return None

    def cut(self, file: SourceFile, size: int) -> list[FileSegment]:
        """Segments of about `size` units of `File.size`, in row order, for files larger than that."""
        return [FileSegment(file)]

    def rows(
        self, segment: FileSegment, columns: Sequence[str]
    ) -> Iterator[tuple[int, list[Any] | RowFault]]:
        """0-based row in the file and the values of `columns`, or why the row is unreadable; a batch in memory.

        Raises:
            DataError: the file cannot be read further.
        """
        raise NotImplementedError
