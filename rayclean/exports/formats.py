"""The interface of a format: parts are written side by side, and joined to a file in their order."""

import bz2
import gzip
import lzma
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, TypeAlias

import pyarrow as pa

from rayclean.folder import Folder

ExportRows: TypeAlias = pa.Table | list[dict[str, Any]]
"""Some rows of an output: a table of its schema, or objects where it has none."""

COMPRESSIONS: dict[str, Callable[[str], Any]] = {
    ".gz": lambda path: gzip.GzipFile(path, "wb", mtime=0),
    ".bz2": lambda path: bz2.BZ2File(path, "wb"),
    ".xz": lambda path: lzma.LZMAFile(path, "wb"),  # noqa: SIM115  # whoever asks for it closes it
    ".zst": lambda path: pa.CompressedOutputStream(path, "zstd"),
}
"""Ending of a compressed file's name -> what packs it."""
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class CsvStyle:
    """How a CSV is written; of a CoNLL file the delimiter and the encoding count."""

    delimiter: str = ","
    quote: str = '"'
    """"" where fields are not quoted."""
    escape: str = ""
    """Before a quote inside of a field; "": quotes are doubled."""
    encoding: str = "utf-8"
    has_mark: bool = False
    """Whether a byte-order mark comes first."""
    has_header: bool = True
    is_safe: bool = False
    """Whether cells that a spreadsheet would run get a quote before them."""


@dataclass(frozen=True)
class TokenColumns:
    """The columns of a CoNLL file, each with a value per token."""

    tokens: str
    """The first one."""
    between: tuple[str, ...]
    tags: str
    """The last one."""


@dataclass(frozen=True)
class OutputFile:
    """One file, or one folder of the Hugging Face library, that an export writes."""

    name: str
    """Its path below the target; "" for the target itself."""
    format: str
    """One of `config.export_section.ExportFormat`."""
    schema: pa.Schema | None
    """All of its columns; None where every row has columns of its own."""
    compression: str = ""
    """One of `COMPRESSIONS`, or ""."""
    style: CsvStyle = CsvStyle()
    is_array: bool = False
    """Whether JSON objects are the elements of an array instead of lines."""
    token_columns: TokenColumns | None = None
    """What a CoNLL file holds of the columns; None for other formats."""
    added: int = 0
    """How many columns the export adds to those of the data; they come last."""


class FileFormat:
    """Base class of the formats."""

    is_folder: ClassVar[bool] = False
    """Whether it writes a folder instead of a file."""

    def __init__(self, output: OutputFile):
        self.output = output

    def write_part(self, batches: Iterable[ExportRows], path: str) -> None:
        """Write rows to a local path, in a form that `join` reads."""
        raise NotImplementedError

    def join(self, parts: Folder, names: Sequence[str], path: str) -> None:
        """Put parts together to the file (or folder) at a local path, which does not exist."""
        raise NotImplementedError


def part_chunks(parts: Folder, name: str) -> Iterator[bytes]:
    """The bytes of a part."""
    with parts.fs.open(parts.path(name), "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextmanager
def packed(path: str, compression: str) -> Iterator[BinaryIO]:
    """A file that is written, compressed or not."""
    with COMPRESSIONS[compression](path) if compression else open(path, "wb") as file:
        yield file


def compression_of(name: str) -> str:
    """The ending of a name that says how the file is compressed; "" if it is not.

    >>> compression_of("a.csv.GZ"), compression_of("a.csv")
    ('.gz', '')
    """
    ending = posixpath.splitext(name.lower())[1]
    return ending if ending in COMPRESSIONS else ""
