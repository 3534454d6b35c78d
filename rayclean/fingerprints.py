"""Fingerprints tell, without repeating finished work, whether it belongs to this config, code and data."""

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
    """A hash over JSON values, 16 hexadecimal digits; equal values give equal fingerprints in any process.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return digest(text, digits=16)


def stamp(info: dict[str, Any]) -> str:
    """The part of fsspec's description of a file that changes with its content: ETag, checksum or time.

    >>> stamp({"name": "x", "size": 3, "mtime": 12.5})
    '12.5'
    """
    keys = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created")
    return next((str(info[key]) for key in keys if info.get(key) is not None), "")


def content_stamps(fs: fsspec.AbstractFileSystem, infos: Mapping[str, dict[str, Any]]) -> list[str]:
    """A value per file that changes with its content: a digest for local files, the `stamp` for others.

    Args:
        fs: file system of the files.
        infos: fsspec's description of each file, by path.

    Raises:
        DataError: a local file cannot be read.
    """
    return content_digests([*infos]) if isinstance(fs, LocalFileSystem) else [*map(stamp, infos.values())]


def stamps(path: str) -> list[list[Any]]:
    """Name, size and content stamp of every file that a path, folder or glob stands for.

    >>> stamps("no-such-file.parquet")
    []
    """
    fs, plain = filesystem(path)
    names = (
        fs.glob(plain) if fsspec.core.has_magic(plain) else ([plain] if fs.isfile(plain) else fs.find(plain))
    )
    infos = {name: fs.info(name) for name in sorted(map(str, names))}
    return [
        [posixpath.basename(name), info.get("size"), content]
        for (name, info), content in zip(infos.items(), content_stamps(fs, infos), strict=True)
    ]
