"""The resources that a verb needs, and whether Ray is worth starting for it.

Starting Ray, its actors and its training workers takes ten to twenty seconds. A verb over small data finishes
earlier, so it runs in this process, with the same code and the same result.
"""

import os
import sys
from dataclasses import dataclass

from rayclean.annotators.model_server import ModelServer
from rayclean.config import ClusterConfig, Config
from rayclean.errors import ConfigError
from rayclean.plugins import Plugin
from rayclean.run import Run

EMBEDDED = "RAYCLEAN_EMBEDDED_RAY"
"""Environment variable of a process that started its own Ray, and of that Ray's workers."""
SMALL_SECONDS = 30.0
"""Most seconds of work for which Ray is not started: about as long as its start takes."""
SECONDS_PER_EXAMPLE = 2e-4
"""Approximate cost of an example in every verb, without its network."""
SECONDS_PER_BYTE = 5e-8
"""Approximate cost of reading, checking and writing source files."""


@dataclass(frozen=True)
class VerbNeeds:
    """Resources that a verb holds while it runs, and its duration."""

    trains: bool = False
    """Whether the verb trains a network and so holds the training workers."""
    batch_size: int = 0
    """Rows of a batch of its training, over all workers; 0: not known."""
    small: bool = False
    """Whether its training is so small that a GPU is no gain (`is_small_training`)."""
    network: bool = False
    """Whether the verb runs a network and so uses a GPU if available."""
    servers: tuple[ModelServer, ...] = ()
    """Language models that the verb starts, one after another."""
    seconds: float = 0.0
    """Approximate seconds of work in this process, without training, which takes as long on one Ray
    worker."""


def loaded_examples(run: Run) -> int:
    """Number of examples that `load` counted; 0 if it has not run."""
    manifest = run.manifest("load")
    return 0 if manifest is None else int(manifest.metrics.get("examples", 0))


def network_seconds(config: Config, run: Run, *, cached: bool = False) -> float:
    """Approximate seconds in which the configured encoder reads every example once.

    Args:
        config: config of the run.
        run: the run folder.
        cached: whether the verb reads the features that `predict` has computed, in place of the texts.
    """
    from rayclean.models.loading import encoder_class

    cls, options = encoder_class(config.encoder)
    reading = 0.0 if cached else cls.seconds_per_text(options)
    return (SECONDS_PER_EXAMPLE + reading) * loaded_examples(run)


def is_small_training(encoder: Plugin, method: Plugin, task: Plugin) -> bool:
    """Whether no network of a training gains by a GPU: heads on features that were computed once, bags of words. Their steps
    take a core less time than a GPU needs to start its kernels, so they take none unless `cluster.use_gpu = true` asks.
    """
    from rayclean.methods import METHODS
    from rayclean.models.loading import encoder_class
    from rayclean.tasks import TASKS

    if TASKS.resolve(task.name).per_token:
        return False
    for each in METHODS.build(method, 2, 0).encoders(encoder).values():
        cls, options = encoder_class(each)
        runs_body = cls.is_frozen(options) and each != encoder  # features are those of the run's own encoder
        if runs_body or not cls.is_small(options):
            return False
    return True


def needs_cluster(cluster: ClusterConfig, needs: VerbNeeds) -> bool:
    """Whether a verb needs Ray regardless of the amount of work: a cluster is named, several workers train
    together, a GPU is used, or a language model is served.

    Raises:
        ConfigError: the verb needs Ray, and `cluster.ray = false` forbids it.
    """
    return _reason_for_ray(cluster, needs) is not None


def _reason_for_ray(cluster: ClusterConfig, needs: VerbNeeds) -> str | None:
    """Why a verb needs Ray regardless of the amount of work; None: it does not.

    Raises:
        ConfigError: the verb needs Ray, and `cluster.ray = false` forbids it.
    """
    reasons = {
        "cluster.address or RAY_ADDRESS names a cluster": _address(cluster) is not None,
        "cluster.workers is above 1": max(cluster.workers, cluster.max_workers or 1) > 1,
        "the annotator's language model is served by Ray Serve": bool(needs.servers),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if cluster.ray is False:
        if reason is not None:
            raise ConfigError(
                f"cluster.ray = false runs everything in this process, but {reason}; remove one of the two"
            )
        return None
    if reason is not None or cluster.ray is True:
        return reason or "cluster.ray is true"
    if is_on_cluster():
        return "this process belongs to a cluster"
    return "its network runs on a GPU" if needs.network and uses_gpu(cluster) else None


def is_worth_ray(cluster: ClusterConfig, needs: VerbNeeds) -> bool:
    """Whether a verb runs on Ray rather than in this process.

    It runs in this process if no cluster is named, `cluster.workers` is 1, no GPU is used, the verb serves no
    language model, and its work is estimated at no more than `SMALL_SECONDS`. `cluster.ray` overrides this
    rule.

    Raises:
        ConfigError: the verb needs Ray, and `cluster.ray = false` forbids it.
    """
    return needs_cluster(cluster, needs) or (cluster.ray is None and needs.seconds > SMALL_SECONDS)


def where_it_runs(cluster: ClusterConfig, needs: VerbNeeds) -> str:
    """Whether a verb runs on Ray or in this process (`is_worth_ray`), and why, in words.

    Raises:
        ConfigError: the verb needs Ray, and `cluster.ray = false` forbids it.
    """
    if (reason := _reason_for_ray(cluster, needs)) is not None:
        return f"on Ray: {reason}"
    if cluster.ray is False:
        return "in this process: cluster.ray is false"
    place, than = ("on Ray", "more") if needs.seconds > SMALL_SECONDS else ("in this process", "no more")
    work = f"some {needs.seconds:,.0f} s of work beside training"
    return f"{place}: {work}, {than} than the {SMALL_SECONDS:.0f} s that Ray is worth"


def is_on_cluster() -> bool:
    """Whether this process is connected to, or is a worker of, a Ray that rayclean did not start."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and EMBEDDED not in os.environ


def uses_gpu(cluster: ClusterConfig) -> bool:
    """Whether a run without a cluster uses a GPU of this machine."""
    if cluster.gpus is not None or cluster.use_gpu is not None:
        return cluster.use_gpu is not False and (bool(cluster.gpus) or cluster.use_gpu is True)
    import torch

    return torch.cuda.is_available()


def _address(cluster: ClusterConfig) -> str | None:
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    return address if address != "local" else None
