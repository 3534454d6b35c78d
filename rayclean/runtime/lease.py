"""One run at a time takes a language model and training workers of a cluster together.

A method that asks while it trains holds both. Of two such runs, each might get its model and wait for workers that the
other's model holds, for ever. So a run takes the cluster's lease before it starts its model, and gives it back when its
workers run: whoever waits for workers with a model in hand is alone, and all others that hold something end by
themselves. An embedded Ray has one run, which needs no lease.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rayclean.runtime import environment as environment
from rayclean.runtime.cluster import is_embedded
from rayclean.runtime.jobs_alive import alive_jobs

import ray
from ray.exceptions import RayActorError

logger = logging.getLogger(__name__)

_NAME, _NAMESPACE = "lease", "rayclean"
_POLL_SECONDS, _SAY_SECONDS = 1.0, 60.0
_held: list[Any] = []
"""The lease that this process holds, if any."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Lease:
    """An actor that remembers which driver holds the lease. After the loss of its process nobody holds it."""

    def __init__(self) -> None:
        self.holder: tuple[str, str] | None = None

    def take(self, job: str, what: str) -> str:
        """Take the lease for a driver, unless another one that is alive holds it, which is described."""
        if self.holder is not None and self.holder[0] != job and self.holder[0] in alive_jobs():
            return self.holder[1]
        self.holder = (job, what)
        return ""

    def give(self, job: str) -> None:
        """Give the lease back."""
        if self.holder is not None and self.holder[0] == job:
            self.holder = None


@contextmanager
def leased(what: str) -> Iterator[None]:
    """Hold the lease from here until `give_back`, at the latest until the end of the block; wait for it first, and say so.

    Args:
        what: description of the run, for those who wait.
    """
    if is_embedded() or _held:
        yield
        return
    lease = _Lease.options(  # type: ignore[attr-defined]
        name=_NAME, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()
    job = ray.get_runtime_context().get_job_id()
    begun = time.monotonic()
    said = begun - _SAY_SECONDS
    while holder := ray.get(lease.take.remote(job, what)):
        if (now := time.monotonic()) - said >= _SAY_SECONDS:
            said = now
            logger.warning(
                "waiting for %d s: %s takes a language model and training workers at the moment; one run at a time does, or "
                "two might wait for each other", now - begun, holder,
            )  # fmt: skip
        time.sleep(_POLL_SECONDS)
    _held.append(lease)
    try:
        yield
    finally:
        give_back()


def give_back() -> None:
    """Give the lease back, if this process holds it: its model and its workers run."""
    while _held:
        with suppress(RayActorError):
            ray.get(_held.pop().give.remote(ray.get_runtime_context().get_job_id()))
