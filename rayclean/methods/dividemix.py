"""DivideMix: Li, Socher, Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning", ICLR 2020.

Networks learn right labels before wrong ones, so after a warm-up the losses fall into two heaps, which a two-component
Gaussian mixture tells apart. Labels of the low heap are trained on, those of the high one are thrown away and guessed:
semi-supervised learning. Two networks divide the data for each other, in turns, so that neither confirms its own
mistakes; both guess, and both predict.

| paper | here |
|---|---|
| theta(1), theta(2) | networks `first`, `second`, which step in turns |
| ell, w (section 3.1) | columns `loss_*`, `omega_*`; `functional.thresholds.clean_posterior` |
| X, U of the other network (co-divide) | column `labelled_*` of the peer |
| co-refinement, co-guessing, sharpening (section 3.2) | `functional.mixing.co_refined_target`, `sharpen` |
| MixMatch, lambda' | `methods.embmix.EmbMix` |
| L_X, L_U, L_reg (equations 9-11) | terms `labelled_*`, `unlabelled_*`, `prior_*`; `functional.losses` |
| -H, against asymmetric noise | `config.confidence_penalty`; `functional.losses.negative_entropy` |

Differences from the paper, which classifies images for 300 epochs (options in parentheses):
* Sentence embeddings are mixed, as in SelfMix, because texts cannot be; lambda' is drawn per row and not per batch.
  Both networks' embeddings of a step serve as guesses and are mixed, in one forward pass.
* A pass goes once through all examples, in whose batches X and U stand as they come; the paper draws as many of U as of
  X. L_X and L_U are means over their rows of the global batch.
* 2 epochs of warm-up in 6, lambda_u = 1 (`unlabelled_weight`) rising over 2 epochs (`rampup_epochs`); the paper has 10 or
  30 in 300, 25 and 16. The best epoch is one after the warm-up.
* The mean of the networks' logits predicts, the paper's sum names the same class.
* Where X has fewer than K members, it is the tenth of each class of highest omega. Losses that make no two heaps
  are all trusted. The average of the last five losses, for 90 % of noise, is left out.
* Network k refines with its own predictions, in training mode; its peer guesses in evaluation mode.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from rayclean.functional import losses, mixing, thresholds
from rayclean.functional.partition import most_likely_clean
from rayclean.measures import Histogram, Measures, SubsetColumn
from rayclean.methods.base import Method, State
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.embmix import EmbMix
from rayclean.plugins import Options

logger = logging.getLogger(__name__)

TRUSTED = 0.5
"""Posterior omega above which a label is trained on."""


class DivideMix(Method):
    """Two networks that divide the data for each other, and semi-supervised learning."""

    class Config(Options):
        """Options beside `name`."""

        warmup_epochs: int = Field(2, ge=1)
        """Epochs with cross-entropy on all examples."""
        views: tuple[str, ...] = ("auto", "auto")
        """Views that stand for every example (`training/views.py`; section 3.2: M = 2); (): the texts alone,
        as a frozen encoder without a hidden layer needs, which has no other views."""
        temperature: float = Field(mixing.TEMPERATURE, gt=0)
        """Temperature T of sharpening (section 4.1: 0.5)."""
        alpha: float = Field(4.0, gt=0)
        """Parameter of the Beta distribution of lambda (section 4.1: 4)."""
        unlabelled_weight: float = Field(1.0, ge=0)
        """Weight lambda_u of L_U, once it has risen (section 4.1: 25 for most images)."""
        rampup_epochs: float = Field(2.0, ge=0)
        """Epochs in which lambda_u rises from 0, after the warm-up."""
        confidence_penalty: bool = False
        """Penalise sure predictions while warming up: for asymmetric noise, which is learnt early."""

    config: Config
    networks = ("first", "second")
    turns = (("first",), ("second",))
    predictors = networks
    reviews = True
    observes_late = True
    default_epochs = 6

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        self.views, self.keeps_originals = config.views, not config.views
        self.first_choice = config.warmup_epochs + 1

    def state(self) -> dict[str, tuple[str, float]]:
        """19 bytes per example; `trusted_by`, how many networks trust the label, is for the report alone."""
        columns: dict[str, tuple[str, float]] = {"trusted_by": ("int8", len(self.networks))}
        for name in self.networks:
            columns |= {f"loss_{name}": ("float32", 0.0), f"omega_{name}": ("float32", 1.0)}
            columns[f"labelled_{name}"] = ("int8", 1)
        return columns

    def seen(self, outputs: dict[str, Output], batch: StepBatch, rows: Any) -> dict[str, Tensor]:
        """No columns: the networks are read in evaluation mode, by `judged`."""
        return {}

    def judged(self, outputs: dict[str, Output], labels: Tensor, rows: Any) -> dict[str, Tensor]:
        """Cross-entropy of each network."""
        return {f"loss_{name}": losses.cross_entropy(out.logits, labels) for name, out in outputs.items()}

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        """Co-divide, once an epoch: what each network's losses say of the labels."""
        if epoch <= self.config.warmup_epochs or turn > 0:
            return
        for name in self.networks:
            omega = thresholds.clean_posterior(state[f"loss_{name}"], self.seed)
            labelled = omega > TRUSTED
            if labelled.sum() < self.num_classes:
                logger.warning(
                    "DivideMix: %d labels are trusted, fewer than classes: the most probable tenth of each is used",
                    labelled.sum(),
                )
                labelled = most_likely_clean(state["given_label"], omega)
            state[f"omega_{name}"][:], state[f"labelled_{name}"][:] = omega, labelled
        state["trusted_by"][:] = sum(state[f"labelled_{name}"] for name in self.networks)

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """L_X + lambda_u L_U + L_reg of the network in turn, on the split of its peer."""
        (name,) = batch.turn
        (peer,) = set(self.networks) - {name}
        copies = len(outputs[name].logits) // len(batch.given_label)
        if epoch <= self.config.warmup_epochs:
            return self._warmup(outputs[name].logits, batch, copies)
        own, guess = (_mean_of_views(outputs[network].logits, copies) for network in (name, peer))
        temperature = self.config.temperature
        guessed = mixing.sharpen((own + guess) / 2, temperature)
        refined = mixing.co_refined_target(batch.given_label, rows[f"omega_{peer}"], own, temperature)
        is_labelled = rows[f"labelled_{peer}"] > 0
        target = torch.where(is_labelled[:, None], refined, guessed).repeat(copies, 1)
        labelled, everything = is_labelled.repeat(copies), batch.valid.repeat(copies)
        mix = EmbMix.draw(batch, everything, target, self.seed, epoch, self.config.alpha)
        logits = mix.logits(batch, name, outputs[name])
        share = mixing.ramp_up(batch.progress, self.config.warmup_epochs, self.config.rampup_epochs)
        unlabelled = batch.mean_over(losses.squared_error(logits, mix.target), ~labelled)
        return {
            f"labelled_{name}": batch.mean_over(losses.cross_entropy(logits, mix.target), labelled),
            f"unlabelled_{name}": share * self.config.unlabelled_weight * unlabelled,
            f"prior_{name}": losses.prior_divergence(batch.mean_of_all(logits.softmax(-1))),
        }

    def _warmup(self, logits: Tensor, batch: StepBatch, copies: int) -> dict[str, Tensor]:
        (name,) = batch.turn
        values = losses.cross_entropy(logits, batch.given_label.repeat(copies))
        terms = {f"warmup_{name}": batch.mean(values)}
        if self.config.confidence_penalty:
            terms[f"penalty_{name}"] = batch.mean(losses.negative_entropy(logits))
        return terms

    def summary(self, state: State) -> dict[str, float]:
        """How many labels each network trusts."""
        return {name: int(state[name].sum(dtype=np.int64)) for name in ("labelled_first", "labelled_second")}

    def measures(self) -> Measures:
        """The posterior, on the networks' mean, and whether both trust a label, one, or none."""
        posterior = Histogram(
            title="Clean posterior",
            means="Probability that the label is right, by a mixture over the losses. Wrong labels should be on the left.",
            axis="probability",
            columns=tuple(f"omega_{name}" for name in self.networks),
        )
        subsets = SubsetColumn(column="trusted_by", values={"labelled": 2, "disputed": 1, "unlabelled": 0})
        return Measures(histograms={"omega": posterior}, subsets=subsets)

    def quality(self, state: State) -> npt.NDArray[np.float64]:
        """Minus the mean of the two networks' losses; omega, which follows them, is 0 or 1 for most."""
        each = [state[f"loss_{name}"] for name in self.networks]
        return np.asarray(-np.mean(each, axis=0, dtype=np.float64))


def _mean_of_views(logits: Tensor, copies: int) -> Tensor:
    """[B, K] probabilities of rows [copies x B], detached."""
    return logits.detach().softmax(-1).reshape(copies, -1, logits.shape[-1]).mean(0)
