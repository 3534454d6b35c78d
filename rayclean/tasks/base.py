"""The task seam: everything that depends on what a label is.

Classification is the first task; multi-label, tagging, generation, click-through rate and detection differ in what
counts as a disagreement, in what the two candidates are and how they are shown, and in the metrics, and in nothing
else: detection of suspects under a budget, the ledger and the report are the same for all.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.plugins import Options
from rayclean.schema import Label, LabelSet


class Task:
    """Base of all tasks."""

    class Config(Options):
        """Options beside `name`."""

    def __init__(self, config: Any, labels: LabelSet):
        self.config = config
        self.labels = labels

    def disagreement(self, given: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """How far given and predicted labels [B] differ, in [0, 1]; 0 = they agree."""
        raise NotImplementedError

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """The possible answers for one suspect: the two that disagree (`binary`), or `all`."""
        raise NotImplementedError

    def metrics(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
        """Quality of labels [N] against the truth [N]."""
        raise NotImplementedError

    def render(self, label: Any) -> str:
        """A label as a person reads it."""
        raise NotImplementedError
