"""The Ray Serve application of a language model: from `ServerOptions` to the configuration of
`ray.serve.llm`.

Built-in models and .gguf files must be converted before vLLM can load them. The application only names the
model; every node that loads it converts it into its local cache, or finds it in there (`Converted`). Paths of
folders and .gguf files must be the same on every node.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from rayclean.annotators.model_server import ServerOptions
from rayclean.annotators.model_source import BUILT_IN, is_ready, model_source
from rayclean.models.precision import gains_by_bfloat16
from rayclean.runtime import gpus, reaper
from rayclean.runtime.preflight import INGRESS_CPUS, ingresses

from ray.llm._internal.common.callbacks.base import CallbackBase  # no public name in Ray 2.60

GPU_BATCH, CPU_BATCH = 256, 32
"""Sequences that a replica computes together, by default."""
MEMORY = 0.9
"""Part of its part of a GPU's memory that vLLM takes; of a whole one it does so by itself."""
CPU_REQUESTS = 16
"""Concurrent requests of a CPU engine."""
ENGINE_CLASS_VARIABLE, CPU_ENGINE = (
    "RAYLLM_VLLM_ENGINE_CLS",
    "rayclean.runtime.few_cores_engine.FewCoresEngine",
)
"""The environment variable by which a replica finds the class of its engine, and that of an engine on CPUs."""
CPU_BLOCK_SIZE = 32
"""Tokens per block of a CPU engine's key-value cache. With vLLM's default of 128, short prompts share so few
blocks that label words of several tokens are scored at a quarter of the speed; vLLM refuses 16."""


@dataclass(frozen=True)
class RequestLoad:
    """How many requests a server is given, from which the size of its queues follows and when it scales."""

    batch: int
    """Sequences that a replica computes together."""
    each: int
    """Concurrent requests that keep a replica busy: it computes some while as many wait, and on a CPU, where a larger batch
    is hardly faster, no more than are answered within seconds."""
    most: int
    """Replicas at most."""

    @classmethod
    def of(cls, options: ServerOptions, use_gpu: bool) -> Self:
        """The load of a server with these options, on GPUs or on CPUs."""
        batch = options.max_num_seqs or (GPU_BATCH if use_gpu else CPU_BATCH)
        return cls(
            batch,
            2 * batch if use_gpu else min(batch, CPU_REQUESTS),
            options.max_replicas or options.replicas,
        )

    @property
    def requests(self) -> int:
        """Concurrent requests of a client that keep all replicas busy, and so let Ray Serve start them."""
        return self.each * self.most

    @property
    def target(self) -> float:
        """Requests per replica above which Ray Serve starts a further one: half of what keeps it busy."""
        return max(1.0, self.each / 2)


class Watched(CallbackBase):
    """Ray Serve LLM's callbacks around the start of an engine. In the replica, before the engine's processes start, this one
    starts a reaper that ends them when the replica ends, in whatever way: vLLM's core waits for a parent that is gone. It also
    looks at what is installed on the node, and chooses the precision of an engine on CPUs, which depends on it.
    """

    llm_config: Any

    async def on_before_node_init(self) -> None:
        """Refuse a node whose installation cannot use its GPUs, and spare an engine of one worker that has its model on its node
        the task in which Ray prepares the nodes: it takes 10 s to start, and would find nothing to do.

        Raises:
            ResourceError: PyTorch or vLLM of this node cannot use its GPUs.
        """
        if self.llm_config.accelerator_config.kind == "gpu":
            gpus.require_gpu_engine()
        alone = self.llm_config.get_engine_config().engine_kwargs["tensor_parallel_size"] == 1
        self.ctx.run_init_node = not (alone and await asyncio.to_thread(is_ready, self._model))

    async def on_after_node_init(self) -> None:
        """Start the replica's reaper, and choose what `dtype = "auto"` is."""
        reaper.reap_at_end()
        engine = self.llm_config.get_engine_config().engine_kwargs
        if engine["dtype"] == "auto" and self.llm_config.accelerator_config.kind == "cpu":
            # By itself vLLM would take the bfloat16 of the model's files.
            gains = gains_by_bfloat16(torch.device("cpu"))
            engine["dtype"] = "bfloat16" if gains else "float32"

    @property
    def _model(self) -> str:
        return str(self.llm_config.model_loading_config.model_source)


class Converted(Watched):
    """As `Watched`; beyond that it converts the model on the nodes that load it.

    Ray calls `on_before_download_model_files_distributed` in a task on every node of the replica's placement group, unless
    `on_before_node_init` spares it, and then `on_after_node_init` in the replica, before the model's config or tokenizer
    is read. vLLM's workers on other nodes (tensor parallelism) receive the replica's path, so `RAYCLEAN_CACHE` must be the
    same on all nodes.
    """

    def on_before_download_model_files_distributed(self) -> None:
        """Convert the model in a separate process, so that the engine's process does not keep the memory."""
        model_source(self._model)

    async def on_after_node_init(self) -> None:
        """Set the engine's model to the converted folder of this node, and watch the replica."""
        await super().on_after_node_init()
        folder = await asyncio.to_thread(model_source, self._model)
        self.llm_config.get_engine_config().hf_model_id = folder


