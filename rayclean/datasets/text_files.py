"""Text files: decompressed within bounds, decoded, and read in lines of bounded length.

A small archive may unpack to terabytes, and a file may hold one line of gigabytes. Both would exhaust the memory or the
time of a worker, so both have bounds here, which no honest data set meets: `MAX_LINE` characters per line, and
`_MAX_RATIO` times the packed size.
"""

import bz2
import codecs
import gzip
import io
import itertools
import lzma
import posixpath
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa

from rayclean.datasets.base import SourceFile
from rayclean.errors import DataError

_SAMPLE_BYTES = 1024 * 1024
"""Bytes at the beginning of a file by which its encoding and its dialect are recognised."""

MAX_LINE = 16 * 1024 * 1024
"""Longest line, and longest CSV record or JSON value, in characters."""

_BLOCK = 256 * 1024
"""Characters that are read at once."""

_FREE_BYTES = 256 * 1024 * 1024
"""A file may unpack to this size whatever its packed size is."""
_MAX_RATIO = 250
"""Largest unpacked size of a larger file in multiples of its packed size; gzip packs ordinary text 3 to 20 times."""

COMPRESSED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda raw: pa.CompressedInputStream(
        raw, "zstd"
    ),  # the standard library has none before Python 3.14
}
"""Ending of a compressed file's name -> what unpacks it."""


def uncompressed_name(name: str) -> str:
    """The name of a file without the ending of its compression, in lower case.

    >>> uncompressed_name("a/Train.CSV.gz")
    'a/train.csv'
    """
    name = name.lower()
    ending = posixpath.splitext(name)[1]
    return name.removesuffix(ending) if ending in COMPRESSED else name


@contextmanager
def open_bytes(file: SourceFile) -> Iterator[Any]:
    """Open a file for reading bytes, decompressed by the ending of its name.

    Raises:
        DataError: the file cannot be opened or read, is damaged, or unpacks to more than is plausible.
    """
    try:
        with fsspec.open(file.url, "rb", compression=None) as raw:
            unpack = COMPRESSED.get(posixpath.splitext(file.name.lower())[1])
            with io.BufferedReader(_Counted(raw if unpack is None else unpack(raw), file, raw)) as handle:
                yield handle
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{file.url}: cannot be read ({error}); check the path, permissions and compression"
        ) from error


class _Counted(io.RawIOBase):
    """Bytes of a file, counted while they are unpacked."""

    def __init__(self, unpacked: Any, file: SourceFile, raw: Any):
        self.unpacked, self.file = unpacked, file
        self.packed = raw is not unpacked
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.unpacked.read(len(buffer))
        buffer[: len(content)] = content
        self.count += len(content)
        bound = max(_FREE_BYTES, _MAX_RATIO * self.file.size)
        if self.packed and self.count > bound:
            raise DataError(
                f"{self.file.url}: {self.file.size:,} bytes unpack to more than {bound:,}, over {_MAX_RATIO} times as many; "
                "no data set packs so well, so it may be made to fill the disk or the memory. If you trust it, unpack it yourself"
            )
        return len(content)


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no text as lone surrogates, one for each; `unmarked` writes them as escapes."""
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(_MARK + byte) for byte in error.object[error.start : error.end]), error.end


_MARK = 0xDC00
codecs.register_error("rayclean.mark", _mark)


def unmarked(text: str) -> str:
    r"""The text with bytes that are no text written as escapes.

    >>> unmarked(b"caf\xe9".decode("utf-8", "rayclean.mark"))
    'caf\\xe9'
    """
    if not has_marks(text):
        return text
    return "".join(
        f"\\x{ord(each) - _MARK:02x}" if _MARK <= ord(each) <= _MARK + 0xFF else each for each in text
    )


def has_marks(text: str) -> bool:
    """Whether a decoded text holds bytes that are no text in its encoding."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def encoding_name(encoding: str) -> str:
    """The name of an encoding as people write it.

    >>> encoding_name("utf8"), encoding_name("latin_1")
    ('UTF-8', 'latin_1')
    """
    name = codecs.lookup(encoding).name
    return name.upper() if name.startswith("utf-") else encoding


class TextLines:
    """The lines of a text with their ends, each at most `MAX_LINE` + 1 characters long.

    They are cut out of blocks: to ask the text for one line after another takes longer than most of what is done with them.

    Args:
        text: a text of which nothing has been read.
        newline: as `open_text` takes it.
    """

    def __init__(self, text: io.TextIOWrapper, newline: str):
        self.text, self.newline = text, newline

    def __iter__(self) -> Iterator[str]:
        """The lines, without a byte-order mark; of one that is too long the beginning, longer than `MAX_LINE`."""
        return itertools.chain.from_iterable(self._blocks())

    def _blocks(self) -> Iterator[list[str]]:
        begun = ""  # a line that may go on in the next block
        more = self.text.read(_BLOCK).removeprefix("\ufeff")
        while more:
            *lines, last = io.StringIO(begun + more, newline=self.newline).readlines()
            if len(begun) + len(more) > MAX_LINE:
                lines = [line[: MAX_LINE + 1] for line in lines]
                last = (
                    last if len(last) <= MAX_LINE else last[: MAX_LINE + 1] + last[-1]
                )  # it may be a line end
            yield lines
            begun, more = last, self.text.read(_BLOCK)
        if begun:
            yield [begun[: MAX_LINE + 1]]


@contextmanager
def open_text(file: SourceFile, encoding: str, newline: str = "\n") -> Iterator[TextLines]:
    """The lines of a file; bytes that are no text in its encoding are marked (`has_marks`).

    Args:
        file: which file.
        encoding: of the file.
        newline: a line feed where that alone ends a line, "" where carriage returns do as well.

    Raises:
        DataError: the file cannot be read.
    """
    with open_bytes(file) as handle:
        yield TextLines(io.TextIOWrapper(handle, encoding, errors="rayclean.mark", newline=newline), newline)


def first_bytes(file: SourceFile) -> tuple[bytes, bool]:
    """The first bytes of a file, and whether they are all of it.

    Raises:
        DataError: the file cannot be read.
    """
    with open_bytes(file) as handle:
        sample = handle.read(_SAMPLE_BYTES + 1)
    return sample[:_SAMPLE_BYTES], len(sample) <= _SAMPLE_BYTES
