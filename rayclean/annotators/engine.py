"""The engine that answers many queries: from the ledger first, with bounded concurrency, budgets and error
rate.

    engine = Engine(annotator, ledger, budget=Budget(max_tokens=1_000_000), concurrency=32)
    annotations = await engine.answer(queries)        # in order; None: budget exhausted

A query occupies its slot of the concurrency window until it is answered. Then the slot asks the next one while
the answer is recorded; of answers that are not durable in the ledger yet there are at most `concurrency`, too, or
the slots wait. So a crash of the process loses at most twice `concurrency` paid answers, on any file system: those
in flight, and as many that were received.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from rayclean.annotators.base import Annotator
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.query_budget import Budget
from rayclean.errors import AnnotationError

ERROR_RATE_FROM = 20
"""Least number of queries for which an error rate is computed."""


@dataclass
class AnswerCounts:
    """Counts of the queries of one engine, or of one call of `Engine.answer`."""

    asked: int = 0
    """Number of queries sent."""
    reused: int = 0
    """Number of queries answered from the ledger."""
    unasked: int = 0
    """Number of queries beyond the budget, or not answered yet."""
    errors: Counter[str] = field(default_factory=Counter)
    """Number of failed queries by kind of error."""


@dataclass(frozen=True)
class _Call:
    """One call of `Engine.answer`."""

    limit: Budget
    """The part of the engine's budget that it may use."""
    counts: AnswerCounts = field(default_factory=AnswerCounts)


class Meter:
    """Receives the counts of an engine, for metrics; this base class ignores them."""

    def waiting(self, count: int) -> None:
        """Called with the number of unanswered queries whenever it changes."""

    def answered(self, annotation: Annotation) -> None:
        """Called for every query sent, with its answer or error."""


