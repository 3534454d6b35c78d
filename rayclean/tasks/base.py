"""The interface of a task: whatever depends on what a label is.

A task says which answers an annotator chooses from and which metrics measure labels. Classification is the
only task so far: the tables in `schema.py` hold one class index per example.
"""

from typing import Any

import numpy.typing as npt

from rayclean.plugins import Options
from rayclean.schema import Label, LabelSet


class Task:
    """Base class of all tasks."""

    class Config(Options):
        """Options beside `name`."""

    def __init__(self, config: Any, labels: LabelSet):
        self.config = config
        self.labels = labels

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """The possible answers about a suspect: the given and the predicted label (`binary`), or `all`."""
        raise NotImplementedError

    def metrics(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
        """Quality of labels [N] against the truth [N]."""
        raise NotImplementedError
