"""What a command says when its process is ended at once.

Ray's core ends a driver by `_exit(1)` when the cluster, or the Ray node of its machine, is gone: no exception is
raised and nothing is printed. The same holds for a process that the kernel kills for its memory. So a small child
process waits at the end of a pipe, and speaks if the pipe closes without a farewell.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHILD = "import sys\nif not sys.stdin.buffer.read(): sys.stderr.write(sys.argv[1])"


@contextmanager
def told_if_killed(where: str) -> Iterator[None]:
    """Have it said on stderr if this process is ended within the block without an exception.

    Args:
        where: the Ray that the process uses ("Ray at 10.0.0.1:6379").
    """
    text = (
        f"\nended at once, without an error of its own: {where} is gone, or the process was killed (often for its "
        "memory); finished work is kept, and the same command goes on from here\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CHILD, text],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the command
    )
    assert child.stdin is not None
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # somebody killed the child
            child.stdin.write(b".")
            child.stdin.close()
        child.wait()
