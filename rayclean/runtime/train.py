"""Ray Train: the loop of `rayclean.training` on 1..W workers, many jobs in one group of workers.

Starting a group of workers costs seconds to a minute, so all jobs of a call run one after another in one
group. What is finished and where to go on stands in the jobs' own folders (`result.json`,
`checkpoint.safetensors`, each with the key of what was trained), never in Ray's: after a lost worker or node
Ray Train starts the group again, and after a lost driver the same command does; both find the finished jobs
and the last epoch of the unfinished one. Ray Train resumes a run of the same name whatever its
hyper-parameters are; so a run's name carries the jobs' keys and the attempt, and nothing is ever reported to
Ray that it could resume.
"""

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.fs as pafs
import torch

from rayclean.config import ClusterConfig
from rayclean.errors import DisagreementError, RaycleanError, ResourceError
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.runtime.cluster import is_embedded, trains_on_gpu
from rayclean.runtime.engines import Engines, OnEpoch
from rayclean.runtime.threads import own_threads
from rayclean.scoped import working_in
from rayclean.training.collectives import Collectives, Distributed
from rayclean.training.job import FitJob, FitSpec
from rayclean.training.loop import fit
from rayclean.training.query_annotator import AskAnnotator

import ray
import ray.train
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

logger = logging.getLogger(__name__)

MAX_FAILURES = 5
"""Lost workers or nodes until a run gives up; the same command then goes on. Preempted nodes do not count."""
COLLECTIVE_SECONDS = 600
"""A worker that waits so long for another one fails, and the group starts again."""
SECONDS_BETWEEN_POLLS = 0.5


def train_on_workers(
    jobs: Sequence[FitJob],
    keys: Mapping[str, str],
    spec: FitSpec,
    engines: Engines,
    work: str,
    on_epoch: OnEpoch,
    consult: AskAnnotator | None,
) -> None:
    """Train jobs that are not finished, one after another on the cluster's workers; see `Engines.fit_jobs`.

    Args:
        jobs: to train.
        keys: of all jobs of the call by name; part of the run's name.
        spec: how to train each of them.
        engines: the workers' number and size, and the runs that share their machines.
        work: folder that all nodes see.
        on_epoch: called after every epoch.
        consult: the annotator for methods that ask; it goes to the workers.
    """
    cluster = engines.cluster
    name = f"fit-{fingerprint(dict(keys))}-{uuid.uuid4().hex[:8]}"
    use_gpu = trains_on_gpu(cluster)
    board = _Board.remote()  # type: ignore[attr-defined]
    folder = Folder(work)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, on_epoch, stop), daemon=True)
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
                    failure_config=FailureConfig(max_failures=MAX_FAILURES),
                ),
            )
            try:
                trainer.fit()
                failure = None
            except TrainingFailedError as error:
                failure = error
            except (
                RayActorError
            ) as error:  # Ray Train's controller itself was lost: nothing restarts that one
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
        raise _explained(failure) from failure


class _Trainer(TorchTrainer):
    """Ray Train without two processes that every training would start for nothing: the manager of Ray Data
    sets, of which there are none, and in an embedded Ray the cleaner of placement groups. The latter asks the
    state API, which is not there, and every training would wait 12 seconds for it at its end; groups go with
    the controller that made them.
    """

    def _create_default_callbacks(self) -> list[Any]:
        needless = (DatasetsCallback, PlacementGroupCleanerCallback) if is_embedded() else (DatasetsCallback,)
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if not isinstance(callback, needless)]


def _work(config: dict[str, Any]) -> None:
    """One worker: all jobs, in order."""
    jobs, spec, board = config["jobs"], config["spec"], config["board"]
    if ray.get(board.error.remote()) is not None:
        return  # an earlier attempt ended in an error that no repetition mends
    context = ray.train.get_context()
    alone = context.get_world_size() == 1
    torch.set_num_threads(own_threads(config["sharers"], context.get_local_world_size()))
    device = get_device()
    assert isinstance(device, torch.device)
    collectives = Collectives() if alone else Distributed(device)
    try:
        with working_in(config["home"]):
            for job in jobs:
                fit(job, spec, collectives, device, on_epoch=board.tell.remote, consult=config["consult"])
    except Exception as error:
        # Alone, any error is the job's own. Among several workers an error of another kind may only echo the
        # death of a peer: then Ray Train starts the group again. What the workers read differently may be
        # mended by then, too.
        if not alone and (not isinstance(error, RaycleanError) or isinstance(error, DisagreementError)):
            raise
        error.__traceback__ = None
        ray.get(board.fail.remote(cloudpickle.dumps(error)))
        if not alone:
            raise


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Board:
    """Where workers pin what the driver wants to know; it outlives them. Lost with its process, it starts
    empty: lines of progress are missing then, and an error that no repetition mends comes again.
    """

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.failure: bytes | None = None

    def tell(self, record: dict[str, Any]) -> None:
        """An epoch is done."""
        self.lines.append(record)

    def fail(self, error: bytes) -> None:
        """A job cannot be done; the first error counts."""
        self.failure = self.failure or error

    def error(self) -> bytes | None:
        """The pickled exception, if there is one."""
        return self.failure

    def take(self) -> list[dict[str, Any]]:
        """The lines since the last call."""
        lines, self.lines = self.lines, []
        return lines


def _watch(board: Any, on_epoch: OnEpoch, stop: threading.Event) -> None:
    while True:
        ended = stop.wait(SECONDS_BETWEEN_POLLS)
        with contextlib.suppress(RayActorError):  # it comes back
            for record in ray.get(board.take.remote()):
                try:
                    on_epoch(record)
                except (
                    Exception
                ):  # what is shown of one epoch costs neither the training nor the other epochs
                    logger.warning("training: an epoch's progress could not be shown", exc_info=True)
        if ended:
            return


def _workers(cluster: ClusterConfig) -> int | tuple[int, int]:
    """How many; a range is elastic: Ray Train starts with what there is and restarts when nodes come or go."""
    most = cluster.max_workers or cluster.workers
    return cluster.workers if most == cluster.workers else (cluster.workers, most)


def _resources(cluster: ClusterConfig, use_gpu: bool) -> dict[str, float]:
    return {"CPU": cluster.cpus_per_worker, **({"GPU": cluster.gpus_per_worker} if use_gpu else {})}


def _explained(failure: Exception) -> ResourceError:
    return ResourceError(
        f"training was given up after {MAX_FAILURES} failures of workers or nodes: {str(failure).strip()[-1500:]}\n"
        "Finished epochs are kept: mend the cause (memory, often) and run the same command again"
    )
