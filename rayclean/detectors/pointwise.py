"""Detectors that score each example by itself."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rayclean.detectors.base import Detector, DetectorBatch
from rayclean.functional import scores
from rayclean.plugins import Options


class SelfConfidence(Detector):
    """Quality = probability of the given label."""

    class Config(Options):
        """Options beside `name`."""

        threshold: float = Field(0.5, ge=0, le=1)
        """Votes against labels below it; 0.5: the model finds the label more likely wrong than right."""

    def score(
        self, batch: DetectorBatch, state: Any
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]."""
        quality = scores.self_confidence(batch.given_label, batch.probabilities)
        return quality, quality < self.config.threshold


class NormalizedMargin(Detector):
    """Quality = lead of the given label over the best other label, in [0, 1]."""

    class Config(Options):
        """Options beside `name`."""

        threshold: float = Field(0.5, ge=0, le=1)
        """Votes against labels below it; 0.5: another label is more probable."""

    def score(
        self, batch: DetectorBatch, state: Any
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]."""
        quality = scores.normalized_margin(batch.given_label, batch.probabilities)
        return quality, quality < self.config.threshold


class Disagreement(Detector):
    """Quality = 1 where the model predicts the given label, 0 where it predicts another one."""

    def score(
        self, batch: DetectorBatch, state: Any
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]."""
        quality = scores.disagreement(batch.given_label, batch.predicted_label)
        return quality, quality == 0
