"""The budget of detection: how many suspects `detect.budget` allows, and which they are.

Both depend on values and ids only, never on positions, so neither depends on shards or order.
"""

import numpy as np
import numpy.typing as npt


def suspects_allowed(budget: float | int, total: int) -> int:
    """The greatest number of suspects that a budget allows; a share is rounded down.

    >>> suspects_allowed(0.1, 29), suspects_allowed(0.29, 100), suspects_allowed(500, 29)
    (2, 29, 29)
    """
    if isinstance(budget, int):
        return min(budget, total)
    return int(np.floor(budget * total + 1e-9))  # 0.29 * 100 is 28.999999999999996


def most_doubtful(
    quality: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], limit: int
) -> npt.NDArray[np.int64]:
    """Ids of the `limit` lowest qualities, most doubtful first; ties by id.

    >>> most_doubtful(np.array([0.5, 0.1, 0.1], dtype=np.float32), np.array([7, 9, 8]), 2)
    array([8, 9])
    """
    return np.asarray(ids[np.lexsort((ids, quality))[:limit]])
