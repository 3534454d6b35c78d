"""Architectures of `transformers` in which a rayclean network can be written: names of their modules, and their heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rayclean.errors import ConfigError
from rayclean.models.pooling_layer import STATES_FACTOR, LayerNames

ADDED = "rayclean_pooling_layer"
"""Key of `config.json`: the last layer computes the pooling and the head, and what stands before is the body."""
_TINY = 2.0**-16
"""What goes through a tanh is made so many times smaller, where a tanh is the identity up to 1e-8 of its size."""

_BERT = LayerNames(
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_DEBERTA = LayerNames(
    "attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_DISTILBERT = LayerNames(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm", "ffn.lin1",
    "ffn.lin2", "output_layer_norm",
)  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A sequence classifier of `transformers` whose layers add their input before each LayerNorm, as BERT's do."""

    layers: str
    """Name of the list of layers, in the body."""
    names: LayerNames
    dense: str
    """Name of the linear layer before the classifier, in the whole network."""
    activation: Literal["tanh", "gelu", "relu"]
    """What follows `dense`."""
    classifier: str
    """Name of the last linear layer."""

    def write_linear(self, model: nn.Module, weight: Tensor, bias: Tensor) -> None:
        """Make the head of the first token's state a linear layer, [K, D] and [K], in spite of its activation."""
        if self.activation == "tanh":
            self._write(
                model, weight * _TINY, bias * _TINY, torch.eye(len(bias)) / _TINY, torch.zeros(len(bias))
            )
            return
        # f(x) - f(-x) = x, of the ReLU and of the GELU
        both = torch.cat([torch.eye(len(bias)), -torch.eye(len(bias))], 1)
        doubled = torch.cat([weight, -weight]), torch.cat([bias, -bias])
        self._write(model, *doubled, both, torch.zeros(len(bias)))

    def write_two_layers(self, model: nn.Module, first: nn.Linear, second: nn.Linear) -> None:
        """Make the head of the first token's state `second(gelu(first(x)))`, where `activation` is the GELU."""
        self._write(model, first.weight, first.bias, second.weight, second.bias)

    def units(self, classes: int) -> int:
        """Units of `dense` that `write_linear` needs."""
        return classes if self.activation == "tanh" else 2 * classes

    @torch.no_grad()
    def _write(
        self, model: nn.Module, weight: Tensor, bias: Tensor, second: Tensor, second_bias: Tensor
    ) -> None:
        dense: Any = model.get_submodule(self.dense)
        classifier: Any = model.get_submodule(self.classifier)
        for parameter in (dense.weight, dense.bias, classifier.weight):
            parameter.zero_()
        dense.weight[: len(bias)], dense.bias[: len(bias)] = weight, bias
        classifier.weight[:, : len(bias)] = second
        classifier.bias.copy_(second_bias)


_ROBERTA = Architecture("encoder.layer", _BERT, "classifier.dense", "tanh", "classifier.out_proj")
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture("encoder.layer", _BERT, "bert.pooler.dense", "tanh", "classifier"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Architecture("encoder.layer", _BERT, "classifier.dense", "gelu", "classifier.out_proj"),
    "deberta-v2": Architecture("encoder.layer", _DEBERTA, "pooler.dense", "gelu", "classifier"),
    "distilbert": Architecture("transformer.layer", _DISTILBERT, "pre_classifier", "relu", "classifier"),
}
"""By `model_type` of `config.json`."""


def activation(described: Any) -> str:
    """Name of the activation of the feed-forward layers of a model, by its configuration."""
    return str(getattr(described, "hidden_act", None) or getattr(described, "activation", ""))


def norms(body: nn.Module, model_type: str) -> list[Any]:
    """The last LayerNorm of every layer of a body."""
    architecture = ARCHITECTURES[model_type]
    layers: Any = body.get_submodule(architecture.layers)
    return [layer.get_submodule(architecture.names.norm) for layer in layers]


@torch.no_grad()
def scale_states(norm: Any, factor: float) -> None:
    """Multiply what a LayerNorm returns by a factor; a power of two changes no bit of the significands."""
    norm.weight.mul_(factor)
    norm.bias.mul_(factor)


def without_pooling_layer(described: Any) -> bool:
    """Take the layer that rayclean has added out of a model's configuration, if there is one: its body is meant.

    Returns:
        Whether there was one; then `restore_states` follows once the weights are loaded.

    Raises:
        ConfigError: the configuration says so of a model that cannot have one.
    """
    if not getattr(described, ADDED, False):
        return False
    if described.model_type not in ARCHITECTURES or described.num_hidden_layers < 2:
        raise ConfigError(
            f"encoder.model: config.json of a {described.model_type!r} with {described.num_hidden_layers} layers says "
            f"{ADDED!r}, which rayclean writes for {', '.join(ARCHITECTURES)} alone: it was changed; run the verb that wrote "
            "it again"
        )
    described.num_hidden_layers -= 1
    delattr(described, ADDED)
    return True


def restore_states(body: nn.Module, model_type: str) -> None:
    """Undo, bit by bit, what was done to a body before the layer was added."""
    scale_states(norms(body, model_type)[-1], 1 / STATES_FACTOR)