class Engine:
    """Answers queries; budget and counts apply to all calls of `answer` together.

    Args:
        annotator: answers the queries; the engine calls `start` before it sends the first query.
        ledger: holds the earlier answers and receives new ones.
        budget: limits on the spending.
        used: budget used before, if answers from the ledger also count against it; None: they are free, and
            the charges of the ledger's session count. Trials of a sweep share a ledger; with free answers of
            other trials in addition to its budget, a trial would get more answers than in a single run.
        concurrency: number of concurrent queries, and of answers that are not recorded yet; None: that of the annotator.
        max_error_rate: share of failed queries (of at least `ERROR_RATE_FROM`) above which `answer` raises.
        on_progress: called with (number of queries done, whether the ledger answered them).
        meter: receives every new answer and the number of waiting queries.
    """

    def __init__(
        self,
        annotator: Annotator,
        ledger: Ledger,
        *,
        budget: Budget | None = None,
        used: Spent | None = None,
        concurrency: int | None = None,
        max_error_rate: float = 1.0,
        on_progress: Callable[[int, bool], None] | None = None,
        meter: Meter | None = None,
    ):
        self.annotator = annotator
        self.ledger = ledger
        self.budget = budget or Budget()
        self.concurrency = concurrency or annotator.concurrency
        self.max_error_rate = max_error_rate
        self.on_progress = on_progress or (lambda count, reused: None)
        self.meter = meter or Meter()
        self.counts = AnswerCounts()
        self._waiting = 0
        self._ledger_uses_budget = used is not None
        self._used = replace(ledger.spent if used is None else used)
        self._sent = self._used.queries
        self._in_flight: dict[str, asyncio.Future[Annotation | None]] = {}
        self._window = asyncio.Semaphore(self.concurrency)
        self._unrecorded = asyncio.Semaphore(self.concurrency)
        self._starting = asyncio.Lock()
        self._started = self._stopped = False
        self._last_error = ""

    async def answer(self, queries: Sequence[Query], limit: Budget | None = None) -> list[Annotation | None]:
        """Answer queries: one annotation per query, in order; None for a query beyond the budget or without
        an answer yet.

        Queries are sent in order. Equal questions, also of concurrent calls, are sent once.

        Args:
            queries: the questions.
            limit: a part of the budget, beyond which this call sends nothing; None: all of it.

        Raises:
            AnnotationError: the annotator cannot start, or too many queries of this call failed. Answers
                received are in the ledger, where `recall` finds them.
        """
        call = _Call(limit or Budget())
        keys = await asyncio.to_thread(lambda: [self.annotator.key(query) for query in queries])
        known = await asyncio.to_thread(self.ledger.lookup, keys)
        free = {} if self._ledger_uses_budget else known
        found: dict[str, Annotation | None] = dict(free)
        reused = sum(key in free for key in keys)
        self.counts.reused += reused
        self.on_progress(reused, True)
        todo = {key: query for key, query in zip(keys, queries, strict=True) if key not in free}
        if todo.keys() - known.keys() and not self.exhausted:
            await self._start()
        iterator = iter(todo.items())
        self._wait(len(todo))

        async def work() -> None:
            while True:
                async with AsyncExitStack() as slot:
                    await slot.enter_async_context(self._window)
                    if (item := next(iterator, None)) is None:
                        return
                    key, query = item
                    try:
                        found[key] = await self._once(key, query, known.get(key), call, slot)
                    finally:
                        self._wait(-1)
                    self.on_progress(1, key in known)

        # Half of them ask while the others wait until answers are recorded.
        workers = [asyncio.create_task(work()) for _ in range(min(2 * self.concurrency, len(todo)))]
        # After an error in one worker the others finish, since their answers are paid for and must be
        # recorded.
        outcomes = await asyncio.gather(*workers, return_exceptions=True)
        self._wait(-sum(1 for _ in iterator))  # queries not reached by failed workers
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        self._check_errors(call.counts)
        return [
            None if (annotation := found[key]) is None else _of_query(annotation, query)
            for key, query in zip(keys, queries, strict=True)
        ]

    async def recall(self, queries: Sequence[Query]) -> list[Annotation | None]:
        """Look up the answers in the ledger without sending any query; None for a query without an answer."""
        keys = await asyncio.to_thread(lambda: [self.annotator.key(query) for query in queries])
        known = await asyncio.to_thread(self.ledger.lookup, keys)
        return [
            _of_query(known[key], query) if key in known else None
            for key, query in zip(keys, queries, strict=True)
        ]

    def stop(self) -> None:
        """Send no further query: those in flight are answered and recorded, as they are paid for, and `answer` raises
        `asyncio.CancelledError`.
        """
        self._stopped = True

    @property
    def in_flight(self) -> int:
        """Number of queries that were sent and are not recorded yet."""
        return len(self._in_flight)

    @property
    def exhausted(self) -> bool:
        """Whether the budget is exhausted."""
        return not self.budget.allows(self._sent, self._used)

    async def _once(
        self, key: str, query: Query, known: Annotation | None, call: _Call, slot: AsyncExitStack
    ) -> Annotation | None:
        """Send a query in a slot of the window, which is free again when it is answered, or wait for a concurrent call with
        the same question.
        """
        in_flight = self._in_flight.get(key)
        if in_flight is not None:
            return await asyncio.shield(in_flight)
        future: asyncio.Future[Annotation | None] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            answer = await self._ask(key, query, known, call, slot)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            future.exception()  # mark the exception as retrieved, as no other call may be waiting
            raise
        finally:
            del self._in_flight[key]
        future.set_result(answer)
        return answer

    async def _ask(
        self, key: str, query: Query, known: Annotation | None, call: _Call, slot: AsyncExitStack
    ) -> Annotation | None:
        if self._stopped:
            raise asyncio.CancelledError
        self._check_errors(call.counts)
        if self.exhausted or not call.limit.allows(self._sent, self._used):
            self.counts.unasked += 1
            return None
        self._sent += 1
        if known is not None:
            self._used.add(known)
            self.counts.reused += 1
            return known
        start = time.monotonic()
        (answer,) = await self.annotator.annotate([query])
        if answer is None:  # no answer yet
            self._sent -= 1
            self.counts.unasked += 1
            return None
        annotation = replace(
            _of_query(answer, query),
            key=key,
            seconds=round(time.monotonic() - start, 4),
            written=round(time.time(), 3),
            session=self.ledger.session,
        )
        self._used.add(annotation)
        self._last_error = annotation.error or self._last_error
        for counts in (self.counts, call.counts):
            counts.asked += 1
            if annotation.error is not None:
                counts.errors[annotation.error_kind or "invalid"] += 1
        async with self._unrecorded:
            await slot.aclose()
            await self.ledger.put(annotation)
        self.meter.answered(annotation)
        return annotation

    def _wait(self, change: int) -> None:
        self._waiting += change
        self.meter.waiting(self._waiting)

    def _check_errors(self, call: AnswerCounts) -> None:
        """Raise if too many queries of one call failed; later calls count again, as the endpoint may have
        recovered.
        """
        failed = call.errors.total()
        if call.asked >= ERROR_RATE_FROM and failed > self.max_error_rate * call.asked:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(call.errors.items()))
            raise AnnotationError(
                f"{failed} of {call.asked} queries failed ({kinds}; the last: {self._last_error}), more than "
                f"relabel.max_error_rate = {self.max_error_rate:g}. Repair the endpoint and run the same "
                "command: the good answers are in the ledger and cost nothing again"
            )

    async def _start(self) -> None:
        async with self._starting:
            if not self._started:
                await self.annotator.start()
                self._started = True


def _of_query(annotation: Annotation, query: Query) -> Annotation:
    """The annotation with the ids of this query, since it may be the answer to another query of the same
    content.
    """
    return replace(annotation, unit_id=query.unit_id, candidates=query.candidates)
