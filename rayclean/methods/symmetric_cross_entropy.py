"""Symmetric cross-entropy (SCE): Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy
Labels", ICCV 2019.

Cross-entropy learns from the label as if it were right; reverse cross-entropy, with prediction and label
exchanged, tolerates symmetric noise. Their weighted sum does both: alpha * CE + beta * RCE (section
"Symmetric Cross Entropy Learning").

| paper | here |
|---|---|
| alpha, beta | `config.alpha`, `config.beta` |
| A = log 0 | `functional.losses.LOG_ZERO` = log 1e-4 |

Differences from the paper: none known; A follows the authors' code (one-hot labels clamped at 1e-4) instead
of the -4 of the text.
"""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from rayclean.functional.losses import cross_entropy, reverse_cross_entropy
from rayclean.methods.base import Method
from rayclean.methods.batch import Output, StepBatch
from rayclean.plugins import Options


class SymmetricCrossEntropy(Method):
    """Cross-entropy and reverse cross-entropy together."""

    class Config(Options):
        """Options beside `name`."""

        alpha: float = Field(0.1, ge=0)
        """Weight of cross-entropy; the paper takes 0.1 on CIFAR-10, 6 on CIFAR-100."""
        beta: float = Field(1.0, ge=0)
        """Weight of reverse cross-entropy; the paper takes 1 on CIFAR-10, 0.1 on CIFAR-100."""

    observes_late = True

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """Cross-entropy and reverse cross-entropy, each with its weight."""
        logits, labels = outputs["main"].logits, batch.given_label
        return {
            "cross_entropy": self.config.alpha * batch.mean(cross_entropy(logits, labels)),
            "reverse_cross_entropy": self.config.beta * batch.mean(reverse_cross_entropy(logits, labels)),
        }
