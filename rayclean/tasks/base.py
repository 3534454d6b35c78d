"""The interface of a task: whatever depends on what a label is.

A task says which answers an annotator chooses from and which metrics measure labels. Classification is the
only task so far: the tables in `schema.py` hold one class index per example.
"""

from typing import Any, ClassVar

import numpy.typing as npt

from rayclean.plugins import Options
from rayclean.schema import FormName, Label, LabelSet


class Task:
    """Base class of all tasks."""

    class Config(Options):
        """Options beside `name`."""

    label_form: ClassVar[FormName]
    """How `load` reads and stores a label."""
    per_token: ClassVar[bool] = False
    """Whether the head answers for each token instead of each example."""

    def __init__(self, config: Any, labels: LabelSet):
        self.config = config
        self.labels = labels

    @property
    def outputs(self) -> int:
        """Numbers that the head gives for an example, or for each token of it."""
        return len(self.labels)

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """The possible answers about a suspect: the given and the predicted label (`binary`), or `all`."""
        raise NotImplementedError

    def metrics(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
        """Quality of labels [N] against the truth [N]."""
        raise NotImplementedError
