"""Progress of long work: a bar with rate and ETA in a terminal, a line now and then in a log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as EtaColumn

from rayclean.scoped import bound

logger = logging.getLogger(__name__)
console = Console(stderr=True)

Observer = Callable[["ProgressBar", int], None]
_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)

SECONDS_BETWEEN_LINES = 20
"""Without a terminal, a line is logged at most this often."""


class ProgressBar:
    """One piece of work under way."""

    def __init__(self, title: str, total: int | None, unit: str, bar: Progress | None):
        self.title, self.total, self.unit, self.bar = title, total, unit, bar
        self.observer = _observer.get()
        self.done = 0
        self.before = 0
        """Not part of the rate: work of an earlier attempt, and what came before the clock was started."""
        self.start: float | None = None
        self.last = time.monotonic()
        self.id: TaskID | None = None
        if bar is not None:
            self.id = bar.add_task(title, total=total, unit=unit, rate="")

    def advance(self, amount: int = 1, *, resumed: bool = False) -> None:
        """So much more is done; `resumed` work was done by an earlier attempt and counts for no rate."""
        self.done += amount
        if self.observer is not None and amount:
            self.observer(self, amount)
        now = time.monotonic()
        if resumed:
            self.before += amount
        elif self.start is None:  # the first sign of work: what starts up before it says nothing of the rate
            self.start = now
            self.before = self.done
        rate = (self.done - self.before) / max(now - (self.start or now), 1e-9)
        if self.bar is not None and self.id is not None:
            self.bar.update(self.id, completed=self.done, rate=f"{rate:,.1f} {self.unit}/s")
        elif now - self.last > SECONDS_BETWEEN_LINES:
            self.last = now
            eta = f", {(self.total - self.done) / rate:,.0f} s left" if self.total and rate > 0 else ""
            of = f"/{self.total:,}" if self.total else ""
            console.print(f"{self.title}: {self.done:,}{of} {self.unit}, {rate:,.1f}/s{eta}", highlight=False)

    def note(self, text: str) -> None:
        """A line that stays, above the bar."""
        console.print(f"{self.title}: {text}", highlight=False)


@contextmanager
def progress_bar(title: str, total: int | None, unit: str) -> Iterator[ProgressBar]:
    """Show progress of `total` units (None: unknown) while the block runs.

    Args:
        title: what is being done, as a verb ("predict").
        total: number of units, None if unknown.
        unit: plural name of a unit ("examples").
    """
    if not console.is_terminal:
        yield ProgressBar(title, total, unit, None)
        return
    columns = (
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), EtaColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        yield ProgressBar(title, total, unit, bar)


def observed(observer: Observer) -> AbstractContextManager[None]:
    """`observer` hears how much more is done of every task that begins in the block."""
    return bound(_observer, observer)
