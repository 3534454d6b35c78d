"""Confident learning over shards: the mask of cleanlab's `find_label_issues`, with flat memory.

Passes over the data: class thresholds; confident joint; then, for the pruning rules, two or more rounds of
the selection of the most doubtful examples per cell (`rayclean.functional.selection`). What is kept between
passes is K x K at most, never N x K. Any cut into shards, any order and any number of workers give the same
mask.

Reference: Northcutt, Jiang, Chuang, JAIR 2021; cleanlab 2.9.0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rayclean.detectors.base import Detector, DetectorBatch, DetectorShard, Mapper
from rayclean.detectors.confident_joint import added, confident_joint, counted, mapped, off_diagonal
from rayclean.functional import confident_learning as cl
from rayclean.functional.scores import normalized_margin, self_confidence
from rayclean.functional.selection import Selection, UInt64
from rayclean.plugins import Options

Rule = Literal["prune_by_noise_rate", "prune_by_class", "confident_learning"]


@dataclass(frozen=True)
class JointState:
    """The result of all passes."""

    thresholds: npt.NDArray[np.float64]
    """[K] thresholds of the classes."""
    joint: npt.NDArray[np.int64]
    """[K, K] calibrated confident joint as counts, given label by row."""
    cut: UInt64
    """Smallest key that is pruned, per cell: [K, K] by noise rate, [K] by class, empty for the off-diagonal
    rule."""


class ConfidentLearning(Detector):
    """Votes against the labels that confident learning prunes."""

    class Config(Options):
        """Options beside `name`."""

        rule: Rule = "prune_by_noise_rate"
        """Which examples are pruned. `prune_by_noise_rate`: per given label and other class as many as the
        joint says, greatest margin first (high recall). `prune_by_class`: per given label, lowest
        self-confidence first. `confident_learning`: those counted off the diagonal (high precision)."""
        quality: Literal["normalized_margin", "self_confidence"] = "normalized_margin"
        """Score by which the examples are ranked."""
        min_examples_per_class: int = 1
        """Examples that every class keeps at least; classes with no more than that lose none."""

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> JointState:
        """Compute thresholds, joint and cuts from all shards."""
        found = confident_joint(shards, mapper, self.num_classes)
        cut = self._cuts(found.calibrated, found.counts, shards, mapper)
        return JointState(found.thresholds, found.calibrated, cut)

    def score(
        self, batch: DetectorBatch, state: JointState
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality by the configured score, and confident learning's mask as the vote."""
        score = normalized_margin if self.config.quality == "normalized_margin" else self_confidence
        quality = np.empty(len(batch.given_label), dtype=np.float32)
        for rows in cl.blocks(batch.probabilities):
            quality[rows] = score(batch.given_label[rows], batch.probabilities[rows])
        return quality, self.mask(batch, state)

    def mask(self, batch: DetectorBatch, state: JointState) -> npt.NDArray[np.bool_]:
        """Whether confident learning calls each label wrong [B]."""
        labels, probabilities = batch.given_label, batch.probabilities
        flagged = np.zeros(len(labels), dtype=np.bool_)
        if self.config.rule == "confident_learning":
            for rows in cl.blocks(probabilities):
                guess = cl.confident_class(probabilities[rows], state.thresholds)
                flagged[rows] = (guess >= 0) & (guess != labels[rows])
        else:
            row, cell, key = _keys(self.config.rule, batch, state.cut)
            flagged[row[key >= state.cut.reshape(-1)[cell]]] = True
        doubtful = np.flatnonzero(flagged)
        flagged[doubtful[cl.agrees(labels[doubtful], probabilities[doubtful])]] = False
        return flagged

    def metrics(self, state: JointState) -> dict[str, float]:
        """`estimated_noise_rate`, the share of the calibrated joint off its diagonal."""
        return {"estimated_noise_rate": off_diagonal(state.joint)}

    def _cuts(self, calibrated: npt.NDArray[np.int64], counts: npt.NDArray[np.int64],
              shards: Sequence[DetectorShard], mapper: Mapper) -> UInt64:  # fmt: skip
        rule, size = self.config.rule, self.num_classes
        if rule == "confident_learning":
            return np.zeros(0, dtype=np.uint64)
        prune = cl.prune_counts(calibrated, self.config.min_examples_per_class)
        if rule == "prune_by_class":
            need, low, high, probe = counts - prune.diagonal(), -2.0, 0.0, -0.5
        else:
            np.fill_diagonal(prune, 0)
            need, low, high, probe = prune, -2.0, 2.0, 1 / 64
        prunable = counts > self.config.min_examples_per_class
        need = np.where(prunable if need.ndim == 1 else prunable[:, None], need, 0)
        cells = np.flatnonzero(need.reshape(-1) > 0)
        given = cells if need.ndim == 1 else cells // size
        selection = Selection.start(need.reshape(-1)[cells], counts[given], low, high, probe)
        cut = np.full(need.shape, np.iinfo(np.uint64).max)
        while selection.open:
            look = partial(_look, rule=rule, cells=cells, shape=need.shape, selection=selection)
            if selection.collectable:
                found = list(mapped(mapper, look, shards))
                selection.finish(*map(np.concatenate, zip(*found, strict=True)))
            else:
                selection.narrow(added(mapped(mapper, look, shards), len(cells) * selection.bins))
        cut.reshape(-1)[cells] = selection.cut
        return cut


def _look(
    shard: DetectorShard,
    rule: Rule,
    cells: npt.NDArray[np.int64],
    shape: tuple[int, ...],
    selection: Selection,
) -> Any:
    """One shard's part of a round of the selection: keys if few are left, else counts."""
    lower = np.full(shape, np.iinfo(np.uint64).max)
    lower.reshape(-1)[cells] = selection.lower
    _, cell, key = _keys(rule, shard.read(), lower)
    slot = np.zeros(lower.size, dtype=np.int64)
    slot[cells] = np.arange(len(cells))
    group = slot[cell]  # only cells with a lower bound have keys, and these have a slot
    if selection.collectable:
        return selection.pick(group, key)
    return counted(selection.tally(group, key), len(cells) * selection.bins)


def _keys(
    rule: Rule, batch: DetectorBatch, lower: UInt64
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64], UInt64]:
    keys = cl.doubt_keys if rule == "prune_by_class" else cl.margin_keys
    return keys(batch.given_label, batch.probabilities, batch.unit_id, lower)
