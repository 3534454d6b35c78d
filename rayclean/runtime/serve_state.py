"""The state of a served language model: waiting until it answers, and the causes of failures."""

import logging
import re
import time
from contextlib import suppress
from pathlib import Path

import httpx

from rayclean.errors import AnnotationError, ResourceError
from rayclean.progress import console, print_plain
from rayclean.runtime import environment as environment
from rayclean.runtime.nodes import free_resources
from rayclean.runtime.preflight import ResourceDemand

import ray
from ray.exceptions import RayError

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LINE_SECONDS = 20.0
PROCESS_SECONDS = 15.0
"""Seconds that the process of a replica may take to tell its node, though it has a place."""
WAITS = "waiting for a place"
ERROR_LINE = re.compile(r"[A-Za-z_.]*(Error|Exception)\b.*:")


def wait_until_up(app_name: str, url: str, model: str, timeout: float, demand: ResourceDemand) -> None:
    """Wait until the server lists the model, and print every step of its start with the elapsed time.

    Args:
        app_name: name of its application.
        url: base URL of its API.
        model: name under which it lists the model.
        timeout: most seconds from when its first replica has a place, for which it waits as long: a node that an autoscaler
            adds takes minutes to come.
        demand: its resources, named while it waits for a place.

    Raises:
        ResourceError: the server failed (the message has the replica's error), got no place, or did not answer in time.
    """
    start = since = time.monotonic()
    step, shown_at, has_place = "", start, False
    while True:
        status, message = state(app_name)
        now = time.monotonic()
        if status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ResourceError(f"the language model {model!r} does not start.\n{cause(message, _logs())}")
        if status == "RUNNING" and model in listed(url):
            print_plain(console, f"relabel: {model}: ready after {now - start:.0f} s")
            return
        nodes = _nodes(app_name)
        if not has_place and (has_place := bool(nodes) and all(map(any, nodes))):
            since = now
        placed = bool(nodes) and all(map(all, nodes))
        waits = not placed and now - start > PROCESS_SECONDS
        if now - since > timeout and waits:
            raise ResourceError(
                f"the language model {model!r} got no place for all of its replicas within {timeout:g} s: it "
                f"{_needs(demand)}. End what holds the rest (`ray status` shows it), or {demand.change}"
            )
        if now - since > timeout:
            raise ResourceError(
                f"the language model {model!r} did not answer within {timeout:g} s (state {status}: {message}); "
                "raise annotator.server.start_timeout, or look at the logs of Ray Serve"
            )
        if (current := _step(app_name, placed, waits)) != step or now - shown_at > LINE_SECONDS:
            step, shown_at = current, now
            needs = f" ({_needs(demand)})" if step == WAITS else ""
            print_plain(console, f"relabel: {model}: {step}{needs}, {now - start:.0f} s")
        time.sleep(POLL_SECONDS)


def _nodes(app_name: str) -> list[list[str | None]]:
    """The node of every replica of every part of an application; None for one that waits for a place, or whose process is
    still starting.
    """
    from ray.serve.context import _get_global_client  # no public API tells where a replica is

    client = _get_global_client(raise_if_no_controller_running=False)
    app = client.get_serve_details()["applications"].get(app_name, {}) if client is not None else {}
    parts = app.get("deployments", {}).values()
    return [[each.get("node_id") for each in part.get("replicas", ())] for part in parts]


def _needs(demand: ResourceDemand) -> str:
    gpus = f" and {demand.gpus:g} GPUs" if demand.gpus else ""
    return f"needs {demand.cpus:g} CPUs{gpus}; {free_resources()}"


def _step(app_name: str, placed: bool, waits: bool) -> str:
    """The current step of an application's start.

    Args:
        app_name: name of the application.
        placed: whether all of its replicas are on some node.
        waits: whether one of them has waited for a place for longer than its process takes to start.
    """
    from ray import serve

    app = serve.status().applications.get(app_name)
    states = (
        [
            str(getattr(name, "value", name))
            for each in app.deployments.values()
            for name in each.replica_states
        ]
        if app
        else []
    )
    if not states:
        return "starting Ray Serve"
    if "STARTING" not in states:
        return "waiting for its endpoint"
    if placed:
        return "loading weights and starting the engine"
    return WAITS if waits else "starting its processes"


def listed(url: str) -> list[str]:
    """Names of the models that the server lists; empty while it does not answer properly."""
    try:
        answer = httpx.get(f"{url}/models", timeout=10)
        return [str(entry["id"]) for entry in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        logger.debug("%s/models: %s", url, error)
        return []


def state(app_name: str) -> tuple[str, str]:
    """State of the application, and the messages of its deployments."""
    from ray import serve

    app = serve.status().applications.get(app_name)
    if app is None:
        return "NOT_STARTED", ""
    messages = [app.message, *(d.message for d in app.deployments.values())]
    return app.status.value, "\n".join(dict.fromkeys(m for m in messages if m))


def replicas(app_name: str) -> int:
    """Number of replicas of an application's largest part, with those that wait for a place; 0 if Ray Serve does not tell."""
    from ray import serve

    with suppress(RayError):  # its controller is starting again
        app = serve.status().applications.get(app_name)
        parts = [] if app is None else app.deployments.values()
        return max((sum(part.replica_states.values()) for part in parts), default=0)
    return 0


def cause(message: str, logs: Path | None) -> str:
    """The replica's error, from Ray Serve's message and the engine's log.

    vLLM's engine is a separate process, of which Ray Serve only reports the failure ("see root cause above").
    The cause is in the replica's log file, which is readable if the replica ran on this node.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reported = next((line for line in reversed(lines) if ERROR_LINE.match(line)), lines[-1] if lines else "")
    if logs is None:
        return reported
    found: list[str] = []
    for pid in dict.fromkeys(re.findall(r"\(pid=(\d+),", message)):
        for file in sorted(logs.glob(f"worker-*-{pid}.*")):
            errors = [line.partition("] ")[2] for line in file.read_text(errors="replace").splitlines()
                      if " ERROR " in line]  # fmt: skip
            found += [line for line in errors if ERROR_LINE.match(line)]
    return "\n".join([reported, *(f"engine: {line[:600]}" for line in dict.fromkeys(found)), f"logs: {logs}"])


def _logs() -> Path | None:
    node = ray._private.worker._global_node  # no public API gives the log folder of this session
    return Path(node.get_logs_dir_path()) if node is not None else None


def with_state(error: AnnotationError, app_name: str) -> AnnotationError:
    """The error of a client, extended by the server's state unless it is running normally."""
    try:
        status, message = state(app_name)
    except Exception as unreachable:
        return AnnotationError(f"{error.message}\nRay Serve does not answer: {unreachable}")
    if status == "RUNNING":
        return error
    return AnnotationError(f"{error.message}\nthe server: {status}: {message}")
