"""Ablations of NoiseAL: one network, other thresholds, other splits, other uses of the answers, other means.
The main line is in `noiseal.py`.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from rayclean.functional import partition, thresholds
from rayclean.functional.partition import Subset
from rayclean.methods.base import AnnotatorRequest, State
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.noiseal import NoiseAL
from rayclean.methods.noiseal_parts import StepSubsets


class NoiseALWithAblations(NoiseAL):
    """Co-prediction, dynamic thresholds, an annotator in the loop; and what each part of it is worth."""

    class Config(NoiseAL.Config):
        """Options beside `name`; with the defaults of those added here, this is `NoiseAL`."""

        networks: Literal["both", "strong", "weak"] = "both"
        """`strong`, `weak`: ablation, one network alone, whose verdict counts for both."""
        threshold: Literal["dynamic", "fixed", "mixture"] = "dynamic"
        """Ablation: a constant instead (`fixed_threshold`), or a two-component mixture over the losses; `mixture`
        replaces the verdicts alone, how sure a purified example must be still follows the dynamic thresholds."""
        fixed_threshold: float = Field(0.5, gt=0, lt=1)
        """Constant threshold of `threshold = "fixed"`."""
        partition: Literal["verdicts", "agreement", "disc"] = "verdicts"
        """Reading of the split, see `functional/partition.py`; `agreement` and `disc` are ablations."""
        corrupted_demonstrations: float = Field(0.0, ge=0, le=1)
        """Ablation: this share of the reliable examples is shown with a wrong label, drawn by their ids."""
        without_answer: Literal["hard", "predicted", "drop"] = "hard"
        """Ablation: train purified examples without an answer as hard ones, on the networks' own prediction, or
        not."""
        adopt: bool = False
        """Ablation: an answered example counts as reliable, with the answer as its label. Those without an answer
        train as `without_answer` says."""
        subset_scale: bool = True
        """Weigh a subset's mean by its share of the batch; false: the plain sum of means, as written in the
        paper."""
        mix_pool: Literal["hard", "clean_and_hard"] = "hard"
        """Examples that hard ones are mixed with; SelfMix mixes them with clean ones, too."""

    config: Config

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        if config.networks != "both":
            self.networks = (config.networks,)

    def state(self) -> dict[str, tuple[str, float]]:
        """Besides, with the split by agreement, whether the networks agree."""
        agree: dict[str, tuple[str, float]] = {"agree": ("int8", 0)}
        return super().state() | (agree if self.config.partition == "agreement" else {})

    def judged(self, outputs: dict[str, Output], labels: Tensor, rows: Any) -> dict[str, Tensor]:
        """Besides, whether both networks predict the same class."""
        seen = super().judged(outputs, labels, rows)
        if self.config.partition == "agreement":
            first, last = (outputs[self.networks[at]].logits.softmax(-1).argmax(1) for at in (0, -1))
            seen["agree"] = (first == last).to(torch.int8)
        return seen

    def _division(self, state: State) -> Callable[..., npt.NDArray[np.int8]]:
        if self.config.partition == "agreement":
            return functools.partial(partition.by_agreement, agree=state["agree"] > 0)
        return partition.by_disc if self.config.partition == "disc" else super()._division(state)

    def _verdict(self, state: State, name: str) -> npt.NDArray[np.bool_]:
        """By a fixed threshold, or by a mixture over the losses."""
        q = state[f"label_probability_{name}"]
        if self.config.threshold == "fixed":
            return np.asarray(q > self.config.fixed_threshold)
        if self.config.threshold == "mixture":
            loss = -np.log(np.maximum(q, np.finfo(np.float32).tiny))
            return np.asarray(thresholds.clean_posterior(loss, self.seed) > 0.5)
        return super()._verdict(state, name)

    def _mean_threshold(self, state: State) -> npt.NDArray[Any]:
        if self.config.threshold == "fixed":
            return np.full(len(state["given_label"]), self.config.fixed_threshold)
        return super()._mean_threshold(state)

    def queries(self, state: State, epoch: int) -> AnnotatorRequest | None:
        """See base class; some demonstrations with a wrong label."""
        request = super().queries(state, epoch)
        return request and replace(request, corrupted=self.config.corrupted_demonstrations)

    def _step_subsets(self, batch: StepBatch) -> StepSubsets:
        """Hard rows may be mixed with clean ones, too."""
        subsets = self._with_answers(batch)
        if self.config.mix_pool == "clean_and_hard":
            return replace(subsets, mixed=subsets.clean | subsets.hard)
        return subsets

    def _with_answers(self, batch: StepBatch) -> StepSubsets:
        """Answers may be adopted as labels, and silence may make no hard example."""
        if not self.config.adopt and self.config.without_answer == "hard":
            return super()._step_subsets(batch)
        subset, answer = batch.on_host("subset"), batch.on_host("answer").astype(np.int64)
        clean, purified, hard = (subset == s for s in (Subset.CLEAN, Subset.PURIFIED, Subset.HARD))
        answered = (answer >= 0) & (clean | purified | hard)
        labels, answers = batch.given_label, np.maximum(answer, 0)
        silent = purified & ~answered
        if self.config.without_answer == "predicted":
            answers = np.where(silent, batch.on_host("predicted").astype(np.int64), answers)
        else:
            purified = purified & ~silent
        if self.config.without_answer == "hard":
            hard = hard | silent
        if self.config.adopt:  # an answer of an earlier epoch stays adopted, wherever the example is now
            labels = torch.where(batch.put(answered), batch.put(answers), labels)
            clean, purified, hard = clean | answered, purified & ~answered, hard & ~answered
        return StepSubsets.on_device(batch, (clean, purified, hard, hard), labels, answers)

    def _mean(self, batch: StepBatch, values: Tensor, mask: Tensor) -> Tensor:
        """The plain mean over the subset, unless it is weighed by its share."""
        if self.config.subset_scale:
            return super()._mean(batch, values, mask)
        return batch.mean_over(values, mask)
