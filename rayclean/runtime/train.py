"""Distributed training with Ray Train: the loop of `rayclean.training` on 1..W workers, many jobs per group.

Starting a group of workers takes up to a minute, so jobs of a call run one after another in one group, or, where each has
one worker, in one group per place (`places.py`).
Progress is stored in the jobs' folders (`result.json` and `checkpoint.safetensors`, each with the job's key),
never in Ray's. Ray Train restarts the group after the loss of a worker or node, and the user repeats the
command after the loss of the driver; both find the finished jobs and the last epoch of the unfinished one.
Ray Train resumes any run of the same name, whatever its hyper-parameters, so the name contains the jobs' keys
and the attempt, and no checkpoint is reported to Ray.
"""

import logging
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
import torch

from rayclean.config import ClusterConfig
from rayclean.errors import DisagreementError, FaultError, RaycleanError
from rayclean.faults import fault
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.runtime.cluster import trains_on_gpu
from rayclean.runtime.engines import Engines, OnEpoch
from rayclean.runtime.gpus import require_cuda
from rayclean.runtime.needs import is_small_training
from rayclean.runtime.places import run_groups, training_places
from rayclean.runtime.threads import own_threads, tokenizing_on_all_cores
from rayclean.runtime.trainer import (
    MAX_FAILURES,
    START_ATTEMPTS,
    START_SECONDS,
    AbortableTrainer,
    GroupWatch,
    explained_failure,
)
from rayclean.runtime.training_board import TrainingBoard, all_ready, watch_training
from rayclean.scoped import working_in
from rayclean.training.collectives import Collectives, Distributed
from rayclean.training.job import FitJob, FitSpec
from rayclean.training.loop import fit
from rayclean.training.query_annotator import AskAnnotator
from rayclean.training.setup import prepare_inputs

import ray
import ray.train
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, get_device
from ray.train.v2.api.config import FailureConfig

logger = logging.getLogger(__name__)

COLLECTIVE_SECONDS = 600
"""Time after which a worker that waits for another one fails, and the group restarts."""


def train_on_workers(
    jobs: Sequence[FitJob],
    keys: Mapping[str, str],
    spec: FitSpec,
    engines: Engines,
    work: str,
    on_epoch: OnEpoch,
    consult: AskAnnotator | None,
) -> None:
    """Train unfinished jobs on the cluster's workers: in one group, or where there is room in several (`places.py`).

    Args:
        jobs: jobs to train.
        keys: key by job name, for all jobs of the call; part of the run's name.
        spec: settings of every training.
        engines: number and size of the workers, and the runs that share their machines.
        work: folder visible to all nodes.
        on_epoch: called after every epoch, by one thread at a time.
        consult: annotator for methods that ask; it is sent to the workers.
    """
    use_gpu = trains_on_gpu(engines.cluster, is_small_training(spec.encoder, spec.method, spec.task))
    # Trials of a sweep have what is free already, and whoever asks holds a model meanwhile.
    alone = consult is not None or engines.place.shares_cluster
    places = training_places(engines.cluster, 1 if alone else len(jobs), use_gpu=use_gpu)
    turn = threading.Lock()

    def one_at_a_time(record: dict[str, Any]) -> None:
        with turn:
            on_epoch(record)

    groups = [
        _Group(
            jobs[place :: places.count], fingerprint(dict(keys)), spec, engines.cluster, Folder(work), one_at_a_time, consult,
            use_gpu, places.cpus, engines.place.sharers * places.per_node,
        )
        for place in range(places.count)
    ]  # fmt: skip
    if len(groups) == 1:
        groups[0].run()
    else:
        logger.info("training: %d jobs on %d places side by side", len(jobs), len(groups))
        run_groups(groups)


