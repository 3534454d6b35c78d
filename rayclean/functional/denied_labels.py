"""How many labels are wrong, by how often an annotator of known accuracy disagrees with them.

An annotator that is right with probability a chooses between the given label and a rival. Of labels that are right it denies
1 - a, of wrong ones whose rival is right a, so that of labels of which a share r is wrong it denies

    d = (1 - a) (1 - r) + a r,        r = (d - (1 - a)) / (2 a - 1).

Where neither label is right its answer is a coin, which counts as wrong for half of them: r is then too low.

Reference: Rogan and Gladen, "Estimating prevalence from the results of a screening test", American Journal of Epidemiology
107, 1978.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from rayclean.functional.proportions import Rate, proportion_limits
from rayclean.functional.types import Bools, Floats
from rayclean.functional.worth import PRIOR_ANSWERS, Worth

LEAST_ACCURACY = 0.6
"""Below this accuracy the estimate says nothing: its error is five times that of the disagreement."""


@dataclass(frozen=True)
class Denied:
    """What an annotator says about labels that nobody doubted."""

    asked: int
    denied: int
    """Answers for the rival of the given label."""
    wrong: Rate | None
    """Estimated share of wrong labels with 95 % limits; None where the annotator is too weak to tell."""


def denied_labels(denied: Bools, worth: Worth) -> Denied:
    """The share of wrong labels among those that an annotator was asked about.

    Limits combine those of the disagreement and of the accuracy, each of level .975 (Clopper-Pearson, the posterior of
    `Worth`), in the worst way.

    Args:
        denied: [B] whether the answer was for the rival.
        worth: of the annotator, by control questions.

    >>> found = denied_labels(np.arange(200) < 60, Worth(135, 150))
    >>> found.asked, found.denied, round(found.wrong.value, 3), round(found.wrong.low, 2), round(found.wrong.high, 2)
    (200, 60, 0.243, 0.09, 0.36)
    >>> denied_labels(np.arange(200) < 60, Worth(80, 150)).wrong is None
    True
    """
    denied = np.asarray(denied, dtype=np.bool_)
    asked, count = len(denied), int(denied.sum())
    tail = 0.0125
    wrong = worth.asked - worth.right
    lowest, highest = (
        float(scipy.stats.beta.ppf(each, worth.right + PRIOR_ANSWERS, wrong + PRIOR_ANSWERS))
        for each in (tail, 1 - tail)
    )
    if not asked or lowest <= LEAST_ACCURACY:
        return Denied(asked, count, None)
    low, high = proportion_limits(count, asked, None, tail)
    ends = np.array([lowest, highest])
    return Denied(
        asked,
        count,
        Rate(
            float(_share(count / asked, np.array([worth.accuracy]))[0]),
            float(_share(low, ends).min()),
            float(_share(high, ends).max()),
        ),
    )


def _share(denied: float, accuracy: Floats) -> Floats:
    return np.clip((denied - (1 - accuracy)) / (2 * accuracy - 1), 0.0, 1.0)
