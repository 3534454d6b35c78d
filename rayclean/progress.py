"""Progress of long work: a bar with rate and remaining time in a terminal, a line now and then in a log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as RemainingColumn

from rayclean.scoped import bound

logger = logging.getLogger(__name__)
console = Console(stderr=True)

Observer = Callable[["ProgressBar", int], None]
"""Called with a bar and the amount of work that was just done."""
_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)
_unseen: ContextVar[bool] = ContextVar("unseen", default=False)

SECONDS_BETWEEN_LINES = 20
"""Without a terminal, a line is printed at most this often."""


class ProgressBar:
    """One piece of work under way.

    Args:
        title: name of the work, as a verb ("predict").
        total: number of units; None if it is unknown.
        unit: plural name of a unit ("examples").
        bar: the bar of a terminal; None: lines are printed instead.
    """

    def __init__(self, title: str, total: int | None, unit: str, bar: Progress | None):
        self.title, self.total, self.unit, self.bar = title, total, unit, bar
        self.observer = _observer.get()
        self.done = 0
        self.uncounted = 0
        """Units that count for no rate: those of an earlier attempt, and those done before the clock was
        started."""
        self.underway = 0
        """Units that are told to be done of work that has not ended."""
        self.start: float | None = None
        self.last_line = time.monotonic()
        self.id: TaskID | None = None
        if bar is not None:
            self.id = bar.add_task(escape(title), total=total, unit=unit, rate="")

    def advance(self, amount: int = 1, *, resumed: bool = False) -> None:
        """Count units as done; `resumed` ones were done by an earlier attempt and count for no rate."""
        self.done += amount
        self.underway = max(self.underway, self.done)
        if self.observer is not None and amount:
            self.observer(self, amount)
        if resumed:
            self.uncounted += amount
        self._show(resumed)

    def tell(self, amount: int) -> None:
        """Show units of an item that is still under way; `advance` counts them when it ends."""
        most = self.underway + amount if self.total is None else min(self.underway + amount, self.total)
        self.underway = max(self.underway, most)
        self._show(False)

    def _show(self, resumed: bool) -> None:
        now = time.monotonic()
        if (
            self.start is None and not resumed
        ):  # work before the first report may hold the start of a process or a server
            self.start, self.uncounted = now, self.underway
        rate = self._rate(now)
        if self.bar is not None and self.id is not None:
            shown = _pace(rate, f" {self.unit}") if rate else ""
            self.bar.update(self.id, completed=self.underway, rate=shown)
        elif now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            total = f"/{self.total:,}" if self.total else ""
            say(f"{self.title}: {self.underway:,}{total} {self.unit}{self._speed(rate)}")

    def note(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        say(f"{self.title}: {text}")

    def _rate(self, now: float) -> float:
        """Units per second since the first report; 0 while there was only one, which says nothing of the
        speed.
        """
        elapsed = now - self.start if self.start is not None else 0.0
        return (self.underway - self.uncounted) / elapsed if elapsed > 0 else 0.0

    def _speed(self, rate: float) -> str:
        if not rate:
            return ""
        remaining = f", {(self.total - self.underway) / rate:,.0f} s left" if self.total else ""
        return f", {_pace(rate)}{remaining}"


def _pace(rate: float, unit: str = "") -> str:
    """A rate in words: units in a second, or the seconds of one unit where that says more.

    >>> _pace(2.0, " queries"), _pace(0.04)
    ('2.0 queries/s', '25 s each')
    """
    return f"{rate:,.1f}{unit}/s" if rate >= 0.1 else f"{1 / rate:,.0f} s each"


@contextmanager
def progress_bar(title: str, total: int | None, unit: str) -> Iterator[ProgressBar]:
    """Show the progress of some work while the block runs.

    Args:
        title: name of the work, as a verb ("predict").
        total: number of units; None if it is unknown.
        unit: plural name of a unit ("examples").
    """
    # FORCE_COLOR, which notebooks set for the commands of their cells, makes a terminal of any file for rich.
    if not (console.is_terminal and console.file.isatty()) or _unseen.get():
        yield ProgressBar(title, total, unit, None)
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        RemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield ProgressBar(title, total, unit, bar)


def say(text: str) -> None:
    """Print a line about the work under way, unless it is `unseen`."""
    if not _unseen.get():
        print_plain(console, text)


def print_plain(to: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is: brackets in paths and values are no markup, and long paths are not broken."""
    to.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def unseen() -> AbstractContextManager[None]:
    """Show nothing of the work in the block, which is part of other work that has a bar."""
    return bound(_unseen, True)


def observed(observer: Observer) -> AbstractContextManager[None]:
    """Report the progress of every bar that is made in the block to `observer`, too."""
    return bound(_observer, observer)
