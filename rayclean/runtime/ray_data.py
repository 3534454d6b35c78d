"""Ray Data: the same function over every item (usually one shard), on a task pool or an actor pool.

An item is a small description of work (a shard's path), never the data itself; the worker opens what the item
names, writes its result under a temporary name, renames it, and returns a small summary. So the driver stays
flat whatever the size of the data, a lost worker or node only repeats items, and a restarted run skips the
items whose output is there. Ray Data schedules the items, keeps the pool busy and replaces what dies; the
results do not depend on how it does so, because nothing is keyed by block or order.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rayclean.runtime import environment as environment
from rayclean.runtime.cluster import quiet_libraries

import ray
import ray.data
from ray import cloudpickle

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)
quiet_libraries()


def map_items(function: Callable[[T], R], items: Iterable[T], *, num_cpus: float = 1.0) -> Iterator[R]:
    """`function(item)` for every item, on a pool of tasks; results in any order.

    Satisfies `rayclean.detectors.base.Mapper`.

    Raises:
        Whatever `function` raises, with its message; work already done by other items stays on disk.
    """
    return _run(items, _Call(function), num_cpus=num_cpus)


def map_actors(
    factory: Callable[[], Callable[[T], R]],
    items: Iterable[T],
    *,
    actors: int,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
) -> Iterator[R]:
    """`function(item)` for every item on a pool of actors, each of which calls `factory` once (loads its
    model) and then its result per item.
    """
    return _run(
        items,
        _Actor,
        fn_constructor_args=(cloudpickle.dumps(factory),),
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


class _Call:
    """A task's UDF: unpack the item, call, pack the result. Results travel as bytes: any picklable value may.

    An exception of the function itself travels as a result too, and is raised as it is in the driver; what
    Ray Data sees as a failure is a lost worker or node, and that it repeats.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
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
    """An actor's UDF: the same with a function built once."""

    def __init__(self, factory: bytes):
        self.call = _Call(cloudpickle.loads(factory)())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.call(batch)


def _run(items: Iterable[Any], udf: Any, **options: Any) -> Iterator[Any]:
    packed = [{"item": cloudpickle.dumps(item)} for item in items]
    if not packed:
        return
    if isinstance(udf, _Call):
        call = udf
        udf = lambda batch: call(batch)  # Ray Data takes an instance for an actor class  # noqa: E731
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = (
        None  # items tell what they cost; reading /proc every second costs, too
    )
    dataset = ray.data.from_items(
        packed, override_num_blocks=len(packed)
    )  # one block per item: one unit of retry
    mapped = dataset.map_batches(udf, batch_size=1, zero_copy_batch=True, **options)
    for row in mapped.iter_rows():
        result, error = cloudpickle.loads(row["result"])
        if error is not None:
            raise error
        yield result
