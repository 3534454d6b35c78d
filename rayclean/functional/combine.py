"""Combining several qualities of the same examples into one, and choosing suspects under a budget.

Both depend on values and ids only, never on positions, so neither depends on shards or order.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Quality = npt.NDArray[np.float32]


def relative_rank(ordered: Quality, values: Quality) -> npt.NDArray[np.float64]:
    """Rank of each value among all values, scaled to [0, 1]; equal values share the mean of their ranks.

    Args:
        ordered: [N] all values, sorted.
        values: [B] values that occur in `ordered`.

    Returns:
        [B], 0 for the lowest of all, 1 for the highest; 0.5 where all are equal.

    >>> relative_rank(np.array([1, 2, 2, 5], dtype=np.float32), np.array([5, 2, 1], dtype=np.float32))
    array([1. , 0.5, 0. ])
    """
    first = np.searchsorted(ordered, values, side="left")
    after = np.searchsorted(ordered, values, side="right")
    if len(ordered) < 2:
        return np.full(len(values), 0.5)
    return (first + after - 1) / 2 / (len(ordered) - 1)


def combine(kind: str, qualities: Sequence[Quality], ordered: Sequence[Quality]) -> Quality:
    """One quality per example from the qualities that several detectors gave it.

    Args:
        kind: `mean_rank` (mean of the ranks in [0, 1]), `mean` (of the qualities) or `min` (lowest quality).
        qualities: [B] per detector.
        ordered: [N] per detector, the qualities of all examples in order; only for `mean_rank`.

    Returns:
        [B], lower = more likely wrong.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "mean_rank":
        ranks = [relative_rank(every, some) for every, some in zip(ordered, qualities, strict=True)]
        return np.asarray(np.stack(ranks).mean(axis=0), np.float32)
    if kind == "mean":
        return np.asarray(np.stack(qualities).mean(axis=0, dtype=np.float64), np.float32)
    if kind == "min":
        return np.asarray(np.stack(qualities).min(axis=0), np.float32)
    raise ValueError(f"kind must be mean_rank, mean or min, got {kind!r}")


def allowed(budget: float | int, total: int) -> int:
    """The greatest number of suspects that a budget allows; a share is rounded down.

    >>> allowed(0.1, 29), allowed(0.29, 100), allowed(500, 29)
    (2, 29, 29)
    """
    if isinstance(budget, int):
        return min(budget, total)
    return int(np.floor(budget * total + 1e-9))  # 0.29 * 100 is 28.999999999999996


def most_doubtful(quality: Quality, ids: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    """Ids of the `limit` lowest qualities, most doubtful first; ties by id.

    >>> most_doubtful(np.array([0.5, 0.1, 0.1], dtype=np.float32), np.array([7, 9, 8]), 2)
    array([8, 9])
    """
    return np.asarray(ids[np.lexsort((ids, quality))[:limit]])
