"""Synthetic predictions and shards in memory, for the tests of detectors."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rayclean.detectors.base import DetectorBatch


@dataclass(frozen=True)
class MemoryShard:
    batch: DetectorBatch

    def read(self, features: bool = False, groups: bool = False) -> DetectorBatch:
        return self.batch


def in_process(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    return map(function, items)


def backwards(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """A mapper whose results come in another order."""
    return iter([function(item) for item in reversed(list(items))])


def noisy_case(seed: int, rows: int, classes: int, noise: float = 0.2, sharp: float = 3.0) -> DetectorBatch:
    """Predictions of a good model for labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, rows)
    given = np.where(rng.random(rows) < noise, rng.integers(0, classes, rows), true).astype(np.int32)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), true] += sharp
    p = np.exp(logits)
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    ids = (
        rng.choice(2**62, rows, replace=False)
        if rows < 1000
        else rng.permutation(rows).astype(np.int64) * 7919
    )
    return DetectorBatch(ids, given, p.argmax(axis=1).astype(np.int32), p)


def take(batch: DetectorBatch, rows: Any) -> DetectorBatch:
    return DetectorBatch(
        batch.unit_id[rows],
        batch.given_label[rows],
        batch.predicted_label[rows],
        batch.probabilities[rows],
        features=None if batch.features is None else batch.features[rows],
        group=None if batch.group is None else batch.group[rows],
    )


def cut(batch: DetectorBatch, edges: Iterable[int], order: Any = None) -> list[MemoryShard]:
    """The batch in shards between sorted edges, its rows reordered before."""
    whole = batch if order is None else take(batch, order)
    bounds = [0, *sorted(edges), len(batch.unit_id)]
    return [MemoryShard(take(whole, slice(a, b))) for a, b in pairwise(bounds)]
