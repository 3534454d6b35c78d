"""Fingerprints: whether finished work is of this config, this code and these data, known without repeating it."""

import json
import posixpath
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rayclean.cache import content_digests
from rayclean.folder import filesystem
from rayclean.hashing import digest


def fingerprint(*parts: Any) -> str:
    """16 hex digits of a hash over plain JSON values; equal values give equal fingerprints in any process.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return digest(text, digits=16)


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
