"""The engines of a verb behind one switch: on Ray, or in this process.

Both sides call the same functions on the same files, so they give the same results; Ray adds machines,
processes side by side, and a new start of what was lost. Modules that import Ray are only imported on its
side of the switch.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from rayclean.annotators.base import Annotator
from rayclean.annotators.between_epochs import answer_between_epochs
from rayclean.config import ClusterConfig
from rayclean.errors import RaycleanError
from rayclean.runtime.asking import AskingPlan, AskingWork, OnProgress, ask_here, local_engine
from rayclean.runtime.needs import uses_gpu
from rayclean.runtime.threads import own_threads
from rayclean.schema import LabelSet, MethodQueries

if TYPE_CHECKING:
    from rayclean.runtime.serve import ServedEndpoint
    from rayclean.training.job import FitJob, FitResult, FitSpec
    from rayclean.training.query_annotator import AskAnnotator

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

OnEpoch = Callable[[dict[str, Any]], None]
"""Called in the driver with every epoch's line of `metrics.jsonl`; after a lost worker the lines of the
epochs that its checkpoint holds come again."""


@dataclass(frozen=True)
class Workplace:
    """What a run has in common with others that run side by side; a run by itself has nothing."""

    sharers: int = 1
    """Runs that share a machine, this one among them."""
    endpoints: "Mapping[str, ServedEndpoint]" = field(default_factory=dict)
    """Language models that are served for all of them (`runtime.serve.hosting`)."""
    in_process: bool = False
    """Whether the run stays in its process, since others already keep the cluster busy."""


@dataclass(frozen=True)
class Engines:
    """What a verb calls to have work done."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    on_ray: bool = False
    """Where the work is done: on the connected Ray, or in this process."""
    place: Workplace = Workplace()
    run: str = ""
    """Name of the run in the metrics of a cluster; empty: nothing is counted."""

    def map_items(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function(item)` for every item, in any order. Satisfies `rayclean.detectors.base.Mapper`.

        Raises:
            Whatever `function` raises, with its message; work already done by other items stays on disk.
        """
        if not self.on_ray:
            return map(function, items)
        from rayclean.runtime import ray_data

        return ray_data.map_items(function, items)

    def map_networks(
        self, factory: Callable[[int, bool], Callable[[T], R]], items: Sequence[T], actors: int | None
    ) -> Iterator[R]:
        """`function(item)` for every item, in any order, with functions that load networks once.

        Args:
            factory: makes a function, from its number of threads and whether it may use a GPU.
            items: small descriptions of work.
            actors: processes that each make a function, where the config sets their number.
        """
        if not self.on_ray:
            return map(factory(own_threads(self.place.sharers), uses_gpu(self.cluster)), items)
        from rayclean.runtime import actor_pool, ray_data

        size = actor_pool.size_pool(actors, len(items), self.place.sharers)
        build = functools.partial(factory, size.threads, size.num_gpus > 0)
        return ray_data.map_actors(
            build, items, actors=size.actors, num_cpus=size.num_cpus, num_gpus=size.num_gpus
        )

    def fit_jobs(
        self,
        jobs: "Sequence[FitJob]",
        spec: "FitSpec",
        work: str,
        on_epoch: OnEpoch = lambda record: None,
        consult: "AskAnnotator | None" = None,
    ) -> "dict[str, FitResult]":
        """Train all jobs that are not finished yet, one after another.

        Args:
            jobs: with distinct names and outputs.
            spec: how to train each of them.
            work: folder that all nodes see; Ray Train keeps a marker there while it runs.
            on_epoch: called after every epoch.
            consult: the annotator for methods that ask.

        Returns:
            Result by job name.

        Raises:
            RaycleanError: what a training raised, as it raised it.
            ResourceError: workers were lost again and again, or did not start.
        """
        from rayclean.training.job import job_key
        from rayclean.training.loop import finished_result

        assert len({job.name for job in jobs}) == len({job.output for job in jobs}) == len(jobs), (
            "names must be distinct"
        )
        keys = {job.name: job_key(job, spec) for job in jobs}
        unfinished = [job for job in jobs if finished_result(job, keys[job.name]) is None]
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

    def _fit_here(
        self,
        jobs: "Sequence[FitJob]",
        spec: "FitSpec",
        on_epoch: OnEpoch,
        consult: "AskAnnotator | None",
    ) -> None:
        import torch

        from rayclean.training.loop import fit

        def show(record: dict[str, Any]) -> None:
            try:
                on_epoch(record)
            except Exception:  # showing one epoch costs neither the training nor the other epochs
                logger.warning("training: an epoch's progress could not be shown", exc_info=True)

        torch.set_num_threads(own_threads(self.place.sharers))
        device = "cuda" if uses_gpu(self.cluster) else "cpu"
        for job in jobs:
            fit(job, spec, device=device, on_epoch=show, consult=consult)

    def ask_queries(
        self, plan: AskingPlan, work: "AskingWork[T, R]", items: Sequence[T], on_progress: OnProgress
    ) -> Iterator[R]:
        """`await work(engine, item)` for every item, one after the other, with one engine near the endpoint.

        Args:
            plan: whom to ask and what may be spent.
            work: reads the item's queries, has the engine answer them, writes what becomes of them (whole
                files).
            items: small descriptions of work (paths).
            on_progress: called in this process while queries are answered.

        Raises:
            AnnotationError: the annotator cannot start, fails too often, or its process dies again and again.
        """
        if not items:
            return iter(())
        if not self._asks_on_ray(plan.annotator):
            return ask_here(plan, work, items, on_progress)
        from rayclean.runtime import annotate

        return annotate.ask_queries(plan, work, items, on_progress, self.run)

    @contextmanager
    def consulting(
        self, plan: AskingPlan, *, examples: str, labels: LabelSet, calibration: str
    ) -> "Iterator[AskAnnotator]":
        """An annotator for methods that ask between epochs, as long as the block runs.

        Args:
            plan: whom to ask and what may be spent.
            examples: folder of example shards, for the texts.
            labels: all labels.
            calibration: of the answers, as in `relabel`.
        """
        work = functools.partial(
            answer_between_epochs, examples=examples, labels=labels, calibration=calibration
        )
        if self.on_ray:
            from rayclean.runtime import annotate

            with annotate.consulting(plan, work, self.run) as remote:
                yield remote
        else:
            with local_engine(plan, work) as answer:
                yield LocalConsultant(plan.annotator, answer)

    def hosted(self, annotator: Annotator, owner: str | None = None) -> "AbstractContextManager[Annotator]":
        """The annotator as it can be used inside the block: with its server running, where it has one.

        Args:
            annotator: any.
            owner: URL of the run: a server that an earlier attempt at it has left is replaced.
        """
        if annotator.server() is None:
            return nullcontext(annotator)
        from rayclean.runtime import serve

        return serve.hosted(annotator, owner, self.place.endpoints)

    def _asks_on_ray(self, annotator: Annotator) -> bool:
        """A served model listens on loopback of the head node: only a process there can ask it."""
        if self.on_ray or annotator.server() is None:
            return self.on_ray
        from rayclean.runtime.nodes import alive

        return len(alive()) > 1


IN_PROCESS = Engines()
"""Everything in this process."""


class LocalConsultant:
    """A `training.query_annotator.AskAnnotator` with its engine in this process."""

    def __init__(self, annotator: Annotator, answer: Callable[[MethodQueries], Any]):
        self.annotator, self.answer = annotator, answer

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """Number and selector that the annotator uses for the method's wish."""
        return self.annotator.demonstrations(count, selector)

    def __call__(self, asked: MethodQueries) -> tuple[Any, dict[str, float]]:
        """Labels and figures of the questions."""
        found: tuple[Any, dict[str, float]] = self.answer(asked)
        return found
