"""How the annotation engine is built, wherever it runs, and the engine in this process.

The engine is asynchronous. Here it runs on an event loop in a thread of its own, because the caller's thread
may have a running loop already (a notebook has).
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from rayclean.annotators.base import Annotator
from rayclean.annotators.budget import Budget
from rayclean.annotators.engine import Engine, Meter
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.folder import Folder

T = TypeVar("T")
R = TypeVar("R")

OnProgress = Callable[[int, bool], None]
"""Called with the number of queries that were answered since the last call, and whether the ledger answered
them."""
AskingWork = Callable[[Engine, T], Awaitable[R]]
"""Reads an item's queries, has the engine answer them, and writes or returns what becomes of them."""


@dataclass(frozen=True)
class AskingPlan:
    """Everything from which an engine is built, in a form that can be sent to another process."""

    annotator: Annotator
    """Not yet started."""
    ledger: str
    """Folder of the ledger, as a URL."""
    session: str
    """Name under which answers are paid: budgets count what was paid under it, over all attempts."""
    budget: Budget
    max_error_rate: float
    used: Spent | None = None
    """Part of the budget that was used before, where answers of the ledger count, too (`Engine`)."""

    def engine(self, on_progress: OnProgress | None = None, meter: Meter | None = None) -> Engine:
        """A new engine; reads the ledger's index."""
        return Engine(
            self.annotator, Ledger(Folder(self.ledger), self.session), budget=self.budget, used=self.used,
            max_error_rate=self.max_error_rate, on_progress=on_progress, meter=meter,
        )  # fmt: skip


@contextmanager
def local_engine(
    plan: AskingPlan, work: "AskingWork[T, R]", on_progress: OnProgress | None = None
) -> Iterator[Callable[[T], R]]:
    """A function that does the work on an item with one engine in this process, for as long as the block
    runs.
    """
    engine, loop = plan.engine(on_progress), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rayclean-ask", daemon=True)
    thread.start()

    def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        finally:
            future.cancel()  # of a wait that was interrupted

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
    """The result of the work on every item, in order; one engine answers the queries of all of them."""
    with local_engine(plan, work, on_progress) as answer:
        yield from map(answer, items)
