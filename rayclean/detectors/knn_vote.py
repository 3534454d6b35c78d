"""Vote of the nearest neighbours: labels that the most similar texts do not share are doubtful.

All pairs of shards are searched exactly (`rayclean.functional.neighbours`), with one pair in memory at a
time. Cost: N^2 D multiplications, spread over shards.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rayclean.detectors.base import Detector, DetectorBatch, DetectorShard, Mapper
from rayclean.errors import DataError
from rayclean.functional.neighbours import CANDIDATE_ROWS, QUERY_ROWS, Points, fixed_point, near_pairs
from rayclean.functional.types import Ids
from rayclean.plugins import Options


class KnnVote(Detector):
    """Quality = share of the k nearest other examples whose given label is the example's own.

    Only the example itself is left out (by `example_id`); copies of its text are neighbours like others.
    Where several examples tie for the last places, each counts with the same fraction, so order never
    decides.
    """

    class Config(Options):
        """Options beside `name`."""

        neighbours: int = Field(20, ge=1)
        """Number of neighbours k; all other examples if there are fewer."""
        threshold: float = Field(0.5, ge=0, le=1)
        """Votes against labels below it; 0.5: most neighbours have another label."""

    needs_features = True

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> tuple[DetectorShard, ...]:
        """Return the shards themselves: every batch that is scored reads all of them; nothing is gathered."""
        return tuple(shards)

    def score(
        self, batch: DetectorBatch, state: tuple[DetectorShard, ...]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]; an example without any neighbour has quality 1."""
        queries = comparable(batch, batch.unit_id, "knn_vote")
        votes = [
            _Votes(
                queries[start : start + QUERY_ROWS],
                batch.given_label[start : start + QUERY_ROWS],
                self.config.neighbours,
            )
            for start in range(0, len(batch.unit_id), QUERY_ROWS)
        ]
        for shard in state:
            other = shard.read(features=True)
            candidates = comparable(other, other.unit_id, "knn_vote")
            for start in range(0, len(other.unit_id), CANDIDATE_ROWS):
                rows = slice(start, start + CANDIDATE_ROWS)
                for block in votes:
                    block.add(candidates[rows], other.given_label[rows])
        quality = np.concatenate([block.quality() for block in votes]) if votes else np.zeros(0)
        return quality.astype(np.float32), quality < self.config.threshold


def comparable(batch: DetectorBatch, groups: Ids, detector: str) -> Points:
    """The features of a batch, as points that a detector compares.

    Args:
        batch: with features.
        groups: [B] examples of the same group are not compared.
        detector: name, for errors.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    assert batch.features is not None
    wrong = ~np.isfinite(batch.features).all(axis=1)
    if wrong.any():
        raise DataError(
            f"features of example {batch.unit_id[wrong.argmax()]} hold NaN or infinity; expected finite numbers. "
            f"Run predict again (the encoder diverged?) or leave out the detector {detector}"
        )
    return Points(fixed_point(batch.features), groups)


class _Votes:
    """The nearest neighbours so far of some queries, as counts: per query and cosine, in falling order, the
    number of examples and how many of these share the query's label. At most k cosines per query are kept.
    """

    def __init__(self, queries: Points, labels: npt.NDArray[np.int32], k: int):
        self.queries, self.labels, self.k = queries, labels, k
        self.least = np.full(len(labels), -np.inf)
        """[Q] cosine below which nothing can be among the k nearest any more."""
        self.row = np.zeros(0, dtype=np.int64)
        self.cosine = np.zeros(0)
        self.total = np.zeros(0, dtype=np.int64)
        self.same = np.zeros(0, dtype=np.int64)
        self.before = np.zeros(0, dtype=np.int64)
        """Examples of the same query that are more similar."""

    def add(self, candidates: Points, labels: npt.NDArray[np.int32]) -> None:
        """Compare with some more examples."""
        row, column, cosine = near_pairs(self.queries, candidates, self.least, self.k)
        self._merge(row, cosine, (self.labels[row] == labels[column]).astype(np.int64))

    def quality(self) -> npt.NDArray[np.float64]:
        """Share of neighbours with the query's label; those that tie for the last places count in part."""
        taken = np.minimum(self.total, self.k - self.before)
        agreeing = np.bincount(self.row, weights=self.same * (taken / self.total), minlength=len(self.labels))
        counted = np.bincount(self.row, weights=taken, minlength=len(self.labels))
        return np.where(counted > 0, agreeing / np.maximum(counted, 1), 1.0)

    def _merge(
        self, row: npt.NDArray[np.int64], cosine: npt.NDArray[np.float64], same: npt.NDArray[np.int64]
    ) -> None:
        row = np.concatenate([self.row, row])
        cosine = np.concatenate([self.cosine, cosine])
        total = np.concatenate([self.total, np.ones(len(same), dtype=np.int64)])
        same = np.concatenate([self.same, same])
        if not len(row):
            return
        order = np.lexsort((-cosine, row))
        row, cosine = row[order], cosine[order]
        new = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (cosine[1:] != cosine[:-1])])
        total, same = np.add.reduceat(total[order], new), np.add.reduceat(same[order], new)
        row, cosine = row[new], cosine[new]
        before = np.cumsum(total) - total
        first = np.searchsorted(row, row)
        before = before - before[first]
        keep = before < self.k
        self.row, self.cosine, self.before = row[keep], cosine[keep], before[keep]
        self.total, self.same = total[keep], same[keep]
        full = self.before + self.total >= self.k
        self.least[self.row[full]] = self.cosine[full]