def build(name: str, model: str, options: ServerOptions, use_gpu: bool) -> Any:
    """The Ray Serve application: one ingress and one deployment of the engine.

    Args:
        name: name of the model at the endpoint, `name@content`.
        model: built-in name, Hugging Face folder, .gguf file or hub id.
        options: options of the server.
        use_gpu: whether the engine runs on GPUs rather than CPUs.
    """
    with _root_logger_kept():
        from ray.serve.llm import LLMConfig, build_openai_app

    load = RequestLoad.of(options, use_gpu)
    share = options.gpu_share if use_gpu else 1.0
    block = options.block_size or (None if use_gpu else CPU_BLOCK_SIZE)
    path = Path(model).expanduser()
    converted = model in BUILT_IN or path.is_file()
    local = converted or path.is_dir()
    engine: dict[str, Any] = {
        **({} if use_gpu else {"enforce_eager": True}),  # compilation gains nothing on a CPU
        **({"gpu_memory_utilization": round(MEMORY * share, 3)} if share < 1 else {}),
        **options.engine_kwargs,
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "max_num_seqs": load.batch,
        "tensor_parallel_size": options.tensor_parallel,
        **({} if block is None else {"block_size": block}),
        "enable_prefix_caching": True,
        "trust_remote_code": False,
    }
    if not local:
        engine["revision"] = engine["tokenizer_revision"] = name.rpartition("@")[2]
    config = LLMConfig(
        model_loading_config={
            "model_id": name,
            "model_source": str(path.resolve()) if local and model not in BUILT_IN else model,
        },
        callback_config={"callback_class": Converted if converted else Watched},
        accelerator_config={"kind": "gpu" if use_gpu else "cpu"},
        placement_group_config=_placement(options, use_gpu),
        deployment_config={
            "autoscaling_config": {
                "min_replicas": options.replicas,
                "initial_replicas": options.replicas,
                "max_replicas": load.most,
                "target_ongoing_requests": load.target,
            },
            "max_ongoing_requests": 2 * load.each,
            # Beyond that the server answers 503, and clients back off. Before it has scaled, all that keeps it busy queues.
            "max_queued_requests": 4 * load.requests,
            "max_constructor_retry_count": options.attempts,
            "health_check_period_s": 5,
            "health_check_timeout_s": 60,  # a busy CPU engine answers late while healthy
            "graceful_shutdown_timeout_s": 10,
            "ray_actor_options": {"num_cpus": 1 if use_gpu else 0},  # the bundle holds those of a CPU engine
        },
        engine_kwargs=engine,
        runtime_env={"env_vars": engine_environment(options, use_gpu, local)},
        log_engine_metrics=False,
    )
    scaling = {
        "min_replicas": ingresses(options.replicas, use_gpu),
        "max_replicas": ingresses(load.most, use_gpu),
        "target_ongoing_requests": load.target,
    }
    ingress = {"max_ongoing_requests": 1000, "autoscaling_config": scaling,
               "ray_actor_options": {"num_cpus": INGRESS_CPUS}}  # fmt: skip
    return build_openai_app({"llm_configs": [config], "ingress_deployment_config": ingress})


def _placement(options: ServerOptions, use_gpu: bool) -> dict[str, Any] | None:
    """What a replica reserves beside its CPU; None: a whole GPU for each of its workers."""
    if not use_gpu:
        return {"bundles": [{"CPU": options.cpus}]}
    return None if options.gpu_share == 1 else {"bundle_per_worker": {"GPU": options.gpu_share}}


def engine_environment(options: ServerOptions, use_gpu: bool, local: bool) -> dict[str, str]:
    """The environment of the engine's processes.

    Args:
        options: options of the server.
        use_gpu: whether the engine runs on GPUs rather than CPUs.
        local: whether the model's files are on the node already.
    """
    # FlashInfer's sampler would be compiled at the start, for which images lack nvcc; answers are drawn at temperature 0.
    environment = {
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAYLLM_ENABLE_REQUEST_PROMPT_LOGS": "0",
        "RAYLLM_ENGINE_START_TIMEOUT_S": str(int(options.start_timeout)),
    }
    if local:
        environment |= {"HF_HUB_OFFLINE": "1"}
    if use_gpu and options.gpu_share < 1:
        # Ray tells the workers alone, but the engine's core reserves for them.
        environment |= {"VLLM_RAY_PER_WORKER_GPUS": f"{options.gpu_share:g}"}
    if not use_gpu:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": str(options.kv_cache_gib),
            ENGINE_CLASS_VARIABLE: CPU_ENGINE,
        }
        if options.engine_kwargs.get("enforce_eager", True):
            # vLLM compiles a few functions of its sampler even then, with the C++ compiler of the machine: 25 s before the first
            # answer where nothing is cached, and an error where there is no compiler.
            environment |= {"TORCHDYNAMO_DISABLE": "1"}
    return environment


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Keep the root logger's handlers and level, which Ray Serve LLM replaces by JSON lines when it is imported."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def quiet() -> None:
    """Hide info messages of Ray Serve, vLLM and the HTTP client from the driver's terminal."""
    level = logging.INFO if os.environ.get("RAYCLEAN_DEBUG") else logging.ERROR
    for name in ("ray.serve", "ray.llm", "vllm", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(level)


def quiet_logs() -> dict[str, Any]:
    """Logging configuration of Ray Serve: warnings only, and no access log, since requests contain texts."""
    return {"log_level": "WARNING", "enable_access_log": False}