@dataclass
class _Group:
    """Jobs that one group of workers trains, one after another."""

    jobs: Sequence[FitJob]
    key: str
    spec: FitSpec
    cluster: ClusterConfig
    folder: Folder
    on_epoch: OnEpoch
    consult: AskAnnotator | None
    use_gpu: bool
    cpus: float
    """CPUs reserved for each worker."""
    sharers: int
    """Number of trainings that share the cores of a node."""
    trainer: AbortableTrainer | None = None
    stopped: bool = False

    def run(self) -> None:
        """Train all jobs; returns early if the group is stopped."""
        board = TrainingBoard.remote()  # type: ignore[attr-defined]
        over = threading.Event()
        watcher = threading.Thread(
            target=watch_training, args=(board, self.on_epoch, over, self._wanted), daemon=True
        )
        watcher.start()
        try:
            failure = self._attempts(board)
        finally:
            over.set()
            watcher.join()
        if self.stopped:
            return
        packed = ray.get(board.error.remote())
        if packed is not None:
            raise cloudpickle.loads(packed)
        if failure is not None:
            raise explained_failure(failure, self._wanted) from failure

    def stop(self) -> None:
        """Begin to end the training."""
        self.stopped = True
        if self.trainer is not None:
            self.trainer.stop()

    def kill(self) -> None:
        """End the training without waiting."""
        if self.trainer is not None:
            self.trainer.abort()

    def _attempts(self, board: Any) -> Exception | None:
        """Train until all is done or given up; returns what went wrong at last."""
        name = f"fit-{self.key}-{uuid.uuid4().hex[:8]}"
        failure: Exception | None = None
        for attempt in range(MAX_FAILURES + 1):
            self.trainer = trainer = self._trainer(f"{name}-{attempt}", board)
            try:
                if self.stopped:
                    return None
                trainer.fit()
                return None
            except TrainingFailedError as error:
                return error
            except (KeyboardInterrupt, SystemExit):
                trainer.abort()
                raise
            except RayActorError as error:  # Ray restarts no lost controller of Ray Train
                if self.stopped:
                    return None
                logger.warning("training: the controller was lost, starting again (%s)", type(error).__name__)
                failure = error
            finally:
                self.folder.remove(f"{name}-{attempt}")
        return failure

    def _trainer(self, name: str, board: Any) -> AbortableTrainer:
        folder = self.folder
        return AbortableTrainer(
            _work,
            watch=GroupWatch(board, self._wanted, START_SECONDS),
            train_loop_config={
                "jobs": list(self.jobs),
                "spec": self.spec,
                "board": board,
                "consult": self.consult,
                "home": os.getcwd(),
                "sharers": self.sharers,
                "use_gpu": self.use_gpu,
            },
            torch_config=TorchConfig(timeout_s=COLLECTIVE_SECONDS),
            scaling_config=ScalingConfig(
                num_workers=_workers(self.cluster),  # type: ignore[arg-type]
                use_gpu=self.use_gpu,
                resources_per_worker=self._resources,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=folder.path(),
                storage_filesystem=None
                if folder.is_local
                else pafs.PyFileSystem(pafs.FSSpecHandler(folder.fs)),
                failure_config=FailureConfig(
                    max_failures=MAX_FAILURES, controller_failure_limit=START_ATTEMPTS
                ),
            ),
        )

    @property
    def _resources(self) -> dict[str, float]:
        return {"CPU": self.cpus, **({"GPU": self.cluster.gpus_per_worker} if self.use_gpu else {})}

    @property
    def _wanted(self) -> str:
        each = " and ".join(f"{size:g} {unit}s" for unit, size in self._resources.items())
        return f"{self.cluster.workers} workers of {each}"


def _work(config: dict[str, Any]) -> None:
    """Train all jobs, in order, on one worker."""
    jobs, spec, board = config["jobs"], config["spec"], config["board"]
    if ray.get(board.error.remote()) is not None:
        return  # an earlier attempt ended in a permanent error
    context = ray.train.get_context()
    alone = context.get_world_size() == 1
    torch.set_num_threads(own_threads(config["sharers"], context.get_local_world_size()))
    try:
        if config["use_gpu"]:
            require_cuda()
        device = get_device()
        assert isinstance(device, torch.device)
        collectives = Collectives() if alone else Distributed(device)
        with working_in(config["home"]):
            for job in jobs:
                with all_ready(board, collectives), tokenizing_on_all_cores():
                    prepare_inputs(job, spec)
                fit(job, spec, collectives, device, on_epoch=board.add.remote, consult=config["consult"])
    except Exception as raised:
        error = _named(raised)
        # A single worker's error is the job's. Among several workers, an error other than a RaycleanError may
        # be a consequence of the death of a peer, after which Ray Train restarts the group; a restart may
        # also resolve a disagreement between workers.
        if not alone and (not isinstance(error, RaycleanError) or isinstance(error, DisagreementError)):
            raise
        error.__traceback__ = None
        ray.get(board.fail.remote(cloudpickle.dumps(error)))
        if not alone:
            raise


def _named(error: Exception) -> Exception:
    """The error; in words where a GPU has too little memory, which further attempts would not change."""
    if isinstance(error, torch.OutOfMemoryError):
        return FaultError(f"training: {fault(error, '')}")
    return error


def _workers(cluster: ClusterConfig) -> int | tuple[int, int]:
    """Number of workers; with a range, Ray Train starts with the available nodes and restarts when nodes
    change.
    """
    most = cluster.max_workers or cluster.workers
    return cluster.workers if most == cluster.workers else (cluster.workers, most)
