"""Cells of near features: a search for neighbours that looks only into the cells around each example.

The cells are those of k-means on a sample (Lloyd's algorithm on the sphere), and an example is compared with the
members of its P nearest cells (the inverted lists of Jégou, Douze, Schmid, "Product quantization for nearest
neighbor search", 2011). With a constant number of examples per cell, the cost of a search is proportional to the
number of examples, but for choosing cells, which is cheap.

All comparisons are made in integers that float64 holds exactly (`rayclean.functional.neighbours`), so the cells
of an example, too, do not depend on blocks, shards, order or machine.

N examples, D features, C cells, P probes.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.neighbours import fixed_point, rounding_error
from rayclean.functional.types import Bools, Doubles, Floats, Ints

ITERATIONS = 5
"""Rounds of Lloyd's algorithm; more find hardly any more neighbours."""
_ROWS = 2048
"""Rows compared at once with all cells."""


def fit_cells(sample: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.float32]:
    """Centres [C, D] of cells, from `fixed_point`, by spherical k-means.

    Args:
        sample: [S, D] features of any length; the first C of them are the first centres. The order of the others
            does not matter.
        count: C, at most S.

    Returns:
        A centre that is nearest to no example of the sample stays where it was.
    """
    if not 1 <= count <= len(sample):
        raise ValueError(f"got {count} cells for a sample of {len(sample)}, expected 1 to {len(sample)}")
    vectors = fixed_point(sample)
    centres = vectors[:count].copy()
    for _ in range(ITERATIONS):
        cell = nearest_cells(vectors, centres, 1)[:, 0]
        order = np.argsort(cell, kind="stable")
        used, first = np.unique(cell[order], return_index=True)
        # Sums of integers below 2**53, exact in any order.
        sums = np.add.reduceat(vectors[order].astype(np.float64), first, axis=0)
        centres[used] = fixed_point(sums)
    return centres


def nearest_cells(
    features: npt.NDArray[np.floating], centres: npt.NDArray[np.float32], probes: int
) -> npt.NDArray[np.int32]:
    """The P cells [N, P] that are nearest to each example by cosine: the nearest first, the others by number. Of
    equally near ones, those with lower numbers.

    Args:
        features: [N, D] of any length.
        centres: [C, D] from `fit_cells`.
        probes: P, at most C.
    """
    result = np.empty((len(features), probes), dtype=np.int32)
    columns = np.ascontiguousarray(centres.T)
    for start in range(0, len(features), _ROWS):
        rows = slice(start, start + _ROWS)
        result[rows] = _compare(fixed_point(features[rows]), columns, probes)
    return result


def _compare(vectors: npt.NDArray[np.float32], columns: npt.NDArray[np.float32], probes: int) -> Ints:
    """Cells [n, P] of some examples; the rows for which float32 leaves a doubt are compared exactly."""
    rough = vectors @ columns
    best, taken = rough.argmax(axis=1), _at_least(rough, probes, slack=2 * rounding_error(len(columns)))
    doubtful = _at_least(rough, 1, slack=2 * rounding_error(len(columns))).sum(axis=1) > 1
    doubtful |= taken.sum(axis=1) > probes
    exact = vectors[doubtful].astype(np.float64) @ columns.astype(np.float64)
    best[doubtful], taken[doubtful] = exact.argmax(axis=1), _largest(exact, probes)
    cells = np.nonzero(taken)[1].reshape(-1, probes)
    order = np.argsort(cells != best[:, None], axis=1, kind="stable")
    return np.asarray(np.take_along_axis(cells, order, axis=1))


def _at_least(values: Floats, count: int, slack: float) -> Bools:
    """The values that are at most `slack` below the `count`-th largest of their row."""
    last = values.max(axis=1) if count == 1 else np.partition(values, -count, axis=1)[:, -count]
    return np.asarray(values >= (last.astype(np.float64) - slack)[:, None])


def _largest(values: Doubles, count: int) -> Bools:
    """The largest `count` values of each row; of equal ones, the first."""
    last = np.partition(values, -count, axis=1)[:, -count, None]
    equal = values == last
    free = count - (values > last).sum(axis=1, keepdims=True)
    return np.asarray((values > last) | (equal & (np.cumsum(equal, axis=1) <= free)))
