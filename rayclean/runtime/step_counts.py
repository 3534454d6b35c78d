"""How far the items under way are: told by the processes that work on them, shown by the driver.

An item may take minutes (a shard of long texts), so its end is too rare a sign of life. What is told here decides nothing: a
lost message costs a late bar.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rayclean.progress import ProgressBar

import ray

SECONDS_BETWEEN = 1.0
"""A process tells at most so often, and the driver asks as often."""

Tell = Callable[[int], None]
"""Called with a number of units that were just done."""


@contextmanager
def counted_on_ray(progress: ProgressBar) -> Iterator[Tell]:
    """What workers of Ray call to move a bar of the driver, while the block runs."""
    counter: Any = ray.remote(num_cpus=0, max_restarts=0)(_Counter).remote()
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(counter, progress, stop), name="progress", daemon=True)
    watcher.start()
    try:
        yield _Telling(counter)
    finally:
        stop.set()
        watcher.join(timeout=5)
        ray.kill(counter)


class _Counter:
    """The actor that adds up what workers tell."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, amount: int) -> None:
        self.count += amount

    def taken(self) -> int:
        """What was told since the last call."""
        found, self.count = self.count, 0
        return found


class _Telling:
    """Sends the sum of what was told since the last message, now and then; nobody waits for an answer."""

    def __init__(self, counter: Any):
        self.counter, self.waiting, self.last = counter, 0, 0.0

    def __call__(self, amount: int) -> None:
        self.waiting += amount
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN:
            self.counter.add.remote(self.waiting)
            self.waiting, self.last = 0, now


def _watch(counter: Any, progress: ProgressBar, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN):
        try:
            taken = ray.get(counter.taken.remote(), timeout=5)
        except ray.exceptions.RayError:  # lost with its node, or too slow: the bar moves with whole items
            continue
        if taken and not stop.is_set():
            progress.tell(taken)
