"""Exact nearest neighbours by cosine, the same for any shards, blocks, order, number of workers and machine.

Features of length 1 are rounded to integers in units of 2**-24 (`fixed_point`), so that a cosine is an
integer in units of 2**-48 (1 / `ONE`), and has the same value wherever two examples meet. A float32 matrix
product, with a bound on its rounding errors, tells which pairs can be among the nearest; the cosines of these
few are computed exactly.

An approximate index, or one that compares floating-point sums, returns other neighbours for other shards as
soon as texts repeat.

Q queries, B candidates in a block, D features, M neighbours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rayclean.functional.types import Doubles, Ids, Ints

DIGITS = 5
"""`NearestNeighbours` compares cosines to so many digits, then by id: further digits of features depend on
the batches and the machine that they were computed with."""
ONE = float(1 << 48)
"""A cosine of 1 as an integer."""
QUERY_ROWS, CANDIDATE_ROWS = 1024, 4096
"""Rows compared at once: a block of similarities is 16 MiB."""

_UNIT = float(1 << 24)
_STEP = ONE / 10**DIGITS
_ROWS = 1024
"""Rows scaled at once: their copies in float64 stay small."""
_PAIRS = 1024
"""Pairs whose cosines are computed at once."""
_FEW = 1 / 32
"""Above this share of a block's pairs, a matrix product in float64 is faster than pair by pair."""
_NONE = -(2**62)

_Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Doubles]


def fixed_point(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Features [N, D] scaled to length 1, as integers in units of 2**-24, which float32 holds exactly; zeros
    stay zeros.
    """
    result = np.empty(features.shape, dtype=np.float32)
    for start in range(0, len(features), _ROWS):
        vectors = np.array(features[start : start + _ROWS], dtype=np.float64)
        length = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        vectors /= np.where(length > 0, length, 1.0)
        vectors *= _UNIT
        result[start : start + _ROWS] = np.rint(vectors, out=vectors)
    return result


def rounding_error(dimension: int) -> float:
    """The most by which float32 errs in a cosine of vectors with so many features, times `ONE`.

    In any order of summation, it errs by at most D u / (1 - D u), u = 2**-24, of the sum of the products'
    magnitudes, and that sum is at most 1 (Cauchy and Schwarz).
    """
    return 1.01 * (dimension + 1) * 2.0**-24 * ONE


@dataclass(frozen=True)
class Points:
    """Examples to be compared."""

    vectors: npt.NDArray[np.float32]
    """[N, D], from `fixed_point`."""
    groups: Ids
    """[N] examples of the same group are no neighbours: an id each, or a number for each text."""

    def __getitem__(self, rows: slice | Ints) -> "Points":
        return Points(self.vectors[rows], self.groups[rows])


def near_pairs(queries: Points, candidates: Points, least: Doubles, count: int, slack: float = 0.0) -> _Pairs:
    """The pairs that can be among the nearest neighbours of their query, with exact cosines.

    Args:
        queries: Q points.
        candidates: B points.
        least: [Q] cosine, times `ONE`, that a neighbour needs; -inf where so few neighbours are known that
            any will do.
        count: M.
        slack: candidates that come after the M-th of these by no more than this (times `ONE`) are found, too.

    Returns:
        Query [E], candidate [E], cosine times `ONE` [E]; all pairs asked for and possibly others.
    """
    rough = queries.vectors @ candidates.vectors.T
    rough[_same_group(queries.groups, candidates.groups)] = -np.inf
    error = rounding_error(queries.vectors.shape[1])
    limit = least - error
    unknown = np.flatnonzero(np.isneginf(least))
    if len(unknown) and len(candidates.groups) > count:
        last = np.partition(rough[unknown], -count, axis=1)[:, -count].astype(np.float64)
        limit[unknown] = last - (2 * error + slack)
    limit = np.maximum(limit, -2 * ONE).astype(
        np.float32
    )  # below any cosine, but above the -inf of excluded pairs
    found = np.flatnonzero(rough >= np.nextafter(limit, np.float32(-np.inf))[:, None])
    row, column = np.divmod(found, max(rough.shape[1], 1))
    return row, column, _cosines(queries.vectors, candidates.vectors, row, column)


def _same_group(queries: Ids, candidates: Ids) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The pairs of a query and a candidate of the same group."""
    some = np.flatnonzero(np.isin(queries, candidates))
    row, column = np.nonzero(queries[some, None] == candidates)
    return some[row], column


def _cosines(
    queries: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.float32],
    row: npt.NDArray[np.intp],
    column: npt.NDArray[np.intp],
) -> Doubles:
    """The cosine of each pair [E], times `ONE`.

    Products of integers and all their partial sums stay below 2**49 (Cauchy and Schwarz), so float64 adds
    them exactly, in whatever order.
    """
    if len(row) > _FEW * len(queries) * len(candidates):
        return np.asarray((queries.astype(np.float64) @ candidates.astype(np.float64).T)[row, column])
    exact = np.empty(len(row))
    for start in range(0, len(row), _PAIRS):
        part = slice(start, start + _PAIRS)
        left, right = queries[row[part]].astype(np.float64), candidates[column[part]].astype(np.float64)
        exact[part] = np.einsum("ij,ij->i", left, right)
    return exact


