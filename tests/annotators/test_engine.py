"""The engine: window, budgets, error rate, and what a SIGKILL costs."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rayclean.annotators.base import Annotator
from rayclean.annotators.engine import Engine
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.query_budget import Budget
from rayclean.errors import AnnotationError
from rayclean.folder import Folder
from tests.annotators.queries import LABELS, query


class Fake(Annotator):
    """Counts what it is asked."""

    def __init__(self, latency: float = 0.0, fails: Sequence[int] = (), tokens: int = 10):
        super().__init__(self.Config(concurrency=8), LABELS)
        self.latency, self.fails, self.tokens = latency, set(fails), tokens
        self.asked: Counter[int] = Counter()
        self.in_flight = self.peak = self.starts = 0

    async def start(self) -> None:
        self.starts += 1

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        (asked,) = queries
        self.asked[asked.unit_id] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        await asyncio.sleep(self.latency)
        self.in_flight -= 1
        if asked.unit_id in self.fails:
            return [Annotation("", asked.unit_id, None, error="server: HTTP 500")]
        return [Annotation("", asked.unit_id, 1, (-2.0, -0.1), prompt_tokens=self.tokens)]


def engine(folder: Path, annotator: Annotator, session: str = "s", **options: object) -> Engine:
    return Engine(annotator, Ledger(Folder(str(folder)), session), **options)  # type: ignore[arg-type]


def test_answers_come_in_order_and_are_asked_once(tmp_path: Path) -> None:
    fake, progress = Fake(0.002), []
    queries = [query(n) for n in range(40)] + [query(3)]
    answers = asyncio.run(
        engine(tmp_path, fake, on_progress=lambda n, reused: progress.append((n, reused))).answer(queries)
    )
    assert [a.unit_id for a in answers if a] == [q.unit_id for q in queries]
    assert max(fake.asked.values()) == 1
    assert fake.peak == 8
    assert sum(n for n, _ in progress) == 40
    again = Fake()
    reused = asyncio.run(engine(tmp_path, again).answer(queries))
    assert reused == answers
    assert (again.asked, again.starts) == (Counter(), 0)  # all in the ledger: not even started


def test_after_a_stop_nothing_is_sent_and_what_was_in_flight_is_recorded(tmp_path: Path) -> None:
    fake = Fake(0.05)
    asking = engine(tmp_path, fake)

    async def stopped() -> None:
        task = asyncio.create_task(asking.answer([query(n) for n in range(40)]))
        while fake.in_flight < 8:
            await asyncio.sleep(0.001)
        asking.stop()
        assert asking.in_flight == 8
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(stopped())
    assert asking.in_flight == 0
    assert fake.asked.total() == 8
    assert len(Ledger(Folder(str(tmp_path)), "s")) == 8, "an answer that was paid for is lost"


def test_where_others_pay_into_the_ledger_their_answers_count(tmp_path: Path) -> None:
    """Trials of a sweep: with a budget of ten, each has the first ten answers, whoever ran before and however
    it ended.
    """
    queries, budget = [query(n) for n in range(30)], Budget(max_queries=10)

    def answered(session: str, used: Spent | None, asked: int) -> list[int]:
        fake = Fake()
        trial = engine(tmp_path, fake, session, budget=budget, used=used)
        answers = asyncio.run(trial.answer(queries))
        assert fake.asked.total() == asked
        assert trial.counts.asked + trial.counts.reused + trial.counts.unasked == len(queries)
        return [answer.unit_id for answer in answers if answer is not None]

    first = list(range(10))
    assert answered("a", Spent(), 10) == first
    assert answered("b", Spent(), 0) == first
    assert answered("a", Spent(), 0) == first  # killed and begun again
    assert answered("c", Spent(queries=4), 0) == first[:6]  # four were used in chunks that are finished
    assert answered("alone", None, 10) == list(
        range(20)
    )  # the ledger of a run by itself: what was paid is free


def test_one_question_for_two_examples(tmp_path: Path) -> None:
    fake = Fake(0.01)
    twins = [query(1, "same"), replace(query(1, "same"), unit_id=2)]

    async def go() -> list[list[Annotation | None]]:
        running = engine(tmp_path, fake)
        return await asyncio.gather(running.answer(twins), running.answer(twins))

    first, second = asyncio.run(go())
    assert fake.asked.total() == 1
    assert [a.unit_id for a in first if a] == [1, 2]
    assert first == second


@pytest.mark.parametrize(
    ("budget", "least", "most"),
    [
        (Budget(max_queries=13), 13, 13),
        (Budget(max_tokens=100), 10, 17),  # 10 tokens each; up to 7 others were in flight
        (Budget(max_cost=0.002, price_prompt=20.0), 10, 17),  # 10 tokens x 20 / 1e6 = 0.0002 each
        (Budget(max_queries=0), 0, 0),
    ],
)
def test_budgets_stop_cleanly_and_go_on(tmp_path: Path, budget: Budget, least: int, most: int) -> None:
    fake = Fake(0.005)
    queries = [query(n) for n in range(60)]
    answers = asyncio.run(engine(tmp_path, fake, budget=budget).answer(queries))
    answered = [a.unit_id for a in answers if a]
    assert least <= len(answered) <= most
    assert answered == list(range(len(answered)))  # the first ones: the most doubtful
    again = Fake()
    resumed = engine(tmp_path, again, budget=budget)  # the same session has no more to spend
    assert [a.unit_id for a in asyncio.run(resumed.answer(queries)) if a] == answered
    assert resumed.counts.unasked == 60 - len(answered)
    more = Fake()
    asyncio.run(engine(tmp_path, more, "another session").answer(queries))
    assert more.asked.total() == 60 - len(answered)  # nothing paid twice


def test_too_many_errors_stop_the_run_and_keep_what_was_paid(tmp_path: Path) -> None:
    fake = Fake(fails=range(0, 400, 2))
    with pytest.raises(AnnotationError, match=r"server \d+.*HTTP 500.*max_error_rate = 0.3"):
        asyncio.run(engine(tmp_path, fake, max_error_rate=0.3).answer([query(n) for n in range(400)]))
    assert 20 <= fake.asked.total() <= 20 + 8
    assert len(Ledger(Folder(str(tmp_path)))) == fake.asked.total() // 2


def test_an_outage_costs_the_calls_of_its_time_only(tmp_path: Path) -> None:
    fake = Fake(fails=range(40))
    running = engine(tmp_path, fake, max_error_rate=0.3)
    with asyncio.Runner() as loop:
        with pytest.raises(AnnotationError, match="queries failed"):
            loop.run(running.answer([query(n) for n in range(30, 90)]))
        known = loop.run(running.recall([query(n) for n in range(30, 90)]))
        assert {a.unit_id for a in known if a} == set(fake.asked) - set(range(40))
        fake.fails = set()
        assert all(loop.run(running.answer([query(n) for n in range(30, 90)])))
        before = fake.asked.total()
        assert all(loop.run(running.answer([query(n) for n in range(50, 90)])))
        assert fake.asked.total() == before


def test_few_errors_are_rows(tmp_path: Path) -> None:
    running = engine(tmp_path, Fake(fails=[3, 4]), max_error_rate=0.3)
    answers = asyncio.run(running.answer([query(n) for n in range(50)]))
    assert [a.unit_id for a in answers if a and a.error] == [3, 4]
    assert running.counts.errors == {"server": 2}
    healed = Fake()
    asyncio.run(engine(tmp_path, healed).answer([query(n) for n in range(50)]))
    assert sorted(healed.asked) == [3, 4]  # failures are asked again, nothing else


def test_who_has_not_answered_yet_is_asked_again(tmp_path: Path) -> None:
    """People answer some time: no error, nothing in the ledger, nothing of the budget used."""

    class Person(Fake):
        async def annotate(self, queries: Sequence[Query]) -> list[Annotation | None]:  # type: ignore[override]
            (asked,) = queries
            return list(await super().annotate(queries)) if asked.unit_id % 2 else [None]

    budget = Budget(max_queries=15)
    running = engine(tmp_path, Person(), budget=budget, max_error_rate=0.0)
    answers = asyncio.run(running.answer([query(n) for n in range(30)]))
    assert [a.unit_id for a in answers if a] == list(range(1, 30, 2))
    assert (running.counts.asked, running.counts.unasked, running.counts.errors.total()) == (15, 15, 0)
    assert len(Ledger(Folder(str(tmp_path)))) == 15


def test_a_bug_in_the_annotator_is_no_answer(tmp_path: Path) -> None:
    class Broken(Fake):
        async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
            raise ZeroDivisionError("bug")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(engine(tmp_path, Broken()).answer([query(1)]))


def test_the_window_hides_latency(tmp_path: Path) -> None:
    fake = Fake(0.05)
    asyncio.run(engine(tmp_path, fake, concurrency=32).answer([query(n) for n in range(160)]))
    assert fake.peak == 32  # so many wait for the endpoint at the same time, and never more


CHILD = """
import asyncio, os, sys, time
from rayclean.annotators.base import Annotator
from rayclean.annotators.query import Annotation
from rayclean.annotators.engine import Engine
from rayclean.annotators.ledger import Ledger
from rayclean.annotators import ledger
from rayclean.folder import Folder
from tests.annotators.queries import LABELS, query

