"""Folders on any file system that fsspec knows, with files that are whole or absent."""

import json
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from rayclean.errors import ArtifactError, ConfigError

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Protocols of file systems without folders."""
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.tmp$")
_FEW_ROWS = 10_000
"""Rows of a table that are read sooner by one thread than by several."""
_ANEW = "run the command that its folder is named after with --again, such as 'rayclean load CONFIG --again'"


def filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path as that file system writes it (absolute where local).

    Raises:
        ConfigError: the URL's protocol is unknown, or its package is not installed.
    """
    try:
        # Other processes write here, too: a listing that is kept would hide what they wrote.
        fs, plain = fsspec.core.url_to_fs(str(path), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"cannot open {str(path)!r}: {error}; install the package of its protocol "
            "(rayclean[s3] for s3://, rayclean[gcs] for gs://)"
        ) from error
    return fs, plain


class Folder:
    """A folder on any file system, with whole-file writes: a file that exists is whole."""

    def __init__(self, root: str):
        self.fs, self.root = filesystem(root)

    def path(self, *parts: str) -> str:
        """Path of something in the folder, as its file system writes it."""
        return posixpath.join(self.root, *parts)

    def url(self, *parts: str) -> str:
        """Path with its protocol, to be opened anywhere (another process, pyarrow, Ray)."""
        return str(self.fs.unstrip_protocol(self.path(*parts))) if not self.is_local else self.path(*parts)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local or network disk, where renames are atomic."""
        return isinstance(self.fs, LocalFileSystem)

    def sub(self, *parts: str) -> "Folder":
        """A folder below this one."""
        return Folder(self.url(*parts))

    @property
    def name(self) -> str:
        """The last part of the path; a verb's unfinished folder has the same name in every attempt at the
        same work.
        """
        return self.root.rstrip("/").rpartition("/")[2]

    def exists(self, *parts: str) -> bool:
        """Whether a file or folder exists."""
        return bool(self.fs.exists(self.path(*parts)))

    def read_text(self, *parts: str) -> str:
        """The content of a text file.

        Raises:
            ArtifactError: it does not exist.
        """
        try:
            return str(self.fs.cat_file(self.path(*parts)).decode())
        except FileNotFoundError as error:
            raise ArtifactError(f"{self.url(*parts)} does not exist: {_ANEW}") from error

    def write_text(self, text: str, *parts: str) -> None:
        """Write a text file whole or not at all."""
        self.write_bytes(text.encode(), *parts)

    def write_bytes(self, content: bytes | memoryview, *parts: str, durable: bool = False) -> None:
        """Write a file whole or not at all; a `durable` one survives a loss of power once this returns."""
        self._put(self.path(*parts), lambda path: self._pipe(path, content, durable))

    def read_json(self, *parts: str) -> Any:
        """The content of a JSON file.

        Raises:
            ArtifactError: it does not exist, or is no JSON.
        """
        try:
            return json.loads(self.read_text(*parts))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(
                f"{self.url(*parts)} is no JSON ({error}): it was cut or changed; {_ANEW}"
            ) from error

    def write_json(self, value: Any, *parts: str) -> None:
        """Write a JSON file whole or not at all; NaN is refused, write null."""
        self.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False), *parts)

    def read_table(self, *parts: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file as a table; `columns` reads only those.

        Raises:
            ArtifactError: it is no whole Parquet file.
        """
        path, wanted = self.path(*parts), list(columns) if columns is not None else None
        with pa.OSFile(path) if self.is_local else self.fs.open(path, "rb") as file:
            try:
                # Twice as fast as `pq.read_table` for shards of some hundred rows, of which runs read thousands.
                parquet = pq.ParquetFile(file, pre_buffer=not self.is_local)
                table = parquet.read(wanted, use_threads=parquet.metadata.num_rows > _FEW_ROWS)
                return table if wanted is None else table.select(wanted)
            except (pa.ArrowInvalid, KeyError) as error:
                raise ArtifactError(
                    f"{self.url(*parts)} is no whole Parquet file ({error}): it was cut or changed; {_ANEW}"
                ) from error

    def write_table(self, table: pa.Table, *parts: str) -> None:
        """Write a Parquet file whole or not at all."""
        content = pa.BufferOutputStream()
        pq.write_table(table, content, compression="zstd")
        self.write_bytes(memoryview(content.getvalue()), *parts)

    def write_file(self, fill: Callable[[str], None], *parts: str) -> None:
        """Write a file of any size whole or not at all.

        Args:
            fill: writes the content to a local path.
            parts: of the file's path in the folder.
        """

        def upload(path: str) -> None:
            with tempfile.TemporaryDirectory(prefix="rayclean-") as folder:
                local = os.path.join(folder, "file")
                fill(local)
                self.fs.put_file(local, path)

        self._put(self.path(*parts), fill if self.is_local else upload)

    def take(self, source: "Folder", name: str, *parts: str) -> None:
        """Put a file of another folder on the same file system into this one, whole or not at all: on a disk
        as a hard link (files are never written in place), elsewhere as a copy.
        """

        def link(path: str) -> None:
            try:
                os.link(source.path(name), path)
            except OSError:  # a disk without links, or another one
                shutil.copyfile(source.path(name), path)

        self._put(
            self.path(*parts), link if self.is_local else lambda path: self.fs.copy(source.path(name), path)
        )

    def names(self, *parts: str) -> list[str]:
        """Sorted names of what lies in a sub-folder ([] where it does not exist)."""
        try:
            entries = self.fs.ls(self.path(*parts), detail=False)
        except (FileNotFoundError, NotADirectoryError):  # a file may be in the way
            return []
        return sorted(posixpath.basename(str(entry).rstrip("/")) for entry in entries)

    def shards(self, *parts: str) -> list[str]:
        """Sorted names of the Parquet shards in a sub-folder ([] where it does not exist)."""
        names = self.names(*parts)
        return [name for name in names if name.startswith("part-") and name.endswith(".parquet")]

    def rows_with(
        self, part: str, column: str, wanted: Iterable[int | str], columns: Sequence[str] | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """The rows of a sub-folder's shards whose value of a column is one of some, shard by shard with its name.

        Args:
            part: name of the sub-folder; one that does not exist has no rows.
            column: of integers or of texts, which is read of every shard.
            wanted: values.
            columns: those of the tables, without `column` unless it is named; None: all. They are read only of shards that hold
                a wanted value.
        """
        values = list(wanted)
        for shard in self.shards(part) if values else []:
            found = self.read_table(part, shard, columns=[column])[column]
            hit = pc.is_in(found, pa.array(values, found.type))
            if pc.any(hit).as_py():
                yield shard, self.read_table(part, shard, columns=columns).filter(hit)

    def remove(self, *parts: str) -> None:
        """Remove a file or a folder with all it holds; silent if it is not there."""
        if self.exists(*parts):
            self.fs.rm(self.path(*parts), recursive=True)

    def make(self, *parts: str) -> None:
        """Make the folder where it is missing, except on object stores, which need none and would make a
        bucket of a mistyped name.
        """
        self._make(self.path(*parts))

    def _make(self, path: str) -> None:
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        if not OBJECT_STORES & protocols:
            self.fs.makedirs(path, exist_ok=True)

    def _pipe(self, path: str, content: bytes | memoryview, durable: bool) -> None:
        if not self.is_local:
            # In one request: a file object that an exception closes (a signal, a full memory) uploads what it
            # has got.
            self.fs.pipe_file(path, bytes(content))
            return
        with open(path, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())

    def remove_unfinished(self) -> None:
        """Remove the files that killed processes had begun to write in this folder, at any depth."""
        for folder, _, names in os.walk(self.root) if self.is_local else ():
            for name in filter(_UNFINISHED.search, names):
                with suppress(FileNotFoundError):
                    os.remove(os.path.join(folder, name))

    def _put(self, path: str, write: Any) -> None:
        self._make(posixpath.dirname(path))
        if not self.is_local:
            write(path)  # object stores show an object only when its upload has ended
            return
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            write(temporary)
            os.replace(temporary, path)
        except OSError as error:
            if error.filename is None or error.filename == temporary:  # a failed write names no file
                error.filename, error.filename2 = path, None
            raise
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
