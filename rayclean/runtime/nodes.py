"""The nodes of the connected cluster, and those that an autoscaler may add.

Ray's open-source autoscalers do not publish their limits, so the environment of the nodes declares them, as
number and size of each kind; the files under `cluster/` do so:

    RAYCLEAN_MAX_NODES=8xCPU:8,4xCPU:8+GPU:1
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from rayclean.errors import ResourceError
from rayclean.runtime import environment as environment

import ray

DECLARED = "RAYCLEAN_MAX_NODES"
EXAMPLE = f"{DECLARED}=8xCPU:8,4xCPU:8+GPU:1"
GROUP = "ray.io/node-group"
"""Label of nodes that a launcher with an autoscaler started (KubeRay, `ray up`)."""

Shape = dict[str, float]
"""Resources of one node."""


def alive() -> list[dict[str, Any]]:
    """Nodes that are alive; Ray lists dead ones, too."""
    return [node for node in ray.nodes() if node["Alive"]]


def computers() -> int:
    """Number of nodes with a CPU, those that an autoscaler may add included; at least 1."""
    later = sum(count for count, shape in declared() if shape.get("CPU", 0.0) >= 1)
    return max(len(computing()), later, 1)


def computing() -> list[float]:
    """CPUs of each node that has at least one; the head of a cluster often has none."""
    return [cpus for node in alive() if (cpus := node["Resources"].get("CPU", 0.0)) >= 1]


def declared() -> list[tuple[int, Shape]]:
    """How many nodes of which size an autoscaler may add; empty where nothing is declared.

    Raises:
        ResourceError: the variable cannot be read.
    """
    kinds = []
    for kind in filter(None, os.environ.get(DECLARED, "").split(",")):
        if (found := re.fullmatch(r"(\d+)x(\w+:[\d.]+(?:\+\w+:[\d.]+)*)", kind.strip())) is None:
            raise ResourceError(f"cannot read {kind!r} in {DECLARED}: expected something like {EXAMPLE}")
        sizes = (part.split(":") for part in found[2].split("+"))
        kinds.append((int(found[1]), {name: float(size) for name, size in sizes}))
    return kinds


def most(resource: str) -> int:
    """Amount of a resource now, or what an autoscaler may reach: a cluster may start without any worker node."""
    later = sum(count * shape.get(resource, 0.0) for count, shape in declared())
    return int(max(ray.cluster_resources().get(resource, 0.0), later))


def may_grow_further() -> bool:
    """Whether nodes come from an autoscaler whose limits nobody declared."""
    return not declared() and any(GROUP in node.get("Labels", {}) for node in alive())


def shapes() -> list[Shape]:
    """The sizes of single nodes, each once: those that are there, and those that may come."""
    there = [node["Resources"] for node in alive()] + [shape for count, shape in declared() if count]
    sizes = [{unit: size for unit in ("CPU", "GPU") if (size := shape.get(unit, 0.0))} for shape in there]
    return [shape for place, shape in enumerate(sizes) if shape and shape not in sizes[:place]]


def fits(piece: Mapping[str, float], shape: Mapping[str, float]) -> bool:
    """Whether a node of this size holds the piece."""
    return all(shape.get(unit, 0.0) >= size for unit, size in piece.items())
