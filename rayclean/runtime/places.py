"""Places for trainings of one worker each, and several trainings side by side on them.

The folds of `predict` and the networks that `evaluate` compares do not need each other, so with one worker per training
they take a GPU each, or a node of a cluster without GPUs. Each place has a run of Ray Train of its own with a part of the
jobs: a lost worker restarts what it did alone, and nothing is exchanged over the network. How many places there are
changes no result.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rayclean.config import ClusterConfig
from rayclean.errors import FaultError
from rayclean.runtime import environment as environment
from rayclean.runtime import nodes
from rayclean.runtime.cluster import cpu_count, gpu_count
from rayclean.runtime.trial_slots import times_it_fits

import ray

END_SECONDS = 15.0
"""Time in which a group that is stopped gives its resources back, before it is killed."""
JOIN_SECONDS = 0.2
"""Time between looks whether a group has failed."""


class MissingWorkersError(FaultError):
    """The workers of a training did not get their resources in time."""


@dataclass(frozen=True)
class TrainingPlaces:
    """Number of groups of training workers that run at once, and what each of them takes."""

    count: int
    cpus: float
    """CPUs reserved for each worker."""
    per_node: int = 1
    """Most groups on one node, which share its cores."""


class TrainingGroup(Protocol):
    """Jobs that one group of workers trains in turn."""

    def run(self) -> None:
        """Train, and return when all jobs are done or the group was stopped.

        Raises:
            MissingWorkersError: the group did not start; it may run again later.
            Exception: the error of a job.
        """

    def stop(self) -> None:
        """Begin to end the training, from another thread; finished epochs are kept."""

    def kill(self) -> None:
        """End the training at once, if it has not ended; Ray may hold its resources until the command ends."""


def training_places(cluster: ClusterConfig, jobs: int, *, use_gpu: bool) -> TrainingPlaces:
    """Choose how many trainings run side by side: one where several workers train each network, else as many as there are
    jobs and free GPUs; without GPUs as many as there are nodes, of which each has room for one.

    Args:
        cluster: number and size of the workers.
        jobs: number of trainings.
        use_gpu: whether workers get GPUs.
    """
    one = TrainingPlaces(1, cluster.cpus_per_worker)
    if jobs < 2 or max(cluster.workers, cluster.max_workers or 1) > 1:
        return one
    cores = nodes.computing()
    if use_gpu:
        gpus = gpu_count() - _taken("GPU")
        each = times_it_fits(cluster.gpus_per_worker, 1.0)  # a fraction must be on one GPU
        free, cpus = (int(gpus) * each if each else times_it_fits(cluster.gpus_per_worker, gpus)), one.cpus
        hosts = sum(shape.get("GPU", 0.0) > 0 for shape in (node["Resources"] for node in nodes.alive())) or 1
    else:
        # More than half of the largest node: two never share one.
        cpus = max(cluster.cpus_per_worker, math.floor(100 * max(cores, default=0.0) / 2 + 1) / 100)
        free = hosts = sum(size >= cpus for size in cores)
    others = times_it_fits(cpus, cpu_count() - _taken("CPU"))
    count = max(1, min(jobs, free, others))
    return TrainingPlaces(count, cpus, math.ceil(count / hosts)) if count > 1 else one


def run_groups(groups: Sequence[TrainingGroup]) -> None:
    """Run groups side by side. When one fails, the others are stopped, and their finished epochs kept. A group that finds no
    place, as others of the cluster hold it, is run again by the first of these that ends.

    Raises:
        Exception: the first error of a group.
    """
    waiting, lock = deque(groups), threading.Lock()
    errors: list[BaseException] = []
    active = len(groups)

    def work() -> None:
        nonlocal active
        while True:
            with lock:
                if not waiting or errors:
                    active -= 1
                    return
                group = waiting.popleft()
            try:
                group.run()
            except BaseException as error:
                with lock:
                    if isinstance(error, MissingWorkersError) and active > 1:
                        waiting.append(group)
                    else:
                        errors.append(error)
                    active -= 1
                    return

    threads = [threading.Thread(target=work, name=f"training-{n}", daemon=True) for n in range(len(groups))]
    try:
        for thread in threads:
            thread.start()
        while (alive := [thread for thread in threads if thread.is_alive()]) and not errors:
            alive[0].join(JOIN_SECONDS)
    finally:
        _end(groups, [thread for thread in threads if thread.is_alive()])
    if errors:
        raise errors[0]


def _end(groups: Sequence[TrainingGroup], alive: Sequence[threading.Thread]) -> None:
    """Stop groups, by force those that do not end in time."""
    if not alive:
        return
    for group in groups:
        group.stop()
    deadline = time.monotonic() + END_SECONDS
    for thread in alive:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in alive):
        for group in groups:
            group.kill()
        for thread in alive:
            thread.join()


def _taken(unit: str) -> float:
    """What of a resource others hold now."""
    return float(ray.cluster_resources().get(unit, 0.0) - ray.available_resources().get(unit, 0.0))
