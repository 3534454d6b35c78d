"""This node's cache, and what local files hold, known by it without reading a file twice."""

import functools
import hashlib
import os
import tempfile
from pathlib import Path

from rayclean.errors import DataError
from rayclean.progress import console

SMALL = 2**20
"""Bytes of a file that is quicker read again than looked up."""
LARGE = 2**30
"""Bytes of a file that takes so long to read that it is said."""


def cache_root() -> Path:
    """RAYCLEAN_CACHE, or a folder of this user alone among the temporary files of the node.

    Raises:
        DataError: the folder belongs to another user.
    """
    named = os.environ.get("RAYCLEAN_CACHE")
    root = Path(named) if named else Path(tempfile.gettempdir()) / f"rayclean-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise DataError(
            f"{root} belongs to another user; set RAYCLEAN_CACHE to a folder of your own on this node"
        )
    return root


def content_digest(path: str | Path) -> str:
    """32 hex digits of what a local file holds; read once as long as its place, size and time stay the same.

    A time alone would not do: the same data set has another one in every copy, checkout and new container, and nothing
    that was finished there would count any more.

    Raises:
        DataError: the file cannot be read.
    """
    where = os.path.realpath(path)
    try:
        status = os.stat(where)
        return _digest(where, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@functools.lru_cache(maxsize=65536)
def _digest(path: str, size: int, time: int) -> str:
    if size < SMALL:
        return _read(path)
    key = hashlib.blake2b(os.fsencode(f"{path}\0{size}\0{time}"), digest_size=16).hexdigest()
    known = cache_root() / "digests" / key
    try:
        return known.read_text()
    except FileNotFoundError:
        pass
    if size >= LARGE:
        console.print(f"{path}: reading {size / LARGE:,.1f} GiB once, to know them again", highlight=False)
    digest = _read(path)
    known.parent.mkdir(exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=known.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(digest)
    os.replace(partial, known)
    return digest


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
