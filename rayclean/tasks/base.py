"""The interface of a task: whatever depends on what a label is.

A task says how labels are stored, what a network answers and how it learns from labels, which answers an
annotator chooses from, and which metrics measure labels. PyTorch is imported by the methods that compute with
tensors alone: whoever only asks how labels are stored does not wait for it.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.plugins import Options
from rayclean.schema import Label, LabelSet

if TYPE_CHECKING:
    from torch import Tensor

LabelForm = Literal["class", "classes", "tags"]
"""How a label is stored: the index of its class (int32), the sorted indices of the classes that apply
(list<int32>), or the index of a tag for each token (list<int32>)."""

IGNORED = -1
"""Target in the place of a tag that is not there (padding) or not read: it is in no mean."""


class Task:
    """Base class of all tasks."""

    class Config(Options):
        """Options beside `name`."""

    label_form: ClassVar[LabelForm]
    """How labels are stored."""
    per_token: ClassVar[bool] = False
    """Whether a network answers for every token of a text, or once for the text."""

    def __init__(self, config: Any, labels: LabelSet):
        self.config = config
        self.labels = labels

    @property
    def outputs(self) -> int:
        """Numbers that a network's head has, for a text or for each of its tokens."""
        return len(self.labels)

    def targets(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
        """What the head learns from B known labels, [B, ...]; a new array."""
        raise NotImplementedError

    def loss(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Loss [B] of each example.

        Args:
            logits: [B, outputs], or [B, T, outputs] of T tokens.
            targets: of `targets`, on the same device.
        """
        raise NotImplementedError

    def correct(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """How right the likeliest answer to each example is: [B] float, from 0 to 1."""
        raise NotImplementedError

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Probabilities of the head's answers, of the shape of the logits [M, outputs]; computed in float64."""
        raise NotImplementedError

    def prediction_table(
        self,
        ids: npt.NDArray[np.int64],
        given: pa.ChunkedArray | pa.Array,
        probabilities: npt.NDArray[np.float32],
        fold: npt.NDArray[np.int16],
        offsets: npt.NDArray[np.int64] | None = None,
    ) -> pa.Table:
        """A shard of `predictions/`.

        Args:
            ids: [N] ids of the examples.
            given: [N] labels in the form of the task; null where there is none.
            probabilities: [N, outputs]; of all tokens one after another, [M, outputs], where the task answers
                for every token.
            fold: [N] the fold whose network predicted, or `FOLD_NONE`.
            offsets: [N + 1] where the tokens of every example begin, and the end of the last; None where
                the task answers once for a text.
        """
        raise NotImplementedError

    def candidates(self, given: Any, predicted: Any, kind: str) -> tuple[Label, ...]:
        """The possible answers about a suspect: the given and the predicted label (`binary`), or `all`."""
        raise NotImplementedError

    def metrics(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
        """Quality of labels [N] against the truth [N]."""
        raise NotImplementedError
