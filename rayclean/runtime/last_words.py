"""What a command says when its process is ended at once, and what becomes of the processes that it has started.

Ray's core ends a driver by `_exit(1)` when the cluster, or the Ray node of its machine, is gone: no exception is raised and
nothing is printed. The same holds for a process that the kernel kills for its memory. So a small process waits at the end
of a pipe (`reaper.py`), speaks if the pipe closes without a farewell, and ends what is left.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rayclean import interrupts
from rayclean.runtime.reaper import FAREWELL, start_reaper


@contextmanager
def told_if_killed(where: str, mark: str = "") -> Iterator[None]:
    """Have it said on stderr if this process is ended within the block without an exception.

    Args:
        where: the Ray that the process uses ("Ray at 10.0.0.1:6379").
        mark: mark of the processes that are not to outlive the block; empty: none.
    """
    command = interrupts.resuming_command()
    following = f"go on with: {command}" if command else "the same command goes on from here"
    text = (
        f"\nended at once, without an error of its own: {where} is gone, or the process was killed (often for its "
        f"memory); finished work is kept; {following}\n"
    )
    child = start_reaper(text, mark)
    pipe = child.stdin
    assert pipe is not None

    def farewell() -> None:
        with suppress(OSError, ValueError):  # somebody killed the child, or it was said before
            pipe.write(FAREWELL)
            pipe.close()

    try:
        with interrupts.parting(farewell):  # a message after a signal says why
            yield
    finally:
        farewell()
        child.wait()
