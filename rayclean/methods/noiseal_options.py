"""Options of NoiseAL's main line; `noiseal_ablations.py` has those of its ablations."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import Tensor

from rayclean.functional import losses, mixing
from rayclean.plugins import Options, Plugin

PURIFIED_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": losses.cross_entropy,
    "reverse_cross_entropy": losses.reverse_cross_entropy,
    "generalized_cross_entropy": losses.generalized_cross_entropy,
    "symmetric_cross_entropy": losses.symmetric_cross_entropy,
}
"""Losses that purified examples may be trained by."""


class NoiseALOptions(Options):
    """Options of NoiseAL beside `name`."""

    weak: Plugin = Plugin(name="bilstm")
    """The weak network's encoder. `{name = "transformer", dropout = 0.3, ...}`, the strong one's model with
    another dropout, gives the paper's pair of two BERTs."""
    warmup_epochs: int = Field(2, ge=1)
    """Epochs with cross-entropy on all examples (paper: 2 of 6)."""
    lambda_: float = Field(0.7, ge=0, le=1)
    """How fast a threshold follows the confidence. A small one keeps it near 1/K and lets wrong labels in."""
    ema_of: Literal["max", "label"] = "max"
    """p(t): the highest class probability, or that of the given label."""
    sigma: float | None = Field(None, ge=0)
    """How much the confidence of a purified example must exceed its threshold; none: the partition's own
    constant, 0.5 for `disc` and 0 for the others."""
    demonstrations: int = Field(5, ge=0)
    """Reliable examples shown with a question; 0: none."""
    selector: Literal["nearest", "random"] = "nearest"
    """Demonstrations: the nearest by the strong network's features, or random ones."""
    candidates: Literal["binary", "all"] = "binary"
    """Possible answers: the given and the predicted label, or every label (paper). Among all, a third label decides nothing,
    unless control questions cannot measure the annotator: the example trains as one without an answer."""
    accept: float = Field(0.6, ge=0.5, le=1)
    """Least probability that the predicted label is right, by the networks and the annotator's answer together, the annotator
    believed as far as control questions of `relabel` show; the purified example is then trained on that label. Of an annotator
    that they cannot measure (`knn`): its own probability of its answer."""
    budget: float = Field(1.0, ge=0, le=1)
    """Share of an epoch's purified examples that may be asked about; 0: no annotator."""
    max_queries: int | None = Field(None, ge=0)
    """Questions in the whole training. Every one posed counts, each time it is posed, whatever comes back:
    one that failed may have cost as much as one that was answered."""
    requery: bool = False
    """Ask about purified examples in every epoch, with the demonstrations of that epoch; the last answer
    counts."""
    purified_loss: Literal[tuple(PURIFIED_LOSSES)] = "reverse_cross_entropy"  # type: ignore[valid-type]
    """Loss on the answers."""
    clean_weight: float = Field(1.0, ge=0)
    """Weight of L_R."""
    purified_weight: float = Field(1.0, ge=0)
    """Weight of L_P; 0 drops it."""
    hard_weight: float = Field(1.0, ge=0)
    """Weight of L_H; 0 drops it."""
    temperature: float = Field(mixing.TEMPERATURE, gt=0)
    """Temperature T of EmbMix's targets."""
    alpha: float = Field(mixing.ALPHA, gt=0)
    """Parameter of EmbMix's Beta(alpha, alpha)."""
    kl_weight: float = Field(0.3, ge=0)
    """Weight of the symmetric KL between two dropout passes in L_H."""
