"""One run at a time of a cluster holds a language model and waits for further resources.

A method that asks while it trains waits for its workers. A sweep waits for its trials, each of which holds a CPU even where none
of them trains, for the verbs that they share, and for its further models. Of two such runs, each might get its model and wait
for what the other's model holds, for ever. So a run takes the cluster's lease before it starts its model, and gives it back
after the model's end: it waits not once but again and again, for every trial, and after the loss of a worker or a node.
Whoever waits with a model in hand is alone, and all others that hold something end by themselves: `relabel` of a single run
only asks while it holds its model, from a process that holds no CPU. An embedded Ray has one run, which needs no lease.
"""

import json
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from rayclean.runtime import environment as environment
from rayclean.runtime.cluster import is_embedded
from rayclean.runtime.jobs_alive import alive_jobs

import ray
from ray.exceptions import RayActorError
from ray.experimental import internal_kv

logger = logging.getLogger(__name__)

_NAME, _NAMESPACE = "lease", "rayclean"
_POLL_SECONDS, _SAY_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class _Holder:
    """Who holds the lease: a driver, which of its blocks, and the run in words."""

    job: str
    block: str
    what: str


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Lease:
    """An actor that hands out the lease. Who holds it stands in Ray's own table of keys, which outlives the actor's node."""

    def __init__(self) -> None:
        kept = internal_kv._internal_kv_get(_NAME, namespace=_NAMESPACE)
        self.holder = _Holder(**json.loads(kept)) if kept else None

    def take(self, job: str, block: str, what: str) -> str:
        """Take the lease for a block of a driver, unless another driver that is alive holds it, whose run is described."""
        if self.holder is None or self.holder.job not in alive_jobs():
            self.holder = _Holder(job, block, what)
            internal_kv._internal_kv_put(_NAME, json.dumps(asdict(self.holder)), namespace=_NAMESPACE)
        return "" if self.holder.job == job else self.holder.what

    def give(self, block: str) -> None:
        """Give the lease back, if this block holds it."""
        if self.holder is not None and self.holder.block == block:
            self.holder = None
            internal_kv._internal_kv_del(_NAME, namespace=_NAMESPACE)


@contextmanager
def leased(what: str) -> Iterator[None]:
    """Hold the lease while the block runs; wait for it first, and say so. Blocks of one driver share it until the first of
    them ends.

    Args:
        what: description of the run, for those who wait.
    """
    if is_embedded():
        yield
        return
    lease = _Lease.options(  # type: ignore[attr-defined]
        name=_NAME, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()
    job, block = ray.get_runtime_context().get_job_id(), uuid.uuid4().hex
    begun = time.monotonic()
    said = begun - _SAY_SECONDS
    while holder := ray.get(lease.take.remote(job, block, what)):
        if (now := time.monotonic()) - said >= _SAY_SECONDS:
            said = now
            logger.warning(
                "waiting for %d s: %s holds a language model and waits for room beside it now and then; one run at a time does, "
                "or two might wait for each other", now - begun, holder,
            )  # fmt: skip
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        with suppress(RayActorError):
            ray.get(lease.give.remote(block))