class NearestNeighbours:
    """The M nearest candidates so far of each of Q queries: by cosine to `DIGITS` digits, then by id."""

    ids: Ids
    """[Q, M] the nearest first; -1: there are no more."""
    steps: Ids
    """[Q, M] their cosines in units of 10**-`DIGITS`."""

    def __init__(self, features: npt.NDArray[np.floating], groups: Ids, count: int):
        """Begin without candidates.

        Args:
            features: [Q, D] of any length.
            groups: [Q] see `Points`.
            count: M, at least 1.
        """
        self._queries = Points(fixed_point(features), groups)
        self.ids = np.full((len(groups), count), -1, dtype=np.int64)
        self.steps = np.full((len(groups), count), _NONE, dtype=np.int64)

    @property
    def cosines(self) -> Doubles:
        """[Q, M]; 0 where there is no neighbour."""
        return np.where(self.ids != -1, self.steps / 10**DIGITS, 0.0)

    def add(
        self,
        features: npt.NDArray[np.floating],
        ids: Ids,
        groups: Ids | None = None,
        rows: Ints | None = None,
    ) -> None:
        """Compare with some more candidates.

        Args:
            features: [N, D] of any length.
            ids: [N] not -1, and none that was added before for the same query.
            groups: [N] see `Points`; the ids by default.
            rows: the queries that are compared with them, each once; all by default.
        """
        groups = ids if groups is None else groups
        rows = np.arange(len(self.ids)) if rows is None else rows
        for start in range(0, len(ids), CANDIDATE_ROWS):
            block = slice(start, start + CANDIDATE_ROWS)
            candidates = Points(fixed_point(features[block]), groups[block])
            for first in range(0, len(rows), QUERY_ROWS):
                self._compare(rows[first : first + QUERY_ROWS], candidates, ids[block])

    def merge(self, ids: Ids, steps: Ids) -> None:
        """Add the neighbours [Q, any number] that another search for the same queries has found."""
        row, column = np.nonzero(ids != -1)
        self._insert(row, steps[row, column], ids[row, column])

    def _compare(self, rows: Ints, candidates: Points, ids: Ids) -> None:
        count = self.ids.shape[1]
        full = self.ids[rows, -1] != -1
        least = np.where(full, (self.steps[rows, -1] - 0.501) * _STEP, -np.inf)
        row, column, cosine = near_pairs(self._queries[rows], candidates, least, count, slack=1.001 * _STEP)
        self._insert(rows[row], np.rint(cosine / _STEP).astype(np.int64), ids[column])

    def _insert(self, row: Ints, steps: Ids, ids: Ids) -> None:
        count = self.ids.shape[1]
        last = self.steps[row, -1]
        better = (steps > last) | ((steps == last) & (ids < self.ids[row, -1]))
        row, steps, ids = row[better], steps[better], ids[better]
        touched, row = np.unique(row, return_inverse=True)
        row = np.concatenate([np.repeat(np.arange(len(touched)), count), row])
        steps = np.concatenate([self.steps[touched].reshape(-1), steps])
        ids = np.concatenate([self.ids[touched].reshape(-1), ids])
        order = np.lexsort((ids, -steps, row))
        first = np.searchsorted(row[order], np.arange(len(touched)))
        best = order[
            (first[:, None] + np.arange(count)).reshape(-1)
        ]  # every row has as many, if only empty places
        self.steps[touched] = steps[best].reshape(-1, count)
        self.ids[touched] = ids[best].reshape(-1, count)
