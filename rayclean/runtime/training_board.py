"""What a training on workers tells its driver: that it runs, its epochs, its error; and what the driver says meanwhile."""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from rayclean.runtime import environment as environment
from rayclean.runtime.engines import OnEpoch
from rayclean.runtime.nodes import free_resources
from rayclean.training.collectives import Collectives

import ray
from ray.exceptions import RayActorError

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_POLLS = 0.5
SAY_SECONDS = 60.0
"""Time between lines that say what a training waits for."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class TrainingBoard:
    """An actor that carries progress and errors from the workers to the driver and outlives the workers.
    After the loss of its process it starts empty; then progress lines are missing, and a permanent error
    recurs.
    """

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.failure: bytes | None = None
        self.running = False
        self.prepared: dict[int, set[int]] = {}

    def tell(self, running: bool) -> None:
        """Record whether a group of workers runs; Ray Train's controller says so again and again (`trainer.GroupWatch`)."""
        self.running = running

    def is_running(self) -> bool:
        """Whether a group of workers runs; False while one is waited for, at first and after the loss of one."""
        return self.running

    def ready(self, token: int, rank: int) -> int:
        """Record that a worker has its inputs; the number of those that have. Workers ask again and again, as the actor
        may have been lost meanwhile.
        """
        self.prepared.setdefault(token, set()).add(rank)
        return len(self.prepared[token])

    def add(self, record: dict[str, Any]) -> None:
        """Record the line of a finished epoch."""
        self.lines.append(record)

    def fail(self, error: bytes) -> None:
        """Record the error of a failed job; the first one is kept."""
        self.failure = self.failure or error

    def error(self) -> bytes | None:
        """The pickled exception; None without an error."""
        return self.failure

    def take(self) -> list[dict[str, Any]]:
        """The epoch lines since the last call."""
        lines, self.lines = self.lines, []
        return lines


def watch_training(board: Any, on_epoch: OnEpoch, stop: threading.Event, wanted: str) -> None:
    """Hand every epoch to the driver's callback until `stop`; while no workers run, say once a minute what is waited for.

    Args:
        board: the training's.
        on_epoch: called with the line of each epoch.
        stop: set at the end of the training.
        wanted: description of the workers.
    """
    since = said = time.monotonic()
    while True:
        ended = stop.wait(SECONDS_BETWEEN_POLLS)
        with contextlib.suppress(RayActorError):  # the actor restarts
            now = time.monotonic()
            if ray.get(board.is_running.remote()):
                since = said = now
            elif now - said >= SAY_SECONDS:
                said = now
                logger.warning("training: waits for %s since %d s; %s", wanted, now - since, free_resources())
            for record in ray.get(board.take.remote()):
                try:
                    on_epoch(record)
                except Exception:  # a failed progress callback must not stop the training
                    logger.warning("training: an epoch's progress could not be shown", exc_info=True)
        if ended:
            return


@contextlib.contextmanager
def all_ready(board: Any, collectives: Collectives) -> Iterator[None]:
    """Leave the block when every worker has. Tokenising millions of texts on a node that has none of their tokens takes longer
    than a worker may wait in a collective, so those that are ready ask the board.
    """
    if collectives.world_size == 1:
        yield
        return
    token = int(collectives.from_first(np.array([uuid.uuid4().int >> 65], dtype=np.int64))[0])
    yield
    pause = 0.01
    while ray.get(board.ready.remote(token, collectives.rank)) < collectives.world_size:
        time.sleep(pause)
        pause = min(2 * pause, SECONDS_BETWEEN_POLLS)
