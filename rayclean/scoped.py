"""What holds while a block runs: the value of a context variable, the working folder."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def bound(variable: ContextVar[T], value: T) -> Iterator[None]:
    """The variable has this value in the block, in this thread and task; what it had before comes back after it."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def working_in(folder: str) -> AbstractContextManager[None]:
    """The folder where the command was given, in a worker that Ray started elsewhere: configs may name files relative to
    it. Nothing changes on a node that does not have it.
    """
    return chdir(folder) if os.path.isdir(folder) else nullcontext()
