"""Multi-label classification: a label is the set of classes that apply; whether one does is doubted by itself.

The network is binary relevance (Zhang, Zhou, "A review on multi-label learning algorithms", TKDE 2014, section
3.1): one logistic output per class.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.schema import Label, LabelSet
from rayclean.tasks import probabilities as tables
from rayclean.tasks.base import Task, unit_table

if TYPE_CHECKING:
    from torch import Tensor


class MultiLabel(Task):
    """A set of classes per example. A unit is (example, class c); its answers are 2 c (the class does not apply)
    and 2 c + 1 (it does).
    """

    label_form = "classes"
    units_are_examples = False
    # A class that the model hardly learns is doubted wherever it is given: of what it was surest of on comments with 28 emotions,
    # one label in eleven that it would have changed was wrong.
    decides_alone = False
    units_are_called = "classes of examples"

    @property
    def units_per_example(self) -> int:
        """K: one per class."""
        return len(self.labels)

    def predicted_labels(self, probabilities: pa.ChunkedArray) -> pa.Array:
        """The classes of a probability above .5."""
        rows = probabilities.to_pylist()
        return pa.array([[c for c, p in enumerate(row) if p > 0.5] for row in rows], self.label_type)

    def targets(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
        """[B, L]: 1 where a class applies, 0 elsewhere."""
        lengths, values = tables.list_parts(column)
        bits = np.zeros((len(lengths), len(self.labels)), dtype=np.float32)
        bits[np.repeat(np.arange(len(lengths)), lengths), values] = 1
        return bits

    def loss(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Mean over the L classes of binary cross-entropy."""
        from torch.nn import functional as F

        bits = targets.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, bits, reduction="none").mean(-1)

    def correct(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Share of the L classes about which the network is right; a class applies from probability 1/2 on."""
        return ((logits >= 0) == (targets > 0.5)).float().mean(-1)

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Logistic function of every class."""
        with np.errstate(over="ignore"):  # exp(-z) = inf gives 0
            return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), np.float32)

    def probability_column(
        self, probabilities: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64] | None
    ) -> pa.Array:
        """A list of L numbers, the probability of each class."""
        starts = np.arange(len(probabilities) + 1) * probabilities.shape[1]
        return pa.ListArray.from_arrays(starts.astype(np.int32), pa.array(probabilities.reshape(-1)))

    @property
    def answers(self) -> LabelSet:
        """`not joy`, `joy`, `not anger`, `anger`, ...: 2 K of them."""
        found = []
        for label in self.labels:
            definition = label.definition and f"Not: {label.definition}"
            found.append(Label(2 * label.index, f"not {label.name}", f"not {label.word}", definition))
            found.append(Label(2 * label.index + 1, label.name, label.word, label.definition))
        return LabelSet(found)

    def unit_rows(self, examples: pa.Table, label: str = "given_label") -> pa.Table:
        """K rows per example, by example and class."""
        classes = self.units_per_example
        bits, known = label_bits(examples[label], classes)
        codes = 2 * np.arange(classes) + bits
        given = pa.array(codes.reshape(-1), pa.int32(), mask=np.repeat(~known, classes))
        return unit_table(examples, label, classes, given, pa.nulls(len(given), pa.string()))

    def unit_probabilities(self, predictions: pa.Table) -> npt.NDArray[np.float32]:
        """[N K, 2 K], from the probabilities [N, K] that the classes apply."""
        applies = np.stack(predictions["probabilities"].to_numpy(zero_copy_only=False)).astype(np.float32)
        classes = np.arange(len(self.labels))
        found = np.zeros((*applies.shape, 2 * len(classes)), dtype=np.float32)
        found[:, classes, 2 * classes + 1] = applies
        found[:, classes, 2 * classes] = 1 - applies
        return found.reshape(-1, 2 * len(classes))

    def candidates(self, given: int, suggested: int, kind: str) -> list[int]:
        """The class applies, or it does not: the unit has no other answers."""
        return [given - given % 2 + 1, given - given % 2]

    def further(self, candidates: Iterable[int]) -> list[int]:
        """None: both answers are candidates."""
        return []

    def assemble(self, units: pa.Table, examples: pa.Table) -> pa.Table:
        """The classes that apply to each example, sorted; an example comes where its first unit stands."""
        ids, codes = units["example_id"].to_numpy(), units["final_label"].to_numpy()
        unique, first, which = np.unique(ids, return_index=True, return_inverse=True)
        applies = np.flatnonzero(codes % 2 == 1)
        order = applies[np.lexsort((codes[applies], which[applies]))]
        counts = np.bincount(which[order], minlength=len(unique))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array((codes[order] // 2).astype(np.int32)))
        table = pa.table({"example_id": pa.array(unique), "final_label": lists})
        return table.take(pa.array(np.argsort(first, kind="stable")))

    def written(self, label: Any, text: str) -> str:
        """The names of the classes that apply."""
        return ", ".join(self.labels[index].name for index in label) or "none of the classes"

    def metrics(self, labels: pa.Array, truth: pa.Array) -> dict[str, float]:
        """Share of examples whose whole set is right (`accuracy`), macro- and support-weighted F1 over the
        classes, and micro-F1.
        """
        from sklearn.metrics import f1_score  # takes a second, and few commands measure

        found, true = (label_bits(column, len(self.labels))[0] for column in (labels, truth))
        return {
            "accuracy": float((found == true).all(axis=1).mean()) if len(true) else 0.0,
            **{
                f"f1_{average}": float(f1_score(true, found, average=average, zero_division=0))
                for average in ("macro", "weighted", "micro")
            },
        }


def label_bits(
    column: pa.Array | pa.ChunkedArray, classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Whether each class applies [B, K], and whether the label is known [B].

    >>> label_bits(pa.array([[0, 2], [], None]), 3)[0].tolist()
    [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    bits = np.zeros((len(array), classes), dtype=np.int64)
    rows = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
    bits[rows, pc.list_flatten(array).to_numpy(zero_copy_only=False)] = 1
    return bits, np.asarray(array.is_valid())
