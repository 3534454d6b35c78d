"""The data set's own files, which no export may replace or add to."""

import os
import posixpath
import re
from collections.abc import Sequence

from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from rayclean.config import DatasetConfig
from rayclean.config.export_section import ExportConfig
from rayclean.datasets import BUILTIN, huggingface
from rayclean.datasets.sources import Source
from rayclean.errors import ConfigError
from rayclean.exports.plan import file_names, is_folder
from rayclean.exports.target import MANIFEST_FILE
from rayclean.folder import filesystem


def check_apart(config: DatasetConfig, sources: Sequence[Source], options: ExportConfig) -> None:
    """Stop at a target that would take the place of the data set, or become a part of it.

    Args:
        config: that names the data set.
        sources: all of its files, those for development and testing among them.
        options: of the export.

    Raises:
        ConfigError: the target is a file of the data set, holds one, or would be read as one.
    """
    target = _place(options.to)
    for source in sources:
        if source.format in BUILTIN:
            continue
        for file in source.files:
            if not file.url.startswith(huggingface.PREFIX) and _is_in(_place(file.url), target):
                raise ConfigError(
                    f"export.to = {options.to!r} is the data set itself, which is never replaced (it holds {file.url}); name "
                    "another place"
                )
        where, named = _named(config, source)
        for path in [named] if isinstance(named, str) else named:
            if path.startswith(huggingface.PREFIX):
                continue
            if _reads(path, _written(options, source, target)):
                raise ConfigError(
                    f"export.to = {options.to!r} lies where {where} = {path!r} looks for data, so the next run would read it as "
                    f"a part of the data set; name a place outside of it"
                )


def _named(config: DatasetConfig, source: Source) -> tuple[str, str | Sequence[str]]:
    """The option that names the files of a source, and what it says."""
    split = {"dev": config.dev, "test": config.test}.get(source.role)
    if split is None or split.path is None:
        return "dataset.path", config.path
    return f"dataset.{source.role}.path", split.path


def _written(options: ExportConfig, source: Source, target: str) -> list[str]:
    """The files that an export of a source writes."""
    if not is_folder(options):
        return [target]
    return [f"{target}/{name}" for name in (MANIFEST_FILE, *file_names(options, source))]


def _reads(path: str, places: Sequence[str]) -> bool:
    """Whether a path of the data set, as `datasets.sources` reads it, stands for one of some files."""
    fs, plain = filesystem(path)
    if has_magic(plain) and not fs.exists(plain):
        root = plain
        while has_magic(root):
            root = posixpath.dirname(root)
        folder = _place(str(fs.unstrip_protocol(root)))
        matches = re.compile(glob_translate(f"{folder}{plain.removeprefix(root.rstrip('/'))}")).match
        return any(matches(place) and "/." not in place.removeprefix(folder) for place in places)
    if not fs.isdir(plain):
        return False
    folder = _place(path)
    inside = [posixpath.relpath(place, folder).split("/") for place in places if _is_in(place, folder)]
    return any(not any(part.startswith((".", "_")) for part in parts) for parts in inside)


def _is_in(place: str, folder: str) -> bool:
    return f"{place}/".startswith(f"{folder}/")


def _place(url: str) -> str:
    """One spelling for all paths and URLs of the same file."""
    fs, plain = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return os.path.realpath(plain)
    return str(fs.unstrip_protocol(plain)).rstrip("/")
