"""The method seam: one file per paper. With nothing overridden a method is plain cross-entropy.

A method declares its networks, its per-example state columns and its hooks, and nothing else; the loop
(`rayclean.training.loop`) calls them in this order, on every worker alike:

    encoders(encoder)                which encoder each network is
    state()                          the columns this method keeps per example
    stages()                         the trainings it needs, one after another; in each of them:
      kept(state, stage)             which examples train in it
      every epoch, every turn (which networks step in a pass over the batches; by default all in one turn):
        partition(state, epoch, turn)  on whole columns, before the first step; what the first worker finds counts
        queries(state, epoch)          in the first turn: whom to ask the annotator about; revise takes the answers
        every step:
          forward of every network on this worker's rows and their views
          observe(state, rows, seen, epoch)  on the *global* batch (scalars that `seen` made), before the loss; during the
                                             next step, if the method `observes_late`
          loss(outputs, batch, rows, epoch)  on this worker's rows: named scalar terms, summed and logged by the loop
        if reviews: the turn's networks read all training examples once more, in evaluation mode
          review(state, rows, seen, epoch)   takes the scalars that `judged` computed for them
      summary(state)                 figures for the epoch's line of `metrics.jsonl`
    quality(state)                   after training: lower = more likely wrong
    measures()                       once: what the report and the terminal show of all this

Epochs are counted from 1 through all stages; a hook learns of the stage by `kept` and `batch.stage`.

Exactness for any number of workers: `functional/` returns one value per example; `loss` reduces them with
`batch.mean` / `batch.mean_over`, which divide by *global* counts, so that W workers give the gradient of one.
All bookkeeping is detached. A method never sees true labels, the true noise rate or test accuracy.

A method object itself holds nothing that must outlive an epoch: that is a column or a parameter of a network,
and `partition` makes anew what a method derives from columns for speed. What is random per example derives
from (seed, epoch, example_id) by `rayclean.functional.hashing`. So a checkpoint is whole with the networks,
their optimisers and the columns, and reloads under another number of workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rayclean.measures import HIGHEST_LOSS, Histogram, Measures
from rayclean.methods.batch import Output, StepBatch
from rayclean.plugins import Options, Plugin

State = dict[str, npt.NDArray[Any]]
"""Columns [N] by name, aligned with the sorted `example_id` of the training set; scalars only, no [N, K].
Beside the method's own columns there are, read-only, `example_id` and, where a label is one class,
`given_label`."""


@dataclass(frozen=True)
class AnnotatorRequest:
    """A request of a method to the annotator before an epoch: whom to ask about, and how."""

    rows: npt.NDArray[np.int64]
    """[Q] positions in the columns, the most important first: a budget may end before the last."""
    predicted: npt.NDArray[np.int64]
    """[Q] label that the networks suggest, other than the given one."""
    log_odds: npt.NDArray[np.float64]
    """[Q] log P(predicted) - log P(given label), by the method's own networks."""
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
    accept: float = 0.6
    """Least probability, by networks and answer together, that the predicted label is right, .5 to 1: the answer is then
    that label (`functional.decision.decide`)."""


@dataclass(frozen=True)
class ExpectedQueries:
    """What a method asks the annotator in one training, as far as its options tell."""

    most: int | None
    """The most questions; None: that depends on how training goes."""
    demonstrations: int
    """Demonstrations per question."""
    candidates: Literal["binary", "all"]
    """Which labels a question offers."""


@dataclass(frozen=True)
class Stage:
    """One of the trainings that a method needs, in order. Columns persist from one to the next; the best epoch
    is one of the last stage, and patience counts there alone.
    """

    name: str = "train"
    epochs: int | None = None
    """Its epochs; None: as many as the config says."""
    outputs: int | None = None
    """Outputs of its networks; None: K. A stage with networks of its own alone may have others."""
    constant_rate: bool = False
    """Whether the learning rate stays at its peak, without rise or fall."""
    fresh: bool = True
    """Whether networks, optimisers and schedule begin anew; false: those of the stage before go on, and the
    schedule spans both."""


