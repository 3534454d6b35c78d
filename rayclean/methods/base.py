"""The method seam: one file per paper. With nothing overridden a method is plain cross-entropy.

A method declares its networks, its per-example state columns and its hooks, and nothing else; the loop
(`rayclean.training.loop`) calls them in this order, on every worker alike:

    state()                          once: the columns this method keeps per example
    every epoch:
      partition(state, epoch)        on whole columns, before the first step
      every step:
        forward of every network on this worker's rows
        observe(state, ids, seen, epoch)   on the *global* batch (gathered scalars), under no_grad, before the loss
        loss(outputs, batch, rows, epoch)  on this worker's rows: named scalar terms, summed and logged by the loop
    quality(state)                   after training: lower = more likely wrong

Exactness for any number of workers: `functional/` returns one value per example; `loss` reduces them with
`batch.mean` / `batch.mean_over`, which divide by *global* counts, so that W workers give the gradient of one. All
bookkeeping is detached. A method never sees true labels, the true noise rate or test accuracy.

A method object itself holds nothing that changes: what must outlive a crash is a column or a parameter of a network,
and what is random per example derives from (seed, epoch, example_id) by `rayclean.functional.hashing`. So a checkpoint
is whole with the networks, the optimiser and the columns, and reloads under another number of workers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from rayclean.plugins import Options


@dataclass(frozen=True)
class Output:
    """What one network says of this worker's rows of a batch."""

    features: Tensor
    """[B, D]"""
    logits: Tensor
    """[B, K], float32"""


@dataclass(frozen=True)
class StepBatch:
    """This worker's rows of one global batch."""

    example_id: Tensor
    """[B] int64; -1 = padding row."""
    given_label: Tensor
    """[B] int64"""
    valid: Tensor
    """[B] bool; False for padding rows."""
    world_size: int
    """Number of workers W."""
    global_count: int
    """Valid rows of the whole global batch."""
    total: Callable[[int], int]
    """Sum of a count over all workers. It is a collective: every worker must call it, in the same order."""

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` [B] over the valid rows of the global batch, scaled so that the mean of all workers'
        gradients is the gradient of the global mean: W x local sum / global count (METHODS 15.2.5).
        """
        return _masked_sum(values, self.valid) * (self.world_size / max(self.global_count, 1))

    def count(self, mask: Tensor) -> int:
        """Members of a subset, `mask` [B] bool, in the whole global batch; a collective, like `total`."""
        return self.total(int((mask & self.valid).sum()))

    def mean_over(self, values: Tensor, mask: Tensor) -> Tensor:
        """Mean of `values` [B] over a subset, `mask` [B] bool, of the global batch, scaled like `mean`; a collective.
        A subset that is empty here gives exactly 0 with a gradient of 0, one that is empty everywhere likewise.
        """
        return _masked_sum(values, mask & self.valid) * (self.world_size / max(self.count(mask), 1))


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0).sum()


State = dict[str, npt.NDArray[Any]]
"""Columns [N] by name, aligned with the sorted `example_id` of the training set; scalars only, no [N, K]. Beside the
method's own columns there are, read-only, `example_id` and `given_label`."""


class Method:
    """Base of all methods; as it stands it is cross-entropy on the given labels."""

    class Config(Options):
        """Options beside `name`; defaults are the paper's values with the section cited."""

    networks: ClassVar[tuple[str, ...]] = ("main",)
    """Names of the networks trained together in one worker; the first one predicts."""

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        self.config = config
        self.num_classes = num_classes
        self.seed = seed

    def state(self) -> dict[str, tuple[str, float]]:
        """Per-example columns: name -> (NumPy dtype, initial value)."""
        return {"loss": ("float32", 0.0)}

    def seen(self, outputs: dict[str, Output], batch: StepBatch) -> dict[str, Tensor]:
        """Per-row scalars [B] that `observe` needs of the whole global batch; the loop gathers them."""
        logits = outputs[self.networks[0]].logits.detach()
        return {"loss": F.cross_entropy(logits, batch.given_label, reduction="none")}

    def observe(
        self, state: State, rows: npt.NDArray[np.int64], seen: dict[str, npt.NDArray[Any]], epoch: int
    ) -> None:
        """Update columns in place from the global batch, before its loss.

        Args:
            state: whole columns.
            rows: [G] positions in the columns of the global batch's valid rows, sorted by example_id.
            seen: what `seen` returned, gathered and in the same order, [G] each.
            epoch: 1-based.
        """
        state["loss"][rows] = seen["loss"]

    def partition(self, state: State, epoch: int) -> None:
        """Once an epoch, before its first step: split the examples, on whole columns and in place."""

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: dict[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """Named scalar terms, already reduced over the global batch; the loop sums them.

        Args:
            outputs: per network name.
            batch: this worker's rows.
            rows: this worker's entries [B] of every state column (padding rows hold the initial value).
            epoch: 1-based.
        """
        logits = outputs[self.networks[0]].logits
        return {"cross_entropy": batch.mean(F.cross_entropy(logits, batch.given_label, reduction="none"))}

    def quality(self, state: State) -> npt.NDArray[np.float64]:
        """Quality [N], lower = more likely wrong; here minus the loss of the last epoch."""
        return -state["loss"].astype(np.float64)
