"""Single-label classification: a label is one of K classes."""

from typing import Any

import numpy.typing as npt
from sklearn.metrics import accuracy_score, f1_score

from rayclean.schema import Label
from rayclean.tasks.base import Task


class Classification(Task):
    """One of K classes per example."""

    label_form = "class"

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """The given and the predicted class, or all K classes, in the order of `LabelSet.in_order`."""
        indices = range(len(self.labels)) if kind == "all" else {int(given), int(predicted)}
        return tuple(self.labels[index] for index in self.labels.in_order(indices))

    def metrics(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
        """Accuracy, macro-F1 and support-weighted F1."""
        return {
            "accuracy": float(accuracy_score(truth, labels)),
            "f1_macro": float(f1_score(truth, labels, average="macro", zero_division=0)),
            "f1_weighted": float(f1_score(truth, labels, average="weighted", zero_division=0)),
        }
