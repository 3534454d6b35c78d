"""The construction of the annotation engine, and the engine in this process.

The engine is asynchronous. It runs on an event loop in a separate thread, because the caller's thread may
already have a running loop (as in a notebook).
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from rayclean.annotators.base import Annotator
from rayclean.annotators.engine import Engine, Meter
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.query_budget import Budget
from rayclean.folder import Folder
from rayclean.schema import MethodQueries

T = TypeVar("T")
R = TypeVar("R")

OnProgress = Callable[[int, bool], None]
"""Callback with the number of queries answered since the last call, and whether the ledger answered them."""
AskingWork = Callable[[Engine, T], Awaitable[R]]
"""Coroutine that reads an item's queries, answers them with the engine, and writes or returns the outcome."""


IN_FLIGHT_SECONDS = 3.0
"""Time that answers in flight get after Ctrl-C."""


@dataclass(frozen=True)
class AskingPlan:
    """The arguments of an engine, in a form that can be sent to another process."""

    annotator: Annotator
    """The annotator, not yet started."""
    ledger: str
    """URL of the ledger's folder."""
    session: str
    """Name under which answers are charged; budgets count all charges under this name, over all attempts."""
    budget: Budget
    max_error_rate: float
    used: Spent | None = None
    """Budget used before, where answers from the ledger also count (`Engine`)."""

    def engine(self, on_progress: OnProgress | None = None, meter: Meter | None = None) -> Engine:
        """Build an engine, which reads the ledger's index."""
        return Engine(
            self.annotator, Ledger(Folder(self.ledger), self.session), budget=self.budget, used=self.used,
            max_error_rate=self.max_error_rate, on_progress=on_progress, meter=meter,
        )  # fmt: skip


@contextmanager
def local_engine(
    plan: AskingPlan, work: "AskingWork[T, R]", on_progress: OnProgress | None = None
) -> Iterator[Callable[[T], R]]:
    """A function that processes an item with one engine in this process, usable inside the block."""
    engine, loop = plan.engine(on_progress), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rayclean-ask", daemon=True)
    thread.start()

    def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            loop.call_soon_threadsafe(engine.stop)
            with suppress(Exception):  # what was in flight is paid for, and recorded if it comes in time
                future.result(timeout=IN_FLIGHT_SECONDS)
            raise
        finally:
            future.cancel()

    async def answer(item: T) -> R:
        return await work(engine, item)

    try:
        yield lambda item: wait_for(answer(item))
    finally:
        wait_for(engine.annotator.close())
        engine.ledger.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ask_here(
    plan: AskingPlan, work: "AskingWork[T, R]", items: Sequence[T], on_progress: OnProgress
) -> Iterator[R]:
    """Process every item with one engine in this process, and yield the results in order."""
    with local_engine(plan, work, on_progress) as answer:
        yield from map(answer, items)


class LocalConsultant:
    """A `training.query_annotator.AskAnnotator` whose engine runs in this process."""

    def __init__(self, annotator: Annotator, answer: Callable[[MethodQueries], Any]):
        self.annotator, self.answer = annotator, answer

    def demonstrations(self, count: int | None, selector: str) -> tuple[int, str]:
        """Number and selector of the demonstrations that the annotator uses for a method's request."""
        return self.annotator.demonstrations(count, selector)

    def __call__(self, asked: MethodQueries) -> tuple[Any, dict[str, float]]:
        """Labels and figures of the queries."""
        found: tuple[Any, dict[str, float]] = self.answer(asked)
        return found
