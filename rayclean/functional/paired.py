"""Tests of two settings that were run under the same seeds, or on the same test examples."""

from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

import numpy as np
import scipy

from rayclean.functional.types import Bools


def paired_test(differences: Sequence[float]) -> float | None:
    """The p-value of a two-sided paired t-test; None for a single pair, and where all differ by the same: no
    spread, no test.

    >>> [paired_test(differences) for differences in ([0.0, 0.0], [0.1, 0.1], [1.0])]
    [1.0, None, None]
    >>> round(paired_test([0.5, 1.0, 1.5]), 4)
    0.0742
    """
    if len(differences) < 2:
        return None
    if not any(differences):
        return 1.0
    if stdev(differences) <= 1e-9 * fmean(map(abs, differences)):
        return None
    return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)


def accuracy_difference(first: Bools, second: Bools, level: float = 0.95) -> tuple[float, float, float]:
    """Accuracy of the second of two classifiers less that of the first, with its confidence limits.

    With b of N examples that only the second has right, c that only the first has, and half an example added to each of the
    four cells, the limits are those of Wald: (b - c) / (N + 2) +- z sqrt(b + c + 1 - (b - c)^2 / (N + 2)) / (N + 2). They are
    much narrower than those of two separate samples, because most examples are right or wrong for both.

    Args:
        first: [N] whether the first classifier is right.
        second: [N] whether the second is, on the same examples.
        level: of the interval.

    Returns:
        (b - c) / N, and the limits; (0, -1, 1) without examples.

    Reference: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in
    Medicine 24, 2005.

    >>> both, only = np.ones(80, dtype=bool), np.ones(20, dtype=bool)
    >>> [round(each, 4) for each in accuracy_difference(np.r_[both, ~only], np.r_[both, only])]
    [0.2, 0.1167, 0.2755]
    """
    first, second = np.asarray(first, dtype=np.bool_), np.asarray(second, dtype=np.bool_)
    count, gained, lost = len(first), int((second & ~first).sum()), int((first & ~second).sum())
    if not count:
        return 0.0, -1.0, 1.0
    total, middle = count + 2, (gained - lost) / (count + 2)
    spread = (gained + lost + 1 - (gained - lost) ** 2 / total) ** 0.5 / total
    reach = NormalDist().inv_cdf((1 + level) / 2) * spread
    return (gained - lost) / count, max(middle - reach, -1.0), min(middle + reach, 1.0)
