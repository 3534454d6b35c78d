"""From a name to a network, from a folder to a network."""

import tempfile
from pathlib import Path
from typing import Any, cast

import torch

from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder
from rayclean.models import ENCODERS
from rayclean.models.base import DESCRIPTION, Encoder
from rayclean.models.trained_model import trained_model
from rayclean.plugins import Plugin


def encoder_class(plugin: Plugin) -> tuple[type[Encoder], Encoder.Config]:
    """The class that a config names, and its checked options.

    Raises:
        ConfigError: an unknown name or option.
    """
    cls, options = ENCODERS.checked(plugin)
    if not (isinstance(cls, type) and issubclass(cls, Encoder)):
        raise ConfigError(f"encoder {plugin.name!r} is no subclass of rayclean.models.base.Encoder")
    return cls, cast("Encoder.Config", options)


def check_per_token(plugin: Plugin) -> None:
    """Whether the networks that a config names can answer for every word of a text.

    Raises:
        ConfigError: they cannot.
    """
    cls, _ = encoder_class(plugin)
    if not cls.answers_per_token:
        able = sorted(name for name in ENCODERS if ENCODERS.resolve(name).answers_per_token)
        raise ConfigError(
            f"encoder {plugin.name!r} answers for whole texts, but the task needs an answer for every word of a text; "
            f"choose one of {', '.join(able)}"
        )


def new_network(plugin: Plugin, outputs: int, per_token: bool = False) -> Encoder:
    """A network whose head has so many outputs, for a text or for each of its words; its initial weights come
    from PyTorch's generator.

    Raises:
        ConfigError: an unknown name or option, or an encoder that cannot answer for words.
    """
    cls, config = encoder_class(plugin)
    if not per_token:
        return cls(config, outputs)
    check_per_token(plugin)
    return cls(config, outputs, per_token=True)


def build_encoder(plugin: Plugin, outputs: int, seed: int = 0, per_token: bool = False) -> Encoder:
    """A fresh network; its initial weights depend on `seed` alone, not on what was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_network(plugin, outputs, per_token)


def describe_encoder(folder: str) -> dict[str, Any]:
    """What `rayclean.json` of a saved network, or of the one of a run folder, says: encoder, options, num_classes, per_token,
    feature_dim, labels.

    Raises:
        ArtifactError: the folder holds no network.
    """
    model = Folder(trained_model(folder))
    if not model.exists(DESCRIPTION):
        raise ArtifactError(
            f"{folder} holds no network (no {DESCRIPTION} there); give the folder of a run that was trained, or a folder that "
            "rayclean wrote, like runs/<name>/train/model"
        )
    return dict(model.read_json(DESCRIPTION))


def load_encoder(folder: str) -> Encoder:
    """A saved network, in evaluation mode; a folder on another file system is fetched first.

    Args:
        folder: local path or URL of what `Encoder.save` wrote, or of the run that did.

    Raises:
        ArtifactError: the folder holds no network.
        ConfigError: a body that was saved as a reference cannot be found here.
    """
    description = describe_encoder(folder)
    cls, _ = encoder_class(Plugin(name=description["encoder"], **description["options"]))
    source = Folder(trained_model(folder))
    if source.is_local:
        return cls.load(Path(source.root), description).eval()
    local = tempfile.TemporaryDirectory(prefix="rayclean-model-")
    source.fs.get(source.root.rstrip("/") + "/", local.name, recursive=True)
    network = cls.load(Path(local.name), description).eval()
    network.fetched = local  # type: ignore[assignment]  # a body or a tokenizer may be opened later: goes with the network
    return network
