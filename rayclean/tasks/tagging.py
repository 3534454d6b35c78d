"""Sequence tagging: a label is a tag for every token of a text, in the BIO scheme of C entity classes.

Tag 0 is `O`; 1 + 2 c is `B-`, the first token of an entity of class c, and 2 + 2 c is `I-`, a further one
(Ramshaw, Marcus, "Text chunking using transformation-based learning", 1995, with the `B-` of IOB2).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.tasks import probabilities as tables
from rayclean.tasks.base import IGNORED, Task

if TYPE_CHECKING:
    from torch import Tensor


class Tagging(Task):
    """One of 1 + 2 C tags per token. A token that the network does not read, since the text is longer than it
    reads, is in no mean, and its answer is `O`.
    """

    label_form = "tags"
    per_token = True

    @property
    def outputs(self) -> int:
        """Number of tags, 1 + 2 C."""
        return 1 + 2 * len(self.labels)

    def targets(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Tags [B, T], T tokens of the longest text, at least one; -1 behind the end of shorter ones."""
        lengths, values = tables.list_parts(column)
        tags = np.full((len(lengths), int(lengths.max(initial=1))), IGNORED, dtype=np.int64)
        tags[np.arange(tags.shape[1]) < lengths[:, None]] = values
        return tags

    def loss(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Mean over the tokens of cross-entropy; 0 for a text without a token that counts."""
        from torch.nn import functional as F

        each = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
        return each.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)

    def correct(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Share of the tokens whose likeliest tag is right; 1 for a text without a token that counts."""
        counts = targets != IGNORED
        wrong = ((logits.argmax(-1) != targets) & counts).sum(1)
        return 1 - wrong.float() / counts.sum(1).clamp(min=1)

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Softmax over the tags."""
        return tables.softmax(logits)

    def prediction_table(
        self,
        ids: npt.NDArray[np.int64],
        given: pa.ChunkedArray | pa.Array,
        probabilities: npt.NDArray[np.float32],
        fold: npt.NDArray[np.int16],
        offsets: npt.NDArray[np.int64] | None = None,
    ) -> pa.Table:
        """`probabilities` is a list of one list per token, the probability of each tag."""
        assert offsets is not None
        starts = np.arange(len(probabilities) + 1) * self.outputs
        tokens = pa.ListArray.from_arrays(starts.astype(np.int32), pa.array(probabilities.reshape(-1)))
        column = pa.ListArray.from_arrays(offsets.astype(np.int32), tokens)
        return tables.list_predictions(ids, given, fold, column)
