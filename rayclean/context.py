"""A context variable that has a value while a block runs."""

from collections.abc import Iterator
from contextlib import contextmanager
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
