"""How many actors run inference, and what each of them gets."""

import math
from dataclasses import dataclass

from rayclean.runtime.cluster import gpu_count
from rayclean.runtime.nodes import computing
from rayclean.runtime.threads import own_threads

ACTORS_PER_NODE = 4
"""Without GPUs, at most: each holds the networks once more."""
ITEMS_PER_ACTOR = 4
"""Below this many, fewer actors with more threads end earlier."""


@dataclass(frozen=True)
class PoolSize:
    """Size and share of an actor pool."""

    actors: int
    num_cpus: float
    num_gpus: float
    threads: int


def size_pool(actors: int | None, items: int, sharers: int = 1) -> PoolSize:
    """One actor per GPU; without GPUs up to four per node, which share its cores.

    A forward pass on few threads wastes less time in waiting for the slowest of them, and one actor computes
    while another reads and writes. But with few items for each, several slow actors end later than one with
    all cores.

    Args:
        actors: `predict.actors`, where the config sets it.
        items: how many there are to work on; never more actors than that.
        sharers: runs that share each machine.
    """
    items = max(items, 1)
    if gpus := gpu_count():
        return PoolSize(min(actors or gpus, gpus, items), 1.0, 1.0, own_threads(sharers))
    nodes = computing() or [1.0]
    if actors is None:
        per_node = min(ACTORS_PER_NODE, own_threads(sharers))
        actors = len(nodes) * (per_node if items >= ITEMS_PER_ACTOR * per_node * len(nodes) else 1)
    actors = min(actors, items)
    per_node = math.ceil(actors / len(nodes))
    # Ray packs actors onto a node as long as they fit: one more than belongs there must not, and they spread.
    num_cpus = 1.0 if len(nodes) == 1 else max(1.0, math.ceil(100 * min(nodes) / (per_node + 1) + 1) / 100)
    return PoolSize(actors, num_cpus, 0.0, own_threads(sharers, per_node))
