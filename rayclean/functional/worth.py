"""What an annotator's answers are worth: its bias towards some labels, its accuracy on control questions.

Both are measured without a true label. Rows are queries, columns their candidates: `candidates` [B, C] holds
label indices, -1 where a query has fewer.

References: Zhou et al., "Batch calibration", ICLR 2024 (whose flat marginal `marginal_bias` replaces by a known
one); Agresti and Coull, "Approximate is better than exact for interval estimation of binomial proportions", The
American Statistician 52, 1998; Clopper and Pearson, Biometrika 26, 1934.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import beta

from rayclean.functional.types import Doubles, Floats, Ints

LEAST_TEXTS = 8
"""A label that fewer texts offer has hardly a bias."""
CONFIDENCE = 0.95
"""Of every one-sided bound that opens or closes a gate."""
CHANCE, ABOVE_CHANCE = 0.5, 0.02
"""Accuracy of guessing between two candidates, and how far above it an annotator must surely be."""
PRIOR_ANSWERS = 2
"""Right and wrong control answers each that every annotator has before its first, which shrinks towards .5."""
LEAST_BELIEF = 1e-9
"""Beliefs below this count as this, so that no answer is impossible."""


def marginal_bias(scores: Floats, candidates: Ints, belief: Floats, num_classes: int) -> Doubles:
    """The preference b of an annotator for each label, to be subtracted from its scores.

    Whatever an unbiased annotator says of single queries, it moves no label's share on the whole (the law of
    total expectation): with p_rc = softmax_c(log belief_rc + scores_rc - b_c) over the candidates of row r,

        sum_r p_rk = sum_r belief_rk                for every label k.

    b is the minimum of the convex sum_r logsumexp_c(log belief_rc + scores_rc - b_c) + sum_k b_k sum_r belief_rk
    + sum_k (m / n_k) b_k^2 / 2, with n_k the number of rows that have candidate k and m = `LEAST_TEXTS`: of a
    label with fewer than m texts b stays near 0, of one with many it is free of the penalty. (Were scores alone,
    without belief, made to have the belief's shares, a label that is rare among the queries would lose the
    answers in its favour, as under a flat marginal a frequent one does.)

    The questions to take are controls, with the share of each class among control labels as belief. Suspects with
    the model's posterior serve where they go both ways; where most are of one class and the posterior's scale is off,
    a preference looks the same as suggestions that are right more often than was believed.

    Args:
        scores: [B, C] log-probabilities.
        candidates: [B, C] label indices, -1 for none.
        belief: [B, C] probability of each candidate before the annotator is asked; rows are renormalised over their
            candidates.
        num_classes: K.

    Returns:
        b [K], 0 for labels in no query; of the constants that scores leave open, the one with sum_k b_k / n_k = 0.

    >>> scores, candidates = np.tile([[-1.0, -3.0], [-3.0, -1.0]], (100, 1)), np.tile([0, 1], (200, 1))
    >>> even = np.full((200, 2), 0.5)
    >>> marginal_bias(scores, candidates, even, 2).round(3)
    array([0., 0.])
    >>> marginal_bias(scores + [4.0, 0.0], candidates, even, 2).round(2)
    array([ 2., -2.])
    """
    candidates = np.asarray(candidates)
    is_candidate = candidates >= 0
    label = np.where(is_candidate, candidates, 0)
    belief = np.where(is_candidate, np.maximum(np.asarray(belief, dtype=np.float64), LEAST_BELIEF), 0.0)
    belief = belief / np.maximum(belief.sum(axis=1, keepdims=True), LEAST_BELIEF)
    # a single candidate says nothing of a preference
    is_candidate &= is_candidate.sum(axis=1, keepdims=True) > 1
    texts = np.bincount(label[is_candidate], minlength=num_classes)
    if not texts.any():
        return np.zeros(num_classes)
    rows = is_candidate.any(axis=1)
    is_candidate, label, belief = is_candidate[rows], label[rows], belief[rows]
    with np.errstate(divide="ignore"):
        logits = np.where(is_candidate, np.log(belief) + np.asarray(scores, dtype=np.float64)[rows], -np.inf)
    target = np.bincount(label.ravel(), weights=belief.ravel(), minlength=num_classes)
    penalty = LEAST_TEXTS / np.maximum(texts, 1)

    def objective(bias: Doubles) -> tuple[float, Doubles]:
        shifted = logits - bias[label]
        normaliser = logsumexp(shifted, axis=1, keepdims=True)
        after = np.bincount(
            label.ravel(), weights=np.exp(shifted - normaliser).ravel(), minlength=num_classes
        )
        value = normaliser.sum() + bias @ target + penalty @ bias**2 / 2
        return float(value) / len(logits), (target - after + penalty * bias) / len(logits)

    found = minimize(objective, np.zeros(num_classes), jac=True, method="L-BFGS-B", options=_PRECISE)
    return np.asarray(found.x, dtype=np.float64)


_PRECISE = {"maxiter": 500, "ftol": 1e-15, "gtol": 1e-9}


@dataclass(frozen=True)
class Worth:
    """An annotator's accuracy a on control questions with two candidates, whose answers are known.

    Its prior is Beta(2, 2), so its posterior is Beta(right + 2, asked - right + 2), of mean (right + 2) / (asked + 4):
    the "plus four" rule, whose intervals keep their coverage for few answers and for shares near 1, and which for no
    answers is chance.

    Raises:
        ValueError: unless 0 <= right <= asked.

    >>> worth = Worth(130, 150)
    >>> round(worth.accuracy, 4), round(worth.lower, 4), round(worth.bound, 4), worth.above_chance
    (0.8571, 0.829, 0.8122, True)
    >>> Worth(0, 0).lower, Worth(0, 0).above_chance
    (0.5, False)
    """

    right: int
    """Control questions answered rightly."""
    asked: int
    """Control questions answered."""

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.asked:
            raise ValueError(f"right must be between 0 and asked, got {self.right} of {self.asked}")

    @property
    def accuracy(self) -> float:
        """Mean of the posterior: shrunk towards .5."""
        return (self.right + PRIOR_ANSWERS) / (self.asked + 2 * PRIOR_ANSWERS)

    @property
    def lower(self) -> float:
        """One standard error (the posterior's standard deviation) below `accuracy`, but not below .5."""
        error = math.sqrt(self.accuracy * (1 - self.accuracy) / (self.asked + 2 * PRIOR_ANSWERS + 1))
        return max(CHANCE, self.accuracy - error)

    @property
    def quantiles(self) -> Doubles:
        """The posterior's quantiles at .01, .03, ..., .99, for averages over it."""
        wrong = self.asked - self.right
        return np.asarray(
            beta.ppf(np.arange(0.01, 1, 0.02), self.right + PRIOR_ANSWERS, wrong + PRIOR_ANSWERS)
        )

    @property
    def bound(self) -> float:
        """One-sided lower bound of a at `CONFIDENCE`, which holds whatever a is (Clopper-Pearson)."""
        return float(beta.ppf(1 - CONFIDENCE, self.right, self.asked - self.right + 1)) if self.right else 0.0

    @property
    def above_chance(self) -> bool:
        """Whether the annotator is surely better than guessing, by `ABOVE_CHANCE`."""
        return self.bound >= CHANCE + ABOVE_CHANCE
