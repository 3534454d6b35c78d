"""Handlers of signals that Ray's core would install in a driver, and how they are kept out.

The core takes SIGTERM and the signals of crashes for itself, so that they leave a stack trace in its log: a driver that is
told to end is then killed where it stands, without exit code or word of its own. When the core shuts down, it leaves
SIGTERM to the system's default. Python hears of neither. Ray has no option for this, but a static flag of its core says
whether the handlers are there already.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from rayclean.runtime import environment as environment

import ray

_FLAG = "_ZN3ray6RayLog36is_failure_signal_handler_installed_E"
"""`ray::RayLog::is_failure_signal_handler_installed_`."""


@contextmanager
def core_handlers_left_out() -> Iterator[None]:
    """Let `ray.init`, which the block calls, install no handlers in the core; what Python has installed stays.

    A Ray without the flag installs them.
    """
    flag = installed_flag()
    if flag is None or flag.value:
        yield
        return
    flag.value = True
    try:
        yield
    finally:
        flag.value = False  # otherwise the core would remove at its end what it has not installed


def installed_flag() -> ctypes.c_bool | None:
    """The flag in the memory of this process; None where this Ray has none."""
    try:
        return ctypes.c_bool.in_dll(ctypes.CDLL(ray._raylet.__file__), _FLAG)
    except (OSError, ValueError):
        return None
