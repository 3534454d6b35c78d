"""The size of the actor pool for inference, and the resources of each actor."""

import math
from dataclasses import dataclass

from rayclean.config import ClusterConfig
from rayclean.runtime import nodes
from rayclean.runtime.cluster import gpus_for_inference, is_embedded
from rayclean.runtime.threads import own_threads

ACTORS_PER_NODE = 4
"""Most actors per node without GPUs; each holds a copy of the networks."""
ITEMS_PER_ACTOR = 4
"""Least number of items per actor; with fewer items, fewer actors with more threads finish earlier."""
ACTORS_PER_GPU = 3
"""Actors that share a GPU: while one reads, tokenises or writes, it computes for another."""


@dataclass(frozen=True)
class PoolSize:
    """Number of actors in a pool, and the CPUs, GPUs and threads of each."""

    actors: int
    num_cpus: float
    num_gpus: float
    threads: int
    calls: int = 1
    """Items under way at once in an actor."""


def size_pool(cluster: ClusterConfig, actors: int | None, items: int, sharers: int = 1) -> PoolSize:
    """Choose the pool: up to three actors per GPU, which take no more of it than a trial (`cluster.gpus_per_worker` below
    1); without GPUs up to four per node, which share its cores.

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
        return _on_gpus(cluster, gpus, actors, items, sharers)
    cores = nodes.computing() or [1.0]
    if actors is None:
        per_node = min(ACTORS_PER_NODE, own_threads(sharers))
        actors = len(cores) * (per_node if items >= ITEMS_PER_ACTOR * per_node * len(cores) else 1)
    actors = min(actors, items)
    per_node = math.ceil(actors / len(cores))
    # Ray packs actors onto a node as long as they fit, so each reserves enough CPUs that no more than
    # `per_node` do.
    num_cpus = 1.0 if len(cores) == 1 else max(1.0, math.ceil(100 * min(cores) / (per_node + 1) + 1) / 100)
    return PoolSize(actors, num_cpus, 0.0, own_threads(sharers, per_node))


def _on_gpus(cluster: ClusterConfig, gpus: int, actors: int | None, items: int, sharers: int) -> PoolSize:
    """The pool on GPUs. Ray packs shares onto a GPU as long as they fit, so every GPU gets as many actors."""
    actors = min(actors or gpus * min(ACTORS_PER_GPU, max(1, items // gpus)), items)
    per_gpu = math.ceil(actors / gpus)
    share = min(math.floor(10_000 / per_gpu) / 10_000, cluster.gpus_per_worker)
    with_gpus = [shape for shape in nodes.shapes() if shape.get("GPU")]
    cores = min((shape.get("CPU", 0.0) / shape["GPU"] for shape in with_gpus), default=1.0) / per_gpu
    # They reserve little, so that all of them find a place beside what else runs there, and use their share of all cores.
    num_cpus = min(1.0, math.floor(90 * cores) / 100)
    threads = own_threads(sharers, actors) if is_embedded() else max(1, int(cores / sharers))
    return PoolSize(actors, num_cpus, share, threads, calls=2)
