"""A process that outlives another one, its owner, and ends what the owner leaves behind.

Whatever the owner starts inherits an environment variable with the owner's mark. The reaper waits in a session of its own
at the end of a pipe, ignores the signals that end whole process groups and services, and wakes when the owner ends: in
order, by a signal or by SIGKILL. It gives the marked processes a moment to end by themselves and kills the rest. So no
language model keeps its gigabytes after its run, whoever was signalled and in whatever order. A reaper that was killed
itself is made up for by the next run on the machine (`kill_orphans`).

The file runs as a script of its own with the standard library alone: `python -I -S reaper.py MARK TEXT`. Processes are
found in /proc; on systems without one nothing is killed.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

VARIABLE = "RAYCLEAN_OWNERS"
"""Environment variable with the marks of a process's owners, from the first to the nearest."""
FAREWELL = b"."
"""What the owner writes before it ends in order."""
PATIENCE_SECONDS = 3.0
"""Time for the marked processes to end by themselves, as Ray's workers do when their node is gone."""
LOOK_SECONDS = 0.1
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end whole process groups and services."""
_FOR_LIFE: "list[subprocess.Popen[bytes]]" = []
"""Reapers whose pipes stay open until this process ends."""
OWNER_SECONDS = 2.0
"""Time between looks at the owner: a process that it has forked may hold the pipe open after its end."""


def own_mark() -> str:
    """The mark of this process, which no other process ever has: its id and start, in its namespace of ids.

    Empty on a system without /proc.
    """
    try:
        return f"{os.getpid()}-{_start(os.getpid())}-{_namespace()}"
    except OSError:
        return ""


def start_reaper(text: str, mark: str) -> "subprocess.Popen[bytes]":
    """Start a reaper of this process; the end of its `stdin` is the end of the owner.

    Args:
        text: what it says on stderr if the owner ends without a farewell; may be empty.
        mark: mark of what it ends; empty: nothing.
    """
    environment = {
        key: value for key, value in os.environ.items() if key != VARIABLE
    }  # it is nobody's itself
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)  # inherited: until it ignores them, they wait
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), mark, text],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reap_at_end() -> None:
    """Have everything that this process starts from now on end with it, in whatever way it ends."""
    if mark := own_mark():
        _FOR_LIFE.append(start_reaper("", mark))
        add_owner(mark)


@contextlib.contextmanager
def marking(mark: str) -> Iterator[None]:
    """Mark the processes that start in the block, and those that they start, as owned by `mark`."""
    before = os.environ.get(VARIABLE)
    if mark:
        add_owner(mark)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def add_owner(mark: str) -> None:
    """Mark what this process starts from now on."""
    os.environ[VARIABLE] = ";".join([*os.environ.get(VARIABLE, "").split(";"), mark]).strip(";")
    os.environ["SPT_NOENV"] = "1"  # setproctitle, of Ray and vLLM, would write its title over the variable


def marked(mark: str) -> list[int]:
    """Ids of the running processes that have the mark."""
    return [pid for pid, marks in _owners() if mark in marks and pid != os.getpid()]


def kill_orphans() -> list[int]:
    """Kill the marked processes of this machine whose owner is gone; returns their ids."""
    namespace = _namespace()
    orphans = [
        pid
        for pid, marks in _owners()
        if any(mark.endswith(f"-{namespace}") and not _is_alive(mark) for mark in marks)
    ]
    return [pid for pid in orphans if _kill(pid)]


def reap(mark: str, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until no process has the mark, and kill those that have it after `patience` seconds."""
    until = time.monotonic() + patience
    while left := marked(mark):
        if time.monotonic() > until:
            for pid in left:
                _kill(pid)
        time.sleep(LOOK_SECONDS)


def _owners() -> Iterator[tuple[int, list[str]]]:
    """Id and marks of every process of this user that has some."""
    prefix = f"{VARIABLE}=".encode()
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                entries = file.read().split(b"\0")
            if _is_zombie(int(name)):
                continue
        except OSError:  # another user's, or it has just ended
            continue
        for entry in entries:
            if entry.startswith(prefix):
                yield int(name), entry[len(prefix) :].decode(errors="replace").split(";")


def _stat(pid: int) -> list[str]:
    """Fields of a process's status, from its state on; its name before them may hold blanks and brackets."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _start(pid: int) -> str:
    return _stat(pid)[19]


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[0] in ("Z", "X")


def _namespace() -> str:
    """The namespace of process ids: a host sees the processes of its containers, whose ids mean others."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return "0"


def _is_alive(mark: str) -> bool:
    """Whether the process with a mark of this namespace runs."""
    pid, _, rest = mark.partition("-")
    try:
        return _start(int(pid)) == rest.partition("-")[0] and not _is_zombie(int(pid))
    except (OSError, ValueError, IndexError):
        return False


def _kill(pid: int) -> bool:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _wait(pipe: IO[bytes], mark: str) -> bool:
    """Wait for the end of the owner; returns whether it said farewell."""
    said = b""
    while True:
        if select.select([pipe], [], [], OWNER_SECONDS)[0]:
            data = os.read(pipe.fileno(), 16)
            said += data
            if not data or FAREWELL in said:
                return FAREWELL in said
        elif mark and not _is_alive(mark):
            return False


def watch_owner(mark: str, text: str) -> None:
    """Wait for the end of the owner, speak if it came without a farewell, and end what it has left."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if not _wait(sys.stdin.buffer, mark) and text:
        with contextlib.suppress(OSError):
            os.write(2, text.encode())
    if mark:
        reap(mark)


if __name__ == "__main__":
    watch_owner(*sys.argv[1:])
