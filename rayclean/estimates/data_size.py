"""How many rows a data set holds, without reading all of it."""

import posixpath
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from rayclean.datasets.base import FileSegment, Reader, SourceFile
from rayclean.datasets.sources import Source
from rayclean.datasets.text_files import COMPRESSED, uncompressed_name
from rayclean.errors import DataError

_HEAD = 4 * 1024 * 1024
"""Bytes of a file by which its rows are counted; a smaller file is counted whole."""
_PACKED_HEAD = 32 * 1024 * 1024
"""Bytes of a compressed file by which it is known how well it packs; what unpacks it reads some 100 kB ahead."""
_FILES = 20
"""Most files of which each is opened; the others are taken to be like them."""


@dataclass(frozen=True)
class RowCount:
    """A number of rows, and how it is known."""

    rows: int
    basis: str
    """In words, like `counted` or `by the first 4 MB of 3 files`."""


def count_rows_of(source: Source) -> RowCount:
    """The rows of all files of a source: exact where the format says it or the files are small.

    Raises:
        DataError: a file cannot be read.
    """
    reader = source.reader()
    if source.format in ("parquet", "huggingface"):
        return RowCount(
            sum(_rows_by_format(source, reader, file) for file in source.files), "as the files say"
        )
    files = source.files[:: -(-len(source.files) // _FILES)]
    counted = [_rows_of_text(reader, file) for file in files]
    rows, exact = sum(rows for rows, _ in counted), all(whole for _, whole in counted)
    if len(files) == len(source.files):
        return RowCount(rows, "counted" if exact else "by the first 4 MB of each file")
    share = max(sum(file.size for file in files), 1) / max(sum(file.size for file in source.files), 1)
    return RowCount(round(rows / share), f"by {len(files)} of {len(source.files):,} files")


def _rows_by_format(source: Source, reader: Reader, file: SourceFile) -> int:
    """Rows of a file whose format counts them."""
    if source.format == "parquet":
        import pyarrow.parquet as pq

        with fsspec.open(file.url, "rb") as handle:
            return int(pq.ParquetFile(handle).metadata.num_rows)
    return max(segment.stop or 0 for segment in reader.cut(file, 1))


def _rows_of_text(reader: Reader, file: SourceFile) -> tuple[int, bool]:
    """Rows of a file, and whether they are exact; a large one by its beginning."""
    unpack = COMPRESSED.get(posixpath.splitext(file.name.lower())[1])
    columns = reader.columns(file) if file.size else []
    if not columns or (unpack is None and file.size <= _HEAD):
        return _read_rows(file, reader, columns), True
    with fsspec.open(file.url, "rb", compression=None) as raw:
        content = raw if unpack is None else unpack(raw)
        head = content.read(_HEAD + 1)
        if len(head) <= _HEAD:
            return _read_rows(file, reader, columns), True
        whole = float(file.size)
        if unpack is not None:
            whole *= _unpacked(content, len(head)) / raw.tell()
    head = head[: head.rfind(b"\n") + 1] or head
    with tempfile.TemporaryDirectory(prefix="rayclean-count-") as folder:
        part = Path(folder) / (uncompressed_name(posixpath.basename(file.name)) or "part")
        part.write_bytes(head)
        rows = _read_rows(SourceFile(str(part), part.name, len(head)), reader, columns)
    return round(rows * whole / len(head)), False


def _unpacked(content: Any, read: int) -> int:
    """Bytes that were unpacked, after reading on as far as `_PACKED_HEAD`; `read` were before."""
    while read < _PACKED_HEAD and (more := len(content.read(_HEAD))):
        read += more
    return read


def _read_rows(file: SourceFile, reader: Reader, columns: Sequence[str]) -> int:
    """Rows of a file that is read to its end, or to where the cut of a JSON array makes it malformed."""
    rows = 0
    try:
        for _ in reader.rows(FileSegment(file), columns[:1]) if columns else ():
            rows += 1
    except DataError:
        if rows == 0:
            raise
    return rows
