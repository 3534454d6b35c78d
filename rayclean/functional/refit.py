"""What an auditor's answers about some suspects say of all: their probabilities once more, and which changes are proven.

S suspects, of which an auditor has settled a few dozen, drawn at random. The logit of the probability P that a suggestion is
right has two parts (`decision.py`): z, what the model says on its scale, and s, what the annotator's answer adds. Both
scales were guesses from answers that may be wrong; the auditor's are not, and so

    logit P = b0 + b1 z + b2 s,        (b0, b1, b2) ~ N((0, 1, 1), diag(2, .5, .5)^2),

is fitted to them by its largest posterior. Fifty answers say little of single suspects, but enough of all together: on
five data sets with real noise b0 lay between -1.2 (one suggestion in fifty was right) and 3.4 (four in five were, where
the model believed one in thirty).

References: Platt, "Probabilistic outputs for support vector machines", 1999 (a probability fitted once more to held-out
answers); Clopper and Pearson, Biometrika 26, 1934.
"""

from enum import IntEnum

import numpy as np
from scipy.special import expit

from rayclean.functional.proportions import proportion_limits
from rayclean.functional.types import Bools, Doubles, Floats, Ints


class RightLabel(IntEnum):
    """Which label of a suspect the auditor says is right."""

    SUGGESTED = 1
    GIVEN = 0
    NEITHER = -1
    UNKNOWN = -2
    """Not audited, or the auditor cannot say."""


SCALE_MEAN, SCALE_SPREAD = (0.0, 1.0, 1.0), (2.0, 0.5, 0.5)
"""Mean and standard deviation of (b0, b1, b2) before any answer of an auditor."""
SHARES = (1.0, 0.5, 0.25)
"""Sets of the most probable changes that `proven_changes` looks at: all, the better half, the better quarter."""
RISK = 0.05
"""Probability of taking changes for mostly right that are not, over all looks together."""
_LARGEST = 10.0
_STEPS, _SMALL_STEP = 100, 1e-9


def fit_audit(z: Floats, s: Floats, audited: Ints) -> tuple[float, float, float]:
    """b0, b1 and b2 by an auditor's answers.

    Args:
        z: [S] log-odds of the suggestion without the annotator's answer; beyond 10 they count as 10.
        s: [S] what the annotator's answer adds to them, 0 without one.
        audited: [S] of `RightLabel`; others than `SUGGESTED` and `GIVEN` take no part: P speaks of these two labels only.

    >>> audited = np.repeat([RightLabel.SUGGESTED, RightLabel.GIVEN], [40, 10])
    >>> [round(each, 2) for each in fit_audit(np.zeros(50), np.zeros(50), audited)]
    [1.34, 1.0, 1.0]
    >>> fit_audit(np.zeros(3), np.zeros(3), np.full(3, RightLabel.UNKNOWN))
    (0.0, 1.0, 1.0)
    """
    audited = np.asarray(audited)
    known = (audited == RightLabel.SUGGESTED) | (audited == RightLabel.GIVEN)
    right, inputs = (audited[known] == RightLabel.SUGGESTED).astype(np.float64), _inputs(z, s)[:, known]
    order = np.lexsort((right, inputs[2], inputs[1]))  # sums of floating-point numbers depend on their order
    right, inputs = right[order], inputs[:, order]
    mean, precision = np.array(SCALE_MEAN), 1 / np.square(SCALE_SPREAD)

    def loss(scale: Doubles) -> float:
        logits = scale @ inputs
        return float(precision @ (scale - mean) ** 2 / 2 + (np.logaddexp(0, logits) - right * logits).sum())

    scale, current = mean, loss(mean)
    for _ in range(_STEPS):
        likely = expit(scale @ inputs)
        gradient = inputs @ (right - likely) - precision * (scale - mean)
        step = np.linalg.solve((inputs * (likely * (1 - likely))) @ inputs.T + np.diag(precision), gradient)
        while (found := loss(scale + step)) > current and np.abs(step).max() > _SMALL_STEP:
            step = step / 2
        if np.abs(step).max() <= _SMALL_STEP:
            break
        scale, current = scale + step, found
    return float(scale[0]), float(scale[1]), float(scale[2])


