"""Distributed training with Ray Train: the loop of `rayclean.training` on 1..W workers, many jobs per group.

Starting a group of workers takes up to a minute, so all jobs of a call run one after another in one group.
Progress is stored in the jobs' folders (`result.json` and `checkpoint.safetensors`, each with the job's key),
never in Ray's. Ray Train restarts the group after the loss of a worker or node, and the user repeats the
command after the loss of the driver; both find the finished jobs and the last epoch of the unfinished one.
Ray Train resumes any run of the same name, whatever its hyper-parameters, so the name contains the jobs' keys
and the attempt, and no checkpoint is reported to Ray.
"""

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.fs as pafs
import torch

from rayclean.config import ClusterConfig
from rayclean.errors import DisagreementError, FaultError, RaycleanError
from rayclean.faults import fault
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.runtime.cluster import is_embedded, trains_on_gpu
from rayclean.runtime.engines import Engines, OnEpoch
from rayclean.runtime.gpus import INSTALL, require_cuda
from rayclean.runtime.threads import own_threads
from rayclean.runtime.training_board import TrainingBoard, all_ready, free_resources, watch_training
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
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.config import FailureConfig

logger = logging.getLogger(__name__)

START_ATTEMPTS = 30
"""Times that Ray Train waits for the workers of a group, a minute each, before the training is given up: an autoscaler
starts a node with GPUs in five to ten minutes, and other runs may hold what there is."""
MAX_FAILURES = 5
"""Losses of workers or nodes after which a run fails; the same command resumes it. Preemptions do not
count."""
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
    """Train unfinished jobs, one after another, on the cluster's workers (`Engines.fit_jobs`).

    Args:
        jobs: jobs to train.
        keys: key by job name, for all jobs of the call; part of the run's name.
        spec: settings of every training.
        engines: number and size of the workers, and number of runs that share their machines.
        work: folder visible to all nodes.
        on_epoch: called after every epoch.
        consult: annotator for methods that ask; it is sent to the workers.
    """
    cluster = engines.cluster
    name = f"fit-{fingerprint(dict(keys))}-{uuid.uuid4().hex[:8]}"
    use_gpu = trains_on_gpu(cluster)
    board = TrainingBoard.remote()  # type: ignore[attr-defined]
    folder = Folder(work)
    stop = threading.Event()
    wanted = _wanted(cluster, use_gpu)
    watcher = threading.Thread(target=watch_training, args=(board, on_epoch, stop, wanted), daemon=True)
    watcher.start()
    failure: Exception | None = None
    try:
        for attempt in range(MAX_FAILURES + 1):
            trainer = _Trainer(
                _work,
                train_loop_config={
                    "jobs": list(jobs),
                    "spec": spec,
                    "board": board,
                    "consult": consult,
                    "home": os.getcwd(),
                    "sharers": engines.place.sharers,
                    "use_gpu": use_gpu,
                },
                torch_config=TorchConfig(timeout_s=COLLECTIVE_SECONDS),
                scaling_config=ScalingConfig(
                    num_workers=_workers(cluster),  # type: ignore[arg-type]
                    use_gpu=use_gpu,
                    resources_per_worker=_resources(cluster, use_gpu),
                ),
                run_config=RunConfig(
                    name=f"{name}-{attempt}",
                    storage_path=folder.path(),
                    storage_filesystem=None
                    if folder.is_local
                    else pafs.PyFileSystem(pafs.FSSpecHandler(folder.fs)),
                    failure_config=FailureConfig(
                        max_failures=MAX_FAILURES, controller_failure_limit=START_ATTEMPTS
                    ),
                ),
            )
            try:
                trainer.fit()
                failure = None
            except TrainingFailedError as error:
                failure = error
            except (KeyboardInterrupt, SystemExit):
                trainer.abort()
                raise
            except RayActorError as error:  # Ray restarts no lost controller of Ray Train
                logger.warning("training: the controller was lost, starting again (%s)", type(error).__name__)
                failure = error
                continue
            finally:
                folder.remove(f"{name}-{attempt}")
            break
    finally:
        stop.set()
        watcher.join()
    packed = ray.get(board.error.remote())
    if packed is not None:
        raise cloudpickle.loads(packed)
    if failure is not None:
        raise _explained(failure, wanted) from failure


