"""Which examples are held out for test and development: of every class its share, copies together, by hashes alone.

Drawn without regard to classes, a class of few examples may have none in a part, or most of its own. So each class gives
its share: of its groups, in the order of their hashes, the first are test, the next development, the rest is trained on.
Where an example goes does not depend on shards or on the order of rows, and little on what else is in the data: where these
grow, only groups move whose hashes lie next to where a part of their class begins.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.folds import classes_of_groups
from rayclean.functional.hashing import mix
from rayclean.functional.types import Ids, Labels

_DECIMALS = 6
"""Places to which expected counts are rounded, since .29 x 100 is less than 29 in floating point."""

_Counts = npt.NDArray[np.int64]


def held_out_splits(
    ids: Ids, groups: Ids, labels: Labels, seed: int, test: float, dev: float, draw: str = "split"
) -> npt.NDArray[np.int8]:
    """The split [N] of every example: 0 is trained on, 1 is development, 2 is test.

    Args:
        ids: [N] example ids.
        groups: [N] numbers of what is never divided, such as hashes of the texts.
        labels: [N] given labels; -1 where there is none. A group belongs to the class of its lowest id, and all that have
            none are one class.
        seed: another seed gives other splits.
        test: share of the groups that is test.
        dev: share that is development; less than 1 together.
        draw: another name gives other splits, too, independent of these.

    >>> held_out_splits(np.arange(8), np.array([7, 7, 1, 2, 3, 4, 5, 6]), np.array([0] * 5 + [1] * 3), 0, 0.3, 0.2).tolist()
    [1, 1, 2, 0, 0, 2, 0, 0]
    """
    unique, classes, member = classes_of_groups(ids, groups, labels)
    by_class = np.lexsort((mix(unique, seed, draw), classes))
    names, sizes = np.unique(classes, return_counts=True)
    tests, devs = held_out_counts(names, sizes, seed, test, dev)
    of_group = np.zeros(len(unique), dtype=np.int8)
    begin = 0
    for size, tested, developed in zip(sizes.tolist(), tests.tolist(), devs.tolist(), strict=True):
        of_group[by_class[begin : begin + tested]] = 2
        of_group[by_class[begin + tested : begin + tested + developed]] = 1
        begin += size
    return of_group[member]


def held_out_counts(
    classes: Labels, sizes: npt.NDArray[np.int64], seed: int, test: float, dev: float
) -> tuple[_Counts, _Counts]:
    """How many groups [K] of each class are test, and how many development.

    Each is the class's share rounded down or up, and at least one group of a class is trained on. So many are rounded up
    that the sum is the rounded share of all: those of the largest remainders, ties by a hash of the class. Development
    counts as a remainder what test was rounded by, too, so that both do not burden the same classes. The sum is lower only
    where most classes have one group, or hardly more, since that is trained on.

    Args:
        classes: [K] their indices.
        sizes: [K] groups of each, at least one.
        seed: for ties.
        test: share of test.
        dev: share of development.

    >>> held_out_counts(np.arange(4), np.array([100, 8, 4, 1]), 0, test=0.1, dev=0.1)
    (array([10,  1,  0,  0]), array([10,  0,  1,  0]))
    """
    order = mix(np.asarray(classes), seed, "rounding")
    wanted = [np.round(share * sizes, _DECIMALS) for share in (test, dev)]
    left = np.maximum(sizes - 1 - np.floor(wanted[1]).astype(np.int64), 0)
    tests = _rounded(wanted[0], left, wanted[0], order)
    devs = _rounded(wanted[1], sizes - 1 - tests, wanted[0] + wanted[1] - tests, order)
    return tests, devs


def _rounded(
    wanted: npt.NDArray[np.float64],
    most: _Counts,
    claims: npt.NDArray[np.float64],
    ties: npt.NDArray[np.uint64],
) -> _Counts:
    """Expected counts [K] rounded down, and, so that they add up, up where claims are largest above that."""
    counts = np.minimum(np.floor(wanted).astype(np.int64), most)
    missing = int(np.floor(np.round(wanted.sum(), _DECIMALS) + 0.5)) - int(counts.sum())
    order = np.lexsort((ties, -np.round(claims - np.floor(wanted), _DECIMALS)))
    up = order[(counts < np.minimum(wanted, most))[order]]
    counts[up[:missing]] += 1
    return counts
