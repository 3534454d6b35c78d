"""Asking near the endpoint: one asynchronous Ray actor runs the engine, the driver shows the progress.

A plain actor, not a Ray Data pool: one event loop holds the whole concurrency window, so budgets and error rates are
exact and the endpoint's queue is the only queue. It needs no CPU of its own (it waits for the network) and runs on the
head node, where a served model listens. Ray restarts it if it dies; the ledger knows what was answered and paid.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclean.annotators.base import Annotator
from rayclean.annotators.between_epochs import answer_between_epochs
from rayclean.annotators.engine import Budget, Engine
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.served import ServedAnnotator
from rayclean.errors import AnnotationError
from rayclean.folder import Folder
from rayclean.runtime import prometheus
from rayclean.runtime.nodes import alive
from rayclean.runtime.ray_data import is_in_this_process
from rayclean.runtime.serve import head_node_id
from rayclean.schema import UNANSWERED, LabelSet, MethodQueries

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

RESTARTS = 3
"""Deaths of the actor that are borne."""
POLL = 1.0
"""Seconds between looks at the progress."""


@dataclass(frozen=True)
class AskOutcome:
    """How an engine is built, wherever it runs."""

    annotator: Annotator
    """Not yet started."""
    ledger: str
    """Folder of the ledger, as a URL."""
    session: str
    """Who pays: budgets count what was paid under this name, over all attempts."""
    budget: Budget
    max_error_rate: float
    used: Spent | None = None
    """What of the budget was used before, where answers of the ledger count, too (`Engine`)."""
    run: str = field(default_factory=prometheus.run_name)
    """Whose metrics the answers count to."""

    def engine(self, on_progress: Callable[[int, bool], None] | None = None) -> Engine:
        """A new engine; reads the ledger's index."""
        ledger = Ledger(Folder(self.ledger), self.session)
        return Engine(
            self.annotator,
            ledger,
            budget=self.budget,
            used=self.used,
            max_error_rate=self.max_error_rate,
            on_progress=on_progress,
            meter=prometheus.meter_answers(self.run),
        )


def ask_queries(
    asking: AskOutcome,
    work: Callable[[Engine, T], Awaitable[R]],
    items: Sequence[T],
    on_progress: Callable[[int, bool], None],
) -> Iterator[R]:
    """`await work(engine, item)` for every item, one after the other, with one engine near the endpoint.

    Args:
        asking: whom to ask and what may be spent.
        work: reads the item's queries, has the engine answer them, writes what becomes of them (whole files).
        items: small descriptions of work (paths).
        on_progress: called in the driver with (queries done since the last call, whether from the ledger).

    Raises:
        AnnotationError: the annotator cannot start, fails too often, or its process dies again and again.
    """
    if not items:
        return
    served = isinstance(asking.annotator, ServedAnnotator)  # listens on loopback of the head node
    if is_in_this_process() and not (served and len(alive()) > 1):
        yield from _ask_here(asking, work, items, on_progress)
        return
    actor = _start(asking, work)
    seen = [0, 0]

    def look() -> None:
        try:
            counts = ray.get(actor.progress.remote(), timeout=POLL)
        except GetTimeoutError:  # busy or restarting: the next look will tell
            return
        for position, count in enumerate(counts):
            new = (
                count - seen[position] if count >= seen[position] else count
            )  # a restarted actor counts anew
            seen[position] = count
            if new:
                on_progress(new, bool(position))

    try:
        for item in items:
            pending = actor.run.remote(cloudpickle.dumps(item))
            while not ray.wait([pending], timeout=POLL)[0]:
                look()
            result, error = cloudpickle.loads(ray.get(pending))
            look()
            if error is not None:
                raise error
            yield result
        ray.get(actor.close.remote())
    except RayActorError as error:
        raise AnnotationError(
            f"the process that asks the annotator died {RESTARTS + 1} times ({str(error).splitlines()[0]}); "
            "run the same command to go on: what was answered is in the ledger"
        ) from error
    finally:
        ray.kill(actor)


