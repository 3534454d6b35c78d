"""A language model on vLLM behind Ray Serve, for the duration of a block.

    with hosted(annotator) as worker_annotator:   # its server, if any, is running
        ...

The server starts with bounded attempts and time, listens on loopback of the head node under a separate path,
and is stopped when the block ends, normally or not. Ray Serve and its language model outlive a killed driver;
the next start removes them (`_clear`). Ray Serve replaces a dead replica; requests fail or hang meanwhile, so
clients retry until their deadline.

Dangerous defaults of Ray are replaced: 1e9 requests per replica (no back-pressure, no scaling), an hour until
a start fails, and three attempts of minutes each.
"""

import logging
import re
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rayclean import interrupts
from rayclean.annotators.base import Annotator
from rayclean.annotators.model_server import ServerOptions
from rayclean.annotators.model_source import model_name, model_source
from rayclean.errors import AnnotationError
from rayclean.fingerprints import fingerprint
from rayclean.runtime import llm_app, nodes, serve_state
from rayclean.runtime.cluster import gpu_count, is_embedded
from rayclean.runtime.jobs_alive import alive_jobs
from rayclean.runtime.lease import leased
from rayclean.runtime.preflight import check_fits, server_bundles, server_demand
from rayclean.runtime.served_resources import counted_as_taken
from rayclean.runtime.server_checks import check_length, validate_server

import ray

logger = logging.getLogger(__name__)

APP = re.compile(r"rayclean-llm-(?P<work>[0-9a-f]{8})-(?P<job>[0-9a-f]{8})")
"""Names of rayclean's applications, with a hash of their purpose and Ray's id of the driver that started
them."""


@dataclass(frozen=True)
class ServedEndpoint:
    """A running server of a language model."""

    url: str
    """Base URL of the OpenAI API, with `/v1`."""
    model: str
    """Name under which the server lists the model."""
    tokenizer: str
    """Folder or hub id of the model's tokenizer."""
    requests: int
    """Number of concurrent requests that keep it busy."""


Endpoints = Mapping[str, ServedEndpoint]
"""Running servers by `ModelServer.key`."""
NO_ENDPOINTS: Endpoints = {}


@contextmanager
def hosted(
    annotator: Annotator,
    owner: str | None = None,
    endpoints: Endpoints = NO_ENDPOINTS,
    *,
    trains: bool = False,
) -> Iterator[Annotator]:
    """The annotator, connected to its running server if it needs one, for use inside the block.

    Its keys and identity do not change. Ray must be connected (`cluster.connected`).

    Args:
        annotator: any annotator.
        owner: URL of the run; a server left by an earlier attempt at the same run is replaced.
        endpoints: running servers shared by several runs; a matching one is used, and not stopped.
        trains: whether a training follows in the block, which then holds the lease of the cluster (`lease.leased`).

    Raises:
        ConfigError: `validate_server` refuses the annotator.
        ResourceError: the cluster is too small, or the server does not start; the message holds its error.
    """
    server = annotator.server()
    if server is None:
        yield annotator
        return
    if (endpoint := endpoints.get(server.key)) is not None:
        yield annotator.at(endpoint.url, endpoint.tokenizer, endpoint.requests)
        return
    validate_server(annotator)
    with (
        leased(owner or server.model) if trains else nullcontext(),
        served_llm(server.model, server.revision, server.options, owner) as endpoint,
    ):
        yield annotator.at(endpoint.url, endpoint.tokenizer, endpoint.requests)


@contextmanager
def hosting(annotators: Iterable[Annotator], owner: str | None = None) -> Iterator[Endpoints]:
    """Running servers of all annotators, for several processes that share them by passing them to `hosted`.

    With a server the block holds the lease of the cluster (`lease.leased`), since those processes need resources themselves.

    Args:
        annotators: any annotators; equal servers are started once.
        owner: URL of the run or sweep; a server left by an earlier attempt at it is replaced.

    Raises:
        ConfigError: `validate_server` refuses an annotator.
        ResourceError: the cluster is too small, or a server does not start.
    """
    endpoints: dict[str, ServedEndpoint] = {}
    with ExitStack() as stack:
        for annotator in annotators:
            server = annotator.server()
            if server is not None and server.key not in endpoints:
                if not endpoints:
                    stack.enter_context(leased(owner or server.model))
                validate_server(annotator)
                running = served_llm(server.model, server.revision, server.options, owner)
                endpoints[server.key] = stack.enter_context(running)
        yield endpoints


