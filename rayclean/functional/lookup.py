"""Looking up ids: the position of each of some ids among others, and the values that belong to them."""

import numpy as np
import numpy.typing as npt

from rayclean.functional.types import Ints


def lookup(sorted_ids: Ints, ids: Ints) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """The position of each id among sorted ids, and whether it occurs there.

    Args:
        sorted_ids: [N] in rising order.
        ids: [B] in any order.

    Returns:
        Positions [B] (meaningless where the id does not occur, but below N unless N is 0) and hits [B].

    >>> lookup(np.array([3, 5, 9]), np.array([9, 4, 10]))
    (array([2, 1, 2]), array([ True, False, False]))
    """
    if not len(sorted_ids):
        return np.zeros(len(ids), dtype=np.intp), np.zeros(len(ids), dtype=np.bool_)
    position = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return position, np.asarray(sorted_ids[position] == ids)


def lookup_values(keys: Ints, values: Ints, ids: Ints, missing: int = -1) -> npt.NDArray[np.int64]:
    """The value that belongs to each id [B].

    Args:
        keys: [N] unique ids in any order.
        values: [N] one per key.
        ids: [B] in any order.
        missing: the value of ids that are no key.

    >>> lookup_values(np.array([9, 7]), np.array([90, 70]), np.array([7, 3, 9]))
    array([70, -1, 90])
    """
    order = np.argsort(keys, kind="stable")
    position, hit = lookup(keys[order], ids)
    found = np.full(len(ids), missing, dtype=np.int64)
    found[hit] = values[order[position[hit]]]
    return found
