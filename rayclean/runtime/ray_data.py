"""Parallel maps over items (usually shards) with Ray Data, on a task pool or an actor pool.

An item is a small description of work (a shard's path), never the data itself; the worker opens the named
files, writes its result under a temporary name, renames it, and returns a small summary. So the driver's
memory does not grow with the data, a lost worker or node only repeats items, and a restarted run skips items
with existing output. Ray Data schedules the items and replaces lost workers; results do not depend on the
schedule, because nothing is keyed by block or order.
"""

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from rayclean import interrupts
from rayclean.runtime import environment as environment
from rayclean.runtime.cluster import quiet_libraries
from rayclean.runtime.nodes import free_resources

import ray
import ray.data
from ray import cloudpickle
from ray.experimental import internal_kv

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)
quiet_libraries()

_SAY_SECONDS = 60.0
"""Time between lines that say what a map waits for."""


def map_items(function: Callable[[T], R], items: Iterable[T], *, num_cpus: float = 1.0) -> Iterator[R]:
    """`function(item)` for every item, on a pool of tasks, in any order.

    Satisfies `rayclean.detectors.base.Mapper`.

    Raises:
        Exception: any error of `function`; the output of finished items stays on disk.
    """
    begun = _Begun()
    return _run(items, _Call(function, begun), begun, num_cpus=num_cpus)


def map_actors(
    factory: Callable[[], Callable[[T], R]],
    items: Iterable[T],
    *,
    actors: int,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    calls: int = 1,
) -> Iterator[R]:
    """`function(item)` for every item, in any order, on a pool of actors; each actor creates its function
    once by calling `factory`, and calls it in `calls` threads at once.
    """
    items = list(items)
    waiting = max(1, math.ceil(len(items) / actors))  # actors that start first leave the others their part
    calls = min(calls, waiting)
    begun = _Begun()
    return _run(
        items,
        _Actor,
        begun,
        fn_constructor_args=(cloudpickle.dumps(factory), begun),
        compute=ray.data.ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=min(calls + 1, waiting),
            max_concurrent_calls_per_actor=calls if calls > 1 else None,
            enable_true_multi_threading=calls > 1,
        ),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


def read_parquet_folder(url: str) -> ray.data.Dataset:
    """All Parquet files of a folder as a data set of Ray Data."""
    return ray.data.read_parquet(url, file_extensions=["parquet"])


def read_in_order(dataset: ray.data.Dataset) -> Iterator[Any]:
    """The rows of a data set of Ray Data as Arrow tables, in the same order every time."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    yield from dataset.iter_batches(batch_size=8192, batch_format="pyarrow")


class _Begun:
    """A mark in Ray's own store by which a map's first process tells that it has a place; told once per process."""

    def __init__(self) -> None:
        self.key = f"rayclean-begun-{uuid.uuid4().hex}".encode()
        self.told = False

    def tell(self) -> None:
        if not self.told:
            self.told = True
            with suppress(Exception):  # a line too many is no reason to fail
                internal_kv._internal_kv_put(self.key, b"")  # an actor would cost a process

    @contextmanager
    def awaited(self, wanted: str) -> Iterator[None]:
        """Until a process has told, say once a minute what is waited for, while the block runs."""
        over, since = threading.Event(), time.monotonic()

        def watch() -> None:
            with suppress(Exception):  # Ray is gone, which the block learns by itself
                while not over.wait(_SAY_SECONDS) and not internal_kv._internal_kv_exists(self.key):
                    seconds = time.monotonic() - since
                    logger.warning(
                        "waits for a process with %s since %d s; %s", wanted, seconds, free_resources()
                    )

        watcher = threading.Thread(target=watch, name="rayclean-begun", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            if not interrupts.stopping():  # a signal ends the command at once
                watcher.join(timeout=5)
                with suppress(Exception):  # must not hide the original error
                    internal_kv._internal_kv_del(self.key)


class _Call:
    """UDF of a task, which unpickles the item, calls the function and pickles the result.

    An exception of the function is returned as a result and raised in the driver, so Ray Data retries only
    after the loss of a worker or node.
    """

    def __init__(self, function: Callable[[Any], Any], begun: _Begun):
        self.function, self.begun = function, begun

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.begun.tell()
        results = []
        for item in batch["item"]:
            try:
                packed = cloudpickle.dumps((self.function(cloudpickle.loads(item)), None))
            except Exception as error:  # raised again in the driver
                error.__traceback__ = None
                packed = cloudpickle.dumps((None, error))
            results.append(packed)
        return {"result": results}


class _Actor:
    """UDF of an actor, which creates its function once."""

    def __init__(self, factory: bytes, begun: _Begun):
        begun.tell()
        self.call = _Call(cloudpickle.loads(factory)(), begun)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.call(batch)


def _run(
    items: Iterable[Any], udf: Any, begun: _Begun, *, num_cpus: float, num_gpus: float = 0.0, **options: Any
) -> Iterator[Any]:
    packed = [{"item": cloudpickle.dumps(item)} for item in items]
    if not packed:
        return
    if isinstance(udf, _Call):
        call = udf
        udf = lambda batch: call(batch)  # Ray Data would treat an instance as an actor class  # noqa: E731
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # no memory statistics: reading /proc every second is costly
    dataset = ray.data.from_items(
        packed, override_num_blocks=len(packed)
    )  # one block per item: one unit of retry
    mapped = dataset.map_batches(
        udf, batch_size=1, zero_copy_batch=True, num_cpus=num_cpus, num_gpus=num_gpus, **options
    )
    wanted = f"{num_cpus:g} CPUs" + (f" and {num_gpus:g} GPUs" if num_gpus else "")
    with begun.awaited(wanted):
        for row in mapped.iter_rows():
            result, error = cloudpickle.loads(row["result"])
            if error is not None:
                raise error
            yield result
