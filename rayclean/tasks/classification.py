"""Single-label classification: a label is one of K classes, and a disagreement is another class."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, f1_score

from rayclean.schema import Label
from rayclean.tasks.base import Task


class Classification(Task):
    """One of K classes per example."""

    def disagreement(self, given: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """1 where the classes differ, 0 where they agree."""
        return np.asarray(np.not_equal(given, predicted), np.float32)

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """{given, predicted}, or all K classes; in index order, since order carries no meaning."""
        if kind == "all":
            return tuple(self.labels)
        return tuple(self.labels[index] for index in sorted({int(given), int(predicted)}))

    def metrics(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
        """Accuracy, macro-F1 and support-weighted F1."""
        return {
            "accuracy": float(accuracy_score(truth, labels)),
            "f1_macro": float(f1_score(truth, labels, average="macro", zero_division=0)),
            "f1_weighted": float(f1_score(truth, labels, average="weighted", zero_division=0)),
        }

    def render(self, label: Any) -> str:
        """The class name."""
        return self.labels[int(label)].name
