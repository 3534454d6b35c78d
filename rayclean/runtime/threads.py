"""Numbers of threads per process, such that the processes on one machine do not oversubscribe its cores."""

import os


def physical_threads() -> int:
    """Number of threads that one process may use on this machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def tokenize_on(threads: int) -> None:
    """Let the tokenizers of this process use so many threads; called before the first one is used."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)


def own_threads(sharers: int = 1, processes: int = 1) -> int:
    """Number of threads for each process of a run.

    Args:
        sharers: number of runs that share the machine, including this one.
        processes: number of processes of this run on the machine.
    """
    return max(1, physical_threads() // (sharers * processes))
