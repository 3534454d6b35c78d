"""Single-label classification: a label is one of K classes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.schema import matrix
from rayclean.tasks import probabilities as tables
from rayclean.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class Classification(Task):
    """One of K classes per example, which is the unit."""

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

    def predicted_labels(self, probabilities: pa.ChunkedArray) -> pa.Array:
        """The most probable class; ties go to the lowest."""
        return pa.array(matrix(probabilities).argmax(axis=1), pa.int32())

    def unit_rows(self, examples: pa.Table, label: str = "given_label") -> pa.Table:
        """The examples themselves."""
        renamed = examples.rename_columns(
            ["given_label" if name == label else name for name in examples.column_names]
        )
        renamed = renamed.add_column(0, "unit_id", examples["example_id"])
        return renamed.append_column("given_value", pa.nulls(len(examples), pa.string()))

    def unit_probabilities(self, predictions: pa.Table) -> npt.NDArray[np.float32]:
        """[N, K], as they are."""
        return matrix(predictions["probabilities"])

    def candidates(self, given: int, suggested: int, kind: str) -> list[int]:
        """The given and the suggested class, or all K classes, in the order of `LabelSet.in_order`."""
        return self.labels.in_order(range(len(self.labels)) if kind == "all" else {given, suggested})

    def further(self, candidates: Iterable[int]) -> list[int]:
        """All other classes."""
        return sorted(set(range(len(self.labels))) - set(candidates))

    def assemble(self, units: pa.Table, examples: pa.Table) -> pa.Table:
        """The units themselves."""
        return units.select(["example_id", "final_label"])

    def written(self, label: Any, text: str) -> str:
        """The name of the class."""
        return self.labels[label].name

    def metrics(self, labels: pa.Array, truth: pa.Array) -> dict[str, float]:
        """Accuracy, macro-F1 and support-weighted F1."""
        from sklearn.metrics import accuracy_score, f1_score  # takes a second, and few commands measure

        found, true = labels.to_numpy(zero_copy_only=False), truth.to_numpy(zero_copy_only=False)
        return {
            "accuracy": float(accuracy_score(true, found)),
            "f1_macro": float(f1_score(true, found, average="macro", zero_division=0)),
            "f1_weighted": float(f1_score(true, found, average="weighted", zero_division=0)),
        }
