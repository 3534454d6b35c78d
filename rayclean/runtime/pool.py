"""How many actors run inference, and what each of them gets."""

import math
from dataclasses import dataclass

import ray

from rayclean.runtime.cluster import gpu_count, physical_threads


@dataclass(frozen=True)
class Pool:
    """Size and share of an actor pool."""

    actors: int
    num_cpus: float
    num_gpus: float
    threads: int


def pool(actors: int | None) -> Pool:
    """One actor per GPU; without GPUs one per node, with all its cores in one process (the forward pass scales in it).

    Args:
        actors: `predict.actors`, where the config sets it.
    """
    if gpus := gpu_count():
        return Pool(min(actors or gpus, gpus), 1.0, 1.0, physical_threads())
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    nodes = [cpus for cpus in nodes if cpus >= 1] or [1]
    actors = actors or len(nodes)
    per_node = math.ceil(actors / len(nodes))
    # Ray packs actors onto a node as long as they fit: more than half of a node's CPUs makes them spread.
    num_cpus = 1.0 if len(nodes) == 1 else max(1.0, min(nodes) // (per_node + 1) + 1)
    return Pool(actors, num_cpus, 0.0, max(1, physical_threads() // per_node))
