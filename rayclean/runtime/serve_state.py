"""How a served language model is doing: wait until it answers, and say what is wrong in its own words."""

import logging
import re
import time
from pathlib import Path

import httpx

from rayclean.errors import AnnotationError, ResourceError
from rayclean.progress import console
from rayclean.runtime import environment as environment

import ray

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LINE_SECONDS = 20.0
ERROR_LINE = re.compile(r"[A-Za-z_.]*(Error|Exception)\b.*:")


def wait_until_up(app_name: str, url: str, model: str, timeout: float) -> None:
    """Return as soon as the server lists the model; show every step of its start, and now and then its time.

    Raises:
        ResourceError: it failed, with the replica's own error, or did not answer in time.
    """
    start = time.monotonic()
    step, shown_at = "", start
    while True:
        status, message = state(app_name)
        now = time.monotonic()
        if status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ResourceError(f"the language model {model!r} does not start.\n{cause(message, _logs())}")
        if status == "RUNNING" and model in listed(url):
            console.print(f"relabel: {model}: ready after {now - start:.0f} s", highlight=False)
            return
        if now - start > timeout:
            raise ResourceError(
                f"the language model {model!r} did not answer within {timeout:g} s (state {status}: {message}); "
                "raise annotator.server.start_timeout, or look at the logs of Ray Serve"
            )
        if (current := _step(app_name)) != step or now - shown_at > LINE_SECONDS:
            step, shown_at = current, now
            console.print(f"relabel: {model}: {step}, {now - start:.0f} s", highlight=False)
        time.sleep(POLL_SECONDS)


def _step(app_name: str) -> str:
    """What the start of an application waits for."""
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
    return "loading weights and starting the engine" if "STARTING" in states else "waiting for its endpoint"


def listed(url: str) -> list[str]:
    """The models that the server lists; none while it does not answer properly."""
    try:
        answer = httpx.get(f"{url}/models", timeout=10)
        return [str(entry["id"]) for entry in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        logger.debug("%s/models: %s", url, error)
        return []


def state(app_name: str) -> tuple[str, str]:
    """State of the application, and what its deployments say about themselves."""
    from ray import serve

    app = serve.status().applications.get(app_name)
    if app is None:
        return "NOT_STARTED", ""
    messages = [app.message, *(d.message for d in app.deployments.values())]
    return app.status.value, "\n".join(dict.fromkeys(m for m in messages if m))


def cause(message: str, logs: Path | None) -> str:
    """The replica's own error out of Serve's message and the engine's log.

    vLLM's engine is a process of its own: Serve only learns that it failed ("see root cause above"), and what
    is above stands in the replica's log file, which can be read where the replica ran on this node.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if ERROR_LINE.match(line)), lines[-1] if lines else "")
    if logs is None:
        return told
    found: list[str] = []
    for pid in dict.fromkeys(re.findall(r"\(pid=(\d+),", message)):
        for file in sorted(logs.glob(f"worker-*-{pid}.*")):
            errors = [line.partition("] ")[2] for line in file.read_text(errors="replace").splitlines()
                      if " ERROR " in line]  # fmt: skip
            found += [line for line in errors if ERROR_LINE.match(line)]
    return "\n".join([told, *(f"engine: {line[:600]}" for line in dict.fromkeys(found)), f"logs: {logs}"])


def _logs() -> Path | None:
    node = ray._private.worker._global_node  # the only way to the log folder of this very session
    return Path(node.get_logs_dir_path()) if node is not None else None


def with_state(error: AnnotationError, app_name: str) -> AnnotationError:
    """The error of a client, with what the server says if it is not well."""
    try:
        status, message = state(app_name)
    except Exception as unreachable:
        return AnnotationError(f"{error.message}\nRay Serve does not answer: {unreachable}")
    if status == "RUNNING":
        return error
    return AnnotationError(f"{error.message}\nthe server: {status}: {message}")
