"""What an annotator's answers are worth: its bias towards some labels, its accuracy on control questions.

Both are measured without a true label. Rows are queries, columns their candidates: `candidates` [B, C] holds
label indices, -1 where a query has fewer.

References: Zhou et al., "Batch calibration", ICLR 2024 (whose flat marginal `marginal_bias` replaces by a known
one); Agresti and Coull, "Approximate is better than exact for interval estimation of binomial proportions", The
American Statistician 52, 1998; Clopper and Pearson, Biometrika 26, 1934; Mantel and Haenszel, "Statistical aspects of the
analysis of data from retrospective studies of disease", JNCI 22, 1959.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit, logsumexp

from rayclean.functional.types import Bools, Doubles, Floats, Ints

LEAST_TEXTS = 8
"""A label that fewer texts offer has hardly a bias."""
CONFIDENCE = 0.95
"""Of every one-sided bound that opens or closes a gate."""
CHANCE, ABOVE_CHANCE = 0.5, 0.02
"""Accuracy of guessing between two candidates, and how far above it an annotator must surely be."""
PRIOR_ANSWERS = 2
"""Right and wrong control answers each that every annotator has before its first, which shrinks towards .5."""
LEAST_CONTROLS = 5
"""With fewer control questions, even all of them right, no annotator is surely so much better than chance."""
MOST_SPREAD = 0.1
"""Interquartile range of log-odds up to which an annotator claims always the same."""
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


def underclaimed(confidence: Floats, accuracy: float) -> float:
    """How much an annotator says too little of itself: the least c >= 0 with mean(sigmoid(logit(confidence) + c)) >= accuracy.

    An annotator that always claims .8 and is right nine times of ten is believed as .9; one that claims more than it is
    worth is no surer for it (0), since what it is worth limits what is believed anyway. Nor is one whose confidence differs from
    question to question (0): it tells hard questions from easy ones, and suspects are harder than control questions. (SmolLM2,
    right on .97 of the controls of BBC News and .88 of the suspects, with a mean confidence of .90 and .88: raised to what the
    controls say, its answers made 37 instead of 23 right labels wrong and repaired no more.)

    Args:
        confidence: [B] of its answers to control questions, in [.5, 1].
        accuracy: its share of right answers there, as far as that is sure.

    >>> round(underclaimed(np.full(100, 0.8), 0.9), 3), underclaimed(np.full(100, 0.99), 0.9)
    (0.811, 0.0)
    >>> underclaimed(np.linspace(0.6, 0.95, 100), 0.9)
    0.0
    """
    odds = logit(np.clip(np.asarray(confidence, dtype=np.float64), 0.5, 1 - LEAST_BELIEF))
    if not len(odds) or expit(odds).mean() >= accuracy:
        return 0.0
    if np.subtract(*np.percentile(odds, [75, 25])) > MOST_SPREAD:
        return 0.0
    most = float(logit(min(accuracy, 1 - LEAST_BELIEF)))  # enough even where every confidence is .5
    return float(brentq(lambda c: expit(odds + c).mean() - accuracy, 0.0, most + 1e-6))


def confirmation_contrast(
    control_pairs: Ints, control_confirmed: Bools, suspect_pairs: Ints, suspect_confirmed: Bools
) -> float:
    """One-sided p-value of the Cochran-Mantel-Haenszel test that an annotator confirms the given label of control questions
    more often than that of suspects with the same two labels.

    An annotator whose answers do not depend on which label is right confirms both equally often, whatever its preference
    between the two labels and however many controls are wrong. With accuracies a1 and a2 where the given and the other label
    is right, and shares e and w of controls and suspects whose other label is, the rates differ by (a1 + a2 - 1) (w - e).

    Args:
        control_pairs: [C] a number for the ordered pair (given label, other label).
        control_confirmed: [C] whether the annotator chose the given label.
        suspect_pairs: [S] as for controls.
        suspect_confirmed: [S] as for controls.

    Returns:
        The p-value, with correction for continuity; 1 where no pair has both.

    >>> pairs = np.zeros(100, int)
    >>> confirmation_contrast(pairs, np.arange(100) < 60, pairs, np.arange(100) < 60) > 0.5
    True
    >>> round(confirmation_contrast(pairs, np.arange(100) < 60, pairs, np.arange(100) < 40), 4)
    0.0037
    """
    excess = variance = 0.0
    for pair in np.intersect1d(control_pairs, suspect_pairs):
        controls, others = control_confirmed[control_pairs == pair], suspect_confirmed[suspect_pairs == pair]
        first, second = len(controls), len(others)
        every, confirmed = first + second, int(controls.sum()) + int(others.sum())
        excess += int(controls.sum()) - first * confirmed / every
        variance += first * second * confirmed * (every - confirmed) / (every**2 * (every - 1))
    return float(scipy.stats.norm.sf((excess - 0.5) / math.sqrt(variance))) if variance else 1.0


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
    contrast: float = 1.0
    """p-value of `confirmation_contrast` between them and the suspects; 1 where it was not tested."""

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
            scipy.stats.beta.ppf(np.arange(0.01, 1, 0.02), self.right + PRIOR_ANSWERS, wrong + PRIOR_ANSWERS)
        )

    @property
    def bound(self) -> float:
        """One-sided lower bound of a at `CONFIDENCE`, which holds whatever a is (Clopper-Pearson)."""
        return (
            float(scipy.stats.beta.ppf(1 - CONFIDENCE, self.right, self.asked - self.right + 1))
            if self.right
            else 0.0
        )

    @property
    def above_chance(self) -> bool:
        """Whether the annotator is surely better than guessing: by `ABOVE_CHANCE` at control questions, or because it
        confirms those more often than suspects. The second needs no control to be right: where half of all labels are
        wrong, so are many controls, and whoever is right nine times of ten denies them.
        """
        by_contrast = self.contrast <= 1 - CONFIDENCE and self.lower > CHANCE
        return self.bound >= CHANCE + ABOVE_CHANCE or by_contrast
