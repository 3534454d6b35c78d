"""AUM's threshold samples and what they remove (Pleiss et al., NeurIPS 2020).

N examples, K classes. In run r the examples of a random set S_r get a class K that does not exist: whatever
margin (`functional.margins.margin`) they keep on average is that of a wrong label.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.hashing import mix
from rayclean.functional.partition import most_likely_clean
from rayclean.functional.types import Bools, Doubles


def threshold_runs(
    ids: npt.NDArray[np.int64], num_classes: int, runs: int, seed: int
) -> npt.NDArray[np.int8]:
    """The run in which an example is a threshold sample: disjoint random sets of floor(N / (K + 1)) each, so
    that the class K is as large as the others are on average.

    Args:
        ids: [N] example ids; the sets depend on them, not on their order.
        num_classes: K.
        runs: number of sets.
        seed: the run's seed.

    Returns:
        [N] 1, 2, ..., or 0 in none.

    >>> threshold_runs(np.arange(7), 2, 2, seed=0)
    array([2, 0, 0, 2, 1, 0, 1], dtype=int8)
    """
    size = len(ids) // (num_classes + 1)
    found = np.zeros(len(ids), dtype=np.int8)
    order = np.lexsort((ids, mix(ids, seed, "threshold sample")))
    for run in range(1, runs + 1):
        found[order[(run - 1) * size : run * size]] = run
    return found


def below_threshold(aum: Doubles, threshold_samples: Bools, percentile: float = 99.0) -> Bools:
    """Whether an example's AUM is one of a wrong label: more than 100 - percentile % of the threshold samples
    have a greater one.

    Args:
        aum: [N] of one run.
        threshold_samples: [N] members of S_r; they are never below.
        percentile: in (0, 100).

    Returns:
        [N]; nobody is below where there is no threshold sample.

    >>> aum = np.array([*np.arange(-3, 2, 0.5), 1.4, 1.5])  # ten threshold samples, whose greatest is 1.5
    >>> below_threshold(aum, np.arange(12) < 10)[10:]
    array([ True, False])
    """
    reference = np.sort(aum[threshold_samples])
    greater = len(reference) - np.searchsorted(reference, aum, side="right")
    return np.asarray((greater * 100 > len(reference) * (100 - percentile)) & ~threshold_samples)


def spare_every_class(labels: npt.NDArray[np.int64], removed: Bools, aum: Doubles) -> Bools:
    """What is removed so that no class is lost: one that all would be gone of keeps its tenth of highest AUM.

    Args:
        labels: [N] given labels.
        removed: [N] whether an example is to be removed.
        aum: [N].

    Returns:
        [N].

    >>> spare_every_class(np.array([0, 0, 1]), np.array([True, True, False]), np.array([-2.0, -1.0, 3.0]))
    array([ True, False, False])
    """
    lost = ~np.isin(labels, labels[~removed])
    return removed & ~(lost & most_likely_clean(labels, aum))