class _Trainer(TorchTrainer):
    """A trainer that leaves signals to the command, and is without two unneeded callbacks: the manager of Ray Data
    sets, as none are used, and on an embedded Ray the cleaner of placement groups, which would wait 12 seconds at the
    end of every training for a state API that does not exist. Placement groups are removed with their controller.
    """

    controller: Any = None
    """The actor that runs the training; None before it has started."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Remember the controller. Ray would install a handler of SIGINT that waits for it instead of raising
        `KeyboardInterrupt`, and leave the handler behind for everything that runs after the training.
        """
        self.controller = controller

    def abort(self) -> None:
        """End the training without waiting; workers end with their controller."""
        if self.controller is not None:
            ray.kill(self.controller)

    def _create_default_callbacks(self) -> list[Any]:
        needless = (DatasetsCallback, PlacementGroupCleanerCallback) if is_embedded() else (DatasetsCallback,)
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if not isinstance(callback, needless)]


def _work(config: dict[str, Any]) -> None:
    """Train all jobs, in order, on one worker."""
    jobs, spec, board = config["jobs"], config["spec"], config["board"]
    if ray.get(board.error.remote()) is not None:
        return  # an earlier attempt ended in a permanent error
    context = ray.train.get_context()
    alone = context.get_world_size() == 1
    torch.set_num_threads(own_threads(config["sharers"], context.get_local_world_size()))
    board.begin.remote()
    try:
        if config["use_gpu"]:
            require_cuda()
        device = get_device()
        assert isinstance(device, torch.device)
        collectives = Collectives() if alone else Distributed(device)
        with working_in(config["home"]):
            for job in jobs:
                with all_ready(board, collectives), _all_cores():
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


@contextlib.contextmanager
def _all_cores() -> Iterator[None]:
    """Tokenizers use all cores of this node, where networks would only wait for them."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = before or "false"


def _workers(cluster: ClusterConfig) -> int | tuple[int, int]:
    """Number of workers; with a range, Ray Train starts with the available nodes and restarts when nodes
    change.
    """
    most = cluster.max_workers or cluster.workers
    return cluster.workers if most == cluster.workers else (cluster.workers, most)


def _resources(cluster: ClusterConfig, use_gpu: bool) -> dict[str, float]:
    return {"CPU": cluster.cpus_per_worker, **({"GPU": cluster.gpus_per_worker} if use_gpu else {})}


def _wanted(cluster: ClusterConfig, use_gpu: bool) -> str:
    each = " and ".join(f"{size:g} {unit}s" for unit, size in _resources(cluster, use_gpu).items())
    return f"{cluster.workers} workers of {each}"


def _explained(failure: Exception, wanted: str) -> FaultError:
    said = " ".join(str(failure).split())
    if "StartupTimeout" in said or "StartupTimeout" in type(failure).__name__:
        return FaultError(
            f"training did not get {wanted} in {START_ATTEMPTS} minutes; {free_resources()}: end what holds the rest "
            "(`ray status` shows it), lower cluster.workers, cpus_per_worker or gpus_per_worker, and run the same command again"
        )
    if "have NCCL built in" in said:  # Ray joins the group before `_work` can look at the node
        return FaultError(
            f"training: workers were placed on GPUs of a node whose PyTorch cannot use them (no NCCL). {INSTALL} there, or "
            "set cluster.use_gpu = false"
        )
    if "NCCL" in said or "ncclInvalidUsage" in said:
        return FaultError(
            f"training was given up, as its workers could not talk to each other through NCCL: {said[-1000:]}; look at "
            "nvidia-smi on each node, and set NCCL_SOCKET_IFNAME where nodes have several networks"
        )
    return FaultError(
        f"training was given up, as workers or nodes failed more than {MAX_FAILURES} times or Ray itself is gone: "
        f"{said[-1500:]}; finished epochs are kept: fix the cause (often memory) and run the "
        "same command again"
    )
