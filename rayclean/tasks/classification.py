"""Single-label classification: a label is one of K classes."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.metrics import accuracy_score, f1_score

from rayclean.schema import Label
from rayclean.tasks import probabilities as tables
from rayclean.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class Classification(Task):
    """One of K classes per example."""

    label_form = "class"

    def targets(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Index [B] of the class; -1 where it is not known."""
        return np.array(column.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def loss(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Cross-entropy -log p_y."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, targets, reduction="none")

    def correct(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Whether the likeliest class is the label."""
        return (logits.argmax(-1) == targets).float()

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Softmax over the classes."""
        return tables.softmax(logits)

    def prediction_table(
        self,
        ids: npt.NDArray[np.int64],
        given: pa.ChunkedArray | pa.Array,
        probabilities: npt.NDArray[np.float32],
        fold: npt.NDArray[np.int16],
        offsets: npt.NDArray[np.int64] | None = None,
    ) -> pa.Table:
        """A shard of `schema.predictions`."""
        return tables.prediction_table(ids, given, probabilities, fold)

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
