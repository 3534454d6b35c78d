"""Comparison of the resources that a run requests with those of the cluster, as Ray waits forever for what
does not fit.

Training needs its workers and one CPU for data; a served language model needs its replicas and one CPU for
HTTP; a method that asks during training needs both at once. A sweep's language models run throughout its
trials.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rayclean.annotators import asked_annotators
from rayclean.annotators.model_server import ServerOptions
from rayclean.config import ClusterConfig, Config
from rayclean.errors import ResourceError
from rayclean.runtime import environment as environment
from rayclean.runtime import nodes
from rayclean.runtime.actor_pool import ACTORS_PER_GPU, size_pool
from rayclean.runtime.cluster import cpu_count, gpu_count, is_embedded, trains_on_gpu
from rayclean.runtime.needs import VerbNeeds, is_small_training

import ray

logger = logging.getLogger(__name__)

INGRESS_CPUS = 1
"""Logical CPUs of each process of the HTTP side of a served language model."""
FULL_ROWS = 32
"""Rows of a batch below which a GPU waits for its kernels to start rather than for them to end."""


@dataclass(frozen=True)
class ResourceDemand:
    """Resources that a training or a language model holds while it runs."""

    what: str
    cpus: float
    gpus: float
    change: str
    """Advice that makes the demand smaller."""
    piece: Mapping[str, float] = field(default_factory=dict)
    """Resources that each of its processes holds on one node."""


def preflight(cluster: ClusterConfig, needs: Iterable[VerbNeeds]) -> None:
    """Check that the resources that each verb holds at once fit the connected cluster or its autoscaler's
    limits.

    Raises:
        ResourceError: they do not fit; the message says what to change.
    """
    needs = list(needs)
    for size in sorted({need.batch_size for need in needs if need.trains and not need.small}):
        _warn_of_small_batches(cluster, size)
    if any(need.trains and not need.small for need in needs):
        _warn_of_training_on_cpus(cluster)
    if any(need.network for need in needs):
        check_fits([inference_demand(cluster)])
    for need in needs:
        training = [training_demand(cluster, need.small)] if need.trains else []
        for server in need.servers:  # one after another
            options = _beside_training(cluster, server.options) if training else server.options
            check_fits([*training, server_demand(options)])
        if training and not need.servers:
            check_fits(training)


def _warn_of_training_on_cpus(cluster: ClusterConfig) -> None:
    """Say that a training that gains by GPUs gets none, because they are too few for all of its workers or not there yet."""
    have, wanted = gpu_count(), cluster.workers * cluster.gpus_per_worker
    if cluster.use_gpu is None and have < wanted and (have or nodes.may_grow_further()):
        logger.warning(
            "training: %d x %g GPUs are more than the %d of the cluster, so it runs on CPUs: lower cluster.workers or "
            "cluster.gpus_per_worker, or set cluster.use_gpu = true to wait for GPUs that an autoscaler adds",
            cluster.workers, cluster.gpus_per_worker, have,
        )  # fmt: skip


def _beside_training(cluster: ClusterConfig, options: ServerOptions) -> ServerOptions:
    """The options with as many replicas as training must have room beside: elastic training leaves free what a model may
    grow to (`serve.served_llm`), and would wait for ever where nothing else is left.
    """
    elastic = (cluster.max_workers or cluster.workers) > cluster.workers
    return options.model_copy(
        update={"replicas": options.max_replicas or options.replicas} if elastic else {}
    )


def _warn_of_small_batches(cluster: ClusterConfig, batch_size: int) -> None:
    """Say that several GPUs are no faster than one where each gets a few rows of a batch."""
    workers = max(cluster.workers, cluster.max_workers or 1)
    if workers > 1 and 0 < batch_size < FULL_ROWS * workers and trains_on_gpu(cluster):
        logger.warning(
            "training: a batch of %d rows gives each of %d GPUs %g, and below %d they are hardly faster together than one: set "
            "cluster.workers = 1 (folds and compared networks then train side by side on the others), or batch_size = %d or "
            "more and a higher learning_rate",
            batch_size, workers, batch_size / workers, FULL_ROWS, FULL_ROWS * workers,
        )  # fmt: skip


def preflight_sweep(
    configs: Sequence[Config], *, trains: bool, networks: bool = True
) -> list[ResourceDemand]:
    """Check that the resources of a sweep fit the cluster; its trials share its language models until the
    last ends.

    Args:
        configs: configs of its trials, all for one cluster.
        trains: whether trainings run while the language models do.
        networks: whether networks read texts while the language models run.

    Returns:
        The resources of the language models, each counted once.

    Raises:
        ResourceError: they do not fit; the message says what to change.
    """
    cluster, small = configs[0].cluster, trains_small(configs)
    training = training_demand(cluster, small)
    if not small:
        _warn_of_training_on_cpus(cluster)
    check_fits([training])
    if trains:
        for size in sorted({config.train.batch_size for config in configs} if not small else ()):
            _warn_of_small_batches(cluster, size)
    servers: dict[str, ResourceDemand] = {}
    for annotator in (annotator for config in configs for annotator in asked_annotators(config)):
        if (server := annotator.server()) is not None:
            options = _beside_training(cluster, server.options) if trains else server.options
            servers[server.key] = servers.get(server.key) or server_demand(options)
    if servers:
        check_fits([*([training] if trains else []), *servers.values()])
        if networks and not training.gpus:  # else one may run after the other
            check_fits([inference_demand(cluster), *servers.values()])
    return [*servers.values()]


def trains_small(configs: Sequence[Config]) -> bool:
    """Whether no training of these configs gains by a GPU (`needs.is_small_training`)."""
    return all(is_small_training(config.encoder, config.method, config.task) for config in configs)


def inference_demand(cluster: ClusterConfig) -> ResourceDemand:
    """Resources of one actor that runs networks over texts; as many more as there is room for are used."""
    pool = size_pool(cluster, None, 1)
    share = min(pool.num_gpus, 1 / ACTORS_PER_GPU)
    piece = {"CPU": pool.num_cpus} | ({"GPU": share} if share else {})
    return ResourceDemand(
        "networks that read texts on a share of a GPU" if share else "networks that read texts",
        pool.num_cpus,
        share,
        "set cluster.use_gpu = false" if share else "start a node with a CPU",
        piece,
    )


def training_demand(cluster: ClusterConfig, small: bool = False) -> ResourceDemand:
    """Resources of one training: its workers, and a CPU for their data. A `small` one takes GPUs only where the config asks."""
    gpus = cluster.workers * cluster.gpus_per_worker if trains_on_gpu(cluster, small) else 0.0
    piece = {"CPU": cluster.cpus_per_worker} | ({"GPU": cluster.gpus_per_worker} if gpus else {})
    return ResourceDemand(
        f"training on {cluster.workers} x {cluster.cpus_per_worker:g} CPUs"
        + (f" and {cluster.workers} x {cluster.gpus_per_worker:g} GPUs" if gpus else "")
        + ", and 1 CPU for data",
        cluster.workers * cluster.cpus_per_worker + 1,
        gpus,
        "lower cluster.workers or cluster.cpus_per_worker"
        + (" or cluster.gpus_per_worker, or set cluster.use_gpu = false" if gpus else ""),
        piece,
    )


def ingresses(replicas: int, use_gpu: bool) -> int:
    """Processes of the HTTP side of a language model: one for each replica on GPUs, since one passes on a few hundred
    requests a second; one for all of them on CPUs, which answer a few.
    """
    return replicas if use_gpu else 1


def server_demand(options: ServerOptions) -> ResourceDemand:
    """Resources of a served language model: its replicas, and the CPUs of its HTTP side."""
    use_gpu = gpu_count() > 0 if options.gpu is None else options.gpu
    if use_gpu:
        workers = options.replicas * options.tensor_parallel
        share, http = options.gpu_share, INGRESS_CPUS * ingresses(options.replicas, use_gpu)
        each = f"{options.tensor_parallel}" if share == 1 else f"{share:g}"
        most = max((shape.get("GPU", 0.0) for shape in nodes.shapes()), default=0.0)
        if most and options.tensor_parallel > most:
            logger.warning(
                "no node has the %d GPUs of cluster.llm.tensor_parallel: a copy of the language model is spread over "
                "several nodes, and every token waits for the network between them; at most %d fit on one",
                options.tensor_parallel, most,
            )  # fmt: skip
        return ResourceDemand(
            f"the language model on {options.replicas} x {each} GPUs",
            options.replicas + http,
            workers * share,
            "lower cluster.llm.replicas or cluster.llm.tensor_parallel, let it share a GPU (cluster.llm.gpu_share below 1), "
            "or set cluster.llm.gpu = false",
            {"CPU": 1.0, "GPU": share},  # vLLM spreads a copy over several nodes if necessary
        )
    return ResourceDemand(
        f"the language model on {options.replicas} x {options.cpus:g} CPUs, and {INGRESS_CPUS} for HTTP",
        options.replicas * options.cpus + INGRESS_CPUS,
        0.0,
        "lower cluster.llm.replicas or annotator.server.cpus",
        {"CPU": options.cpus},
    )


def server_bundles(options: ServerOptions, use_gpu: bool, replicas: int) -> list[dict[str, float]]:
    """All that Ray Serve reserves for so many replicas of a language model, process by process, with their HTTP side."""
    replica = [{"CPU": 1.0, "GPU": options.gpu_share}, *[{"GPU": 1.0}] * (options.tensor_parallel - 1)]
    return [
        *(replica if use_gpu else [{"CPU": options.cpus}]) * replicas,
        *[{"CPU": float(INGRESS_CPUS)}] * ingresses(replicas, use_gpu),
    ]


def check_fits(demands: Sequence[ResourceDemand]) -> None:
    """Check that all demands fit at once, and that each of their processes fits on some node.

    With an autoscaler of undeclared limits, a demand that does not fit is only logged as a warning.

    Raises:
        ResourceError: the demands do not fit.
    """
    what = ", with ".join(demand.what for demand in demands)
    for unit, have, need in (
        ("CPU", cpu_count(), sum(demand.cpus for demand in demands)),
        ("GPU", gpu_count(), sum(demand.gpus for demand in demands)),
    ):
        if need > have:
            change = "; ".join(demand.change for demand in demands)
            if unit == "CPU" and is_embedded():
                change += "; or raise cluster.cpus (logical CPUs of the embedded Ray)"
            refuse_or_warn(f"{what}: needs {need:g} {unit}s, the cluster has {have}", change)
        free = ray.available_resources().get(unit, 0.0)
        if need > free and need <= ray.cluster_resources().get(unit, 0.0):
            logger.warning(
                "%s: needs %g %ss; of %d in the cluster %g are free now, so it waits until others have ended",
                what, need, unit, have, free,
            )  # fmt: skip
    for demand in demands:
        _check_piece(demand)


def _check_piece(demand: ResourceDemand) -> None:
    shapes = nodes.shapes()
    if not any(nodes.fits(demand.piece, shape) for shape in shapes):
        have = ", ".join(_size(shape) for shape in shapes) or "none"
        refuse_or_warn(
            f"{demand.what}: a process of it needs {_size(demand.piece)} on one node, the nodes have {have}",
            demand.change,
        )


def _size(shape: Mapping[str, float]) -> str:
    return " and ".join(f"{size:g} {unit}s" for unit, size in shape.items())


def refuse_or_warn(problem: str, change: str) -> None:
    """Report that a demand does not fit: as an error, or as a warning if the autoscaler has undeclared
    limits.

    Raises:
        ResourceError: the cluster cannot grow further.
    """
    if not nodes.may_grow_further():
        raise ResourceError(f"{problem}. To fit: {change}")
    logger.warning(
        "%s now. How far its autoscaler may go is not declared, so this run may wait for ever: declare it in the "
        "environment of the nodes (%s), or %s",
        problem, nodes.EXAMPLE, change,
    )  # fmt: skip
