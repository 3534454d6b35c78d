"""What a method is handed in a training step: the networks' outputs, and its worker's rows of the batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Output:
    """Output of one network for this worker's rows of a batch and their V views: R = (1 + V) B rows,
    originals first; R = V B where the method does not keep the originals.
    """

    features: Tensor
    """[R, D] input of the linear head (`Encoder.refine`)."""
    logits: Tensor
    """[R, K], float32; [R, T, K] where the network answers for every token."""


def _no_network(name: str, rows: Any) -> Any:
    raise NotImplementedError("this batch was made without networks")


def _no_columns(name: str) -> Any:
    raise NotImplementedError("this batch was made without columns")


def _of_classes(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class StepBatch:
    """This worker's rows of one global batch."""

    global_id: npt.NDArray[np.int64]
    """[W x B] ids of the rows of all workers on the host, by rank as in `gather`; -1 = padding row."""
    given_label: Tensor
    """What the networks learn: [B] int64, the class; [B, L] float32 of 0 and 1, which classes apply; or [B, T]
    int64, the tag of each token, -1 where there is none or it was not read."""
    valid: Tensor
    """[B] bool; False for padding rows."""
    world_size: int
    """Number of workers W."""
    global_count: int
    """Valid rows of the whole global batch."""
    total: Callable[[Tensor], Tensor]
    """Sum of a count [] int64 over all workers. It is a collective: every worker must call it, in the same order."""
    rank: int = 0
    """This worker's place among all."""
    gather: Callable[[Tensor], Tensor] = lambda rows: rows
    """Rows [W x R, ...] of all workers, by rank, padding included; gradients flow back to the worker that a
    row comes from. A collective, like `total`."""
    classify: Callable[[str, Tensor], Tensor] = _no_network
    """Logits [M, K] that the network of a name gives features [M, D], mixed ones for example."""
    again: Callable[[str, npt.NDArray[np.int64]], Output] = _no_network
    """Runs the network of a name once more, with another dropout mask, on some of the originals (of their
    first views, where those are not kept): `rows` [M] of the B, known to the host, which would have to wait for the
    device to tell it."""
    on_host: Callable[[str], npt.NDArray[Any]] = _no_columns
    """[B] this worker's entries of the state column of a name, as in `rows`, on the host."""
    loss_of: Callable[[Tensor, Tensor], Tensor] = _of_classes
    """Loss [B] of logits [B, ...] on labels like `given_label`, by the form of the labels."""
    stage: str = "train"
    """Name of the stage that is trained."""
    turn: tuple[str, ...] = ()
    """Networks whose turn it is. The others' outputs are those of evaluation mode, without gradient."""
    progress: float = 0.0
    """Epochs done, of all stages, with the fraction of the running one."""

    @property
    def example_id(self) -> npt.NDArray[np.int64]:
        """[B] ids of this worker's rows, on the host; -1 = padding row."""
        count = len(self.valid)
        return self.global_id[self.rank * count : (self.rank + 1) * count]

    def put(self, array: npt.NDArray[Any]) -> Tensor:
        """A small array of the host on the device, for which the host does not wait."""
        return torch.from_numpy(array).to(self.valid.device, non_blocking=True)

    def label_loss(self, logits: Tensor) -> Tensor:
        """Loss [B] of a network's logits on the given labels, whatever their form: cross-entropy of the class,
        of every class that may apply, or of every tag.
        """
        return self.loss_of(logits, self.given_label)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` over the valid rows of the global batch, scaled so that the mean of all workers'
        gradients is the gradient of the global mean: W x local sum / global count.

        Args:
            values: [B, ...], or [R, ...] with those of the views; a view is a row of its own.

        Returns:
            [...], a number where there is one value per row.
        """
        copies = len(values) // len(self.valid)
        return _masked_sum(values, self._valid_like(values)) * (
            self.world_size / max(self.global_count * copies, 1)
        )

    def mean_of_all(self, values: Tensor) -> Tensor:
        """The same mean, itself and equal on every worker, for a loss that is a function of means; a
        collective. Gradients flow back to all workers' rows.
        """
        return self.gather(self.mean(values)[None]).mean(0)

    def count(self, mask: Tensor) -> Tensor:
        """Members [] int64 of a subset, `mask` [B] or [R] bool, in the whole global batch; a
        collective, like `total`.
        """
        return self.total((mask & self._valid_like(mask)).sum())

    def mean_over(self, values: Tensor, mask: Tensor) -> Tensor:
        """Mean of `values` [B] or [R] over a subset, `mask` bool, of the global batch, scaled like `mean`; a
        collective. A subset that is empty on this worker, or everywhere, gives exactly 0 with a gradient of
        0.
        """
        return self.sum_over(values, mask) / self.count(mask).clamp(min=1)

    def sum_over(self, values: Tensor, mask: Tensor) -> Tensor:
        """W x the sum of `values` [B] or [R] over a subset here: divide by a global count."""
        return _masked_sum(values, mask & self._valid_like(mask)) * self.world_size

    def _valid_like(self, values: Tensor) -> Tensor:
        return self.valid.repeat(len(values) // len(self.valid))


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the rows of `mask`; trailing axes stay."""
    return values.masked_fill(~mask.reshape(-1, *[1] * (values.ndim - 1)), 0.0).sum(0)
