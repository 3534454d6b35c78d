"""How many trials fit side by side: each holds a little CPU, and at least one training must find room beside them all."""

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from rayclean.config import ClusterConfig
from rayclean.runtime.cluster import cpu_count, gpu_count, physical_threads, trains_on_gpu
from rayclean.runtime.preflight import Demand, refuse


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and what each holds beside what its training holds."""

    concurrent: int
    cpus: float


def slots(
    cluster: ClusterConfig,
    *,
    trains: bool,
    concurrent: int | None,
    cpus: float,
    trials: int,
    beside: Sequence[Demand] = (),
) -> Slots:
    """What fits at once on the connected cluster.

    Args:
        cluster: what one training takes.
        trains: whether trials start trainings of their own.
        concurrent: trials at once as configured; None: as many as fit.
        cpus: that a trial which trains holds; one that does not computes by itself and holds 1.
        trials: how many there are.
        beside: what else is held as long as they run (language models).

    Raises:
        ResourceError: with so many trials at once no training fits beside them, and all would wait for ever.
    """
    have = cpu_count() - sum(each.cpus for each in beside)
    gpus = gpu_count() - sum(each.gpus for each in beside)
    left = f"{have:g} CPUs" + (f" that {' and '.join(each.what for each in beside)} leave" if beside else "")
    if not trains:
        if have < 1:
            refuse(f"a trial holds 1 of {left}", "; ".join(each.change for each in beside))
        local = min(int(have), physical_threads()) if len(ray.nodes()) == 1 else int(have)
        return Slots(max(1, min(concurrent or local, trials)), 1.0)
    training = cluster.workers * cluster.cpus_per_worker
    fit = int(have // (training + cpus))
    use_gpu = trains_on_gpu(cluster)
    if use_gpu:
        fit = min(fit, int(gpus // (cluster.workers * cluster.gpus_per_worker)))
    chosen = min(concurrent or max(fit, 1), max(trials, 1))
    if chosen * cpus + training + 1 > have:
        most = int((have - training - 1) / cpus)
        refuse(
            f"{chosen} trials at once hold {chosen * cpus:g} of {left}, and a training needs "
            f"{cluster.workers} x {cluster.cpus_per_worker:g} CPUs beside them and 1 for its data: every trial would wait "
            "for ever",
            f"set trials.concurrent to at most {most}, or lower trials.cpus = {cpus:g}"
            if most >= 1
            else "lower trials.cpus, cluster.workers or cluster.cpus_per_worker, or raise cluster.cpus",
        )
    if use_gpu and cluster.workers * cluster.gpus_per_worker > gpus:
        refuse(
            f"a training needs {cluster.workers} x {cluster.gpus_per_worker:g} GPUs, the cluster has {gpus:g}",
            "lower cluster.workers or cluster.gpus_per_worker, or set cluster.use_gpu = false",
        )
    return Slots(chosen, cpus)
