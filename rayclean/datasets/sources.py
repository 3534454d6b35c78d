"""Which files a config names, and how they are cut into pieces of work.

A path is a file, a folder (searched at all depths; names that begin with `.` or `_` are left out), a glob, or
a list of them, on any file system that fsspec knows. A file is identified by its path relative to the deepest
folder that all given paths have in common, so that moving the whole data set changes no `example_id`.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from rayclean.config import DatasetConfig
from rayclean.datasets import BUILTIN, FORMATS, huggingface
from rayclean.datasets.base import FileSegment, Reader, ReadOptions, SourceFile
from rayclean.datasets.columns import read_options
from rayclean.datasets.partitions import PartitionedReader
from rayclean.datasets.path_hints import files_found, path_hint
from rayclean.datasets.text_files import COMPRESSED, uncompressed_name
from rayclean.errors import ConfigError, DataError
from rayclean.fingerprints import content_stamps
from rayclean.plugins import did_you_mean, resolve

_ENDINGS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".conll": "conll",
    ".iob": "conll",
    ".bio": "conll",
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")

UNFINISHED_EXPORT = "_rayclean_unfinished.json"
"""File in a folder to which an export is still written, or was when it was killed."""
PIECE_BYTES = 32 * 1024 * 1024
"""Approximate size of a piece of work."""
PIECE_FILES = 256
"""Most small files in one piece."""


@dataclass(frozen=True)
class Source:
    """The files of one role: `data` (dataset.path), `dev` or `test` (their own paths)."""

    role: str
    format: str
    split: str
    files: tuple[SourceFile, ...]
    options: ReadOptions = field(default_factory=ReadOptions)

    def reader(self) -> Reader:
        """A reader of the format."""
        reader: Reader = resolve("format", {**FORMATS, **BUILTIN}, self.format)(self.split, self.options)
        return (
            PartitionedReader(reader) if self.format in FORMATS and self.format != "huggingface" else reader
        )


@dataclass(frozen=True)
class SourcePiece:
    """One piece of work: small files together, or a part of a large one."""

    index: int
    source: Source
    """The role and format, without the files: a thousand names need not be sent with every piece."""
    segments: tuple[FileSegment, ...]

    @property
    def name(self) -> str:
        """The beginning of the names of its shards, for example `part-00012`."""
        return f"part-{self.index:05d}"


def find_sources(config: DatasetConfig) -> list[Source]:
    """The files of the data set, and of the development and test set where the config names files or a split for them.

    Raises:
        ConfigError: the format cannot be recognised, a built-in data set is not installed, or a split is asked of data
            without splits.
        DataError: a path does not exist or cannot be listed.
    """
    sources = [_find_source(config, "data", config.path, config.hf_split)]
    for role, split in (("dev", config.dev), ("test", config.test)):
        if split.has_source:
            path = config.path if split.path is None else split.path
            source = _find_source(config, role, path, split.split or config.hf_split)
            if split.split is not None:
                _check_has_splits(source, split.split)
            sources.append(source)
    return sources


def cut_into_pieces(sources: Sequence[Source]) -> list[SourcePiece]:
    """Pieces in (role, file, row) order; they depend on nothing but the names and sizes of the files."""
    pieces: list[SourcePiece] = []
    for source in sources:
        reader = source.reader()
        small_files: list[FileSegment] = []
        without_files = replace(source, files=())

        def flush(segments: list[FileSegment], source: Source = without_files) -> None:
            if segments:
                pieces.append(SourcePiece(len(pieces), source, tuple(segments)))
                segments.clear()

        filled = 0
        for file in source.files:
            if file.size > PIECE_BYTES:
                flush(small_files)
                for segment in reader.cut(file, PIECE_BYTES):
                    flush([segment])
                filled = 0
                continue
            if filled + file.size > PIECE_BYTES or len(small_files) >= PIECE_FILES:
                flush(small_files)
                filled = 0
            small_files.append(FileSegment(file))
            filled += file.size
        flush(small_files)
    return pieces


def _find_source(config: DatasetConfig, role: str, path: str | Sequence[str], split: str) -> Source:
    paths = [path] if isinstance(path, str) else list(path)
    where = "dataset.path" if role == "data" else f"dataset.{role}.path"
    if not paths:
        raise ConfigError(f"{where} is an empty list; name at least one file")
    format_: str = config.format
    if format_ == "builtin" or (format_ == "auto" and len(paths) == 1 and paths[0] in BUILTIN):
        return _builtin_source(role, where, paths, split)
    if format_ == "auto" and all(_is_huggingface(each) for each in paths):
        format_ = "huggingface"
    if format_ == "huggingface":
        files = tuple(huggingface.source_file(each) for each in paths)
    else:
        files = _list_files(where, paths, any_ending=format_ != "auto")
        format_ = _format_of(where, files) if format_ == "auto" else format_
    return Source(role, format_, split, files, read_options(config, role))


def _check_has_splits(source: Source, split: str) -> None:
    """Stop unless the files of a source are data sets of Hugging Face from which a split can be chosen."""
    without = [
        file.url
        for file in source.files
        if source.format != "huggingface" or not huggingface.has_splits(file.url)
    ]
    if without:
        where = f"dataset.{source.role}"
        raise ConfigError(
            f"{where}.split = {split!r}: {without[0]!r} has no splits; only data sets of the Hugging Face hub and folders "
            f"saved as a DatasetDict do. Name files in {where}.path, or hold out a part of the data with {where}.share"
        )


def _builtin_source(role: str, where: str, paths: list[str], split: str) -> Source:
    if len(paths) > 1 or paths[0] not in BUILTIN:
        raise ConfigError(
            f"{where}: {paths} is no built-in data set; {did_you_mean(paths[0], list(BUILTIN))}"
        )
    file: SourceFile = resolve("built-in data set", BUILTIN, paths[0]).source_file()
    return Source(role, paths[0], split, (file,))


def _is_huggingface(path: str) -> bool:
    if path.startswith(huggingface.PREFIX):
        return True
    if "://" in path and not path.startswith("file://"):
        return False  # needs format = "huggingface": looking would cost all other users two requests
    return huggingface.is_saved(*fsspec.core.url_to_fs(path))


def _format_of(where: str, files: tuple[SourceFile, ...]) -> str:
    found = sorted({_ending(file.name) or "?" for file in files})
    formats = {_ENDINGS.get(ending) for ending in found}
    if None in formats:
        name = next(file.name for file in files if _ENDINGS.get(_ending(file.name)) is None)
        if _ending(name) in _ARCHIVES or name.lower().endswith(".tar.gz"):
            raise ConfigError(f"{where}: {name!r} is an archive; unpack it, and name the files inside")
        if _ending(name) in _SPREADSHEETS:
            raise ConfigError(
                f"{where}: {name!r} is a spreadsheet; save its table as CSV (UTF-8), and name that file"
            )
        raise ConfigError(
            f"{where}: cannot tell the format of {name!r} by its ending; known: "
            f"{', '.join(_ENDINGS)} (compressed: {', '.join(COMPRESSED)}). Set dataset.format to parquet, "
            "csv, jsonl or conll"
        )
    if len(formats) > 1:
        raise ConfigError(
            f"{where}: files of several formats ({', '.join(found)}); name one kind with a glob, or set "
            "dataset.format"
        )
    return str(formats.pop())


def _ending(name: str) -> str:
    return posixpath.splitext(uncompressed_name(name))[1]


def _list_files(where: str, paths: list[str], any_ending: bool) -> tuple[SourceFile, ...]:
    """All files under the given paths, each once, sorted by name."""
    found: dict[str, dict[str, Any]] = {}
    roots: list[str] = []
    systems: dict[str, fsspec.AbstractFileSystem] = {}
    for path in paths:
        try:
            fs, plain = fsspec.core.url_to_fs(path)
            systems[fs.unstrip_protocol(plain).partition("://")[0]] = fs
            root, infos = _expand(fs, plain, any_ending)
        except (OSError, ValueError, ImportError) as error:
            raise DataError(
                f"{where}: cannot read {path!r} ({type(error).__name__}: {error}){path_hint(path)}"
            ) from error
        if not infos:
            raise DataError(
                f"{where}: {path!r} holds no file to read{files_found(fs, plain)}; expected files ending in {', '.join(_ENDINGS)}"
            )
        roots.append(root)
        found.update(infos)
    if len(systems) > 1:
        raise ConfigError(
            f"{where}: paths on several file systems ({', '.join(sorted(systems))}); bring them together on "
            "one"
        )
    (fs,) = systems.values()
    common = posixpath.commonpath(roots)
    files = [
        SourceFile(
            url=path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path)),
            name=posixpath.relpath(path, common or "."),
            size=int(info.get("size") or 0),
            stamp=(stamp,),
        )
        for (path, info), stamp in zip(found.items(), content_stamps(fs, found), strict=True)
    ]
    return tuple(sorted(files, key=lambda file: file.name))


def _expand(
    fs: fsspec.AbstractFileSystem, plain: str, any_ending: bool
) -> tuple[str, dict[str, dict[str, Any]]]:
    """The folder that names are relative to, and path -> info of each file."""
    if has_magic(plain) and not fs.exists(plain):
        root = plain
        while has_magic(root):
            root = posixpath.dirname(root)
        infos = {
            path: info
            for path, info in fs.glob(plain, detail=True).items()
            if info.get("type") != "directory" and "/." not in path.removeprefix(root)  # like a shell
        }
        if not infos:
            sets = (
                "; brackets are a set of characters there, write [[] for one of a folder's name"
                if "[" in plain
                else ""
            )
            raise FileNotFoundError(f"no file matches {plain}{sets}")
        return root, infos
    info = fs.info(plain)
    if info.get("type") != "directory":
        return posixpath.dirname(plain), {plain: info}
    root = plain.rstrip("/")
    found = fs.find(plain, detail=True)
    if unfinished := [path for path in found if posixpath.basename(path) == UNFINISHED_EXPORT]:
        raise FileNotFoundError(
            f"{posixpath.dirname(unfinished[0])} holds a part of an export: run the export again, which goes on"
        )
    infos = {
        path: info
        for path, info in found.items()
        if not any(part.startswith((".", "_")) for part in posixpath.relpath(path, root).split("/"))
        and (any_ending or _ending(path) in _ENDINGS)
    }
    return root, infos
