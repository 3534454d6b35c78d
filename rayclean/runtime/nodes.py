"""The nodes of the connected cluster, including those that an autoscaler may add.

Ray's open-source autoscalers do not publish their limits, so the environment of the nodes declares them, as
number and size of each kind (see the files under `cluster/`):

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
"""Label of nodes that were started by a launcher with an autoscaler (KubeRay, `ray up`)."""

Shape = dict[str, float]
"""Amount of each resource of one node."""


def alive() -> list[dict[str, Any]]:
    """Ray's records of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def head_id() -> str | None:
    """Ray's id of the head node, where a served model listens on loopback and so its clients must run."""
    heads: list[str] = [node["NodeID"] for node in alive() if "node:__internal_head__" in node["Resources"]]
    return heads[0] if heads else None


def free_resources() -> str:
    """What of the cluster is free now."""
    free, there = ray.available_resources(), ray.cluster_resources()
    return "free are " + " and ".join(
        f"{free.get(unit, 0.0):g} of {there[unit]:g} {unit}s" for unit in ("CPU", "GPU") if unit in there
    )


def computers() -> int:
    """Number of nodes with a CPU, including those that an autoscaler may add; at least 1."""
    later = sum(count for count, shape in declared() if shape.get("CPU", 0.0) >= 1)
    return max(len(computing()), later, 1)


def computing() -> list[float]:
    """Number of CPUs of each node that has any; the head of a cluster often has none."""
    return [cpus for node in alive() if (cpus := node["Resources"].get("CPU", 0.0)) >= 1]


def declared() -> list[tuple[int, Shape]]:
    """Number and size of the nodes that an autoscaler may add; empty if nothing is declared.

    Raises:
        ResourceError: the value of the variable is malformed.
    """
    kinds = []
    for kind in filter(None, os.environ.get(DECLARED, "").split(",")):
        if (found := re.fullmatch(r"(\d+)x(\w+:[\d.]+(?:\+\w+:[\d.]+)*)", kind.strip())) is None:
            raise ResourceError(f"cannot read {kind!r} in {DECLARED}: expected something like {EXAMPLE}")
        sizes = (part.split(":") for part in found[2].split("+"))
        kinds.append((int(found[1]), {name: float(size) for name, size in sizes}))
    return kinds


def most(resource: str) -> int:
    """The larger of the current amount of a resource and the amount that an autoscaler may reach."""
    later = sum(count * shape.get(resource, 0.0) for count, shape in declared())
    return int(max(ray.cluster_resources().get(resource, 0.0), later))


def gpu_kinds() -> set[str]:
    """Ray's names of the kinds of GPUs of the current nodes, such as `T4`."""
    mark = "accelerator_type:"
    return {name.removeprefix(mark) for name in ray.cluster_resources() if name.startswith(mark)}


def may_grow_further() -> bool:
    """Whether the nodes come from an autoscaler without declared limits."""
    return not declared() and any(GROUP in node.get("Labels", {}) for node in alive())


def autoscales() -> bool:
    """Whether an autoscaler may add nodes, as far as is known."""
    return bool(declared()) or may_grow_further()


def shapes() -> list[Shape]:
    """The distinct sizes of the current nodes and of those that may be added."""
    current = [node["Resources"] for node in alive()] + [shape for count, shape in declared() if count]
    sizes = [{unit: size for unit in ("CPU", "GPU") if (size := shape.get(unit, 0.0))} for shape in current]
    return [shape for place, shape in enumerate(sizes) if shape and shape not in sizes[:place]]


def fits(piece: Mapping[str, float], shape: Mapping[str, float]) -> bool:
    """Whether the resources `piece` fit on a node of this size."""
    return all(shape.get(unit, 0.0) >= size for unit, size in piece.items())
