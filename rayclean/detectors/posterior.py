"""Doubt by the posterior of the given label (`rayclean.functional.posterior`): the default detector.

Two passes over the shards fit it: class thresholds, then the confident joint. With `em_steps`, further passes replace
the joint by sums of posteriors. What is kept is K x K; sums are of integers, so that no order of shards and no number
of workers changes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rayclean.detectors.base import Detector, DetectorBatch, DetectorShard, Mapper
from rayclean.detectors.confident_joint import confident_joint, mapped, off_diagonal
from rayclean.functional import confident_learning as cl
from rayclean.functional.posterior import FEW, SMOOTHING, class_probabilities, posterior, transition
from rayclean.plugins import Options

_UNIT = float(1 << 20)
"""Posteriors are added up as integers in units of 2**-20."""


@dataclass(frozen=True)
class PosteriorState:
    """The estimated noise of the given labels."""

    noise: npt.NDArray[np.float64]
    """[K, K] P(given label by row | class by column)."""
    joint: npt.NDArray[np.int64]
    """[K, K] calibrated confident joint as counts, given label by row."""


class Posterior(Detector):
    """Quality = posterior probability that the given label is right; suggests the most probable other label."""

    class Config(Options):
        """Options beside `name`."""

        smoothing: float = Field(SMOOTHING, gt=0)
        """Share of independent labels that is added to the confident joint."""
        em_steps: int = Field(0, ge=0, le=50)
        """Steps of expectation-maximisation that refine the estimated noise by the posteriors themselves; they gain
        where errors are a matter of classes, and lose where they are not."""
        threshold: float = Field(0.5, ge=0, le=1)
        """Votes against labels whose quality is below it; 0.5: more likely wrong than right."""

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> PosteriorState:
        """Estimate the noise of the given labels from all shards."""
        found = confident_joint(shards, mapper, self.num_classes, FEW)
        noise = transition(found.calibrated, found.counts, self.config.smoothing)
        for _ in range(self.config.em_steps):
            sums = np.zeros_like(found.calibrated)
            for part in mapped(mapper, partial(_soft_counts, noise=noise), shards):
                sums += part
            noise = transition(sums / _UNIT, found.counts, self.config.smoothing)
        return PosteriorState(noise, found.calibrated)

    def score(
        self, batch: DetectorBatch, state: PosteriorState
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]."""
        quality = np.empty(len(batch.given_label), dtype=np.float32)
        for rows in cl.blocks(batch.probabilities):
            given = batch.given_label[rows]
            found = posterior(batch.probabilities[rows], given, state.noise)
            quality[rows] = found[np.arange(len(given)), given]
        return quality, quality < self.config.threshold

    def answer_probabilities(
        self, batch: DetectorBatch, state: PosteriorState
    ) -> npt.NDArray[np.floating[Any]]:
        """The posterior [B, K], from probabilities of the classes."""
        classes = class_probabilities(batch.probabilities, state.noise)
        return posterior(classes, batch.given_label, state.noise)

    def metrics(self, state: PosteriorState) -> dict[str, float]:
        """`estimated_noise_rate`, the share of the calibrated joint off its diagonal."""
        return {"estimated_noise_rate": off_diagonal(state.joint)}


def _soft_counts(shard: DetectorShard, noise: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """One shard's sums [K, K] of posteriors, by given label."""
    batch = shard.read()
    sums = np.zeros(noise.shape, dtype=np.int64)
    for rows in cl.blocks(batch.probabilities):
        given = batch.given_label[rows]
        found = posterior(batch.probabilities[rows], given, noise)
        np.add.at(sums, given, np.rint(found * _UNIT).astype(np.int64))
    return sums
