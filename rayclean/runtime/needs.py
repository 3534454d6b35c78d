"""What a verb needs to run, and whether Ray is worth starting for it.

Starting Ray, its actors and its training workers takes ten to twenty seconds. A verb over small data is done
before, so it runs in this process, by the same code and with the same result.
"""

import os
import sys
from dataclasses import dataclass

from rayclean.annotators.model_server import ModelServer
from rayclean.config import ClusterConfig, Config
from rayclean.errors import ConfigError
from rayclean.run import Run

EMBEDDED = "RAYCLEAN_EMBEDDED_RAY"
"""Environment variable of a process that started its own Ray, and of that Ray's workers."""
SMALL_SECONDS = 30.0
"""Work of a verb, in seconds of this process, up to which Ray is not started for it: about what starting it
takes, and what a second process could save at most."""
SECONDS_PER_EXAMPLE = 2e-4
"""Rough cost of an example in every verb, without its network."""
SECONDS_PER_BYTE = 5e-8
"""Rough cost of reading, checking and writing source files."""


@dataclass(frozen=True)
class VerbNeeds:
    """What a verb holds while it runs, and how long it takes."""

    trains: bool = False
    """Whether it trains a network: then it holds the training workers."""
    network: bool = False
    """Whether it runs a network, and so uses a GPU where there is one."""
    servers: tuple[ModelServer, ...] = ()
    """The language models that it starts, one after another."""
    seconds: float = 0.0
    """Rough seconds that its work takes in this process; training aside, which takes as long on one Ray
    worker."""


def loaded_examples(run: Run) -> int:
    """Examples that the finished load of a run counted; 0 where it has not run."""
    manifest = run.manifest("load")
    return 0 if manifest is None else int(manifest.metrics.get("examples", 0))


def network_seconds(config: Config, run: Run) -> float:
    """Rough seconds in which the configured encoder reads every example once."""
    from rayclean.models.loading import encoder_class

    cls, options = encoder_class(config.encoder)
    return (SECONDS_PER_EXAMPLE + cls.seconds_per_text(options)) * loaded_examples(run)


def needs_cluster(cluster: ClusterConfig, needs: VerbNeeds) -> bool:
    """Whether a verb needs Ray however small its work is: a cluster is named, several workers train together,
    a GPU is used, or a language model is served.

    Raises:
        ConfigError: it needs Ray, and `cluster.ray = false` forbids it.
    """
    reasons = {
        "cluster.address or RAY_ADDRESS names a cluster": _address(cluster) is not None,
        "cluster.workers is above 1": max(cluster.workers, cluster.max_workers or 1) > 1,
        "the annotator's language model is served by Ray Serve": bool(needs.servers),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if cluster.ray is False:
        if reason is not None:
            raise ConfigError(f"cluster.ray = false runs everything in this process, but {reason}")
        return False
    return (
        reason is not None or cluster.ray is True or is_on_cluster() or (needs.network and uses_gpu(cluster))
    )


def is_worth_ray(cluster: ClusterConfig, needs: VerbNeeds) -> bool:
    """Whether a verb runs on Ray; otherwise it runs in this process.

    It runs here when no cluster is named, `cluster.workers` is 1, no GPU is used, the verb serves no language
    model, and its work is estimated at no more than `SMALL_SECONDS`. `cluster.ray` decides by itself where it
    is set.

    Raises:
        ConfigError: as `needs_cluster`.
    """
    return needs_cluster(cluster, needs) or (cluster.ray is None and needs.seconds > SMALL_SECONDS)


def is_on_cluster() -> bool:
    """Whether this process is connected to a Ray that rayclean did not start, or is a worker of one."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and EMBEDDED not in os.environ


def uses_gpu(cluster: ClusterConfig) -> bool:
    """Whether a run without a cluster uses a GPU of this machine."""
    if cluster.gpus is not None or cluster.use_gpu:
        return bool(cluster.gpus) or cluster.use_gpu is True
    import torch

    return torch.cuda.is_available()


def _address(cluster: ClusterConfig) -> str | None:
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    return address if address != "local" else None
