"""Contrastive losses on labels: LCL and LANE's LSCL; one value per anchor, the caller reduces them.

B anchors (this worker's rows), G columns (the rows of the global batch, the anchors among them), D features,
K classes. Anchors and columns are separate arguments, so that W workers that gather their columns with
gradient compute exactly what one worker computes on all rows:

    pairs = contrastive.pair(features, labels, position, all_features, all_labels, all_valid, tau=0.3)
    values, counted = contrastive.lscl(pairs, weights)
    loss = batch.mean_over(values, counted)

s_ik = h_i h_k / tau, P_i the other columns of the anchor's label, w_i the auxiliary network's class
probabilities:

| function | value of anchor i |
|---|---|
| `lcl` | -1/P_i sum_{p in P_i} log [ w_{i,y_i} e^{s_ip} / sum_{k != i} w_{i,y_k} e^{s_ik} ] |
| `lscl` | -1/P_i sum_{p in P_i} log [ w_{i,y_i} e^{s_ip} / sum_{k: y_k != y_i} w_{i,y_k} e^{s_ik} ] |

With equal weights, `lcl` is the supervised contrastive loss (SCL).

References: Gunel et al., "Supervised contrastive learning for pre-trained language model fine-tuning", ICLR
2021 (SCL); Suresh & Ong, "Not all negatives are equal: label-aware contrastive loss", EMNLP 2021; LANE, the
L_con of Eq. 8-9.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rayclean.functional.margins import W_MIN

TAU = 0.3
"""Temperature of SCL and LCL; LANE states none."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of an anchor and a column."""

    similarity: Tensor
    """[B, G] s_ik."""
    labels: Tensor
    """[B] int64 labels of the anchors."""
    column_labels: Tensor
    """[G] int64 labels of the columns."""
    positive: Tensor
    """[B, G] bool: the column is another row with the same label."""
    negative: Tensor
    """[B, G] bool: the column is a row with another label."""

    def mean_positive(self) -> Tensor:
        """Mean similarity to the positives [B]; 0 where there is none."""
        total = self.similarity.masked_fill(~self.positive, 0.0).sum(1)
        return total / self.positive.sum(1).clamp(min=1)

    def log_weights(self, weights: Tensor, w_min: float) -> Tensor:
        """The log weights log w_{i,k} [B, K] of the anchors, clamped from below."""
        return weights.clamp(min=w_min).log()


def pair(
    anchors: Tensor,
    labels: Tensor,
    position: Tensor | None = None,
    columns: Tensor | None = None,
    column_labels: Tensor | None = None,
    column_valid: Tensor | None = None,
    tau: float = TAU,
    normalize: bool = True,
) -> Pairs:
    """Compare anchors with the rows of the global batch; without columns, with each other.

    Args:
        anchors: [B, D] features.
        labels: [B] int64.
        position: [B] int64, which column each anchor is: it is no partner of itself.
        columns: [G, D] features of all rows, gathered with gradient.
        column_labels: [G] int64.
        column_valid: [G] bool, False for padding; all are valid by default.
        tau: temperature.
        normalize: divide features by their L2 norm. Unbounded features make LSCL unbounded, so this is the
            default though LANE does not state it.

    Raises:
        ValueError: `position`, `columns` and `column_labels` are not given together, or tau is not positive.
    """
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}")
    if columns is None and column_labels is None and position is None:
        columns, column_labels, position = anchors, labels, torch.arange(len(anchors), device=anchors.device)
    if columns is None or column_labels is None or position is None:
        raise ValueError("columns, column_labels and position go together: got only some of them")
    wide = torch.promote_types(anchors.dtype, torch.float32)  # exponents in half precision are too coarse
    anchors, columns = anchors.to(wide), columns.to(wide)
    if normalize:
        anchors, columns = F.normalize(anchors, dim=1), F.normalize(columns, dim=1)
    partner = torch.arange(len(columns), device=columns.device)[None, :] != position[:, None]
    if column_valid is not None:
        partner = partner & column_valid[None, :]
    same = labels[:, None] == column_labels[None, :]
    return Pairs(anchors @ columns.T / tau, labels, column_labels, partner & same, partner & ~same)


def lcl(
    pairs: Pairs, weights: Tensor, variant: Literal["paper", "code"] = "paper", w_min: float = 1e-12
) -> tuple[Tensor, Tensor]:
    """Label-aware contrastive loss.

    The gradient flows through `weights` into the auxiliary network unless they are detached.

    Args:
        pairs: see `pair`.
        weights: [B, K] w, rows sum to 1.
        variant: "paper": w_{i,y_i} inside the logarithm; "code": before it, as in the authors' code. They
            differ in value and gradient.
        w_min: w is clamped from below; the default only keeps the logarithm finite.

    Returns:
        Values [B] (>= 0 in the "paper" variant) and whether each row counts [B], which takes a positive (the
        value of others is 0).
    """
    counted = pairs.positive.any(1)
    log_w = pairs.log_weights(weights, w_min)
    log_w_label = log_w.gather(1, pairs.labels[:, None])[:, 0]
    weighted = pairs.similarity + log_w[:, pairs.column_labels]
    log_ratio = pairs.mean_positive() - _log_sum(weighted, pairs.positive | pairs.negative)
    values = -(log_w_label + log_ratio) if variant == "paper" else -log_w_label.exp() * log_ratio
    return values.masked_fill(~counted, 0.0), counted


def lscl(pairs: Pairs, weights: Tensor, w_min: float = W_MIN) -> tuple[Tensor, Tensor]:
    """LANE's label-aware supervised contrastive loss: the denominator holds the negatives only, as printed.

    Its values may be negative. With unit features, w in [w_min, 1] and n negatives it lies in [log(n w_min) -
    2/tau, log n + 2/tau - log w_min]; without `w_min` the auxiliary network could push it to minus infinity
    just by being sure. For a denominator of all others, use `lcl` with the same `w_min`.

    The gradient flows through `weights` (where they are not clamped) into the auxiliary network, as in LCL's
    code, unless they are detached.

    Args:
        pairs: see `pair`.
        weights: [B, K] w, rows sum to 1.
        w_min: w is clamped from below, in numerator and denominator.

    Returns:
        Values [B], and which rows [B] count: those with a positive and a negative (the others are 0).
    """
    counted = pairs.positive.any(1) & pairs.negative.any(1)
    log_w = pairs.log_weights(weights, w_min)
    log_w_label = log_w.gather(1, pairs.labels[:, None])[:, 0]
    weighted = pairs.similarity + log_w[:, pairs.column_labels]
    values = _log_sum(weighted, pairs.negative) - log_w_label - pairs.mean_positive()
    return values.masked_fill(~counted, 0.0), counted


def _log_sum(exponents: Tensor, mask: Tensor) -> Tensor:
    """The log sum exp over the masked entries of each row [B]; finite, with a gradient of 0, where there is
    none.
    """
    exponents = exponents.masked_fill(~mask, -torch.inf).masked_fill(~mask.any(1, keepdim=True), 0.0)
    return exponents.logsumexp(1)