class Method:
    """Base of all methods; as it stands it is cross-entropy on the given labels."""

    class Config(Options):
        """Options beside `name`; defaults are the paper's values with the section cited."""

    label_forms: ClassVar[tuple[str, ...]] = ("class",)
    """Forms of labels that it learns from: `class`, one per example; `classes`, any number; `tags`, one per
    token. More than the first need a loss made of `batch.label_loss`, and no view."""
    networks: tuple[str, ...] = ("main",)
    """Names of the networks trained together in one worker."""
    views: tuple[str, ...] = ()
    """Ways to rewrite the texts of every batch (`training/views.py`), each one a view; () = the texts
    alone."""
    keeps_originals: bool = True
    """Whether the texts stand before their views in every batch; false: the views alone, at least one."""
    reviews: bool = False
    """Whether all training examples are read once more at the end of every turn, in evaluation mode."""
    observes_late: ClassVar[bool] = False
    """Whether `seen` and `loss` depend on nothing that `observe` changes. It is then called while the next step runs, for
    which a GPU does not have to wait."""
    first_choice: int = 1
    """First epoch of the last stage that may be kept as the best one, and from which patience counts: after a
    warm-up, whose networks the method has not touched yet. A stage that ends before it chooses among all."""
    default_epochs: int | None = None
    """Epochs where the config names none; None: the first encoder's own default."""

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        self.config = config
        self.num_classes = num_classes
        self.seed = seed

    @property
    def turns(self) -> tuple[tuple[str, ...], ...]:
        """Networks that step in each pass over the batches of an epoch; the others do not move in it."""
        return (self.networks,)

    @property
    def predictors(self) -> tuple[str, ...]:
        """Networks that predict together, by the mean of their logits; they are of one encoder."""
        return self.networks[:1]

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

    def stages(self) -> tuple[Stage, ...]:
        """The trainings in their order, of different names."""
        return (Stage(),)

    def kept(self, state: State, stage: str) -> npt.NDArray[np.bool_] | None:
        """Before a stage: which examples [N] train in it, at least one; None: all. Columns may be updated in
        place. What the first worker finds counts.
        """
        return None

    def seen(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Per-row scalars [B] that `observe` needs of the whole global batch; the loop gathers them. `rows`:
        this worker's entries [B] of every state column, copied to the device when they are first asked for.
        """
        logits = outputs[self.networks[0]].logits.detach()
        return {"loss": batch.label_loss(logits)}

    def observe(
        self, state: State, rows: npt.NDArray[np.int64], seen: dict[str, npt.NDArray[Any]], epoch: int
    ) -> None:
        """Update columns in place from the global batch, before its loss unless the method `observes_late`; here the
        columns of the same names.

        Args:
            state: whole columns.
            rows: [G] positions in the columns of the global batch's valid rows, sorted by example_id.
            seen: what `seen` returned, gathered and in the same order, [G] each.
            epoch: 1-based, through all stages.
        """
        for name, values in seen.items():
            state[name][rows] = values

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        """Before the first step of an epoch, or of each of its turns (`turn`: its place in `turns`): split the
        examples, on whole columns and in place.
        """

    def queries(self, state: State, epoch: int) -> AnnotatorRequest | None:
        """The request to the annotator, after `partition`; None: none."""
        return None

    def revise(
        self, state: State, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], epoch: int
    ) -> None:
        """Take the annotator's answers.

        Args:
            state: whole columns.
            rows: [Q] the positions that were asked about.
            labels: [Q] the answers; UNANSWERED where nobody answered (budget, failure), ABSTAINED where answer and
                networks do not decide: asking again would cost again and say the same.
            epoch: 1-based.
        """

    def judged(
        self, outputs: dict[str, Output], labels: Tensor, rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Per-row scalars [B] that `review` needs of rows with given `labels` [B] and these entries of the
        state columns; the turn's networks are in evaluation mode.
        """
        return {}

    def review(
        self, state: State, rows: npt.NDArray[np.int64], seen: dict[str, npt.NDArray[Any]], epoch: int
    ) -> None:
        """Update columns in place from what `judged` said of some rows; called until all have been reviewed.
        Here the columns of the same names.
        """
        for name, values in seen.items():
            state[name][rows] = values

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
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """Named scalar terms, already reduced over the global batch; the loop sums them.

        Args:
            outputs: per network name.
            batch: this worker's rows.
            rows: this worker's entries [B] of every state column (padding rows hold the initial value).
            epoch: 1-based.
        """
        logits = outputs[self.networks[0]].logits
        return {"cross_entropy": batch.mean(batch.label_loss(logits))}

    def quality(self, state: State) -> npt.NDArray[np.float64]:
        """Quality [N], lower = more likely wrong; here minus the loss of the last epoch."""
        return -state["loss"].astype(np.float64)
