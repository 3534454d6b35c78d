"""This node's cache, and what local files hold, known by it without reading a file twice."""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

from rayclean.errors import DataError
from rayclean.progress import task

CACHE_DAYS = 7
"""What nobody used for so long is removed when something is added."""
DIGESTS = "digests"
SMALL = 2**15
"""Bytes of a file that is read again as fast as it is looked up."""
LARGE = 2**30
"""Bytes that take so long to read that progress is shown."""
READERS = 8
"""Files read at once."""

Content = tuple[str, int, int, int, int]
"""Path, size, times of content and of inode, inode: as long as they are the same, a file holds the same."""
_seen: dict[Content, str] = {}


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


def forget_old(root: Path) -> None:
    """Remove what nobody used for `CACHE_DAYS`."""
    for entry in [*root.iterdir(), *(root / DIGESTS).glob("*")]:
        with suppress(OSError):  # another process removed it
            if entry.name != DIGESTS and time.time() - entry.stat().st_mtime > CACHE_DAYS * 86400:
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.parent.name == DIGESTS:
                    entry.unlink()


def content_digests(paths: Sequence[str]) -> list[str]:
    """32 hex digits of what each local file holds.

    A time alone would not do: the same data set has another one in every copy, checkout and new container, and nothing
    that was finished there would count any more. A file is read once on this node as long as nobody touches it.

    Raises:
        DataError: a file cannot be read.
    """
    contents = [_content(path) for path in paths]
    for content in contents:
        if content not in _seen and (kept := _kept(content)) is not None:
            _seen[content] = kept
    new = [content for content in dict.fromkeys(contents) if content not in _seen]
    total = sum(size for _, size, *_ in new)
    shown = task("read files once", total // 2**20, "MiB") if total >= LARGE else nullcontext()
    with shown as bar, ThreadPoolExecutor(READERS) as pool:
        for content, digest in zip(new, pool.map(_read_once, new), strict=True):
            _seen[content] = digest
            if bar is not None:
                bar.advance(content[1] // 2**20)
    return [_seen[content] for content in contents]


def _content(path: str) -> Content:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _read_once(content: Content) -> str:
    """Processes that want the same file wait for the first. A cache that cannot be used costs time alone."""
    if content[1] < SMALL:
        return _read(content[0])
    try:
        place = _place(content)
        place.parent.mkdir(exist_ok=True)
        kept = open(place, "a+")  # noqa: SIM115 (closed below)
    except (OSError, DataError):
        return _read(content[0])
    with kept:
        with suppress(OSError):
            fcntl.flock(kept, fcntl.LOCK_EX)
        kept.seek(0)
        digest = kept.read()
        if not _is_whole(digest):
            digest = _read(content[0])
            with suppress(OSError):
                kept.truncate(0)
                kept.write(digest)
                kept.flush()
    return digest


def _place(content: Content) -> Path:
    key = hashlib.blake2b(os.fsencode("\0".join(map(str, content))), digest_size=16).hexdigest()
    return cache_root() / DIGESTS / key


def _kept(content: Content) -> str | None:
    """What an earlier process read, and that it is used."""
    if content[1] < SMALL:
        return None
    try:
        place = _place(content)
        digest = place.read_text()
        os.utime(place)
    except (OSError, DataError):
        return None
    return digest if _is_whole(digest) else None


def _is_whole(digest: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", digest) is not None


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
