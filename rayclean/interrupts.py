"""Ctrl-C, SIGTERM and SIGHUP: the one place that ends a command in order, in time, and says how to go on.

    with Interrupts("rayclean clean my.toml"):
        ...                                     # KeyboardInterrupt is raised in here

The first signal raises `KeyboardInterrupt` in the main thread, so that every `finally` runs. A thread counts the
seconds meanwhile: where the main thread does not come out of a library's loop within `GRACE_SECONDS`, or a second
signal arrives, the process ends at once. Nothing is lost by that: a folder that exists is whole, however a process
ends. The thread hears of signals from the kernel (`signal.set_wakeup_fd`), and so also of those that arrive while the
main thread runs no Python, or while a library has put a handler of its own in the place of this one.
"""

import atexit
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Self

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command in order; its exit code is 128 + their number."""
_SENDERS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the end of its terminal"}
GRACE_SECONDS = 6.0
"""Time for an orderly end, after which the process ends at once."""
AGAIN_SECONDS = 0.3
"""Signals within this time are one: `timeout` and others signal a process and then its group."""
HINT_SECONDS = 2.0
"""Time after which it is said that the end takes a while."""
_LOOK_SECONDS = 0.1
_NUDGE = signal.SIGURG
"""A signal that interrupts a system call of the main thread; by default it is ignored, so nobody else misses it."""


class Interrupts:
    """Ends a command in order when a signal arrives while the block runs.

    Handlers and time limit stay beyond the block, as the end of the interpreter takes its time, too; there a signal ends the
    process at once.

    Args:
        resume: the command that goes on with the work.
    """

    def __init__(self, resume: str):
        self.resume = resume
        self.received: int | None = None
        """The first signal, as soon as the kernel has delivered it."""
        self.failure = ""
        """Why the process ends, where it was no signal from outside."""
        self.kept = ""
        """What is finished, for the message."""
        self.is_whole = False
        """Whether `kept` is about all of the command's work."""
        self.partings: list[Callable[[], None]] = []
        """Called before the process ends at once; they must not block."""
        self.told = False
        """Whether the command line has printed the message."""
        self.hasty = False
        """Whether a signal ends the process at once (`at_once`)."""
        self._raised = self._over = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        global _current
        assert threading.current_thread() is threading.main_thread(), "only the main thread hears of signals"
        self._stderr = os.dup(2)  # the message must be seen while a library's output is turned off
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for number in STOPPING:
            # A shell without job control has its background commands ignore Ctrl-C; whoever sends SIGINT to such a
            # process means it. `nohup` means it, too: an ignored SIGHUP stays ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._stop)
        self._handlers[_NUDGE] = signal.signal(_NUDGE, lambda number, frame: None)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="rayclean-interrupts", daemon=True)
        self._thread.start()
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._lost
        atexit.register(self._ignore)  # before libraries register theirs, so that it runs after them
        _current = self
        return self

    def __exit__(self, *exception: Any) -> None:
        self._over = True

    def close(self) -> None:
        """Put back the handlers that were there before, and end the thread."""
        global _current
        _current = None
        atexit.unregister(self._ignore)
        sys.unraisablehook = self._unraisable
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._writer.close()  # the thread reads the end of the stream
        self._thread.join()
        self._reader.close()
        os.close(self._stderr)

    @property
    def code(self) -> int:
        """Exit code of the process after a signal."""
        assert self.received is not None
        return 1 if self.failure else 128 + self.received

    def message(self) -> str:
        """What the end was, what is kept, and the command that goes on."""
        assert self.received is not None
        kept = f" ({self.kept})" if self.kept else ""
        reason = self.failure or f"stopped by {_SENDERS[signal.Signals(self.received)]}"
        return f"{reason}; finished work is kept{kept}; go on with: {self.resume}"

    def fail(self, reason: str) -> None:
        """End the process as after a signal, but with exit code 1; may be called by any thread."""
        main = threading.main_thread().ident
        if self.received is None and not self._over and main is not None:
            self.failure = reason
            signal.pthread_kill(main, signal.SIGTERM)

    def await_end(self) -> None:
        """Wait until the thread, which hears of a signal soon, has ended the process; return if there was no signal."""
        self._thread.join(HINT_SECONDS)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Handler: raise at the first signal; of later ones the thread takes care."""
        if self.received is None:
            self.received = number
        if not self._raised and not self._over and not self.hasty:
            self._raised = True
            raise KeyboardInterrupt

    def _lost(self, lost: "sys.UnraisableHookArgs") -> None:
        """Say nothing of an interrupt that Python drops, as in a finalizer: `check` raises it again at the next look."""
        if self.received is None or lost.exc_type is not KeyboardInterrupt:
            self._unraisable(lost)

    def _ignore(self) -> None:
        """Ignore signals while the interpreter takes itself down, which gives up Python's handlers: all is done, and the
        exit code is to say so.
        """
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)

    def _watch(self) -> None:
        """Wait for signals, and end the process if the main thread does not."""
        main, begun, hinted = threading.main_thread().ident, None, False
        assert main is not None
        while True:
            wait = None if begun is None else _LOOK_SECONDS
            heard: list[int] = []
            if select.select([self._reader], [], [], wait)[0]:
                data = self._reader.recv(4096)
                if not data:
                    return
                heard = [number for number in data if number in STOPPING]
            if heard and begun is None:
                begun = time.monotonic()
                self.received = self.received or heard[0]
                if self.hasty or (self._over and not self._raised):
                    self._end_now()
            if begun is None:
                continue
            elapsed = time.monotonic() - begun
            if not self._raised:  # Python saw it just before the main thread went into a system call
                signal.pthread_kill(main, _NUDGE)
            if elapsed > GRACE_SECONDS or (heard and elapsed > AGAIN_SECONDS):
                self._end_now()
            if elapsed > HINT_SECONDS and not hinted:
                hinted = True
                self._write("\nstopping ... (the signal once more: at once)\n")

    def _end_now(self) -> None:
        if not self.told:
            self._write(f"\n{self.message()}\n")
        for parting in self.partings:
            with suppress(Exception):
                parting()
        os._exit(self.code)

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal may be gone
            os.write(self._stderr, text.encode(errors="replace"))


_current: Interrupts | None = None
"""That of the command that runs; None where rayclean is used as a library, whose user handles signals."""


def stopping() -> bool:
    """Whether a signal has come, so that an end of work is to be quick."""
    return _current is not None and _current.received is not None


def resuming_command() -> str | None:
    """The command that goes on with the work; None where rayclean is used as a library."""
    return _current.resume if _current is not None else None


def check() -> None:
    """Stop if a signal has come whose exception was lost, for example in a callback of the garbage collector.

    Raises:
        KeyboardInterrupt: a signal has come.
    """
    if stopping():
        raise KeyboardInterrupt


def fail(reason: str) -> None:
    """End the command in order, since it cannot go on although no exception says so; does nothing in a library."""
    if _current is not None:
        _current.fail(reason)


def say_kept(text: str, *, whole: bool = False) -> None:
    """Set what the message after a signal says of finished work ("runs/toy: load, predict").

    Args:
        text: what is finished.
        whole: whether this is all of the command's work, of whose parts nothing more is to be said.
    """
    if _current is not None and (whole or not _current.is_whole):
        _current.kept, _current.is_whole = text, whole


@contextmanager
def parting(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` if the process is ended at once within the block."""
    partings = _current.partings if _current is not None else []
    partings.append(action)
    try:
        yield
    finally:
        partings.remove(action)


@contextmanager
def at_once() -> Iterator[None]:
    """End the process at once, with its message, at a signal within the block: no exception is to pass through what runs in it.

    Raises:
        KeyboardInterrupt: the block was over before the process was.
    """
    if _current is None:
        yield
        return
    check()
    here = _current
    here.hasty = True
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # raised by a handler that has taken the place of this one's
        here.await_end()
        raise
    finally:
        here.hasty = False
    check()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers of signals back that a library replaces within the block and leaves behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        put_back(before)


def put_back(handlers: dict[signal.Signals, Any]) -> None:
    """Install handlers anew where others have taken their place; those that are not Python's are left."""
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _forget_in_child() -> None:
    """A forked process must not wake the thread of its parent."""
    global _current
    if _current is not None:
        signal.set_wakeup_fd(-1)
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        _current = None


os.register_at_fork(after_in_child=_forget_in_child)
