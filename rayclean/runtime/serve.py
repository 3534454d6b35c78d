"""A language model on vLLM behind Ray Serve, for the time it is needed.

    with hosted(annotator) as worker_annotator:   # the server that it needs is up, if any
        ...

The server starts with bounded tries and time, answers on loopback of the head node under a path of its own,
and is gone when the block ends, however it ends. Ray Serve outlives a driver that was killed, and so would
its language model: the next one that starts takes it down (`_clear`). A replica that dies comes back by
itself (Ray Serve starts a new one); requests fail or hang meanwhile, so clients retry until their deadline.

Ray's own defaults are replaced where they are dangerous: 1e9 requests per replica (no back-pressure, no
scaling), an hour until a start fails, three tries that each take minutes.
"""

import logging
import re
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayclean.annotators.base import Annotator
from rayclean.annotators.model_server import ServerOptions
from rayclean.annotators.model_source import model_name, model_source
from rayclean.errors import AnnotationError
from rayclean.fingerprints import fingerprint
from rayclean.runtime import llm_app, serve_state
from rayclean.runtime.cluster import gpu_count, is_embedded
from rayclean.runtime.preflight import check_fits, server_demand
from rayclean.runtime.server_checks import check_length, validate_server

import ray

logger = logging.getLogger(__name__)

APP = re.compile(r"rayclean-llm-(?P<work>[0-9a-f]{8})-(?P<job>[0-9a-f]{8})")
"""Names of our applications: what they are for, and Ray's id of the driver that started them."""


@dataclass(frozen=True)
class ServedEndpoint:
    """A running server."""

    url: str
    """Base URL of the OpenAI API, with `/v1`."""
    model: str
    """Name under which it lists the model."""
    tokenizer: str
    """Folder or hub id of the model's tokenizer."""


Endpoints = Mapping[str, ServedEndpoint]
"""Running servers by what is served and how."""
NO_ENDPOINTS: Endpoints = {}


@contextmanager
def hosted(
    annotator: Annotator, owner: str | None = None, endpoints: Endpoints = NO_ENDPOINTS
) -> Iterator[Annotator]:
    """The annotator as it can be used inside the block: with its server running, where it needs one.

    Keys and identity are the same before and inside. Ray must be connected (`cluster.connected`).

    Args:
        annotator: any.
        owner: URL of the run: a server that an earlier attempt at it has left is replaced.
        endpoints: servers that run already, for several runs: one of them is used if it is the right one, and
            not stopped.

    Raises:
        ConfigError: `validate` refuses it.
        ResourceError: the cluster is too small, or the server does not come up; with the replica's own error.
    """
    server = annotator.server()
    if server is None:
        yield annotator
        return
    if (endpoint := endpoints.get(server.key)) is not None:
        yield annotator.at(endpoint.url, endpoint.tokenizer)
        return
    validate_server(annotator)
    with served_llm(server.model, server.revision, server.options, owner) as endpoint:
        yield annotator.at(endpoint.url, endpoint.tokenizer)


@contextmanager
def hosting(annotators: Iterable[Annotator], owner: str | None = None) -> Iterator[Endpoints]:
    """The server of every different one, for work in several processes that share them: pass it to `hosted`
    there.

    Args:
        annotators: any.
        owner: URL of what they are for, as in `hosted`.

    Raises:
        ConfigError, ResourceError: as `hosted`.
    """
    endpoints: dict[str, ServedEndpoint] = {}
    with ExitStack() as stack:
        for annotator in annotators:
            server = annotator.server()
            if server is not None and server.key not in endpoints:
                validate_server(annotator)
                running = served_llm(server.model, server.revision, server.options, owner)
                endpoints[server.key] = stack.enter_context(running)
        yield endpoints


