"""Advice on paths that hold nothing to read."""

import os
import posixpath
import unicodedata
from collections import Counter

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rayclean.plugins import did_you_mean


def path_hint(path: str) -> str:
    """Advice on a path that cannot be read: similar names in its folder if it is local and does not exist."""
    try:
        fs, plain = fsspec.core.url_to_fs(path)
        if not isinstance(fs, LocalFileSystem) or fs.exists(plain):
            return "; check permissions"
        entries = fs.ls(posixpath.dirname(plain), detail=False)[:20]
        names = [posixpath.basename(str(entry)) for entry in entries]
    except (OSError, ValueError, ImportError):
        return f"{_from_here(path)}; check the path and its protocol"
    same = [
        name
        for name in names
        if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", posixpath.basename(plain))
    ]
    if same:
        return (
            f"; it is there in another form of Unicode, as {same[0]!a}: name it so, or put * in the place of the letters "
            "with accents"
        )
    return (
        f"{_from_here(path)}; {did_you_mean(posixpath.basename(plain), names)}" if names else _from_here(path)
    )


def _from_here(path: str) -> str:
    """Where a relative path counts from, which many take for the folder of the config."""
    if "://" in path or path.startswith(("/", "~")):
        return ""
    return f"; it counts from the folder where the command runs, {os.getcwd()!r}, not from that of the config"


def files_found(fs: fsspec.AbstractFileSystem, folder: str) -> str:
    """The endings of the files in a folder that cannot be read, and what to do about them; "" if it is empty."""
    endings = Counter(posixpath.splitext(path)[1] or "none" for path in fs.find(folder))
    if not endings:
        return ""
    found = ", ".join(f"{ending} ({count:,})" for ending, count in endings.most_common(3))
    texts = (
        "; write a text per file into one table with the columns text and label" if ".txt" in endings else ""
    )
    return f", but others by their endings: {found}{texts}"
