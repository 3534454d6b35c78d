"""The run folder: `runs/<name>/<verb>/...` on any file system that fsspec knows.

A verb writes into `.partial/<verb>-<fingerprint>/` and moves it to `<verb>/` last, with `manifest.json` as the very
last thing that appears: a verb folder with a manifest is whole. The fingerprint hashes the fingerprints of the
verb's inputs, the part of the config that it reads and the version of its code; the same fingerprint means that
the folder is reused, another one that the verb runs again. After a crash the same command finds the partial folder
of the same fingerprint and goes on with the shards that are not there yet.

`ledger/` lies beside the verbs and is never removed: it holds every answer an annotator was ever paid for.
"""

import hashlib
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from rayclean.cache import content_digests
from rayclean.errors import ArtifactError, ConfigError

VERBS = ("load", "predict", "detect", "relabel", "train", "evaluate")
MANIFEST = "manifest.json"
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Protocols of file systems without folders."""


def fingerprint(*parts: Any) -> str:
    """16 hex digits of a hash over plain JSON values; equal values give equal fingerprints in any process.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


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
            f"cannot open {str(path)!r}: {error}; install the package of its protocol (rayclean[s3] for s3://, rayclean[gcs] for gs://)"
        ) from error
    return fs, plain


def stamp(info: dict[str, Any]) -> str:
    """What in fsspec's description of a file changes when its content does: an ETag or checksum, else a time.

    >>> stamp({"name": "x", "size": 3, "mtime": 12.5})
    '12.5'
    """
    keys = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created")
    return next((str(info[key]) for key in keys if info.get(key) is not None), "")


def content_stamps(fs: fsspec.AbstractFileSystem, infos: Mapping[str, dict[str, Any]]) -> list[str]:
    """The same for the same content: of each local file a digest, of any other its `stamp`.

    Args:
        fs: where the files are.
        infos: fsspec's description of each, by path.

    Raises:
        DataError: a local file cannot be read.
    """
    return content_digests([*infos]) if isinstance(fs, LocalFileSystem) else [*map(stamp, infos.values())]


def stamps(path: str) -> list[list[Any]]:
    """Name, size and content's stamp of the files that a path, folder or glob stands for: other files, other stamps.

    >>> stamps("no-such-file.parquet")
    []
    """
    fs, plain = filesystem(path)
    names = (
        fs.glob(plain) if fsspec.core.has_magic(plain) else ([plain] if fs.isfile(plain) else fs.find(plain))
    )
    infos = {name: fs.info(name) for name in sorted(map(str, names))}
    return [
        [posixpath.basename(name), info.get("size"), mark]
        for (name, info), mark in zip(infos.items(), content_stamps(fs, infos), strict=True)
    ]


