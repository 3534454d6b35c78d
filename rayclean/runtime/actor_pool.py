"""The size of the actor pool for inference, and the resources of each actor."""

import math
from dataclasses import dataclass

from rayclean.config import ClusterConfig
from rayclean.runtime.cluster import gpus_for_inference
from rayclean.runtime.nodes import computing
from rayclean.runtime.threads import own_threads

ACTORS_PER_NODE = 4
"""Most actors per node without GPUs; each holds a copy of the networks."""
ITEMS_PER_ACTOR = 4
"""Least number of items per actor; with fewer items, fewer actors with more threads finish earlier."""


@dataclass(frozen=True)
class PoolSize:
    """Number of actors in a pool, and the CPUs, GPUs and threads of each."""

    actors: int
    num_cpus: float
    num_gpus: float
    threads: int


def size_pool(cluster: ClusterConfig, actors: int | None, items: int, sharers: int = 1) -> PoolSize:
    """Choose the pool: one actor per GPU, which takes no more of it than a trial (`cluster.gpus_per_worker` below 1);
    without GPUs up to four per node, which share its cores.

    A forward pass on few threads spends less time on synchronisation, and one actor computes while another
    reads and writes. With few items per actor, however, several slow actors finish later than one with all
    cores.

    Args:
        cluster: section `cluster` of the config.
        actors: number of actors (`predict.actors`); None: chosen by this function.
        items: number of items, which is also the most actors.
        sharers: number of runs that share each machine.
    """
    items = max(items, 1)
    if gpus := gpus_for_inference(cluster):
        share = min(1.0, cluster.gpus_per_worker)
        return PoolSize(min(actors or gpus, gpus, items), 1.0, share, own_threads(sharers))
    nodes = computing() or [1.0]
    if actors is None:
        per_node = min(ACTORS_PER_NODE, own_threads(sharers))
        actors = len(nodes) * (per_node if items >= ITEMS_PER_ACTOR * per_node * len(nodes) else 1)
    actors = min(actors, items)
    per_node = math.ceil(actors / len(nodes))
    # Ray packs actors onto a node as long as they fit, so each reserves enough CPUs that no more than
    # `per_node` do.
    num_cpus = 1.0 if len(nodes) == 1 else max(1.0, math.ceil(100 * min(nodes) / (per_node + 1) + 1) / 100)
    return PoolSize(actors, num_cpus, 0.0, own_threads(sharers, per_node))