def audited_probability(z: Floats, s: Floats, scale: tuple[float, float, float]) -> Doubles:
    """P(the suggestion is right) [S] on the scale of `fit_audit`.

    >>> audited_probability(np.array([0.0, 0.0]), np.array([0.0, 1.0]), (1.0, 1.0, 0.5)).round(3)
    array([0.731, 0.818])
    """
    return np.asarray(expit(np.array(scale) @ _inputs(z, s)))


def proven_changes(
    probability: Floats,
    audited: Ints,
    accept: float,
    without: Bools,
    most_harmed: float | None = None,
) -> Bools:
    """Which labels [S] change after an audit; those of audited suspects are settled by the auditor and are not meant.

    1. Candidates are the suggestions with P >= accept, the most probable first. Of all of them, else of the better half,
       else of the better quarter, the audited ones must show that more are right than wrong: the lower limit of
       right / (right + wrong) is above 1/2 (Clopper-Pearson at 1 - .05 / 3, for three looks).
    2. What would change without an audit (`without`) changes instead where that is more, unless the audited ones among
       these show that more are wrong than right.
    3. Where `most_harmed` is set, the less probable tenths are left out until the upper limit of the number of right labels
       that are made wrong is no more than that; where no change of a set was audited the limit is the whole set.

    On five sets with real noise, simulated annotators that are right with probability .5 to .9 and 50 audited suspects, the
    noise after was in no draw above the noise before, nor on average above that of the same run without an audit.

    Args:
        probability: [S] P of `audited_probability`.
        audited: [S] what the auditor says of each suspect.
        accept: least P of a change.
        without: [S] changes by the decision without an audit.
        most_harmed: number of right labels that may be made wrong.

    Raises:
        ValueError: accept is outside [.5, 1].

    >>> probability, nobody = np.linspace(0.9, 0.5, 200), np.zeros(200, dtype=bool)
    >>> audited = np.where(np.arange(200) % 10 == 0, RightLabel.SUGGESTED, RightLabel.UNKNOWN)
    >>> int(proven_changes(probability, audited, 0.6, nobody).sum())
    150
    >>> int(proven_changes(probability, audited, 0.6, nobody, most_harmed=20).sum())
    45
    """
    if not 0.5 <= accept <= 1:
        raise ValueError(f"accept must be in [.5, 1], got {accept}")
    probability, audited = np.asarray(probability, dtype=np.float64), np.asarray(audited)
    order = np.argsort(-probability, kind="stable")
    order = order[probability[order] >= accept]
    changed = np.zeros(len(probability), dtype=np.bool_)
    for share in SHARES:
        rows = order[: round(share * len(order))]
        right, wrong = _counts(audited[rows])
        if proportion_limits(right, right + wrong, None, RISK / len(SHARES))[0] > 0.5:
            changed[rows] = True
            break
    if np.sum(without) > changed.sum():
        right, wrong = _counts(audited[without])
        contradicted = proportion_limits(right, right + wrong, None, RISK)[1] < 0.5
        changed = np.zeros_like(changed) if contradicted else np.array(without, dtype=np.bool_)
    return changed if most_harmed is None else _with_little_harm(changed, probability, audited, most_harmed)


def _with_little_harm(changed: Bools, probability: Floats, audited: Ints, most: float) -> Bools:
    order = np.argsort(-probability, kind="stable")
    order = order[changed[order]]
    found = np.zeros_like(changed)
    for tenth in range(10, 0, -1):
        rows = order[: round(tenth / 10 * len(order))]
        drawn = int((audited[rows] != RightLabel.UNKNOWN).sum())
        harmed = int((audited[rows] == RightLabel.GIVEN).sum())
        if proportion_limits(harmed, drawn, len(rows), RISK)[1] * len(rows) <= most:
            found[rows] = True
            break
    return found


def _counts(audited: Ints) -> tuple[int, int]:
    return int((audited == RightLabel.SUGGESTED).sum()), int((audited == RightLabel.GIVEN).sum())


def _inputs(z: Floats, s: Floats) -> Doubles:
    z = np.clip(np.asarray(z, dtype=np.float64), -_LARGEST, _LARGEST)
    return np.stack([np.ones_like(z), z, np.asarray(s, dtype=np.float64)])