@dataclass(frozen=True)
class Manifest:
    """What a finished verb says of itself."""

    verb: str
    fingerprint: str
    seconds: float
    """Wall time of the attempt that finished it."""
    rayclean: str
    """Version of rayclean that wrote it."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of the verb, for `metrics.json` and the report; plain JSON."""


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
        """Whether renames are atomic here."""
        return isinstance(self.fs, LocalFileSystem)

    def sub(self, *parts: str) -> "Folder":
        """A folder below this one."""
        return Folder(self.url(*parts))

    @property
    def name(self) -> str:
        """The last part of the path; a verb's unfinished folder has the same name in every attempt at the same work."""
        return self.root.rstrip("/").rpartition("/")[2]

    def exists(self, *parts: str) -> bool:
        """Whether a file or folder is there."""
        return bool(self.fs.exists(self.path(*parts)))

    def read_text(self, *parts: str) -> str:
        """Content of a text file.

        Raises:
            ArtifactError: it does not exist.
        """
        try:
            return str(self.fs.cat_file(self.path(*parts)).decode())
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{self.url(*parts)} does not exist; run the verb that writes it first"
            ) from error

    def write_text(self, text: str, *parts: str) -> None:
        """Write a text file whole or not at all."""
        self.write_bytes(text.encode(), *parts)

    def write_bytes(self, content: bytes | memoryview, *parts: str) -> None:
        """Write a file whole or not at all."""
        self._put(self.path(*parts), lambda path: self._pipe(path, content))

    def read_json(self, *parts: str) -> Any:
        """Content of a JSON file."""
        return json.loads(self.read_text(*parts))

    def write_json(self, value: Any, *parts: str) -> None:
        """Write a JSON file whole or not at all; NaN is refused, write null."""
        self.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False), *parts)

    def read_table(self, *parts: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file as a table; `columns` reads only those."""
        with self.fs.open(self.path(*parts), "rb") as file:
            return pq.read_table(file, columns=list(columns) if columns is not None else None)

    def write_table(self, table: pa.Table, *parts: str) -> None:
        """Write a Parquet file whole or not at all."""
        content = pa.BufferOutputStream()
        pq.write_table(table, content, compression="zstd")
        self.write_bytes(memoryview(content.getvalue()), *parts)

    def take(self, source: "Folder", name: str, *parts: str) -> None:
        """Have a file of another folder on the same file system here, too, whole or not at all: on a disk as a second name
        of the same content (nothing here is written in place), elsewhere as a copy.
        """

        def link(path: str) -> None:
            try:
                os.link(source.path(name), path)
            except OSError:  # a disk without links, or another one
                shutil.copyfile(source.path(name), path)

        self._put(
            self.path(*parts), link if self.is_local else lambda path: self.fs.copy(source.path(name), path)
        )

    def shards(self, *parts: str) -> list[str]:
        """Sorted names of the Parquet shards in a sub-folder ([] where it does not exist)."""
        try:
            entries = self.fs.ls(self.path(*parts), detail=False)
        except FileNotFoundError:
            return []
        names = (posixpath.basename(str(entry)) for entry in entries)
        return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))

    def remove(self, *parts: str) -> None:
        """Remove a file or a folder with all it holds; silent if it is not there."""
        if self.exists(*parts):
            self.fs.rm(self.path(*parts), recursive=True)

    def make(self, *parts: str) -> None:
        """Have a folder here. Object stores need none, and would make a bucket of a mistyped name."""
        self._make(self.path(*parts))

    def _make(self, path: str) -> None:
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        if not OBJECT_STORES & protocols:
            self.fs.makedirs(path, exist_ok=True)

    def _pipe(self, path: str, content: bytes | memoryview) -> None:
        if not self.is_local:
            # In one request: a file object that an exception closes (a signal, a full memory) uploads what it has got.
            self.fs.pipe_file(path, bytes(content))
            return
        with self.fs.open(path, "wb") as file:
            file.write(content)

    def _put(self, path: str, write: Any) -> None:
        self._make(posixpath.dirname(path))
        if not self.is_local:
            write(path)  # object stores show an object only when its upload has ended
            return
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)


class Run(Folder):
    """One run: `<output>/<name>/`."""

    shares_ledger = False
    """Whether others pay into the same ledger: then their answers count towards this one's budgets, too."""

    def manifest(self, verb: str) -> Manifest | None:
        """What the finished verb says of itself; None if it is not finished."""
        if not self.exists(verb, MANIFEST):
            return None
        try:
            return Manifest(**self.read_json(verb, MANIFEST))
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"{self.url(verb, MANIFEST)} was not written by this rayclean ({error}); "
                f"remove the folder {self.url(verb)} and run the verb again"
            ) from error

    def done(self, verb: str, print_: str) -> bool:
        """Whether the verb is finished with exactly this fingerprint."""
        manifest = self.manifest(verb)
        return manifest is not None and manifest.fingerprint == print_

    def require(self, verb: str) -> Folder:
        """The folder of a finished verb.

        Raises:
            ArtifactError: the verb has not run.
        """
        if self.manifest(verb) is None:
            raise ArtifactError(f"{self.url(verb)} is missing or unfinished: run `rayclean {verb}` first")
        return self.sub(verb)

    @contextmanager
    def exclusive(self, verb: str) -> Iterator[None]:
        """Nobody else writes this verb while the block runs: whoever works in a run folder has it for themselves."""
        yield

    def kept_features(self) -> Folder | None:
        """Where features of a frozen encoder outlive the verb that made them; None: nowhere, a run computes them once."""
        return None

    def outdate(self, verb: str) -> None:
        """Verbs after this one are made from what it was: they no longer look whole."""
        for after in VERBS[VERBS.index(verb) + 1 :]:
            self.remove(after, MANIFEST)

    def begin(self, verb: str, print_: str) -> Folder:
        """The folder to write into: a new one, or what a crashed attempt of the same fingerprint left."""
        partial = self.sub(".partial", f"{verb}-{print_}")
        partial.make()
        return partial

    def commit(
        self, verb: str, print_: str, partial: Folder, seconds: float, metrics: dict[str, Any]
    ) -> Manifest:
        """Make a partial folder the verb's folder; `manifest.json` appears last."""
        from rayclean import __version__

        manifest = Manifest(verb, print_, round(seconds, 3), __version__, metrics)
        self.remove(verb, MANIFEST)  # from here on the old folder no longer looks whole
        self.remove(verb)
        if self.is_local:
            partial.write_json(asdict(manifest), MANIFEST)
            os.makedirs(os.path.dirname(self.path(verb)), exist_ok=True)
            os.replace(
                partial.root, self.path(verb)
            )  # one rename: at any moment the work is in one of the two places
        else:
            self.fs.copy(partial.root.rstrip("/") + "/", self.path(verb) + "/", recursive=True)
            self.write_json(asdict(manifest), verb, MANIFEST)
        for other in self._partials(verb):
            self.remove(".partial", other)
        return manifest

    def _partials(self, verb: str) -> list[str]:
        try:
            entries = self.fs.ls(self.path(".partial"), detail=False)
        except FileNotFoundError:
            return []
        names = [posixpath.basename(str(entry).rstrip("/")) for entry in entries]
        return [name for name in names if name.startswith(f"{verb}-")]