def _ask_here(
    asking: AskOutcome,
    work: Callable[[Engine, T], Awaitable[R]],
    items: Sequence[T],
    on_progress: Callable[[int, bool], None],
) -> Iterator[R]:
    """The same without an actor, for work that is itself one of many (`data.in_this_process`)."""
    engine = asking.engine(on_progress)

    async def answer(item: T) -> R:
        return await work(engine, item)

    with asyncio.Runner() as runner:
        try:
            for item in items:
                yield runner.run(answer(item))
        finally:
            runner.run(engine.annotator.close())
            engine.ledger.close()


def _start(asking: AskOutcome, work: Callable[[Engine, Any], Awaitable[Any]]) -> Any:
    """The actor, on the head node."""
    node = head_node_id()
    strategy = NodeAffinitySchedulingStrategy(node, soft=False) if node else "DEFAULT"
    options = ray.remote(_Asker).options(
        num_cpus=0, max_restarts=RESTARTS, max_task_retries=RESTARTS, scheduling_strategy=strategy
    )
    return options.remote(cloudpickle.dumps((asking, work)))


@contextmanager
def consulting(
    asking: AskOutcome, *, examples: str, labels: LabelSet, calibration: str
) -> Iterator["Consultant"]:
    """An annotator for methods that ask between epochs, as long as the block runs; see `annotators/between_epochs.py`.

    Args:
        asking: whom to ask and what may be spent.
        examples: folder of example shards, for the texts.
        labels: all labels.
        calibration: of the answers, as in `relabel`.
    """
    work = functools.partial(answer_between_epochs, examples=examples, labels=labels, calibration=calibration)
    actor = _start(asking, work)
    try:
        yield Consultant(actor, asking.annotator)
        with suppress(RayActorError):
            ray.get(actor.close.remote())
    finally:
        ray.kill(actor)


class Consultant:
    """A `training.asking.Consult` that any worker may hold: one engine on the head node answers all of them."""

    def __init__(self, actor: Any, annotator: Annotator):
        self.actor = actor
        self.annotator = annotator

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """What the annotator makes of the method's wish."""
        return self.annotator.demonstrations(count, selector)

    def __call__(self, asked: MethodQueries) -> tuple[Any, dict[str, float]]:
        """Labels and figures; none, if the process that asks died again and again."""
        try:
            result, error = cloudpickle.loads(ray.get(self.actor.run.remote(cloudpickle.dumps(asked))))
        except RayActorError as lost:
            logger.warning("the process that asks the annotator is gone, training goes on: %s", lost)
            return np.full(len(asked.ids), UNANSWERED), {"annotator_failed": 1.0}
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


class _Asker:
    """The actor: an engine, built at the first item so that its errors travel as results."""

    def __init__(self, packed: bytes):
        self.asking, self.work = cloudpickle.loads(packed)
        self.engine: Engine | None = None
        self.done = [0, 0]

    async def run(self, item: bytes) -> bytes:
        """Result and error of one item, packed."""
        try:
            if self.engine is None:
                self.engine = self.asking.engine(self._count)
            return bytes(cloudpickle.dumps((await self.work(self.engine, cloudpickle.loads(item)), None)))
        except Exception as error:  # raised again in the driver
            logger.debug("asking failed", exc_info=True)
            error.__traceback__ = None
            error.__cause__ = error.__context__ = None
            return bytes(cloudpickle.dumps((None, error)))

    async def progress(self) -> list[int]:
        """Queries answered by asking, and from the ledger."""
        return self.done

    async def close(self) -> None:
        """Close connections, merge the ledger's small segments."""
        if self.engine is not None:
            await self.engine.annotator.close()
            self.engine.ledger.close()

    def _count(self, count: int, reused: bool) -> None:
        self.done[int(reused)] += count
