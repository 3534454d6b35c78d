"""The annotator that brings its own language model: vLLM behind Ray Serve, queried like any OpenAI-compatible
endpoint.

This file only says which model is served and how; `rayclean.runtime.serve.hosted` starts the server around
the work, and hands out the same annotator with the address filled in. The server lists the model as
`name@content` (`model_source.py`), so that the client's check of `/models` also proves that the right weights
answer.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rayclean.annotators.model_source import model_name
from rayclean.annotators.openai import OpenAIAnnotator
from rayclean.plugins import Options

SPARE_TOKENS = 32
"""Tokens kept free after a prompt, for the longest label word."""

_RESERVED = ("model", "served_model_name", "revision", "tokenizer", "dtype", "max_model_len", "max_num_seqs",
            "tensor_parallel_size", "block_size", "enable_prefix_caching", "trust_remote_code")  # fmt: skip


class ServerOptions(Options):
    """How the language model is served. Only `dtype` and `engine_kwargs` change answers."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = (
        "max_model_len", "max_num_seqs", "replicas", "max_replicas", "tensor_parallel", "gpu", "cpus",
        "kv_cache_gib", "block_size", "start_timeout", "attempts",
    )  # fmt: skip

    dtype: Literal["bfloat16", "float16", "float32", "auto"] = "bfloat16"
    """Precision of weights and activations."""
    max_model_len: int = Field(2048, ge=64)
    """Most tokens of prompt and answer together; a smaller value leaves more memory for parallel requests."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Most sequences that one replica computes together; `None`: 256 on a GPU, 32 on a CPU."""
    replicas: int = Field(1, ge=1)
    """Copies of the model that are served."""
    max_replicas: int | None = Field(None, ge=1)
    """Ray Serve adds copies up to this number while requests queue up; `None`: as many as `replicas`."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    gpu: bool | None = None
    """Serve on GPUs (`True`) or CPUs (`False`); `None`: on GPUs if the cluster has any."""
    cpus: float = Field(1.0, gt=0)
    """Logical CPUs that a CPU engine reserves; vLLM uses the cores it finds."""
    kv_cache_gib: int = Field(1, ge=1)
    """CPU only: memory for the key-value cache. On a GPU set `engine_kwargs.gpu_memory_utilization`."""
    block_size: int | None = Field(None, ge=1)
    """Tokens per block of the key-value cache, the unit in which prompts share prefixes; `None`: vLLM's own
    on a GPU, 32 on a CPU, where vLLM's 128 computes the short prompts of label words again."""
    start_timeout: float = Field(900.0, gt=0)
    """Seconds until the model must answer, download included."""
    attempts: int = Field(2, ge=1)
    """Starts of a replica before it is given up; its own error is then shown."""
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
    def _replicas_in_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas must be at least replicas ({self.replicas}), got {self.max_replicas}"
            )
        return self


class ServedAnnotator(OpenAIAnnotator):
    """Asks a language model that rayclean starts and stops itself."""

    class Config(OpenAIAnnotator.Config):
        """Options of the annotator `openai`, with a model that is served here and its server."""

        model: str = "smollm2-135m"
        """`smollm2-135m` (built-in), a Hugging Face folder, a .gguf file, or a hub id."""
        revision: str | None = None
        """Hub ids only: branch, tag or commit; answers are kept under the commit that it names."""
        server: ServerOptions = ServerOptions()
        """How the model is served."""

        @model_validator(mode="after")
        def _prompt_fits(self) -> Self:
            if (
                self.form == "label_words"
                and self.max_prompt_tokens + SPARE_TOKENS > self.server.max_model_len
            ):
                raise ValueError(
                    f"server.max_model_len must be at least max_prompt_tokens + {SPARE_TOKENS} "
                    f"({self.max_prompt_tokens + SPARE_TOKENS}), got {self.server.max_model_len}"
                )
            return self

        def identity(self) -> dict[str, Any]:
            """The model by name and content in place of `model` and `revision`, and no sizes or addresses."""
            options = super().identity()
            del options["revision"]
            return options | {
                "model": model_name(self.model, self.revision),
                "server": self.server.identity(),
            }

    config: Config

    def check(self) -> None:
        """Refuse a model that does not exist and equal label words; the address comes later."""
        model_name(self.config.model, self.config.revision)
        self.check_words()

    @property
    def model_name(self) -> str:
        """The model's identity `name@content`, as the server lists it and the ledger keeps it."""
        return model_name(self.config.model, self.config.revision)

    def at(self, base_url: str, tokenizer: str) -> Self:
        """The same annotator (same identity, same keys), connected to a running server.

        Args:
            base_url: the server's address, with `/v1`.
            tokenizer: folder or hub id of the served model's tokenizer.
        """
        config = self.config.model_copy(update={"base_url": base_url, "tokenizer": tokenizer})
        return type(self)(config, self.labels, self.seed)
