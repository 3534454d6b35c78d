"""The method seam: one file per paper. With nothing overridden a method is plain cross-entropy.

A method declares its networks, its per-example state columns and its hooks, and nothing else; the loop
(`rayclean.training.loop`) calls them in this order, on every worker alike:

    encoders(encoder)                once: which encoder each network is
    state()                          once: the columns this method keeps per example
    every epoch:
      partition(state, epoch)        on whole columns, before the first step; what the first worker finds counts
      queries(state, epoch)          whom to ask the annotator about; revise(state, rows, labels, epoch) takes its answers
      every step:
        forward of every network on this worker's rows and their views
        observe(state, rows, seen, epoch)  on the *global* batch (gathered scalars), under no_grad, before the loss
        loss(outputs, batch, rows, epoch)  on this worker's rows: named scalar terms, summed and logged by the loop
      if reviews: every network reads all training examples once more, in evaluation mode
        review(state, rows, seen, epoch)   takes the scalars that `judged` computed for them
      summary(state)                 figures for the epoch's line of `metrics.jsonl`
    quality(state)                   after training: lower = more likely wrong
    measures()                       once: what the report and the terminal show of all this

Exactness for any number of workers: `functional/` returns one value per example; `loss` reduces them with
`batch.mean` / `batch.mean_over`, which divide by *global* counts, so that W workers give the gradient of one.
All bookkeeping is detached. A method never sees true labels, the true noise rate or test accuracy.

A method object itself holds nothing that must outlive an epoch: that is a column or a parameter of a network,
and `partition` makes anew what a method derives from columns for speed. What is random per example derives
from (seed, epoch, example_id) by `rayclean.functional.hashing`. So a checkpoint is whole with the networks,
the optimiser and the columns, and reloads under another number of workers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from rayclean.measures import HIGHEST_LOSS, Histogram, Measures
from rayclean.plugins import Options, Plugin


@dataclass(frozen=True)
class Output:
    """Output of one network for this worker's rows of a batch and their V views: R = (1 + V) B rows,
    originals first.
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
    """Runs the network of a name once more, with another dropout mask, on some of the originals: `mask` [B]
    bool."""

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` over the valid rows of the global batch, scaled so that the mean of all workers'
        gradients is the gradient of the global mean: W x local sum / global count.

        Args:
            values: [B], or [R] with those of the views; a view is a row of its own.
        """
        copies = len(values) // len(self.valid)
        return _masked_sum(values, self.valid.repeat(copies)) * (
            self.world_size / max(self.global_count * copies, 1)
        )

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
    return values.masked_fill(~mask, 0.0).sum()


State = dict[str, npt.NDArray[Any]]
"""Columns [N] by name, aligned with the sorted `example_id` of the training set; scalars only, no [N, K].
Beside the method's own columns there are, read-only, `example_id` and `given_label`."""


@dataclass(frozen=True)
class Questions:
    """Questions of a method to the annotator before an epoch."""

    rows: npt.NDArray[np.int64]
    """[Q] positions in the columns, the most important first: a budget may end before the last."""
    predicted: npt.NDArray[np.int64]
    """[Q] label that the networks suggest."""
    pool: npt.NDArray[np.bool_]
    """[N] which examples may be shown as demonstrations, with their given label."""
    demonstrations: int
    """Demonstrations per question; 0: none."""
    selector: Literal["nearest", "random"] = "nearest"
    """`nearest`: by cosine of the first network's features."""
    corrupted: float = 0.0
    """Share of the pool that is shown with a wrong label."""
    candidates: Literal["binary", "all"] = "all"
    """Possible answers: {given, predicted}, or every label."""
    accept: float = 0.0
    """Least calibrated probability of an answer that counts."""


@dataclass(frozen=True)
class ExpectedQueries:
    """What a method asks the annotator in one training, as far as its options tell."""

    most: int | None
    """The most questions; None: that depends on how training goes."""
    demonstrations: int
    """Demonstrations per question."""
    candidates: Literal["binary", "all"]
    """Which labels a question offers."""


class Method:
    """Base of all methods; as it stands it is cross-entropy on the given labels."""

    class Config(Options):
        """Options beside `name`; defaults are the paper's values with the section cited."""

    networks: tuple[str, ...] = ("main",)
    """Names of the networks trained together in one worker; the first one predicts."""
    views: tuple[str, ...] = ()
    """Ways to rewrite the texts of every batch (`training/views.py`), each one a view; () = the texts
    alone."""
    reviews: bool = False
    """Whether all training examples are read once more at the end of every epoch, in evaluation mode."""
    first_choice: int = 1
    """First epoch that may be kept as the best one, and from which patience counts: after a warm-up, whose
    networks the method has not touched yet. A training that ends before it chooses among all its epochs."""
    default_epochs: int | None = None
    """Epochs where the config names none; None: the first encoder's own default."""

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        self.config = config
        self.num_classes = num_classes
        self.seed = seed

    @classmethod
    def expected_queries(cls, config: Any) -> ExpectedQueries | None:
        """An upper bound on what a training with these options asks the annotator; None: it asks nothing."""
        return None

    def encoders(self, encoder: Plugin) -> dict[str, Plugin]:
        """The encoder of every network, given the run's own; in the order of `networks`."""
        return dict.fromkeys(self.networks, encoder)

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

    def queries(self, state: State, epoch: int) -> Questions | None:
        """Questions to the annotator, after `partition`; None: none."""
        return None

    def revise(
        self, state: State, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], epoch: int
    ) -> None:
        """Take the annotator's answers.

        Args:
            state: whole columns.
            rows: [Q] the positions that were asked about.
            labels: [Q] the answers; UNANSWERED where nobody answered (budget, failure), ABSTAINED where the
                annotator did not choose or was not sure enough: asking again would cost again and say the
                same.
            epoch: 1-based.
        """

    def judged(self, outputs: dict[str, Output], labels: Tensor) -> dict[str, Tensor]:
        """Per-row scalars [B] that `review` needs of rows with given `labels` [B]; networks are in evaluation
        mode.
        """
        return {}

    def review(
        self, state: State, rows: npt.NDArray[np.int64], seen: dict[str, npt.NDArray[Any]], epoch: int
    ) -> None:
        """Update columns in place from what `judged` said of some rows; called until all have
        been reviewed.
        """

    def summary(self, state: State) -> dict[str, float]:
        """Figures of an epoch's line: answers, thresholds; no truth. The loop adds the sizes of subsets."""
        return {}

    def measures(self) -> Measures:
        """What the report and the terminal show of the columns and of the summary; here the loss of every
        example, where it is kept.
        """
        loss = Histogram(
            title="Loss",
            means="Cross-entropy of each label when it was trained on. Wrong labels stay on the right until the network "
            "has learnt them by heart.",
            axis="loss",
            columns=("loss",),
            top=HIGHEST_LOSS,
            bounded=False,
        )  # fmt: skip
        return Measures(histograms={"loss": loss} if "loss" in self.state() else {})

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
