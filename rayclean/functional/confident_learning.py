"""Confident learning as maps over blocks of examples and reductions of K x K state.

    threshold    t[k] = mean of p[k] over the examples with given label k
    joint        C[i, j] = examples with given label i that are confidently of class j (p[j] >= t[j]; if several
                 classes are confident, the most probable class of all)
    calibrated   rows scaled to the counts of the given labels, total to N, rounded
    pruned       per (i, j): the C[i, j] examples of given label i with the greatest p[j] - p[i]

The formulas, the order of the arithmetic on K x K matrices and the rounding follow cleanlab 2.9.0
(`cleanlab.count`, `cleanlab.filter`), so that the mask is the one of `find_label_issues`. Differences from
cleanlab: thresholds are exact sums instead of float32 means (pairwise summation depends on the order of the
rows), and ties at a cut are broken by a hash of `example_id` instead of by an unstable sort.

Reference: Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
2021, equations 1-3 and section 3.2 (prune by noise rate, prune by class).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rayclean.functional.selection import UInt64, key_values, sort_keys
from rayclean.functional.types import Labels, Probabilities

Counts = npt.NDArray[np.int64]

TOLERANCE = 1e-6
"""cleanlab's `FLOATING_POINT_COMPARISON`."""
BLOCK = 1 << 18
"""Number of probabilities processed at once (1 MiB), so that temporaries stay in the processor's cache."""
_UNIT = float(1 << 32)


