"""Multi-label classification: a label is the set of those of L classes that apply to an example.

The network is binary relevance (Zhang, Zhou, "A review on multi-label learning algorithms", TKDE 2014, section
3.1): one logistic output per class.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.tasks import probabilities as tables
from rayclean.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class MultiLabel(Task):
    """Any number of L classes per example, none and all included."""

    label_form = "classes"

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

    def prediction_table(
        self,
        ids: npt.NDArray[np.int64],
        given: pa.ChunkedArray | pa.Array,
        probabilities: npt.NDArray[np.float32],
        fold: npt.NDArray[np.int16],
        offsets: npt.NDArray[np.int64] | None = None,
    ) -> pa.Table:
        """`probabilities` is a list of L numbers, the probability of each class."""
        starts = np.arange(len(ids) + 1) * probabilities.shape[1]
        column = pa.ListArray.from_arrays(starts.astype(np.int32), pa.array(probabilities.reshape(-1)))
        return tables.list_predictions(ids, given, fold, column)
