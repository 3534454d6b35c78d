"""A transformer layer that computes what rayclean's network does after its body: the mean over tokens, and the head.

The sequence classifiers of `transformers` read the first token alone. A network that reads the mean over the tokens is
one of them exactly if a layer more brings the mean to the first token (D: hidden size, n: tokens, h: states of the body):

    attention      queries and keys are 0, so every token gets the mean over all tokens of the values: the first linear
                   layer of the head, whose mean is that layer of the mean
    residual       the last LayerNorm of the body is made smaller by `STATES_FACTOR`, and the values as many times greater, so
                   that the token's own state, which a layer adds, is nothing beside the mean; the factor is a power of
                   two, so that the body comes back bit by bit
    LayerNorm      two numbers +M and -M, M far above all others, fix the variance up to (values / M)^2, so that dividing
                   by it is a product with a constant; a number that is 0 becomes what is subtracted from all of them,
                   and whoever reads a number reads its difference to that one
    feed-forward   the GELU and the second linear layer of a two-layer head; nothing for one of one layer

In 32 bits the logits are equal to some 1e-6 of their size.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STATES_FACTOR = 2.0**-24
"""Factor of the body's states before the layer."""
FAR_ABOVE = 4096.0
"""Least M, in lengths of the vector of all other numbers."""
_CONSTANTS = 3
"""Numbers of a state that the layer needs for itself: 0, +M and -M."""


@dataclass(frozen=True)
class LayerNames:
    """Names of the modules of one layer, below it, in an architecture."""

    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    inner: str
    out: str
    norm: str


@dataclass(frozen=True)
class Head:
    """The layers of a network after its pooling: `second(gelu(first(x)))`, or `first(x)` alone."""

    first: nn.Linear
    second: nn.Linear | None = None

    @property
    def classes(self) -> int:
        """Number of logits, K."""
        return (self.second or self.first).out_features

    def width(self) -> int:
        """Numbers of a state that hold what the head computes."""
        return self.first.out_features + (0 if self.second is None else self.classes)

    def places(self) -> range:
        """Where in a state the logits stand."""
        return range(self.width() - self.classes, self.width())

    def fits(self, size: int, inner: int) -> bool:
        """Whether states of `size` numbers and `inner` units of a feed-forward layer hold it."""
        return self.width() + _CONSTANTS <= size and (self.second is None or self.first.out_features <= inner)

    def lengths(self, pooled: Tensor) -> Tensor:
        """Length [B] of the vector of all numbers that the layer computes of pooled features [B, D]."""
        found = self.first(pooled)
        if self.second is not None:
            found = torch.cat([found, self.second(nn.functional.gelu(found))], -1)
        length: Tensor = torch.linalg.vector_norm(found, dim=-1)
        return length

    def reader(self, size: int) -> Tensor:
        """Matrix [K, `size`] whose product with a state is the logits."""
        selected = torch.eye(size)[list(self.places())]
        selected[:, size - _CONSTANTS] = -1.0
        return selected


@torch.no_grad()
def write_pooling_layer(layer: nn.Module, names: LayerNames, head: Head, longest: float, eps: float) -> None:
    """Give a layer the weights that bring the logits of a head over the mean to every token, at `Head.places`.

    Args:
        layer: of the architecture, initialised in whatever way.
        names: of its modules.
        head: what follows the mean.
        longest: greatest `Head.lengths` of typical texts; ten times as much still is far below M.
        eps: of its LayerNorms.
    """
    for parameter in layer.parameters():
        parameter.zero_()
    part = {name: layer.get_submodule(path) for name, path in vars(names).items()}
    first, second = head.first, head.second
    size, between = first.in_features, first.out_features
    zero, plus, minus = range(size - _CONSTANTS, size)
    most = _far_above(longest)
    weights = {name: _weight(module) for name, module in part.items()}
    biases = {name: _bias(module) for name, module in part.items()}

    # -- attention: the mean of the first layer's products, and the constants --------------------------------
    weights["value"][:between] = first.weight / STATES_FACTOR
    weights["attention_out"][range(between), range(between)] = 1.0
    biases["attention_out"][:between] = first.bias
    biases["attention_out"][plus], biases["attention_out"][minus] = most, -most

    # -- the second layer: its unit i reads what the first one has computed ----------------------------------
    if second is not None:
        logits = list(head.places())
        weights["inner"][range(between), range(between)] = 1.0
        weights["inner"][:between, zero] = -1.0
        weights["out"][logits, :between] = second.weight
        biases["out"][logits] = second.bias

    for norm in ("attention_norm", "norm"):
        weights[norm].fill_(_deviation(most, size, eps))


@torch.no_grad()
def write_normed_head(
    dense: nn.Linear, norm: nn.LayerNorm, classifier: nn.Linear, head: Head, longest: float
) -> None:
    """Give three layers, of which the middle one is a LayerNorm, the weights with which they compute a head of one layer.

    Args:
        dense: from D to D numbers, with a bias.
        norm: of these.
        classifier: from D to K.
        head: the layer.
        longest: greatest `Head.lengths` of typical texts.
    """
    for parameter in (*dense.parameters(), *norm.parameters(), *classifier.parameters()):
        parameter.zero_()
    size, most = dense.out_features, _far_above(longest)
    dense.weight[: head.classes], dense.bias[: head.classes] = head.first.weight, head.first.bias
    dense.bias[size - 2], dense.bias[size - 1] = most, -most
    norm.weight.fill_(_deviation(most, size, norm.eps))
    classifier.weight.copy_(head.reader(size))


def _far_above(longest: float) -> float:
    """M."""
    return float(2.0 ** math.ceil(math.log2(FAR_ABOVE * max(longest, 1.0))))


def _deviation(most: float, size: int, eps: float) -> float:
    """What a LayerNorm divides by."""
    return math.sqrt(2 * most**2 / size + eps)


def _weight(module: nn.Module) -> Tensor:
    weight: Any = module.weight
    return weight  # type: ignore[no-any-return]


def _bias(module: nn.Module) -> Tensor:
    bias: Any = module.bias
    return bias  # type: ignore[no-any-return]