def blocks(probabilities: Probabilities) -> Iterator[slice]:
    """Row ranges of at most `BLOCK` probabilities."""
    rows = max(1, BLOCK // max(1, probabilities.shape[1]))
    for start in range(0, len(probabilities), rows):
        yield slice(start, start + rows)


def self_confidence_sums(
    labels: Labels, probabilities: Probabilities, num_classes: int
) -> tuple[Counts, Counts]:
    """Sum of p[y] per given label, in units of 2**-32, and number of examples per given label.

    Each addend is rounded to an integer (error of a mean: below 1.2e-10), and integers add up to the same sum
    in any order: the thresholds do not depend on shards, order or workers. 2**31 examples per class fit into
    int64.

    Returns:
        [K] sums, [K] counts.
    """
    sums = np.zeros(num_classes, dtype=np.int64)
    counts = np.zeros(num_classes, dtype=np.int64)
    for rows in blocks(probabilities):
        y = labels[rows].astype(np.intp)
        given = probabilities[rows][np.arange(len(y)), y].astype(np.float64)
        # bincount adds in float64, exactly: at most 2**18 integers of at most 2**32
        sums += np.bincount(y, weights=np.rint(given * _UNIT), minlength=num_classes).astype(np.int64)
        counts += np.bincount(y, minlength=num_classes)
    return sums, counts


def thresholds(sums: Counts, counts: Counts, few: int = 0) -> npt.NDArray[np.float64]:
    """Class thresholds [K] (equation 2); 2, which no probability reaches, for classes without examples.

    Args:
        sums: [K] of `self_confidence_sums`.
        counts: [K] of `self_confidence_sums`.
        few: classes with fewer examples have the threshold of all examples together: the mean of a few says
            little. 0, as in cleanlab: none.
    """
    mean = sums / (np.maximum(counts, 1) * _UNIT)
    mean = np.where(counts < few, int(sums.sum()) / (max(int(counts.sum()), 1) * _UNIT), mean)
    return np.clip(np.where(counts > 0, mean, 2.0), 2 * TOLERANCE, None)


def confident_class(probabilities: Probabilities, limits: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The class that each example confidently belongs to, -1 if none.

    Args:
        probabilities: [B, K].
        limits: [K] thresholds.

    Returns:
        [B] the only class with p >= threshold; the most probable class if there are several.
    """
    exact = limits - TOLERANCE
    limit = exact.astype(np.float32)
    # p >= exact in real numbers is p >= the smallest float32 that is not below it
    limit = np.where(limit < exact, np.nextafter(limit, np.float32(np.inf)), limit)
    confident = probabilities >= limit
    number = confident @ np.ones(len(limit), dtype=np.float32)  # several times faster than a sum along rows
    found = confident.argmax(axis=1)
    several = np.flatnonzero(number > 1)
    found[several] = probabilities[several].argmax(axis=1)
    found[number == 0] = -1
    return np.asarray(found)


def joint_cells(labels: Labels, probabilities: Probabilities, limits: npt.NDArray[np.float64]) -> Counts:
    """Flat index i * K + j into the confident joint of every example that is counted there."""
    found = []
    for rows in blocks(probabilities):
        guess = confident_class(probabilities[rows], limits)
        counted = guess >= 0
        found.append(labels[rows][counted].astype(np.int64) * len(limits) + guess[counted])
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def calibrate(joint: Counts, counts: Counts) -> Counts:
    """The confident joint with rows that sum to the counts of the given labels (equation 3, as counts).

    Args:
        joint: [K, K] confident counts, given label by row.
        counts: [K] examples per given label.

    Returns:
        [K, K] integers, row sums = `counts` (up to the rounding of the total).
    """
    # By columns, as cleanlab's lies in memory: its total is added up in that order, and the last bit decides
    # ties below.
    joint = joint.copy(order="F")
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    rows = (joint.T / np.clip(joint.sum(axis=1), a_min=1e-100, a_max=None) * counts).T
    total = rows / np.clip(np.sum(rows), a_min=1e-100, a_max=None) * int(counts.sum())
    return _round_rows(total)


def prune_counts(calibrated: Counts, min_examples: int = 1) -> Counts:
    """How many examples to prune per given label i and other class j; the diagonal holds how many to keep.

    Every diagonal entry is raised to at least `min_examples` at the cost of the rest of its row.

    Args:
        calibrated: [K, K], given label by row.
        min_examples: examples that every class keeps.

    Returns:
        [K, K], given label by row.
    """
    matrix = calibrated.T
    diagonal = np.maximum(matrix.diagonal(), min_examples)
    raised = diagonal - matrix.diagonal()
    shared_by = np.maximum(np.count_nonzero(matrix, axis=0) - 1.0, 1.0)
    reduced = matrix - raised / shared_by
    reduced[reduced < 0] = 0
    np.fill_diagonal(reduced, diagonal)
    return _round_rows(reduced.astype(np.int64)).T


def margin_keys(
    labels: Labels, probabilities: Probabilities, ids: npt.NDArray[np.int64], lower: UInt64
) -> tuple[npt.NDArray[np.intp], Counts, UInt64]:
    """Sort keys of p[j] - p[i], for given label i and every other class j, that may reach their cell's lower
    bound.

    Args:
        labels: [B] given labels.
        probabilities: [B, K].
        ids: [B] example ids.
        lower: [K, K] keys; the greatest possible key for cells that do not matter.

    Returns:
        [E] row in the batch, [E] flat cell i * K + j, [E] key; a superset of the keys >= `lower`.
    """
    size = probabilities.shape[1]
    bound = key_values(lower)
    bound = np.where(lower == np.iinfo(np.uint64).max, np.float32(np.inf), bound)
    np.fill_diagonal(bound, np.inf)
    rows_found, cells_found, keys_found = [], [], []
    for block in blocks(probabilities):
        p, y = probabilities[block], labels[block].astype(np.intp)
        margin = p - p[np.arange(len(y)), y][:, None]
        flat = np.flatnonzero(margin >= bound[y])
        row, other = np.divmod(flat, size)
        rows_found.append(row + block.start)
        cells_found.append(y[row] * size + other)
        keys_found.append(sort_keys(margin.reshape(-1)[flat], ids[block][row]))
    if not keys_found:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)
    return np.concatenate(rows_found), np.concatenate(cells_found), np.concatenate(keys_found)


def doubt_keys(
    labels: Labels, probabilities: Probabilities, ids: npt.NDArray[np.int64], lower: UInt64
) -> tuple[npt.NDArray[np.intp], Counts, UInt64]:
    """Sort keys of -p[i], for given label i, that may reach the lower bound of their label.

    Args:
        labels: [B] given labels.
        probabilities: [B, K].
        ids: [B] example ids.
        lower: [K] keys; the greatest possible key for labels that do not matter.

    Returns:
        [E] row in the batch, [E] given label, [E] key; a superset of the keys >= `lower`.
    """
    bound = np.where(lower == np.iinfo(np.uint64).max, np.float32(np.inf), key_values(lower))
    value = -probabilities[np.arange(len(labels)), labels.astype(np.intp)]
    row = np.flatnonzero(value >= bound[labels])
    return row, labels[row].astype(np.int64), sort_keys(value[row], ids[row])


def agrees(labels: Labels, probabilities: Probabilities) -> npt.NDArray[np.bool_]:
    """Whether the given label is the most probable one, or within `TOLERANCE` of it [B]; such labels are not
    doubted.
    """
    raised = probabilities.copy()
    raised[np.arange(len(labels)), labels.astype(np.intp)] += np.float32(TOLERANCE)
    return np.asarray(raised.argmax(axis=1) == labels)


def _round_rows(matrix: npt.NDArray[np.number]) -> Counts:
    """Round each row to integers that keep the row's rounded sum; the largest remainders give way first."""
    return np.stack([_round_row(row) for row in matrix.astype(np.float64)])


def _round_row(values: npt.NDArray[np.float64]) -> Counts:
    rounded = values.round()
    target = np.sum(values).round()
    while (missing := target - rounded.sum()) != 0:
        step = -1 if missing < 0 else 1
        order = np.argsort(values - rounded)[::-step]  # the sort that cleanlab uses: ties fall the same way
        rounded[order[: min(int(abs(missing)), len(values))]] += step
    return rounded.astype(np.int64)
