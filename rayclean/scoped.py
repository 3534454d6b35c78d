"""Values that hold while a block runs: of a context variable, of an environment variable, and the working folder."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def bound(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a context variable a value in the block, for this thread and task; afterwards it has its former
    one.
    """
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@contextmanager
def environment_set(name: str, value: str) -> Iterator[None]:
    """Give an environment variable of this process a value in the block; afterwards it has its former one, or none."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def working_in(folder: str) -> AbstractContextManager[None]:
    """Work in the folder where the command was given, so that relative paths in configs mean the same in a
    worker that Ray started elsewhere. On a node without that folder nothing changes.
    """
    return chdir(folder) if os.path.isdir(folder) else nullcontext()
