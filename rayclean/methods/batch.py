"""What a method is handed in a training step: the networks' outputs, and its worker's rows of the batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Output:
    """Output of one network for this worker's rows of a batch and their V views: R = (1 + V) B rows,
    originals first; R = V B where the method does not keep the originals.
    """

    features: Tensor
    """[R, D] input of the linear head (`Encoder.refine`)."""
    logits: Tensor
    """[R, K], float32"""


def _no_network(name: str, rows: Tensor) -> Any:
    raise NotImplementedError("this batch was made without networks")


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
    rank: int = 0
    """This worker's place among all."""
    gather: Callable[[Tensor], Tensor] = lambda rows: rows
    """Rows [W x R, ...] of all workers, by rank, padding included; gradients flow back to the worker that a
    row comes from. A collective, like `total`."""
    classify: Callable[[str, Tensor], Tensor] = _no_network
    """Logits [M, K] that the network of a name gives features [M, D], mixed ones for example."""
    again: Callable[[str, Tensor], Output] = _no_network
    """Runs the network of a name once more, with another dropout mask, on some of the originals (of their
    first views, where those are not kept): `mask` [B] bool."""
    stage: str = "train"
    """Name of the stage that is trained."""
    turn: tuple[str, ...] = ()
    """Networks whose turn it is. The others' outputs are those of evaluation mode, without gradient."""
    progress: float = 0.0
    """Epochs done, of all stages, with the fraction of the running one."""

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

    def count(self, mask: Tensor) -> int:
        """Members of a subset, `mask` [B] or [R] bool, in the whole global batch; a
        collective, like `total`.
        """
        return self.total(int((mask & self._valid_like(mask)).sum()))

    def mean_over(self, values: Tensor, mask: Tensor) -> Tensor:
        """Mean of `values` [B] or [R] over a subset, `mask` bool, of the global batch, scaled like `mean`; a
        collective. A subset that is empty on this worker, or everywhere, gives exactly 0 with a gradient of
        0.
        """
        return self.sum_over(values, mask) / max(self.count(mask), 1)

    def sum_over(self, values: Tensor, mask: Tensor) -> Tensor:
        """W x the sum of `values` [B] or [R] over a subset here: divide by a global count."""
        return _masked_sum(values, mask & self._valid_like(mask)) * self.world_size

    def _valid_like(self, values: Tensor) -> Tensor:
        return self.valid.repeat(len(values) // len(self.valid))


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the rows of `mask`; trailing axes stay."""
    return values.masked_fill(~mask.reshape(-1, *[1] * (values.ndim - 1)), 0.0).sum(0)
