"""Combining several qualities of the same examples into one.

It depends on values alone, never on positions, and so not on shards or order.
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
