"""The number of concurrent trials: each holds a fraction of a CPU, and at least one training must fit beside
them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.config import ClusterConfig
from rayclean.runtime import nodes
from rayclean.runtime.cluster import cpu_count, gpu_count, is_embedded, trains_on_gpu
from rayclean.runtime.preflight import ResourceDemand, refuse_or_warn
from rayclean.runtime.threads import physical_threads

QUANTUM = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True)
class TrialSlots:
    """The number of concurrent trials, and the CPUs that each holds in addition to those of its training."""

    concurrent: int
    cpus: float

    @property
    def per_node(self) -> int:
        """Number of trials that share a machine, as Ray spreads them."""
        return math.ceil(self.concurrent / nodes.computers())


def trial_slots(
    cluster: ClusterConfig,
    *,
    trains: bool,
    concurrent: int | None,
    cpus: float,
    trials: int,
    beside: Sequence[ResourceDemand] = (),
    small: bool = False,
) -> TrialSlots:
    """The number of trials that fit at once on the connected cluster.

    Args:
        cluster: resources of one training.
        trains: whether trials start trainings.
        concurrent: configured number of concurrent trials; None: as many as fit.
        cpus: CPUs that a trial holds if it trains; other trials compute in their process and hold 1.
        trials: number of trials.
        beside: resources held by other work during the trials, such as language models.
        small: whether the trainings gain nothing by a GPU (`preflight.trains_small`).

    Raises:
        ResourceError: no training fits beside so many concurrent trials, which would deadlock.
    """
    have = cpu_count() - sum(each.cpus for each in beside)
    gpus = gpu_count() - sum(each.gpus for each in beside)
    left = f"{have:g} CPUs" + (f" that {' and '.join(each.what for each in beside)} leave" if beside else "")
    # An embedded Ray has more logical CPUs than cores, so that small tasks can run at once.
    cores = physical_threads() if is_embedded() else have
    if not trains:
        if have < 1:
            refuse_or_warn(f"a trial holds 1 of {left}", "; ".join(each.change for each in beside))
        return TrialSlots(max(1, min(concurrent or int(min(have, cores)), trials)), 1.0)
    training = cluster.workers * cluster.cpus_per_worker
    fit = times_it_fits(training + cpus, have)
    use_gpu = trains_on_gpu(cluster, small)
    # A worker's fraction of a GPU must be on one GPU.
    each = times_it_fits(cluster.gpus_per_worker, 1.0)
    gpu_workers = int(gpus) * each if each else times_it_fits(cluster.gpus_per_worker, gpus)
    if use_gpu:
        fit = min(fit, gpu_workers // cluster.workers)
    else:
        fit = min(fit, int(cores) // cluster.workers)
    chosen = min(concurrent or max(fit, 1), max(trials, 1))
    most = times_it_fits(cpus, have - training - 1)
    if chosen > most:
        refuse_or_warn(
            f"{chosen} trials at once hold {chosen * cpus:g} of {left}, and a training needs "
            f"{cluster.workers} x {cluster.cpus_per_worker:g} CPUs beside them and 1 for its data: every "
            "trial would wait "
            "for ever",
            f"set trials.concurrent to at most {most}, or lower trials.cpus = {cpus:g}"
            if most >= 1
            else "lower trials.cpus, cluster.workers or cluster.cpus_per_worker, or raise cluster.cpus",
        )
    if use_gpu and cluster.workers > gpu_workers:
        refuse_or_warn(
            f"a training needs {cluster.workers} x {cluster.gpus_per_worker:g} GPUs, the cluster has {gpus:g}",
            "lower cluster.workers or cluster.gpus_per_worker, or set cluster.use_gpu = false",
        )
    return TrialSlots(chosen, cpus)


def times_it_fits(piece: float, have: float) -> int:
    """The number of pieces that fit into an amount in Ray's fixed-point arithmetic; `//` on floats may be one
    short.

    >>> times_it_fits(0.1, 1.0), 1.0 // 0.1
    (10, 9.0)
    """
    return round(have * QUANTUM) // max(1, round(piece * QUANTUM))
