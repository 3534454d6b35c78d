"""Whether the agreement of predicted with given labels can be true: against chance, and under another order of the classes.

N examples, K classes; the confusion [K, K] counts examples, given label by row and predicted one by column.
"""

import numpy as np
import scipy
from scipy.optimize import linear_sum_assignment

from rayclean.functional.types import Ints

_SIGNIFICANCE = 1e-4
"""Largest probability that what chance did is called a pattern."""
_FEWEST = 30
"""Fewer examples say too little about chance."""
_LEAST_RATIO = 3
"""Another order must explain so many times as many labels as the present one, among the classes that it moves."""


def chance_agreement(confusion: Ints) -> float:
    """The share of agreement that predictions would have if they knew nothing of the labels: sum_k p(given k) p(predicted k).

    >>> chance_agreement(np.array([[40, 10], [40, 10]]))
    0.5
    """
    counts = np.asarray(confusion, dtype=np.float64)
    total = counts.sum()
    return float((counts.sum(axis=1) @ counts.sum(axis=0)) / total**2) if total else 0.0


def is_below_chance(confusion: Ints) -> bool:
    """Whether predictions agree with fewer labels than guesses would, beyond what chance explains.

    >>> is_below_chance(np.array([[5, 45], [45, 5]])), is_below_chance(np.array([[45, 5], [5, 45]]))
    (True, False)
    """
    total, agree = int(confusion.sum()), int(np.trace(confusion))
    return total >= _FEWEST and bool(
        scipy.stats.binom.cdf(agree, total, chance_agreement(confusion)) < _SIGNIFICANCE
    )


def is_no_better_than_chance(confusion: Ints) -> bool:
    """Whether predictions agree with no more labels than guesses would, as far as N examples can tell.

    >>> is_no_better_than_chance(np.array([[25, 25], [25, 25]])), is_no_better_than_chance(np.array([[45, 5], [5, 45]]))
    (True, False)
    """
    total, agree = int(confusion.sum()), int(np.trace(confusion))
    return total >= _FEWEST and bool(
        scipy.stats.binom.sf(agree - 1, total, chance_agreement(confusion)) > 0.05
    )


def likely_order(confusion: Ints) -> Ints | None:
    """The class [K] that each predicted column more likely stands for, if another order than the present one explains the
    given labels far better; None otherwise.

    It is the order of the greatest agreement (Kuhn, "The Hungarian method for the assignment problem", 1955). Of the
    examples whose given class it moves, it must explain at least half, and `_LEAST_RATIO` times as many as the present
    order.

    >>> likely_order(np.array([[1, 30, 0], [0, 2, 40], [35, 0, 0]]))
    array([2, 0, 1])
    >>> likely_order(np.array([[30, 10, 0], [20, 25, 0], [0, 0, 9]])) is None
    True
    """
    counts = np.asarray(confusion, dtype=np.float64)
    # Half a count keeps in its place what no example speaks against.
    given, column = linear_sum_assignment(counts + 0.5 * np.eye(len(counts)), maximize=True)
    moved = np.flatnonzero(given != column)
    then, now = float(counts[moved, column[moved]].sum()), float(counts[moved, moved].sum())
    if then < _LEAST_RATIO * now or 2 * then < counts[moved].sum():
        return None
    if scipy.stats.binom.sf(then - 1, then + now, 0.5) >= _SIGNIFICANCE:
        return None
    order = np.empty(len(counts), dtype=np.int64)
    order[column] = given
    return order
