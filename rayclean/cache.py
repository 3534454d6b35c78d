"""The cache of this node: what can be made again, kept because making it takes long.

    <root>/inputs/    tokens and features that training maps into memory
    <root>/digests/   digests of local files, so that a data set is read once
    <root>/locks/     held while an entry is made
    <root>/models/    language models converted from GGUF

The root is `RAYCLEAN_CACHE`, else the user's cache folder of the platform (`~/.cache/rayclean` on Linux). It
may be a folder that holds other things, too: rayclean removes only entries of `inputs/`, `digests/` and
`locks/` that bear a name it gave them and that nobody has used for `CACHE_DAYS` days. Converted models stay
until the user removes them.
"""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import platformdirs
from filelock import FileLock

from rayclean import hashing
from rayclean.errors import DataError, ResourceError
from rayclean.progress import progress_bar

CACHE_DAYS = 7
"""An entry that nobody has used for so many days is removed when a new one is added."""
SMALL = 2**15
"""A file of fewer bytes is read again as fast as its digest is looked up."""
LARGE = 2**30
"""Reading so many bytes takes long enough that progress is shown."""
READERS = 8
"""Files that are read at the same time."""

Content = tuple[str, int, int, int, int]
"""Path, size, times of content and of inode, inode: as long as they are the same, a file holds the same."""
_seen: dict[Content, str] = {}

_OWN_NAMES = {
    "inputs": re.compile(
        r"(tokens|features)-[0-9a-f]{16}(\.\w+)?"
    ),  # with an ending: left by a killed process
    "digests": re.compile(r"[0-9a-f]{32}"),
    "locks": re.compile(r"((tokens|features)-[0-9a-f]{16}|[0-9a-f]{32})\.lock"),
}
"""The names that rayclean gives to entries of each sub-folder; nothing else is ever removed."""


def cache_root() -> Path:
    """The root of the cache, made where it is missing.

    Without `RAYCLEAN_CACHE`, and where the user's cache folder cannot be written (a read-only home), it is a
    folder of this user among the temporary files of the node.

    Raises:
        ResourceError: the folder that `RAYCLEAN_CACHE` names cannot be written.
    """
    named = os.environ.get("RAYCLEAN_CACHE")
    root = Path(named) if named else Path(platformdirs.user_cache_dir("rayclean", appauthor=False))
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(root, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if writable:
        return root
    if named:
        raise ResourceError(
            f"cannot write the cache {named!r}; set RAYCLEAN_CACHE to a folder of your own with 1 GB of free space"
        )
    root = Path(tempfile.gettempdir()) / f"rayclean-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():  # another user could put prepared files into it
        raise ResourceError(f"{root} belongs to another user; set RAYCLEAN_CACHE to a folder of your own")
    return root


def cache_folder(kind: Literal["inputs", "digests", "locks", "models"]) -> Path:
    """The sub-folder of the cache for one kind of entry, made where it is missing.

    Raises:
        ResourceError: the cache cannot be written.
    """
    folder = cache_root() / kind
    folder.mkdir(exist_ok=True)
    return folder


def cached_inputs(name: str, write: Callable[[Path], dict[str, Any]]) -> Path:
    """A folder of `inputs/`: the first process of this node writes it, the others wait for that one.

    Args:
        name: `tokens-<fingerprint>` or `features-<fingerprint>`, of what the content is made from.
        write: puts the content into an empty folder and returns what becomes `meta.json`.
    """
    assert _OWN_NAMES["inputs"].fullmatch(name), name  # else it would never be evicted
    root = cache_folder("inputs")
    folder = root / name
    with _lock(name):
        if not folder.exists():
            evict_unused()
            partial = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=root))
            try:
                (partial / "meta.json").write_text(json.dumps(write(partial)))
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        os.utime(folder)
    return folder


def _lock(name: str) -> FileLock:
    """One process of this node at a time makes the entry of this name; the lock goes with the process,
    however it ends.
    """
    return FileLock(cache_folder("locks") / f"{name}.lock")


def evict_unused() -> None:
    """Remove the entries of `inputs/`, `digests/` and `locks/` that rayclean made and nobody has used for
    `CACHE_DAYS` days.

    Links and names that rayclean does not give are left alone, whatever their age.
    """
    root, oldest = cache_root(), time.time() - CACHE_DAYS * 86400
    for kind, own_name in _OWN_NAMES.items():
        with suppress(FileNotFoundError):
            for entry in (root / kind).iterdir():
                with suppress(OSError):  # another process removed it
                    if not own_name.fullmatch(entry.name) or entry.is_symlink():
                        continue
                    if entry.stat().st_mtime > oldest:
                        continue
                    if entry.is_dir():
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        entry.unlink()


def content_digests(paths: Sequence[str]) -> list[str]:
    """A digest of 32 hex digits of the content of each local file.

    A time alone would not do: the same data set has another one in every copy, checkout and new container,
    and nothing that was finished there would count any more. A file is read once on this node as long as
    nobody touches it.

    Raises:
        DataError: a file cannot be read.
    """
    contents = [_content(path) for path in paths]
    for content in contents:
        if content not in _seen and (kept := _kept(content)) is not None:
            _seen[content] = kept
    new = [content for content in dict.fromkeys(contents) if content not in _seen]
    total = sum(size for _, size, *_ in new)
    shown = progress_bar("read files once", total // 2**20, "MiB") if total >= LARGE else nullcontext()
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
    """The digest of a file; processes that want the same file wait for the first one to read it.

    A cache that cannot be used costs the time of reading, nothing else.
    """
    if content[1] < SMALL:
        return _read(content[0])
    try:
        place = _place(content)
        with _lock(place.name):
            digest = _kept(content)
            if digest is None:
                digest = _read(content[0])
                with suppress(OSError):
                    place.write_text(digest)
            return digest
    except (OSError, ResourceError, NotImplementedError):  # NotImplementedError: a file system without locks
        return _read(content[0])


def _place(content: Content) -> Path:
    key = hashing.digest("\0".join(map(str, content)))
    return cache_folder("digests") / key


def _kept(content: Content) -> str | None:
    """The digest that an earlier process left, which counts as used now; None where there is none that is
    whole.
    """
    if content[1] < SMALL:
        return None
    try:
        place = _place(content)
        digest = place.read_text()
        os.utime(place)
    except (OSError, ResourceError):
        return None
    return digest if _is_whole(digest) else None


def _is_whole(digest: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", digest) is not None


def _read(path: str) -> str:
    try:
        return hashing.file_digest(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
