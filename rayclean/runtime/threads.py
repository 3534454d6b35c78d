"""How many threads a process may use, so that processes on one machine do not wait for each other's."""

import os


def physical_threads() -> int:
    """Threads that one process may use on this machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def own_threads(sharers: int = 1, processes: int = 1) -> int:
    """Threads for each process of a run; with more threads than cores they wait for each other all the time.

    Args:
        sharers: runs that share the machine, this one among them.
        processes: processes of this run on the machine.
    """
    return max(1, physical_threads() // (sharers * processes))
