"""LANE: label-aware noise elimination for fine-grained text classification (the paper's Algorithm 1,
equations 1-9).

The margin of a label against its strongest rival tells a wrong label from a hard one, but in fine-grained tasks classes
are so alike that right labels have small margins, too. An auxiliary network weighs the rival: a lost margin counts the
less, the more probable that network finds the rival, hence the less such a loss speaks against the label. Averages of
these label-aware margins over the epochs (ALM) follow a distribution whose lower tail is down-weighted by a Gaussian
inferred from the data, without a threshold; a contrastive loss on views pulls equal labels together, weighted by the
auxiliary network likewise.

| paper | here |
|---|---|
| theta, Pi | networks `main` (predicts) and `auxiliary` |
| M, LM (equations 1, 3) | `functional.margins.margin`, `label_aware` |
| ALM | columns `margin_sum`, `visits` |
| mu_t, sigma_t (5, 6), lambda (4) | `functional.margins.NegativeMargins`, `gaussian_weights`; column `weight` |
| L_wCE (7), auxiliary CE, L_con | terms `weighted`, `auxiliary`, `contrastive`; `functional.contrastive.lscl` |

Presets: the defaults are the readings recommended; `lane_literal` (`LaneLiteral`) takes the paper by the
letter.

Differences from the paper (each can be turned by an option, except the first two):
* t of the ALM counts an example's visits; margins come from the training forward pass, dropout on, of the
  original.
* A row without another row of its label, or without one of another label, has no contrastive term.
* N^t holds all examples seen so far (`scope`); by the letter of Algorithm 1 it holds those of the batch,
  where with n negatives no weight falls below exp(-(n - 1) / 2).
* sigma_t^2 is the variance of equation 6 (`sigma`); by the letter equation 4 squares it again, which has no
  scale.
* w is clamped at 0.05 (`w_min`) in margins and contrastive loss, because the auxiliary network learns from
  the same noisy labels: its confidence would blow up the one and drive the other to minus infinity.
* Features of the contrastive loss have unit length and temperature 0.3 (`normalize`, `tau`), which the paper leaves open.
* Losses are means over the rows with their views (`reduction`), the paper writes sums.
* One view by default (`views`); the paper's 256 rows for 32 originals are seven. Networks of different encoders
  (`auxiliary`) rewrite their own tokens: their views of a row share its label, not their text.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from rayclean.functional import contrastive, losses
from rayclean.functional.margins import (
    W_MIN,
    NegativeMargins,
    averages,
    gaussian_weights,
    label_aware,
    margin,
    update_average,
)
from rayclean.measures import EpochFigure, Histogram, Measures
from rayclean.methods.base import Method, State
from rayclean.methods.batch import Output, StepBatch
from rayclean.plugins import Options, Plugin


class Lane(Method):
    """Label-aware margins, inferred weights, label-aware contrastive loss."""

    class Config(Options):
        """Options beside `name`."""

        auxiliary: Plugin | None = None
        """Encoder of the auxiliary network; None: the run's own."""
        views: tuple[str, ...] | None = None
        """Views of every example (`training/views.py`); None: one, by synonyms where the network reads text
        and has pre-trained embeddings, by dropout elsewhere."""
        scope: Literal["global", "batch"] = "global"
        """N^t: all examples seen so far, or those of the batch."""
        sigma: Literal["variance", "literal"] = "variance"
        """sigma_t^2 of equation 4."""
        mu: float | None = None
        """Ablation (table 8): a fixed mu_t with sigma_t = 1; None: inferred."""
        mu_warmup: int = Field(1, ge=0)
        """Epochs with weights of 1 before a fixed mu: at the start all margins are negative."""
        w_min: float = Field(W_MIN, gt=0, le=1)
        """Lower bound of a weight w."""
        tau: float = Field(contrastive.TAU, gt=0)
        """Temperature of the contrastive loss."""
        normalize: bool = True
        """Features of unit length in the contrastive loss."""
        contrastive_weight: float = Field(1.0, ge=0)
        """Weight of L_con; 0 drops it."""
        denominator: Literal["negatives", "all"] = "negatives"
        """Denominator of the contrastive loss: the negatives as printed, or all other rows as in LCL."""
        detach_weights: bool = False
        """Keep the contrastive loss from training the auxiliary network."""
        similarity: bool = True
        """False = ablation LANE^-sim: margins without the auxiliary network's w."""
        weighting: bool = True
        """False = ablation LANE^-alm: all weights 1."""
        reduction: Literal["mean", "sum"] = "mean"
        """`sum`: as written in the paper, over the whole batch with its views."""

    config: Config
    networks = ("main", "auxiliary")

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        self.views = ("auto",) if config.views is None else config.views
        self._negative = NegativeMargins()
        """Sums over N^t that follow the columns within an epoch; `partition` makes them anew from the
        columns."""

    def encoders(self, encoder: Plugin) -> dict[str, Plugin]:
        """Two networks of the run's encoder, unless the auxiliary one has its own."""
        return {"main": encoder, "auxiliary": self.config.auxiliary or encoder}

    def state(self) -> dict[str, tuple[str, float]]:
        """21 bytes per example: the ALM as sum and number, the last weight, the sum of all weights, and
        whether w was clamped at the last visit.
        """
        return {
            "margin_sum": ("float64", 0.0),
            "visits": ("uint32", 0),
            "weight": ("float32", 1.0),
            "weight_sum": ("float32", 0.0),
            "clamped": ("uint8", 0),
        }

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        """N^t, recomputed so that the running sums do not drift."""
        self._negative = NegativeMargins.of(averages(state["margin_sum"], state["visits"]))

    def seen(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The label-aware margins of the originals (equations 1 and 3)."""
        originals = len(batch.given_label)
        margins, rival = margin(outputs["main"].logits[:originals].detach(), batch.given_label)
        if not self.config.similarity:
            return {"margin": margins.double(), "clamped": torch.zeros_like(rival, dtype=torch.uint8)}
        w = outputs["auxiliary"].logits[:originals].detach().softmax(-1).gather(1, rival[:, None])[:, 0]
        clamped = (margins < 0) & (w < self.config.w_min)
        return {
            "margin": label_aware(margins.double(), w.double(), self.config.w_min),
            "clamped": clamped.to(torch.uint8),
        }

    def observe(
        self, state: State, rows: npt.NDArray[np.int64], seen: dict[str, npt.NDArray[Any]], epoch: int
    ) -> None:
        """ALM, then N^t with this batch, then the weights of this very step (Algorithm 1, lines 7-18)."""
        before, after = update_average(state["margin_sum"], state["visits"], rows, seen["margin"])
        if self.config.scope == "batch":
            negative = NegativeMargins.of(after)
        else:
            negative = self._negative = self._negative.moved(before, after)
        state["weight"][rows] = self._weights(after, negative, epoch)
        state["weight_sum"][rows] += state["weight"][rows]
        state["clamped"][rows] = seen["clamped"]

    def _weights(
        self, alm: npt.NDArray[np.float64], negative: NegativeMargins, epoch: int
    ) -> npt.NDArray[np.float64]:
        if not self.config.weighting or (self.config.mu is not None and epoch <= self.config.mu_warmup):
            return np.ones(len(alm))
        if self.config.mu is not None:
            return gaussian_weights(alm, self.config.mu, 1.0)
        return gaussian_weights(alm, negative.mean, negative.sigma_squared(self.config.sigma))

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """L_wCE + L_aux + L_con (equations 7-9); views have label and weight of their original."""
        main, auxiliary = outputs["main"], outputs["auxiliary"]
        copies = len(main.logits) // len(batch.given_label)
        labels, weights = batch.given_label.repeat(copies), rows["weight"].repeat(copies)
        terms = {
            "weighted": batch.mean(weights * losses.cross_entropy(main.logits, labels)),
            "auxiliary": batch.mean(losses.cross_entropy(auxiliary.logits, labels)),
        }
        total = batch.mean_over
        if self.config.reduction == "sum":
            terms = {name: term * (batch.global_count * copies) for name, term in terms.items()}
            total = batch.sum_over
        if self.config.contrastive_weight:
            values, counted = self._contrastive(main.features, auxiliary.logits, labels, batch, copies)
            terms["contrastive"] = self.config.contrastive_weight * total(values, counted)
        return terms

    def _contrastive(
        self, features: Tensor, auxiliary_logits: Tensor, labels: Tensor, batch: StepBatch, copies: int
    ) -> tuple[Tensor, Tensor]:
        """L_con of this worker's rows against the rows of all workers, gathered with gradient."""
        w = auxiliary_logits.softmax(-1)
        position = batch.rank * len(labels) + torch.arange(len(labels), device=labels.device)
        valid = batch.valid.repeat(copies)
        pairs = contrastive.pair(
            features, labels, position, batch.gather(features), batch.gather(labels),
            batch.gather(valid.to(torch.int8)) > 0, tau=self.config.tau, normalize=self.config.normalize,
        )  # fmt: skip
        w = w.detach() if self.config.detach_weights else w
        loss = contrastive.lcl if self.config.denominator == "all" else contrastive.lscl
        return loss(pairs, w, w_min=self.config.w_min)

    def summary(self, state: State) -> dict[str, float]:
        """The tail: how many ALMs are negative, mu and sigma of them, the mean weight; and the clamp rate,
        the share of the last visits whose margin was lost to a rival of probability below `w_min`.
        """
        negative = NegativeMargins.of(averages(state["margin_sum"], state["visits"]))
        return {
            "negative_margins": negative.count,
            "negative_mean": negative.mean,
            "negative_deviation": float(np.sqrt(negative.variance)),
            "mean_weight": float(state["weight"].mean()),
            "clamp_rate": float(state["clamped"].mean()),
        }

    def measures(self) -> Measures:
        """The inferred weights, in which right and wrong labels should part, and the tail of the ALMs."""
        weights = {
            "weight": Histogram(
                title="Weight",
                means="What each example counted for when it was last trained on; wrong labels should be on the left.",
                axis="weight",
                columns=("weight",),
            ),
            "weight_below_one": Histogram(
                title="Weight, of those below 1",
                means="The same without the examples of full weight, which would drown the others.",
                axis="weight",
                columns=("weight",),
                below=1.0,
            ),
            "mean_weight": Histogram(
                title="Mean weight",
                means="Mean of an example's weights over its visits so far.",
                axis="mean weight",
                columns=("weight_sum", "visits"),
                combine="ratio",
            ),
        }
        figures = {
            "negative_margins": EpochFigure(title="negative margins", format="count"),
            "mean_weight": EpochFigure(title="mean weight", format="decimals"),
            "clamp_rate": EpochFigure(title="clamp rate", format="percent", table=False),
        }
        return Measures(histograms=weights, figures=figures)

    def quality(self, state: State) -> npt.NDArray[np.float64]:
        """The ALM: a label that loses to its rival again and again is likely wrong."""
        return averages(state["margin_sum"], state["visits"])
