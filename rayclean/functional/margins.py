"""LANE's margins and the weights inferred from them (equations 1-6 of the paper).

N examples, G rows of one global batch, K classes. Networks' outputs are torch tensors, values kept per
example NumPy arrays in float64. One step of LANE reads:

    margin, rival = margins.margin(logits, labels)                            # Eq. 1
    adjusted = margins.label_aware(margin, weights of the rival, w_min)       # Eq. 3
    before, after = margins.update_average(total, count, rows, adjusted)      # ALM
    negatives = negatives.moved(before, after)                                # N^t
    weight = margins.gaussian_weights(after, negatives.mean, negatives.sigma_squared())   # Eq. 4-6

Readings taken where the paper is ambiguous:
* Eq. 6 is the *variance* sigma_t^2 (Algorithm 1 computes "mu_t and sigma_t^2"); `sigma_squared("literal")`
  squares it once more, as Eq. 4 and 6 read together by the letter. Only the first is free of scale.
* mu and sigma are those of all of N^t (Eq. 5-6), not of the examples under the mean.
* N^t is every example seen so far whose latest ALM is negative; `NegativeMargins.of(after)` of one batch
  alone is Algorithm 1's letter. With n negatives no weight is below exp(-(n - 1) / 2), so a batch can hardly
  reject anything.
* t of the ALM counts visits of the example, which is the epoch where each is visited once an epoch.
* w is clamped at `w_min`, because the auxiliary network learns from noisy labels too and its w may go to 0.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.errors import RaycleanError

W_MIN = 0.05
"""A negative margin is amplified by 1 / W_MIN = 20 at most."""
V_MIN = 1e-12
"""Below this variance of the negative ALMs no weight can be inferred, and all are 1."""

SigmaMode = Literal["variance", "literal"]
Floats = npt.NDArray[np.float64]


def margin(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """M = z_y - max_{k != y} z_k (Eq. 1), and which class that maximum is.

    Args:
        logits: [B, K], K >= 2.
        labels: [B] int64.

    Returns:
        Margins [B], and the rival class j [B] int64 (the lowest index where several are equal).

    >>> margin(torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]]), torch.tensor([0, 0]))
    (tensor([ 1., -3.]), tensor([1, 2]))
    """
    given = logits.gather(-1, labels[:, None])[:, 0]
    others = logits.scatter(-1, labels[:, None], -torch.inf)
    highest, rival = others.max(-1)
    return given - highest, rival


def label_aware(margins: Tensor, weights: Tensor, w_min: float = W_MIN) -> Tensor:
    """LM = M / w_j if M < 0 else M (Eq. 3).

    Args:
        margins: [B] M.
        weights: [B] w_j, the auxiliary network's probability of the rival class.
        w_min: w is clamped from below.

    Returns:
        [B], <= M.

    >>> label_aware(torch.tensor([1.0, -3.0]), torch.tensor([0.2, 0.6]))
    tensor([ 1., -5.])
    """
    return torch.where(margins < 0, margins / weights.clamp(min=w_min), margins)


def averages(total: npt.NDArray[Any], count: npt.NDArray[Any]) -> Floats:
    """ALM [N] from the sums and the numbers of updates; 0 without any update, from which no weight is
    inferred.
    """
    return np.asarray(total / np.maximum(count, 1), dtype=np.float64)


def update_average(
    total: npt.NDArray[np.float64],
    count: npt.NDArray[np.uint32],
    rows: npt.NDArray[np.int64],
    margins: npt.NDArray[Any],
) -> tuple[Floats, Floats]:
    """Add the margins of one global batch to the running ALMs, in place.

    Args:
        total: [N] sum of the (label-aware) margins so far.
        count: [N] number of them.
        rows: [G] positions in `total` and `count`, unique.
        margins: [G] the new margins.

    Returns:
        ALM of these rows before [G] (0 where unseen) and after [G].

    Raises:
        RaycleanError: a margin is NaN or infinite; nothing is changed then.
    """
    if not np.isfinite(margins).all():
        raise RaycleanError(
            f"{int((~np.isfinite(margins)).sum())} of {len(margins)} margins are not finite: the network diverged; "
            "lower the learning rate, or set precision = 'float32' in the section that trains"
        )
    before = averages(total[rows], count[rows])
    total[rows] += margins
    count[rows] += 1
    return before, averages(total[rows], count[rows])


@dataclass(frozen=True)
class NegativeMargins:
    """Statistics of N^t, the negative ALMs: updated in O(batch) and equal to a full recompute.

    Sums are of ALM - shift: with a shift near the mean, the variance does not cancel. Computed anew at every
    epoch (`of` the whole column), they neither drift nor have to be part of a checkpoint.
    """

    count: int = 0
    total: float = 0.0
    """Sum of (ALM - shift)."""
    squares: float = 0.0
    """Sum of (ALM - shift)^2."""
    shift: float = 0.0

    @classmethod
    def of(cls, alm: Floats) -> "NegativeMargins":
        """Statistics of the negative values among some ALMs [N]."""
        negative = alm[alm < 0]
        if not len(negative):
            return cls()
        shift = float(negative.mean())
        shifted = negative - shift
        return cls(len(negative), float(shifted.sum()), float((shifted**2).sum()), shift)

    def moved(self, before: Floats, after: Floats) -> "NegativeMargins":
        """Statistics after the ALMs `before` [G] of one batch have become `after` [G], the same rows in
        order.
        """
        if self.count == 0:
            return self.of(after)
        old, new = before[before < 0] - self.shift, after[after < 0] - self.shift
        return NegativeMargins(
            self.count + len(new) - len(old),
            self.total + float(new.sum()) - float(old.sum()),
            self.squares + float((new**2).sum()) - float((old**2).sum()),
            self.shift,
        )

    @property
    def mean(self) -> float:
        """mu_t (Eq. 5); 0 where N^t is empty."""
        return self.shift + self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Population variance v_t (Eq. 6); 0 where N^t is empty."""
        return max(self.squares / self.count - (self.total / self.count) ** 2, 0.0) if self.count else 0.0

    def sigma_squared(self, mode: SigmaMode = "variance") -> float:
        """sigma_t^2 of Eq. 4: v_t, or v_t^2 by the letter; infinite, so that all weights are 1, where N^t has
        less than two members or all of them are equal.
        """
        variance = self.variance
        if self.count < 2 or variance < V_MIN:
            return math.inf
        return variance if mode == "variance" else variance**2


def gaussian_weights(alm: Floats, mean: float, sigma_squared: float) -> Floats:
    """Weights lambda = exp(-(ALM - mu)^2 / (2 sigma^2)) where ALM < 0 and ALM < mu, else 1 (Eq. 4).

    With `mean` in {0, -1} and `sigma_squared` = 1 these are the fixed thresholds of the paper's appendix E.

    Args:
        alm: [G] averages; 0 where an example is unseen.
        mean: mu_t.
        sigma_squared: sigma_t^2 > 0, or infinite: all weights are 1.

    Returns:
        [G], in (0, 1] but for underflow.

    Raises:
        ValueError: sigma_squared is not positive.

    >>> gaussian_weights(np.array([2.0, -6.5, -6.0, -1.0, -5.5]), -4.75, 4.8125).round(6)
    array([1.      , 0.727471, 0.850154, 1.      , 0.943233])
    """
    if not sigma_squared > 0:
        raise ValueError(f"sigma_squared must be positive, got {sigma_squared}")
    below = np.minimum(alm - mean, 0.0)
    return np.where(alm < 0, np.exp(-(below**2) / (2 * sigma_squared)), 1.0)
