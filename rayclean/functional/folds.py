"""The fold of every example: copies together, classes spread evenly, by hashes alone.

A model that saw a copy of a text knows its label, so examples of the same group (an equal text) share a fold. A class of
few examples may by chance lie in one fold, and then no model that predicts it has seen it, so every class is dealt out
to all folds in turn. The order within a class is a hash of the group: neither shards nor the order of rows matter.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.hashing import mix
from rayclean.functional.types import Bools, Ids, Labels


def stratified_folds(ids: Ids, groups: Ids, labels: Labels, seed: int, count: int) -> npt.NDArray[np.int16]:
    """The fold [N] of every example, in [0, count).

    Args:
        ids: [N] example ids.
        groups: [N] numbers of the groups, such as hashes of the texts.
        labels: [N] given labels; -1 where there is none. A group belongs to the class of its lowest id.
        seed: another seed gives other folds.
        count: number of folds.

    >>> ids = np.arange(6)
    >>> stratified_folds(ids, np.array([7, 7, 8, 9, 10, 11]), np.array([0, 0, 0, 1, 1, 1]), seed=0, count=3).tolist()
    [2, 2, 1, 2, 1, 0]
    """
    unique, classes, member = classes_of_groups(ids, groups, labels)
    by_class = np.lexsort((mix(unique, seed, "fold"), classes))
    begins = np.searchsorted(classes[by_class], classes[by_class])  # where the class of each begins
    place = np.empty(len(unique), dtype=np.int64)
    place[by_class] = np.arange(len(unique)) - begins
    # Each class begins with a fold of its own, or the first folds would get all of the rests.
    offset = (mix(classes, seed, "first fold") % np.uint64(count)).astype(np.int64)
    of_group = (place + offset) % count
    if (
        len(unique) > 1 and (of_group == of_group[0]).all()
    ):  # a few groups: else one network would have nothing to learn from
        of_group[by_class] = np.arange(len(unique)) % count
    return of_group.astype(np.int16)[member]


def classes_of_groups(
    ids: Ids, groups: Ids, labels: Labels
) -> tuple[Ids, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The different groups [G] in order, the class [G] of each, and the position [N] of every example's group among them.

    Args:
        ids: [N] example ids.
        groups: [N] numbers of the groups.
        labels: [N] given labels; -1 where there is none. A group belongs to the class of its lowest id.

    >>> for found in classes_of_groups(np.array([5, 3, 4]), np.array([9, 9, 7]), np.array([0, 1, 2])): print(found)
    [7 9]
    [2 1]
    [1 1 0]
    """
    order = np.lexsort((ids, groups))
    ordered = np.asarray(groups)[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    member = np.empty(len(order), dtype=np.int64)
    member[order] = np.cumsum(begins) - 1
    return ordered[begins], np.asarray(labels)[order[begins]].astype(np.int64), member


def stand_for_copies(ids: Ids, copies: Ids, labels: Labels) -> Bools:
    """Which examples [N] stand for all copies of their text, so that a text counts once however often it occurs.

    It is one of those with the most frequent label, of the lowest id. Examples without a label stand for themselves.

    Args:
        ids: [N] example ids.
        copies: [N] numbers that copies of a text share.
        labels: [N] given labels; -1 where there is none.

    >>> stand_for_copies(np.arange(5), np.array([7, 7, 7, 8, 8]), np.array([1, 0, 0, 2, 2]))
    array([False,  True, False,  True, False])
    """
    labels = np.asarray(labels)
    stands = labels < 0
    rows = np.flatnonzero(~stands)
    _, cell, size = np.unique(
        np.stack([copies[rows], labels[rows]]), axis=1, return_inverse=True, return_counts=True
    )
    order = rows[np.lexsort((ids[rows], -size[cell.reshape(-1)], copies[rows]))]
    _, first = np.unique(copies[order], return_index=True)
    stands[order[first]] = True
    return np.asarray(stands)
