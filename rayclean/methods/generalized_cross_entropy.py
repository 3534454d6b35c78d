"""Generalised cross-entropy (GCE): Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep
Neural Networks with Noisy Labels", NeurIPS 2018.

The loss runs from cross-entropy (q -> 0), which learns fast and fits every wrong label, to the mean absolute
error (q = 1), which tolerates symmetric noise and learns slowly: (1 - p[y]^q) / q, equation 6.

| paper | here |
|---|---|
| q | `config.q` |
| L_q | `functional.losses.generalized_cross_entropy` |

Differences from the paper: the truncated variant (section 3.3), which prunes examples between epochs, is not
included.
"""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from rayclean.functional.losses import generalized_cross_entropy
from rayclean.methods.base import Method
from rayclean.methods.batch import Output, StepBatch
from rayclean.plugins import Options


class GeneralizedCrossEntropy(Method):
    """Cross-entropy bent towards the mean absolute error."""

    class Config(Options):
        """Options beside `name`."""

        q: float = Field(0.7, gt=0, le=1)
        """Section 4: 0.7 in all experiments."""

    observes_late = True

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """L_q of the given labels."""
        values = generalized_cross_entropy(outputs["main"].logits, batch.given_label, q=self.config.q)
        return {"generalized_cross_entropy": batch.mean(values)}
