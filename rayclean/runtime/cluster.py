"""The connection to Ray: to a cluster if one is configured, otherwise to an embedded Ray on this machine.

`connected(config.cluster)` wraps a command; everything inside may use Ray. An embedded Ray binds to loopback,
has no dashboard, requires a token known only to this process and its workers, and stops when the command
ends.
"""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from rayclean import interrupts
from rayclean.config import ClusterConfig
from rayclean.errors import FaultError, ResourceError
from rayclean.progress import say
from rayclean.runtime import environment as environment
from rayclean.runtime import gpus, nodes, reaper
from rayclean.runtime.core_handlers import core_handlers_left_out
from rayclean.runtime.last_words import told_if_killed
from rayclean.runtime.needs import EMBEDDED
from rayclean.runtime.threads import physical_threads

import ray
from ray.exceptions import AuthenticationError

logger = logging.getLogger(__name__)

MIN_LOGICAL_CPUS = 4
"""Least logical CPUs of an embedded Ray: with fewer, Ray Data's tasks, its actor pool and a training worker
could not run at once and would deadlock."""
NODE_LOOK_SECONDS = 1.0
"""Time between looks at the processes of an embedded Ray."""
TOKEN = (
    "set RAY_AUTH_TOKEN_PATH to a file with the cluster's token (on Kubernetes: key "
    "auth_token of the secret with the "
    "RayCluster's name)"
)
"""Advice in the error about a missing or wrong token."""


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Connect to Ray while the block runs, and shut an embedded Ray down after it; reuse an existing
    connection.
    """
    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    embedded = not address or address == "local"
    mark = reaper.own_mark() if embedded else ""
    handlers = {number: signal.getsignal(number) for number in interrupts.STOPPING}
    say("starting Ray on this machine" if embedded else f"connecting to Ray at {address}")
    with (
        interrupts.handlers_kept(),
        told_if_killed("its own Ray" if embedded else f"Ray at {address}", mark),
    ):
        try:
            with interrupts.at_once(), core_handlers_left_out():
                if embedded:
                    _start_embedded(config, mark)
                else:
                    _connect(str(address))
            quiet_libraries()
            _install(handlers)
            with _watched_node() if embedded else nullcontext():
                yield
        finally:
            ray.shutdown()
            _install(handlers)
            os.environ.pop(EMBEDDED, None)


def _install(handlers: Mapping[signal.Signals, Any]) -> None:
    """Install the handlers of the command line anew, also where Python takes them for installed, since Ray replaces some behind
    its back; where there were none, Ray's own end in order stays.
    """
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)


@contextmanager
def _watched_node() -> Iterator[None]:
    """End the command when a process of its own Ray is killed: calls into Ray may wait for ever for an answer then."""
    node: Any = ray._private.worker._global_node  # no public API tells the processes of an embedded Ray
    over = threading.Event()

    def watch() -> None:
        while not over.wait(NODE_LOOK_SECONDS):
            if dead := [kind for kind, _ in node.dead_processes()]:
                interrupts.fail(f"fault error: Ray's {dead[0]} on this machine has ended or was killed")
                return

    watcher = threading.Thread(target=watch, name="rayclean-watch-ray", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _connect(address: str) -> None:
    """Connect to a running cluster."""
    verbose = bool(os.environ.get("RAYCLEAN_DEBUG"))
    try:
        ray.init(
            address=address, logging_level=logging.INFO if verbose else logging.ERROR, log_to_driver=verbose
        )
    except AuthenticationError as error:
        raise ResourceError(f"Ray at {address!r} asks for a token, and none was sent: {TOKEN}") from error
    except (ConnectionError, RuntimeError) as error:
        raise ResourceError(
            f"cannot connect to Ray at {address!r} ({error}); start it (`ray start --head`), "
            "correct cluster.address or RAY_ADDRESS, or unset both to use this machine alone"
        ) from error


def _start_embedded(config: ClusterConfig, mark: str) -> None:
    """Start a Ray of this process alone, whose processes bear the mark."""
    verbose = bool(os.environ.get("RAYCLEAN_DEBUG"))
    num_gpus = gpus.embedded_gpus(config)
    for pid in reaper.kill_orphans():
        logger.warning("process %d was left by a command that was killed, and is ended", pid)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # this machine is not preemptible
    os.environ[EMBEDDED] = "1"  # its workers inherit it
    # Ray turns token authentication on for local clusters and would write ~/.ray/auth_token, readable by others.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault(
        "RAY_enable_metrics_collection", "0"
    )  # an agent process that serves only a dashboard
    try:
        with _no_native_output(not verbose), reaper.marking(mark):
            ray.init(
                address="local",
                num_cpus=config.cpus or max(MIN_LOGICAL_CPUS, physical_threads()),
                num_gpus=num_gpus,
                include_dashboard=False,
                logging_level=logging.INFO if verbose else logging.ERROR,
                log_to_driver=verbose,
            )
    except Exception as error:  # Ray raises bare exceptions here
        if isinstance(error, OSError) and error.errno:  # of the machine: a full disk, too many files
            raise
        raise FaultError(
            f"Ray does not start on this machine ({' '.join(str(error).split())[:300]}): look for other processes that "
            "use up its memory, and at the room for Ray's files (/tmp/ray, or RAY_TMPDIR); cluster.ray = false runs small "
            "data without it"
        ) from error


def is_embedded() -> bool:
    """Whether the connected Ray is embedded: started by this process or by its driver, without dashboard and
    state API.
    """
    return EMBEDDED in os.environ


def gpu_count() -> int:
    """Number of GPUs of the connected cluster, including those that its autoscaler may add."""
    return nodes.most("GPU")


def cpu_count() -> int:
    """Number of logical CPUs of the connected cluster, including those that its autoscaler may add."""
    return nodes.most("CPU")


def trains_on_gpu(config: ClusterConfig, small: bool = False) -> bool:
    """Whether training workers get GPUs: as the config says; without a setting, if the cluster has enough for
    all and the training is not so `small` that they are no gain (`needs.is_small_training`).
    """
    have = gpu_count()
    enough = not small and have > 0 and have >= config.workers * config.gpus_per_worker
    return enough if config.use_gpu is None else config.use_gpu


def gpus_for_inference(config: ClusterConfig) -> int:
    """Number of GPUs on which networks may run; 0 where the config keeps them for others (`use_gpu = false`)."""
    return 0 if config.use_gpu is False else gpu_count()


@contextmanager
def _no_native_output(silent: bool) -> Iterator[None]:
    """Suppress the stderr output of Ray's C++ core at its start; Python errors are exceptions and stay
    visible.
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


def quiet_libraries() -> None:
    """Stop Ray's libraries from logging to the terminal, unless RAYCLEAN_DEBUG is set.

    Each library sets its own level when it is imported, so call this again after an import.
    """
    if not os.environ.get("RAYCLEAN_DEBUG"):
        for name in ("ray", "ray.data", "ray.train", "ray.serve", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)