@contextmanager
def served_llm(
    model: str, revision: str | None = None, options: ServerOptions | None = None, owner: str | None = None
) -> Iterator[ServedEndpoint]:
    """Serve a model behind an OpenAI-compatible endpoint while the block runs; Ray must be connected.

    Args:
        model: built-in name, Hugging Face folder, .gguf file or hub id.
        revision: branch, tag or commit of a hub id.
        options: options of the server.
        owner: URL of the run or sweep; None: the server belongs to neither.

    Raises:
        ConfigError: the model does not exist, or its context is shorter than `max_model_len`.
        ResourceError: the cluster is too small, or the server does not start; the message holds its error.
    """
    from ray import serve  # imported here, as runs that serve no model do not need it

    llm_app.quiet()
    options = options or ServerOptions()
    name = model_name(model, revision)
    source = model_source(model)  # for clients, which run on this node; replicas look on their nodes
    if (Path(source) / "config.json").is_file():
        check_length(Path(source), options.max_model_len)
    use_gpu = gpu_count() > 0 if options.gpu is None else options.gpu
    demand = server_demand(options)
    check_fits([demand])
    if not use_gpu and is_embedded():  # the replicas run on this CPU
        _warn_slow_precision(options)
    app = llm_app.build(name, model, options, use_gpu)
    work = fingerprint(owner, name, options.model_dump(mode="json"))[:8] if owner else secrets.token_hex(4)
    app_name = f"rayclean-llm-{work}-{ray.get_runtime_context().get_job_id()}"
    root, started = _start_serve()
    try:
        _clear(app_name, work)
        target = serve.RunTarget(
            app, name=app_name, route_prefix=f"/{app_name}", logging_config=llm_app.quiet_logs()
        )
        serve.run_many(
            [target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )
        url = f"{root}/{app_name}/v1"
        with counted_as_taken(app_name, partial(_reserved, app_name, options, use_gpu)):
            serve_state.wait_until_up(app_name, url, name, options.start_timeout, demand)
            try:
                yield ServedEndpoint(url, name, source, llm_app.RequestLoad.of(options, use_gpu).requests)
            except AnnotationError as error:
                raise serve_state.with_state(error, app_name) from error
    finally:
        _stop(app_name, started)


def _reserved(app_name: str, options: ServerOptions, use_gpu: bool) -> list[dict[str, float]]:
    """What elastic trainings leave to a language model: all that it may grow to; where an autoscaler may add nodes, what it has
    or waits for now, as it grows onto nodes of its own, which nobody starts before questions queue up.
    """
    most = options.max_replicas or options.replicas
    if most > options.replicas and nodes.autoscales():
        most = min(most, max(options.replicas, serve_state.replicas(app_name)))
    return server_bundles(options, use_gpu, most)


def _warn_slow_precision(options: ServerOptions) -> None:
    """Warn about bfloat16 on a CPU without AVX-512, where matrix products take about six times as long as in
    float32.
    """
    import torch

    from rayclean.models.precision import gains_by_bfloat16

    if options.dtype in ("bfloat16", "float16") and not gains_by_bfloat16(torch.device("cpu")):
        logger.warning(
            "this CPU gains nothing by %s, and without AVX-512 loses most of its speed: "
            "annotator.server.dtype = 'auto' is faster here (its answers are others, so all are asked anew)",
            options.dtype,
        )


def _start_serve() -> tuple[str, bool]:
    """Root URL of Ray Serve, and whether this call started it (on loopback, on a free port)."""
    from ray import serve
    from ray.serve.context import _get_global_client  # no public API gives the port of a running Serve

    client, started = _get_global_client(raise_if_no_controller_running=False), False
    if client is None:
        options = {"host": "127.0.0.1", "port": _free_port()}
        with suppress(
            ValueError
        ):  # the name of its controller is taken: another run starts it at this moment
            serve.start(proxy_location="HeadOnly", http_options=options)
            started = True
        client = _get_global_client()
    assert client is not None  # or it had raised
    http = client.http_config
    host = "127.0.0.1" if http.host in ("0.0.0.0", "localhost") else http.host
    return f"http://{host}:{http.port}{http.root_path}", started


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clear(app_name: str, work: str) -> None:
    """Remove language models whose drivers are gone, and the one of an earlier attempt at the same work."""
    from ray import serve

    alive = alive_jobs()
    if ray.get_runtime_context().get_job_id() not in alive:
        return  # a table that lacks this driver is unreliable about others
    for name in serve.status().applications:
        found = APP.fullmatch(name)
        if found and name != app_name and (found["work"] == work or found["job"] not in alive):
            logger.warning("%s was left by a driver that is gone, and is taken down", name)
            _delete(name)


def _delete(app_name: str, wait: bool = True) -> None:
    from ray import serve

    try:
        serve.delete(app_name, _blocking=wait)
    except Exception as error:  # must not hide the original error
        logger.warning("could not stop the language model %s: %s", app_name, error)


def _stop(app_name: str, started: bool) -> None:
    """Remove the application, and stop Ray Serve if it is this process's own.

    That of a cluster stays, whoever started it, as another run may be about to use it; without an application it holds no
    CPU. After a signal nothing is waited for: an embedded Ray ends with everything on it, and Ray Serve of a cluster goes on to
    remove the application without this process.
    """
    from ray import serve
    from ray.serve.context import _get_global_client

    if interrupts.stopping():
        if not is_embedded():
            _delete(app_name, wait=False)
        return
    _delete(app_name)
    try:
        client = _get_global_client(raise_if_no_controller_running=False)
        if not (started and is_embedded()) or client is None or serve.status().applications:
            return
        # The first step of serve.shutdown(), without Ray's retries, which print an alarming line about the
        # controller.
        with suppress(ray.exceptions.RayActorError):
            ray.get(client._controller.graceful_shutdown.options(max_task_retries=0).remote(), timeout=30)
        serve.shutdown()
    except Exception as error:  # must not hide the original error
        logger.warning("could not stop Ray Serve: %s", error)
