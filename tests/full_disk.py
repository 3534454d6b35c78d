"""A disk that is full: failures that the operating system reports, from a chosen file on."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rayclean.folder import Folder


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A write beyond this size fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_from(number: int | None) -> Iterator[list[str]]:
    """Let every write into a run folder fail from one file on.

    Args:
        number: of the first file that finds no room, from 0; None: there is room for all.

    Yields:
        The paths of all files that were to be written, in order; it grows while the block runs.
    """
    begun: list[str] = []
    write = Folder._pipe

    def pipe(folder: Folder, path: str, *rest: Any) -> None:
        begun.append(re.sub(r"\.\w{8}\.tmp$", "", path))
        if number is None or len(begun) <= number:
            write(folder, path, *rest)
        else:
            with files_of_at_most(0):
                write(folder, path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "_pipe", pipe)
        yield begun
