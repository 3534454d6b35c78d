"""Numbers of threads per process, such that the processes on one machine do not oversubscribe its cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def physical_threads() -> int:
    """Number of threads that one process may use on this machine: its cores, as far as a container's quota, `taskset` and
    the environment variable `LOKY_MAX_CPU_COUNT` leave them to it.
    """
    import joblib  # takes .2 s, which not every command needs

    return int(joblib.cpu_count())


def tokenize_on(threads: int) -> None:
    """Let the tokenizers of this process use so many threads; called before the first one is used."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)


@contextmanager
def tokenizing_on_all_cores() -> Iterator[None]:
    """Tokenizers use all cores of this machine in the block, where whatever else would use them waits."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def own_threads(sharers: int = 1, processes: int = 1) -> int:
    """Number of threads for each process of a run.

    Args:
        sharers: number of runs that share the machine, including this one.
        processes: number of processes of this run on the machine.
    """
    return max(1, physical_threads() // (sharers * processes))
