"""The annotation engine in one asynchronous Ray actor near the endpoint; the driver shows the progress.

It is a plain actor rather than a Ray Data pool: one event loop holds the whole concurrency window, so budgets
and error rates are exact and the endpoint's queue is the only queue. The actor reserves no CPU (it waits for
the network) and runs on the head node, where a served model listens. Ray restarts it if it dies; the ledger
holds the answers received so far and their cost.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np

from rayclean.annotators.base import Annotator
from rayclean.annotators.engine import Engine
from rayclean.errors import AnnotationError
from rayclean.runtime import nodes, prometheus
from rayclean.runtime.asking import IN_FLIGHT_SECONDS, AskingPlan, AskingWork, OnProgress
from rayclean.schema import UNANSWERED, MethodQueries

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

RESTARTS = 3
"""Restarts of the actor before asking fails."""
POLL = 1.0
"""Seconds between reads of the progress."""
HEAR_SECONDS = 0.05
"""Longest single wait for Ray, which hears of no signal before its end: what is asked meanwhile is paid for."""


def ask_queries(
    plan: AskingPlan, work: "AskingWork[T, R]", items: Sequence[T], on_progress: OnProgress, run: str
) -> Iterator[R]:
    """Run `work(engine, item)` for every item with one engine in an actor, and yield the results in order.

    Raises:
        AnnotationError: the annotator cannot start, fails too often, or its process dies repeatedly.
    """
    actor = _start(plan, work, run)
    seen = [0, 0]

    def report(counts: list[int]) -> None:
        for position, count in enumerate(counts):
            new = (
                count - seen[position] if count >= seen[position] else count
            )  # a restarted actor counts from 0
            seen[position] = count
            if new:
                on_progress(new, bool(position))

    try:
        for item in items:
            pending, progress = actor.run.remote(cloudpickle.dumps(item)), actor.progress.remote()
            told = time.monotonic()
            while not ray.wait([pending], timeout=HEAR_SECONDS)[0]:
                # A busy or restarting actor answers late: then it is not asked again.
                if time.monotonic() - told >= POLL and ray.wait([progress], timeout=0)[0]:
                    report(ray.get(progress))
                    progress, told = actor.progress.remote(), time.monotonic()
            result, error = cloudpickle.loads(ray.get(pending))
            with suppress(GetTimeoutError):
                report(ray.get(actor.progress.remote(), timeout=POLL))
            if error is not None:
                raise error
            yield result
        ray.get(actor.close.remote())
    except (KeyboardInterrupt, SystemExit):
        _stop_asking(actor)
        raise
    except RayActorError as error:
        raise AnnotationError(
            f"the process that asks the annotator died {RESTARTS + 1} times ({str(error).strip().splitlines()[-1]}); "
            "run the same command to go on: what was answered is in the ledger"
        ) from error
    finally:
        ray.kill(actor)


def _start(plan: AskingPlan, work: "AskingWork[Any, Any]", run: str) -> Any:
    """Start the actor on the head node."""
    node = nodes.head_id()
    strategy = NodeAffinitySchedulingStrategy(node, soft=False) if node else "DEFAULT"
    options = ray.remote(_Asker).options(
        num_cpus=0, max_restarts=RESTARTS, max_task_retries=RESTARTS, scheduling_strategy=strategy
    )
    return options.remote(cloudpickle.dumps((plan, work, run)))


def _stop_asking(actor: Any) -> None:
    """Send no further query, and wait a moment for the answers in flight, which are paid for."""
    with suppress(RayError):  # Ray may be gone, too
        ray.get(actor.stop.remote(), timeout=IN_FLIGHT_SECONDS)


@contextmanager
def consulting(plan: AskingPlan, work: "AskingWork[Any, Any]", run: str) -> Iterator["Consultant"]:
    """An annotator for methods that ask between epochs (`annotators/between_epochs.py`), available inside the
    block.
    """
    actor = _start(plan, work, run)
    try:
        yield Consultant(actor, plan.annotator)
        with suppress(RayActorError):
            ray.get(actor.close.remote())
    except (KeyboardInterrupt, SystemExit):
        _stop_asking(actor)
        raise
    finally:
        ray.kill(actor)


class Consultant:
    """A `training.query_annotator.AskAnnotator` that can be sent to any worker; one engine on the head node
    serves all workers.
    """

    def __init__(self, actor: Any, annotator: Annotator):
        self.actor = actor
        self.annotator = annotator

    def demonstrations(self, count: int | None, selector: str) -> tuple[int, str]:
        """Number and selector of the demonstrations that the annotator uses for a method's request."""
        return self.annotator.demonstrations(count, selector)

    def __call__(self, asked: MethodQueries) -> tuple[Any, dict[str, float]]:
        """Labels and figures of the queries; every label is `UNANSWERED` if the actor has died for good."""
        try:
            result, error = cloudpickle.loads(ray.get(self.actor.run.remote(cloudpickle.dumps(asked))))
        except RayActorError as lost:
            logger.warning("the process that asks the annotator is gone, training goes on: %s", lost)
            return np.full(len(asked.ids), UNANSWERED), {"annotator_failed": 1.0}
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


class _Asker:
    """An actor that holds an engine, which it builds at the first item so that construction errors are
    results.
    """

    def __init__(self, packed: bytes):
        self.packed = packed
        self.engine: Engine | None = None
        self.done = [0, 0]

    async def run(self, item: bytes) -> bytes:
        """Process one item; returns its result and its error, pickled."""
        try:
            if self.engine is None:
                plan, self.work, run = cloudpickle.loads(self.packed)
                self.engine = plan.engine(self._count, prometheus.meter_answers(run))
            return bytes(cloudpickle.dumps((await self.work(self.engine, cloudpickle.loads(item)), None)))
        except Exception as error:  # raised again in the driver
            logger.debug("asking failed", exc_info=True)
            error.__traceback__ = None
            error.__cause__ = error.__context__ = None
            return bytes(cloudpickle.dumps((None, error)))

    async def stop(self) -> None:
        """Send no further query; returns when those in flight are recorded."""
        if self.engine is not None:
            self.engine.stop()
            while self.engine.in_flight:
                await asyncio.sleep(POLL / 20)

    async def progress(self) -> list[int]:
        """Number of queries answered by the annotator, and by the ledger."""
        return self.done

    async def close(self) -> None:
        """Close the connections and merge the ledger's small segments."""
        if self.engine is not None:
            await self.engine.annotator.close()
            self.engine.ledger.close()

    def _count(self, count: int, reused: bool) -> None:
        self.done[int(reused)] += count
