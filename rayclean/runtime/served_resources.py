"""What a served language model holds, told to Ray's coordinator of elastic work.

The coordinator counts the resources of nodes as free unless Ray Train or Ray Data asked for them. Replicas of Ray Serve
ask nobody, so elastic trainings would be planned on their GPUs and wait for ever. Whatever is counted here, an autoscaler
starts nodes for, needed or not.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rayclean.runtime import environment as environment
from rayclean.runtime.cluster import is_embedded

from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import ResourceRequestPriority
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    DefaultAutoscalingCoordinator,
)
from ray.exceptions import RayError

_RENEW_SECONDS = 20.0
_EXPIRE_SECONDS = 90.0
"""Seconds after which the resources of a driver that was killed count as free again."""


@contextmanager
def counted_as_taken(name: str, bundles: Callable[[], list[dict[str, float]]]) -> Iterator[None]:
    """Count some resources as taken while the block runs, wherever Ray decides how large an elastic group may be.

    Args:
        name: of whoever holds them.
        bundles: gives the resources of each of its processes, again and again.
    """
    if is_embedded():  # one run, whose training is as large as its config says
        yield
        return
    over = threading.Event()

    def renew() -> None:  # the client is for one thread alone
        coordinator = DefaultAutoscalingCoordinator(name)
        while not over.is_set():
            with suppress(
                RayError
            ):  # Ray is gone and all that it counts, or its control service is starting again
                coordinator.request_resources(
                    bundles(), _EXPIRE_SECONDS, priority=ResourceRequestPriority.HIGH
                )
            over.wait(_RENEW_SECONDS)
        with suppress(RayError):
            coordinator.cancel_request()

    renewing = threading.Thread(target=renew, name="rayclean-taken", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join(timeout=10)
