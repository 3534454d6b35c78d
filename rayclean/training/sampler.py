"""The global batches of a pass, a function of (seed, epoch, turn) alone, independent of the number of workers.

Every worker computes all batches of the epoch and takes its rows of each. PyTorch's `DistributedSampler` pads
with duplicates, which would count twice in per-example state; here padding is -1.
"""

import numpy as np
import numpy.typing as npt

MEGA_BATCHES = 50
"""Number of batches within which examples are sorted by length: large enough to avoid most padding, small
enough to keep batches random."""


def global_batches(
    count: int,
    batch_size: int,
    seed: int,
    epoch: int,
    lengths: npt.NDArray[np.int64] | None = None,
    turn: int = 0,
) -> list[npt.NDArray[np.int64]]:
    """The global batches of one pass, which contain every position in [0, count) exactly once.

    Args:
        count: number of training examples, in the order of their sorted ids.
        batch_size: rows of a global batch; one batch holds the remainder.
        seed: seed of the job.
        epoch: number of the epoch, from 1.
        lengths: [count] tokens per example, to group examples of similar length; None: no grouping.
        turn: number of the pass within the epoch, from 0; every pass has a different order.

    Returns:
        An array of positions for each batch.
    """
    generator = np.random.default_rng([seed, epoch, turn])
    order = generator.permutation(count)
    if lengths is None:
        return [order[start : start + batch_size] for start in range(0, count, batch_size)]
    mega = MEGA_BATCHES * batch_size
    grouped = []
    for start in range(0, count, mega):
        part = order[start : start + mega]
        part = part[np.argsort(lengths[part], kind="stable")]
        grouped += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [grouped[i] for i in generator.permutation(len(grouped))]


def own_share(batch: npt.NDArray[np.int64], rank: int, world_size: int) -> npt.NDArray[np.int64]:
    """The rows of one worker in a global batch: positions rank, rank + W, ..., padded with -1 to the same
    number on every worker, at least one.

    >>> [own_share(np.arange(5), rank, 3).tolist() for rank in range(3)]
    [[0, 3], [1, 4], [2, -1]]
    """
    rows = -(-len(batch) // world_size)
    share = np.full(rows, -1, dtype=np.int64)
    taken = batch[rank::world_size]
    share[: len(taken)] = taken
    return share