@contextmanager
def served_llm(
    model: str, revision: str | None = None, options: ServerOptions | None = None, owner: str | None = None
) -> Iterator[ServedEndpoint]:
    """The model behind an OpenAI-compatible endpoint while the block runs; Ray must be connected.

    Args:
        model: built-in name, Hugging Face folder, .gguf file or hub id.
        revision: hub ids only.
        options: how it is served.
        owner: URL of the run that it is for, if it is for one.

    Raises:
        ConfigError: there is no such model, or it is shorter than `max_model_len`.
        ResourceError: the cluster is too small, or the server does not come up; with the replica's own error.
    """
    from ray import serve  # here, so that runs without a model of their own do not load it

    llm_app.quiet()
    options = options or ServerOptions()
    name = model_name(model, revision)
    source = model_source(model)  # for clients, which run on this node; replicas look the model up on theirs
    if (Path(source) / "config.json").is_file():
        check_length(Path(source), options.max_model_len)
    use_gpu = gpu_count() > 0 if options.gpu is None else options.gpu
    check_fits([server_demand(options)])
    if not use_gpu and is_embedded():  # the replicas' CPU is this one
        _tell_slow_precision(options)
    app = llm_app.build(name, model, options, use_gpu)
    work = fingerprint(owner, name, options.model_dump(mode="json"))[:8] if owner else secrets.token_hex(4)
    app_name = f"rayclean-llm-{work}-{ray.get_runtime_context().get_job_id()}"
    root, ours = _start_serve()
    try:
        _clear(app_name, work)
        target = serve.RunTarget(
            app, name=app_name, route_prefix=f"/{app_name}", logging_config=llm_app.quiet_logs()
        )
        serve.run_many(
            [target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )
        url = f"{root}/{app_name}/v1"
        serve_state.wait_until_up(app_name, url, name, options.start_timeout)
        try:
            yield ServedEndpoint(url, name, source)
        except AnnotationError as error:
            raise serve_state.with_state(error, app_name) from error
    finally:
        _stop(app_name, ours)


def _tell_slow_precision(options: ServerOptions) -> None:
    """Without AVX-512 a CPU's products in bfloat16 take about six times as long as in float32."""
    import torch

    from rayclean.models.precision import gains_by_bfloat16

    if options.dtype != "float32" and not gains_by_bfloat16(torch.device("cpu")):
        logger.warning(
            "this CPU gains nothing by %s, and without AVX-512 loses most of its speed: "
            "annotator.server.dtype = 'float32' is faster here (its answers are others, so all are asked anew)",
            options.dtype,
        )


def head_node_id() -> str | None:
    """Ray's id of the node where the server listens (on loopback): clients must run there."""
    nodes: list[dict[str, Any]] = ray.nodes()
    heads = [n["NodeID"] for n in nodes if n["Alive"] and "node:__internal_head__" in n["Resources"]]
    return heads[0] if heads else None


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


def _clear(app_name: str, work: str) -> None:
    """Take down the language models whose drivers are gone, and the one of an earlier attempt at the same
    work.
    """
    from ray import serve

    # No public name: the state API asks a dashboard, which an embedded Ray has not.
    alive = {job["JobID"] for job in ray._private.state.jobs() if not job["IsDead"]}
    if ray.get_runtime_context().get_job_id() not in alive:
        return  # a table without this very driver says nothing about others
    for name in serve.status().applications:
        found = APP.fullmatch(name)
        if found and name != app_name and (found["work"] == work or found["job"] not in alive):
            logger.warning("%s was left by a driver that is gone, and is taken down", name)
            _delete(name)


def _delete(app_name: str) -> None:
    from ray import serve

    try:
        serve.delete(app_name)
    except Exception as error:  # must not hide the error on the way out; an embedded Ray takes all with it
        logger.warning("could not stop the language model %s: %s", app_name, error)


def _stop(app_name: str, ours: bool) -> None:
    """Take the application down, and Serve too if it was started here and serves nobody else."""
    from ray import serve
    from ray.serve.context import _get_global_client

    _delete(app_name)
    try:
        client = _get_global_client(raise_if_no_controller_running=False)
        if not ours or client is None or serve.status().applications:
            return
        # What serve.shutdown() does first, without Ray's retries: they print an alarming line about the
        # controller.
        with suppress(ray.exceptions.RayActorError):
            ray.get(client._controller.graceful_shutdown.options(max_task_retries=0).remote(), timeout=30)
        serve.shutdown()
    except Exception as error:  # as above
        logger.warning("could not stop Ray Serve: %s", error)
