"""Reverse cross-entropy (RCE) after a warm-up with cross-entropy: the loss that NoiseAL puts on relabelled
examples, alone. Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019,
section "Symmetric Cross Entropy Learning".

RCE = -A (1 - p[y]): half of -A times the mean absolute error, so it tolerates symmetric noise below 1 - 1/K
and pair noise below one half. Its gradient vanishes where p[y] is near 0: it cannot begin from scratch and
cannot mend a confident mistake, hence the warm-up.

| paper | here |
|---|---|
| l_rce, A | `functional.losses.reverse_cross_entropy`, `LOG_ZERO` |

Differences from the paper: there RCE never stands alone; the warm-up is ours, and the best epoch is one after
it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor

from rayclean.functional.losses import cross_entropy, reverse_cross_entropy
from rayclean.methods.base import Method
from rayclean.methods.batch import Output, StepBatch
from rayclean.plugins import Options


class ReverseCrossEntropy(Method):
    """Cross-entropy for some epochs, then reverse cross-entropy."""

    class Config(Options):
        """Options beside `name`."""

        warmup_epochs: int = Field(2, ge=0)
        """Epochs with cross-entropy (NoiseAL: 2 of 6)."""

    config: Config
    observes_late = True

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        self.first_choice = config.warmup_epochs + 1

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """One of the two, by epoch."""
        logits, labels = outputs["main"].logits, batch.given_label
        if epoch <= self.config.warmup_epochs:
            return {"cross_entropy": batch.mean(cross_entropy(logits, labels))}
        return {"reverse_cross_entropy": batch.mean(reverse_cross_entropy(logits, labels))}
