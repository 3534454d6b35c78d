"""The confident joint of all shards, by maps over groups of shards and sums of integers.

Detectors that know the noise of the labels (`confident_learning.py`, `posterior.py`) begin with it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rayclean.detectors.base import DetectorShard, Mapper
from rayclean.functional import confident_learning as cl

R = TypeVar("R")
Sparse = tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]

MIN_ITEMS, MAX_SHARDS = 16, 64
"""Least number of tasks of a pass, if there are as many shards; greatest number of shards of a task."""


@dataclass(frozen=True)
class ConfidentJoint:
    """What confident learning estimates from all predictions."""

    thresholds: npt.NDArray[np.float64]
    """[K] thresholds of the classes."""
    calibrated: npt.NDArray[np.int64]
    """[K, K] calibrated confident joint as counts, given label by row."""
    counts: npt.NDArray[np.int64]
    """[K] examples per given label."""


def confident_joint(
    shards: Sequence[DetectorShard], mapper: Mapper, num_classes: int, few: int = 0
) -> ConfidentJoint:
    """Two passes over all shards: thresholds, then the joint.

    Args:
        shards: shards of predictions.
        mapper: runs the passes.
        num_classes: K.
        few: classes with fewer examples share a threshold (`functional.confident_learning.thresholds`).
    """
    sums, counts = np.zeros(num_classes, dtype=np.int64), np.zeros(num_classes, dtype=np.int64)
    for shard_sums, shard_counts in mapped(mapper, partial(_sums, size=num_classes), shards):
        sums += shard_sums
        counts += shard_counts
    thresholds = cl.thresholds(sums, counts, few)
    joint = added(mapped(mapper, partial(_cells, thresholds=thresholds), shards), num_classes**2)
    return ConfidentJoint(thresholds, cl.calibrate(joint.reshape(num_classes, num_classes), counts), counts)


def off_diagonal(joint: npt.NDArray[np.int64]) -> float:
    """The share of the joint off its diagonal: the estimated rate of wrong labels."""
    total = int(joint.sum())
    return (total - int(joint.trace())) / total if total else 0.0


def mapped(
    mapper: Mapper, function: Callable[[DetectorShard], R], shards: Sequence[DetectorShard]
) -> Iterator[R]:
    """Apply `function` to every shard; a task gets several, because starting it takes longer than one."""
    size = min(MAX_SHARDS, -(-len(shards) // MIN_ITEMS))
    groups = [shards[start : start + size] for start in range(0, len(shards), max(1, size))]
    for results in mapper(partial(_each, function), groups):
        yield from results


def counted(indices: npt.NDArray[np.int64], size: int) -> Sparse:
    """The indices that occur and their counts; counted densely where that is cheaper than sorting."""
    if size <= 16 * len(indices):
        dense = np.bincount(indices, minlength=size)
        occurring = np.flatnonzero(dense)
        counts = dense[occurring]
    else:
        occurring, counts = np.unique(indices, return_counts=True)
    narrow = np.int32 if size < 2**31 else np.int64  # half the bytes are sent to the driver
    return occurring.astype(narrow), counts.astype(np.int32)


def added(parts: Any, size: int) -> npt.NDArray[np.int64]:
    """The dense sum of sparse counts."""
    total = np.zeros(size, dtype=np.int64)
    for indices, counts in parts:
        total[indices] += counts
    return total


def _each(function: Callable[[DetectorShard], R], shards: Sequence[DetectorShard]) -> list[R]:
    return [function(shard) for shard in shards]


def _sums(shard: DetectorShard, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One shard's part of the thresholds."""
    batch = shard.read()
    return cl.self_confidence_sums(batch.given_label, batch.probabilities, size)


def _cells(shard: DetectorShard, thresholds: npt.NDArray[np.float64]) -> Sparse:
    """One shard's part of the confident joint."""
    batch = shard.read()
    return counted(cl.joint_cells(batch.given_label, batch.probabilities, thresholds), len(thresholds) ** 2)
