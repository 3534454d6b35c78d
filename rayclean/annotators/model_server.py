"""The description of a language model's server that an annotator needs: the model and its options.

An annotator only describes it (`Annotator.server`); `rayclean.runtime.serve` starts and stops it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rayclean.plugins import Options

_RESERVED = ("model", "served_model_name", "revision", "tokenizer", "dtype", "max_model_len", "max_num_seqs",
            "tensor_parallel_size", "block_size", "enable_prefix_caching", "trust_remote_code")  # fmt: skip


class ServerOptions(Options):
    """Options of the server of a language model; answers depend only on `dtype` and `engine_kwargs`."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = (
        "max_model_len", "max_num_seqs", "replicas", "max_replicas", "tensor_parallel", "gpu", "gpu_share",
        "cpus", "kv_cache_gib", "block_size", "start_timeout", "attempts",
    )  # fmt: skip

    dtype: Literal["bfloat16", "float16", "float32", "auto"] = "auto"
    """Precision of weights and activations. `auto`: that of the model's files on a GPU; on a CPU bfloat16 where it multiplies in
    it (AMX, AMD's AVX512-BF16) and float32 elsewhere. Recorded answers count on either."""
    max_model_len: int = Field(2048, ge=64)
    """Most tokens of prompt and answer together; a smaller value leaves more memory for parallel requests."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Most sequences in one batch of a replica; `None`: 256 on a GPU, 32 on a CPU."""
    replicas: int = Field(1, ge=1)
    """Number of replicas of the model."""
    max_replicas: int | None = Field(None, ge=1)
    """Most replicas to which Ray Serve scales while requests queue up; `None`: `replicas`."""
    tensor_parallel: int = Field(1, ge=1)
    """Number of GPUs that share one replica of the model."""
    gpu: bool | None = None
    """Whether to serve on GPUs (`True`) or CPUs (`False`); `None`: on GPUs if the cluster has any."""
    gpu_share: float = Field(1.0, gt=0, le=1)
    """Part of a GPU that a replica holds; below 1 the rest is left to training (`cluster.gpus_per_worker`) or to other
    replicas, and of its memory vLLM takes nine tenths of the part (`engine_kwargs.gpu_memory_utilization` says otherwise)."""
    cpus: float = Field(1.0, gt=0)
    """Number of logical CPUs that a CPU engine reserves; vLLM uses all cores that it finds."""
    kv_cache_gib: int = Field(1, ge=1)
    """CPU only: memory for the key-value cache in GiB. On a GPU set
    `engine_kwargs.gpu_memory_utilization`."""
    block_size: int | None = Field(None, ge=1)
    """Tokens per block of the key-value cache, the unit of shared prefixes; `None`: vLLM's default on a GPU,
    32 on a CPU, where vLLM's default of 128 is too coarse for short prompts."""
    start_timeout: float = Field(900.0, gt=0)
    """Most seconds until the model answers, including its download, counted from when its first replica has a place in the
    cluster; it waits as long for that place."""
    attempts: int = Field(2, ge=1)
    """Number of attempts to start a replica before its error is raised."""
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine, for example `{quantization = "fp8"}`."""

    @field_validator("engine_kwargs")
    @classmethod
    def _not_reserved(cls, values: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(values) & set(_RESERVED))
        if taken:
            raise ValueError(f"{taken} are set by rayclean; use the options of the same meaning")
        return values

    @model_validator(mode="after")
    def _shares_one_gpu(self) -> Self:
        if self.gpu_share < 1 and self.tensor_parallel > 1:
            raise ValueError(
                f"gpu_share = {self.gpu_share:g} holds a part of one GPU, but tensor_parallel = {self.tensor_parallel} "
                "spreads a replica over several: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _replicas_in_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas must be at least replicas ({self.replicas}), got {self.max_replicas}"
            )
        return self


@dataclass(frozen=True)
class ModelServer:
    """A language model that must be served while its annotator is asked."""

    model: str
    """Built-in name, Hugging Face folder, .gguf file or hub id."""
    revision: str | None
    """Branch, tag or commit of a hub id."""
    options: ServerOptions

    @property
    def key(self) -> str:
        """A key that is equal for annotators that can share one server."""
        return f"{self.model} {self.revision} {self.options.model_dump_json()}"
