"""Vote of the nearest neighbours: labels that the most similar texts do not share are doubtful.

Exact search by cosine similarity over all pairs of shards, one pair in memory at a time. Similarities are computed
in fixed point, so that they are the same bits whatever shard or block two examples meet in; an approximate or
floating-point index (faiss) returns other neighbours for other shards as soon as texts repeat. Cost: N^2 D
multiplications, spread over shards.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rayclean.detectors.base import Detector, DetectorBatch, DetectorShard, Mapper
from rayclean.errors import DataError
from rayclean.plugins import Options

QUERY_ROWS, INDEX_ROWS = 512, 4096
"""Rows compared at once: a block of similarities is 16 MiB."""
_SCALE = float(1 << 24)


class KnnVote(Detector):
    """Quality = share of the k nearest other examples whose given label is the example's own.

    Only the example itself is left out (by `example_id`); copies of its text are neighbours like others. Where
    several examples tie for the last places, each counts with the same fraction, so order never decides.
    """

    class Config(Options):
        """Options beside `name`."""

        neighbours: int = Field(20, ge=1)
        """k; all others if there are fewer."""
        threshold: float = Field(0.5, ge=0, le=1)
        """Votes against labels below it; 0.5: most neighbours have another label."""

    needs_features = True

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> tuple[DetectorShard, ...]:
        """The shards themselves: every batch that is scored walks over them, so nothing is gathered."""
        return tuple(shards)

    def score(
        self, batch: DetectorBatch, state: tuple[DetectorShard, ...]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]; an example without any neighbour has quality 1."""
        vectors = _unit(batch)
        nearest = [
            _Nearest(batch.example_id[start : start + QUERY_ROWS], batch.given_label[start : start + QUERY_ROWS],
                     vectors[start : start + QUERY_ROWS], self.config.neighbours)
            for start in range(0, len(vectors), QUERY_ROWS)
        ]  # fmt: skip
        for shard in state:
            other = shard.read(features=True)
            candidates = _unit(other)
            for start in range(0, len(candidates), INDEX_ROWS):
                rows = slice(start, start + INDEX_ROWS)
                for block in nearest:
                    block.add(other.example_id[rows], other.given_label[rows], candidates[rows])
        quality = np.concatenate([block.quality() for block in nearest]) if nearest else np.zeros(0)
        return quality.astype(np.float32), quality < self.config.threshold


def _unit(batch: DetectorBatch) -> npt.NDArray[np.float64]:
    """Features [B, D] of length 1 in units of 2**-24, as integers.

    Products of integers and all their partial sums stay below 2**49 (Cauchy-Schwarz), so float64 adds them exactly,
    in whatever order the matrix product takes.
    """
    assert batch.features is not None
    features = batch.features.astype(np.float64)
    wrong = ~np.isfinite(features).all(axis=1)
    if wrong.any():
        raise DataError(
            f"features of example {batch.example_id[wrong.argmax()]} hold NaN or infinity; expected finite numbers. "
            "Run predict again (the encoder diverged?) or leave out the detector knn_vote"
        )
    length = np.sqrt((features * features).sum(axis=1, keepdims=True))
    return np.asarray(np.rint(features / np.where(length > 0, length, 1.0) * _SCALE))


class _Nearest:
    """The nearest neighbours so far of some queries: per query, similarities in falling order with the number of
    examples at each and how many of these share the query's label. At most k similarities per query are kept.
    """

    def __init__(self, ids: npt.NDArray[np.int64], labels: npt.NDArray[np.int32],
                 vectors: npt.NDArray[np.float64], k: int):  # fmt: skip
        self.ids, self.labels, self.vectors, self.k = ids, labels, vectors, k
        self.limit = np.full(len(ids), -np.inf)  # [Q] below it nothing can be among the k nearest any more
        self.row = np.zeros(0, dtype=np.int64)
        self.similarity = np.zeros(0)
        self.total = np.zeros(0, dtype=np.int64)
        self.same = np.zeros(0, dtype=np.int64)
        self.before = np.zeros(0, dtype=np.int64)

    def add(
        self, ids: npt.NDArray[np.int64], labels: npt.NDArray[np.int32], vectors: npt.NDArray[np.float64]
    ) -> None:
        """Compare with some more examples."""
        similarity = self.vectors @ vectors.T
        _, own, itself = np.intersect1d(self.ids, ids, return_indices=True)
        similarity[own, itself] = -np.inf
        limit = self.limit
        if len(ids) > self.k and np.isneginf(limit).any():
            limit = np.maximum(limit, np.partition(similarity, -self.k, axis=1)[:, -self.k])
        row, column = np.nonzero((similarity >= limit[:, None]) & (similarity > -np.inf))
        same = (self.labels[row] == labels[column]).astype(np.int64)
        self._merge(row, similarity[row, column], same)

    def quality(self) -> npt.NDArray[np.float64]:
        """Share of neighbours with the query's label; those that tie for the last places count in part."""
        taken = np.minimum(self.total, self.k - self.before)
        agreeing = np.bincount(self.row, weights=self.same * (taken / self.total), minlength=len(self.ids))
        counted = np.bincount(self.row, weights=taken, minlength=len(self.ids))
        return np.where(counted > 0, agreeing / np.maximum(counted, 1), 1.0)

    def _merge(
        self, row: npt.NDArray[np.int64], similarity: npt.NDArray[np.float64], same: npt.NDArray[np.int64]
    ) -> None:
        row = np.concatenate([self.row, row])
        similarity = np.concatenate([self.similarity, similarity])
        total = np.concatenate([self.total, np.ones(len(same), dtype=np.int64)])
        same = np.concatenate([self.same, same])
        if not len(row):
            return
        order = np.lexsort((-similarity, row))
        row, similarity = row[order], similarity[order]
        new = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (similarity[1:] != similarity[:-1])])
        total, same = np.add.reduceat(total[order], new), np.add.reduceat(same[order], new)
        row, similarity = row[new], similarity[new]
        before = np.cumsum(total) - total
        first = np.searchsorted(row, row)
        before = before - before[first]  # examples of the same query that are more similar
        keep = before < self.k
        self.row, self.similarity, self.before = row[keep], similarity[keep], before[keep]
        self.total, self.same = total[keep], same[keep]
        full = self.before + self.total >= self.k
        self.limit[self.row[full]] = self.similarity[full]