ledger.MERGE_AT = 5
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

class Paid(Annotator):
    async def annotate(self, queries):
        (asked,) = queries
        os.write(log, f"{asked.unit_id}\\n".encode())  # from here on it is paid for
        await asyncio.sleep(0.01)
        return [Annotation("", asked.unit_id, 1, (-2.0, -0.1))]

engine = Engine(Paid(Paid.Config(concurrency=6), LABELS), Ledger(Folder(sys.argv[1]), "s"))
answers = asyncio.run(engine.answer([query(n) for n in range(int(sys.argv[3]))]))
assert all(a is not None and a.error is None for a in answers)
"""


class Stuck(Ledger):
    """A ledger on a file system that takes its time: nothing is durable before `free`."""

    free = asyncio.Event()
    waiting = peak = 0

    async def put(self, annotation: Annotation) -> None:
        self.waiting += 1
        self.peak = max(self.peak, self.waiting)
        await self.free.wait()
        await super().put(annotation)
        self.waiting -= 1


def test_requests_go_on_while_answers_are_recorded_and_few_are_not(tmp_path: Path) -> None:
    """No slot waits for the file system, until as many answers as there are slots are not durable."""
    fake, ledger = Fake(), Stuck(Folder(str(tmp_path)), "s")
    asking = Engine(fake, ledger)

    async def go() -> list[Annotation | None]:
        Stuck.free = asyncio.Event()
        task = asyncio.create_task(asking.answer([query(n) for n in range(60)]))
        while fake.asked.total() < 16:
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (
            fake.asked.total() == asking.in_flight == 16
        )  # 8 wait to be recorded, and 8 for a place among them
        assert ledger.waiting == 8
        Stuck.free.set()
        return await task

    answers = asyncio.run(go())
    assert [a.unit_id for a in answers if a] == list(range(60))
    assert (fake.peak <= 8, ledger.peak, asking.in_flight) == (True, 8, 0)
    assert len(Ledger(Folder(str(tmp_path)), "s")) == 60


def test_answers_that_are_not_recorded_yet_count_against_the_budget(tmp_path: Path) -> None:
    fake, ledger = Fake(tokens=10), Stuck(Folder(str(tmp_path)), "s")
    asking = Engine(fake, ledger, budget=Budget(max_tokens=50))

    async def go() -> None:
        Stuck.free = asyncio.Event()
        task = asyncio.create_task(asking.answer([query(n) for n in range(60)]))
        while not ledger.waiting:
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        Stuck.free.set()
        await task

    asyncio.run(go())
    assert 5 <= fake.asked.total() <= 5 + 7  # others were in flight when the fifth came


def test_sigkill_costs_at_most_twice_the_window(tmp_path: Path) -> None:
    """kill -9 at random moments; every restart pays again only for what was in flight or not recorded."""
    ledger, log, count, kills = tmp_path / "ledger", tmp_path / "paid", 400, 0
    choose = random.Random(os.getpid())
    log.touch()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CHILD, str(ledger), str(log), str(count)])

    while True:
        before = log.stat().st_size
        process = start()
        if kills < 5:
            while process.poll() is None and log.stat().st_size == before:
                time.sleep(0.005)  # it imports
            time.sleep(choose.uniform(0.0, 0.1))
        else:
            process.wait()
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    paid = Counter(map(int, log.read_text().split()))
    assert sorted(paid) == list(range(count))  # nothing was lost
    assert kills >= 3
    assert paid.total() - count <= kills * 6 * 2
    assert len(Ledger(Folder(str(ledger)), "s")) == count
