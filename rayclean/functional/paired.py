"""Tests of two settings that were run under the same seeds."""

from collections.abc import Sequence
from statistics import fmean, stdev

from scipy import stats


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
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
