"""Connecting to Ray: a cluster where there is one, an embedded Ray on this machine otherwise.

`connected(config.cluster)` wraps a command; everything inside may use Ray. An embedded Ray binds to loopback, has no
dashboard, asks for a token that only this process and its workers know, and goes when the command ends.
"""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from rayclean.config import ClusterConfig
from rayclean.errors import ResourceError
from rayclean.scoped import bound

# Read by Ray when it is imported, so set before.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # rayclean shows its own
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # workers reuse this environment
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# For the resources of a group, not for its start: an elastic one waits so long for a node that is gone before it tries
# with fewer workers.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # how soon the end of a training is seen
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # Ray Serve LLM imports it
if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it Ray does not send the token that is there
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "info" if os.environ.get("RAYCLEAN_DEBUG") else "fatal")

import ray
from ray.exceptions import AuthenticationError

from rayclean.runtime import nodes

logger = logging.getLogger(__name__)

EMBEDDED = "RAYCLEAN_EMBEDDED_RAY"
MIN_LOGICAL_CPUS = 4
"""Ray Data's tasks, its actor pool and a training worker must fit side by side, or they wait for each other for ever."""
TOKEN = (
    "set RAY_AUTH_TOKEN_PATH to a file with the cluster's token (on Kubernetes: key auth_token of the secret that bears the "
    "RayCluster's name)"
)
"""What to do where a token is missing or wrong."""


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Ray is there inside the block; an embedded one is shut down after it. Re-entrant: an outer connection stays."""
    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    verbose = bool(os.environ.get("RAYCLEAN_DEBUG"))
    level = logging.INFO if verbose else logging.ERROR
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address and address != "local":
        try:
            ray.init(address=address, logging_level=level, log_to_driver=verbose)
        except AuthenticationError as error:
            raise ResourceError(f"Ray at {address!r} asks for a token, and none was sent: {TOKEN}") from error
        except (ConnectionError, RuntimeError) as error:
            raise ResourceError(
                f"cannot connect to Ray at {address!r} ({error}); start it (`ray start --head`), "
                "mend cluster.address or RAY_ADDRESS, or unset both to use this machine alone"
            ) from error
    else:
        os.environ.pop("RAY_ADDRESS", None)
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody preempts this machine
        os.environ[EMBEDDED] = "1"  # its workers inherit it
        # Ray turns token authentication on for local clusters and would write ~/.ray/auth_token, readable by others.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault(
            "RAY_enable_metrics_collection", "0"
        )  # an agent process that only a dashboard reads
        with _no_native_output(not verbose):
            ray.init(
                address="local",
                num_cpus=config.cpus or max(MIN_LOGICAL_CPUS, os.cpu_count() or 1),
                num_gpus=config.gpus,
                include_dashboard=False,
                logging_level=level,
                log_to_driver=verbose,
            )
    _quiet(verbose)
    if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # ray.init put its own in the place of the command line's
    try:
        yield
    finally:
        ray.shutdown()
        os.environ.pop(EMBEDDED, None)


def is_embedded() -> bool:
    """Whether this process, or the one whose worker it is, started its own Ray, which has no dashboard and no state API."""
    return EMBEDDED in os.environ


def gpu_count() -> int:
    """GPUs of the connected cluster, or that it can grow to."""
    return nodes.most("GPU")


def cpu_count() -> int:
    """Logical CPUs of the connected cluster, or that it can grow to."""
    return nodes.most("CPU")


def trains_on_gpu(config: ClusterConfig) -> bool:
    """Whether training workers get GPUs: as the config says, else if the cluster has enough for all."""
    have = gpu_count()
    enough = have > 0 and have >= config.workers * config.gpus_per_worker
    return enough if config.use_gpu is None else config.use_gpu


def physical_threads() -> int:
    """Threads that one process may use on this machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


_sharers: ContextVar[int] = ContextVar("sharers", default=1)


def sharing(count: int) -> AbstractContextManager[None]:
    """While the block runs, so many pieces of work are under way on every machine side by side, this one among them."""
    return bound(_sharers, count)


def sharers() -> int:
    """How many pieces of work share a machine; 1 outside of `sharing`."""
    return _sharers.get()


def own_threads(processes: int = 1) -> int:
    """Threads for each of so many processes of this work, beside what shares the machine: more of them than cores wait for
    each other all the time.
    """
    return max(1, physical_threads() // (sharers() * processes))


@contextmanager
def _no_native_output(silent: bool) -> Iterator[None]:
    """Keeps back what Ray's C++ core writes to stderr when it starts (a line on its own log level); Python's errors
    are exceptions and come out all the same.
    """
    if not silent:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _quiet(verbose: bool) -> None:
    if not verbose:
        for name in ("ray", "ray.data", "ray.train", "ray.serve", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)
