"""Numbers of threads per process, such that the processes on one machine do not oversubscribe its cores."""

import os
from contextlib import AbstractContextManager

from rayclean.scoped import environment_set


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


def tokenizing_on_all_cores() -> AbstractContextManager[None]:
    """Tokenizers use all cores of this machine in the block, where whatever else would use them waits."""
    return environment_set("TOKENIZERS_PARALLELISM", "true")


def own_threads(sharers: int = 1, processes: int = 1) -> int:
    """Number of threads for each process of a run.

    Args:
        sharers: number of runs that share the machine, including this one.
        processes: number of processes of this run on the machine.
    """
    return max(1, physical_threads() // (sharers * processes))
