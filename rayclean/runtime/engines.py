"""The engines through which a verb runs its work: on Ray, or in this process.

Both alternatives call the same functions on the same files and give the same results; Ray adds machines,
parallel processes, and restarts after failures. Modules that import Ray are imported only when it is used.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from rayclean.annotators.base import Annotator
from rayclean.annotators.between_epochs import answer_between_epochs
from rayclean.annotators.choices import Measured
from rayclean.config import ClusterConfig
from rayclean.errors import RaycleanError
from rayclean.progress import ProgressBar
from rayclean.runtime import auto_precision
from rayclean.runtime.asking import (
    AskingPlan,
    AskingWork,
    LocalConsultant,
    OnProgress,
    ask_here,
    local_engine,
)
from rayclean.runtime.gpus import require_cuda
from rayclean.runtime.needs import is_small_training, uses_gpu
from rayclean.runtime.threads import own_threads
from rayclean.schema import LabelSet

if TYPE_CHECKING:
    from rayclean.runtime.serve import ServedEndpoint
    from rayclean.training.job import FitJob, FitResult, FitSpec
    from rayclean.training.query_annotator import AskAnnotator

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

OnEpoch = Callable[[dict[str, Any]], None]
"""Callback in the driver with every epoch's line of `metrics.jsonl`; lines may be repeated after a lost
worker."""


@dataclass(frozen=True)
class Workplace:
    """Resources that a run shares with concurrent runs; the defaults are those of a single run."""

    sharers: int = 1
    """Number of runs that share a machine, including this one."""
    endpoints: "Mapping[str, ServedEndpoint]" = field(default_factory=dict)
    """Language models served for all of these runs (`runtime.serve.hosting`)."""
    shares_cluster: bool = False
    """Whether concurrent runs share the cluster, each of which gets a part of it."""
    in_process: bool = False
    """Whether the run does all work in its process, since concurrent runs already use the whole cluster."""


@dataclass(frozen=True)
class Engines:
    """Runs the work of a verb: maps over items, training, queries and model servers."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    on_ray: bool = False
    """Whether work runs on the connected Ray; otherwise it runs in this process."""
    place: Workplace = Workplace()
    run: str = ""
    """Name of the run in the metrics of a cluster; if empty, nothing is exported."""

    def map_items(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function(item)` for every item, in any order. Satisfies `rayclean.detectors.base.Mapper`.

        Raises:
            Exception: any error of `function`; the output of finished items stays on disk.
        """
        if not self.on_ray:
            return map(function, items)
        from rayclean.runtime import ray_data

        return ray_data.map_items(function, items)

    def map_networks(
        self, factory: Callable[[int, bool], Callable[[T], R]], items: Sequence[T], actors: int | None
    ) -> Iterator[R]:
        """`function(item)` for every item, in any order, where each process creates its function once.

        Args:
            factory: creates the function, given its number of threads and whether it may use a GPU; on a GPU several threads
                call it at once.
            items: small descriptions of work.
            actors: number of processes, each with its function; None: chosen by `size_pool`.
        """
        if not self.on_ray:
            return map(factory(own_threads(self.place.sharers), uses_gpu(self.cluster)), items)
        from rayclean.runtime import actor_pool, ray_data

        size = actor_pool.size_pool(self.cluster, actors, len(items), self.place.sharers)
        build = functools.partial(factory, size.threads, size.num_gpus > 0)
        return ray_data.map_actors(
            build, items, actors=size.actors, num_cpus=size.num_cpus, num_gpus=size.num_gpus, calls=size.calls
        )

    @contextmanager
    def counting(self, progress: ProgressBar) -> Iterator[Callable[[int], None]]:
        """What the functions of `map_networks` call with a number of units to move a bar within their items."""
        if not self.on_ray:
            yield progress.tell
            return
        from rayclean.runtime.step_counts import counted_on_ray

        with counted_on_ray(progress) as tell:
            yield tell

    def inference_precision(self, wanted: str) -> str:
        """The precision of `map_networks`: what is wanted; of `auto`, what the machines are faster in, decided here."""
        return auto_precision.inference_precision(self.cluster, self.on_ray) if wanted == "auto" else wanted

    def fit_jobs(
        self,
        jobs: "Sequence[FitJob]",
        spec: "FitSpec",
        work: str,
        on_epoch: OnEpoch = lambda record: None,
        consult: "AskAnnotator | None" = None,
    ) -> "dict[str, FitResult]":
        """Train all unfinished jobs: one after another, or on Ray side by side where there is room (`runtime.places`).

        Args:
            jobs: jobs with distinct names and output folders.
            spec: settings of every training.
            work: folder visible to all nodes; Ray Train keeps a marker in it while it runs.
            on_epoch: called after every epoch, by one thread at a time.
            consult: the annotator for methods that ask.

        Returns:
            Result by job name.

        Raises:
            RaycleanError: the error that a training raised.
            FaultError: workers were lost repeatedly, or did not start.
        """
        from rayclean.runtime.tokens import make_tokens
        from rayclean.training.job import job_key
        from rayclean.training.loop import finished_result

        assert len({job.name for job in jobs}) == len({job.output for job in jobs}) == len(jobs), (
            "names must be distinct"
        )
        small = is_small_training(spec.encoder, spec.method, spec.task)
        spec = auto_precision.with_precision(
            spec, lambda: auto_precision.training_precision(self.cluster, self.on_ray, small)
        )
        keys = {job.name: job_key(job, spec) for job in jobs}
        unfinished = [job for job in jobs if finished_result(job, keys[job.name]) is None]
        make_tokens(unfinished, spec, self.cluster, self.on_ray)
        if unfinished and self.on_ray:
            from rayclean.runtime.train import train_on_workers

            train_on_workers(unfinished, keys, spec, self, work, on_epoch, consult)
        elif unfinished:
            self._fit_here(unfinished, spec, on_epoch, consult)
        found = {job.name: finished_result(job, keys[job.name]) for job in jobs}
        results = {name: result for name, result in found.items() if result is not None}
        if missing := sorted(found.keys() - results.keys()):
            raise RaycleanError(
                f"training ended without a result for {missing}: their data changed meanwhile; run it again"
            )
        return results

    def fit_side_by_side(
        self, jobs: "Sequence[FitJob]", spec: "FitSpec", on_epoch: OnEpoch = lambda record: None
    ) -> "dict[str, FitResult]":
        """Train small networks of the same data in this process, all at the same time; arguments and results as in
        `fit_jobs`.
        """
        from rayclean.runtime.tokens import make_tokens
        from rayclean.training.side_by_side import fit_side_by_side

        threads = own_threads(self.place.sharers)
        spec = auto_precision.with_precision(spec, lambda: "float32")
        make_tokens(jobs, spec, self.cluster, self.on_ray)
        return fit_side_by_side(jobs, spec, on_epoch=_harmless(on_epoch), threads=threads)

    def _fit_here(
        self,
        jobs: "Sequence[FitJob]",
        spec: "FitSpec",
        on_epoch: OnEpoch,
        consult: "AskAnnotator | None",
    ) -> None:
        import torch

        from rayclean.training.loop import fit

        torch.set_num_threads(own_threads(self.place.sharers))
        small = is_small_training(spec.encoder, spec.method, spec.task)
        device = "cuda" if auto_precision.trains_here_on_gpu(self.cluster, small) else "cpu"
        if device == "cuda":
            require_cuda()
        for job in jobs:
            fit(job, spec, device=device, on_epoch=_harmless(on_epoch), consult=consult)

    def ask_queries(
        self, plan: AskingPlan, work: "AskingWork[T, R]", items: Sequence[T], on_progress: OnProgress
    ) -> Iterator[R]:
        """`await work(engine, item)` for every item, one after the other, with one engine near the endpoint.

        Args:
            plan: annotator, ledger and budget.
            work: reads the item's queries, answers them with the engine, and writes the outcome as whole
                files.
            items: small descriptions of work, such as paths.
            on_progress: called in this process while queries are answered.

        Raises:
            AnnotationError: the annotator cannot start, fails too often, or its process dies repeatedly.
        """
        if not items:
            return iter(())
        if not self._asks_on_ray(plan.annotator):
            return ask_here(plan, work, items, on_progress)
        from rayclean.runtime import annotate

        return annotate.ask_queries(plan, work, items, on_progress, self.run)

    @contextmanager
    def consulting(
        self, plan: AskingPlan, *, examples: str, labels: LabelSet, calibration: str, measured: Measured | None
    ) -> "Iterator[AskAnnotator]":  # fmt: skip
        """An annotator for methods that ask between epochs, available inside the block.

        Args:
            plan: annotator, ledger and budget.
            examples: folder of example shards, which hold the texts.
            labels: all labels.
            calibration: calibration of the answers (`relabel.calibration`).
            measured: what is known of it (`between_epochs.answer_between_epochs`).
        """
        work = functools.partial(
            answer_between_epochs, examples=examples, labels=labels, calibration=calibration, measured=measured
        )  # fmt: skip
        if self.on_ray:
            from rayclean.runtime import annotate

            with annotate.consulting(plan, work, self.run) as remote:
                yield remote
        else:
            with local_engine(plan, work) as answer:
                yield LocalConsultant(plan.annotator, answer)

    def hosted(
        self, annotator: Annotator, owner: str | None = None, *, trains: bool = False
    ) -> "AbstractContextManager[Annotator]":
        """The annotator, connected to its running server if it has one, for use inside the block.

        Args:
            annotator: any annotator.
            owner: URL of the run; a server left by an earlier attempt at the same run is replaced.
            trains: whether `fit_jobs` follows in the block.
        """
        if annotator.server() is None:
            return nullcontext(annotator)
        from rayclean.runtime import serve

        return serve.hosted(annotator, owner, self.place.endpoints, trains=trains)

    def _asks_on_ray(self, annotator: Annotator) -> bool:
        """Whether queries are sent from an actor: a served model listens only on loopback of the head
        node.
        """
        if self.on_ray or annotator.server() is None:
            return self.on_ray
        from rayclean.runtime.nodes import alive

        return len(alive()) > 1


def _harmless(on_epoch: OnEpoch) -> OnEpoch:
    """A callback for progress whose failure does not stop the training."""

    def show(record: dict[str, Any]) -> None:
        try:
            on_epoch(record)
        except Exception:
            logger.warning("training: an epoch's progress could not be shown", exc_info=True)

    return show


IN_PROCESS = Engines()
"""Engines that run all work in this process."""
