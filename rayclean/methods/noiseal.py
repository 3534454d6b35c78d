"""NoiseAL: Yuan et al., "Hide and Seek in Noise Labels: Noise-Robust Collaborative Active Learning with LLMs-Powered
Assistance", ACL 2024 (long papers, pp. 10977-11011; arXiv 2504.02901).

Two networks of different strength judge each label together (co-prediction). A threshold per example, which follows
its confidence over the epochs, turns each network's probability of the given label into a verdict, and the verdicts
split the data in three: *reliable* examples are trained on as they are labelled, *purified* ones (both networks sure of
another class) are sent to a language model with nearest reliable examples as demonstrations and trained on its answer
by a loss that tolerates its mistakes, and *hard* ones are mixed in embedding space without trust in their label.

| paper | here |
|---|---|
| strong / weak network (BERT, BiLSTM) | networks `strong` (the run's encoder) and `weak` (`config.weak`) |
| tau(t) = lambda p(t) + (1 - lambda) tau(t-1) | `functional.thresholds.exponential_average`, `config.lambda_`, columns `threshold_*` |
| q, m: probability of the label, confidence | columns `label_probability_*`, `confidence_*` |
| R, H, P | `Subset.CLEAN`, `HARD`, `PURIFIED`; `functional.partition.by_verdicts`; column `subset` |
| label of the LLM | column `answer`; negative = none |
| L_R, L_P, L_H | terms `clean`, `purified`, `hard`; cross-entropy, `functional.losses.reverse_cross_entropy`, `functional.mixing` |

Differences from the paper, whose inequalities and constants are not public (options in parentheses, where there is one):
* The partition is a reconstruction (`partition`, `threshold`, `sigma`); P asks besides that the networks' mean prediction
  is not the given label, because thresholds of sure networks rise above the cap of 0.99 and a small dip would purify a
  right label.
* lambda = 0.7 (`lambda_`), tau(0) = 1/K, p(t) the highest class probability (`ema_of`); probabilities are read in
  evaluation mode after each epoch.
* The best epoch is one after the warm-up (`warmup_epochs`), whose networks are plain cross-entropy's; the paper does
  not say. Trainings no longer than the warm-up choose among all epochs.
* A subset's mean loss is weighted by its share of the batch, so that rare subsets do not dominate (`subset_scale`).
* Purified examples without an answer (budget, failure, abstention) train as hard ones in that epoch (`without_answer`).
* EmbMix as in SelfMix (`alpha`, `temperature`) within the hard examples of the global batch (`mix_pool`), without a
  pseudo-label term. Soft target and trust in the label are the two networks' mean in this very forward pass, not as of
  the last review; the regulariser is the symmetric KL of two dropout passes over the hard rows (`kl_weight`).
* An example is asked about until it is answered or abstained from (`requery`), and the split always uses the given label.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from torch import Tensor

from rayclean.config import Plugin
from rayclean.functional import losses, mixing, partition, thresholds
from rayclean.functional.partition import Subset
from rayclean.methods.base import ExpectedQueries, Method, Output, Questions, State, StepBatch
from rayclean.plugins import Options
from rayclean.schema import UNANSWERED

logger = logging.getLogger(__name__)

DIGITS = 4
"""Doubts are compared to so many digits, then by id: their last digits depend on batches and machines."""
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": losses.cross_entropy,
    "reverse_cross_entropy": losses.reverse_cross_entropy,
    "generalized_cross_entropy": losses.generalized_cross_entropy,
    "symmetric_cross_entropy": losses.symmetric_cross_entropy,
}
"""Losses for purified examples."""


class NoiseAL(Method):
    """Co-prediction, dynamic thresholds, an annotator in the loop."""

    class Config(Options):
        """Options beside `name`."""

        networks: Literal["both", "strong", "weak"] = "both"
        """Ablation: one network alone, its own verdict counting for both."""
        weak: Plugin = Plugin(name="bilstm")
        """The weak network's encoder. `{name = "transformer", dropout = 0.3, ...}`, the strong one's model with another
        dropout, gives the paper's pair of two BERTs."""
        warmup_epochs: int = Field(2, ge=1)
        """Epochs with cross-entropy on all examples (paper: 2 of 6)."""
        lambda_: float = Field(0.7, ge=0, le=1)
        """How fast a threshold follows the confidence. A small one keeps it near 1/K and lets wrong labels in."""
        ema_of: Literal["max", "label"] = "max"
        """p(t): the highest class probability, or that of the given label."""
        threshold: Literal["dynamic", "fixed", "mixture"] = "dynamic"
        """Ablation: a constant instead (`fixed_threshold`), or a two-component mixture over the losses; `mixture`
        replaces the verdicts alone, how sure a purified example must be still follows the dynamic thresholds."""
        fixed_threshold: float = Field(0.5, gt=0, lt=1)
        """`fixed` only."""
        partition: Literal["verdicts", "agreement", "disc"] = "verdicts"
        """Reading of the split: see `functional/partition.py`."""
        sigma: float | None = Field(None, ge=0)
        """How much the confidence of a purified example must exceed its threshold; none: the partition's own constant,
        0.5 for `disc` and 0 for the others."""
        demonstrations: int = Field(5, ge=0)
        """Reliable examples shown with a question; 0: none."""
        selector: Literal["nearest", "random"] = "nearest"
        """Which: nearest by the strong network's features, or random ones."""
        corrupted_demonstrations: float = Field(0.0, ge=0, le=1)
        """Ablation: this share of the reliable examples is shown with a wrong label, drawn by their ids."""
        candidates: Literal["all", "binary"] = "all"
        """Possible answers: every label (paper), or {given, predicted}."""
        accept: float = Field(0.0, ge=0, le=1)
        """Least calibrated probability of an answer that counts."""
        budget: float = Field(1.0, ge=0, le=1)
        """Share of an epoch's purified examples that may be asked about; 0: no annotator."""
        max_queries: int | None = Field(None, ge=0)
        """Questions in the whole training. Every one posed counts, each time it is posed, whatever comes back: one that
        failed may have cost as much as one that was answered."""
        requery: bool = False
        """Ask about purified examples in every epoch, with the demonstrations of that epoch; the last answer counts."""
        purified_loss: Literal[tuple(LOSSES)] = "reverse_cross_entropy"  # type: ignore[valid-type]
        """Loss on the answers."""
        without_answer: Literal["hard", "predicted", "drop"] = "hard"
        """Ablation: train purified examples without an answer as hard ones, on the networks' own prediction, or not."""
        adopt: bool = False
        """Ablation: an answered example counts as reliable, with the answer as its label. Those without an answer train
        as `without_answer` says."""
        clean_weight: float = Field(1.0, ge=0)
        """Of L_R."""
        purified_weight: float = Field(1.0, ge=0)
        """Of L_P; 0 drops it."""
        hard_weight: float = Field(1.0, ge=0)
        """Of L_H; 0 drops it."""
        subset_scale: bool = True
        """Weigh a subset's mean by its share of the batch; false: the plain sum of means, as written in the paper."""
        temperature: float = Field(mixing.TEMPERATURE, gt=0)
        """T of EmbMix's targets."""
        alpha: float = Field(mixing.ALPHA, gt=0)
        """Beta(alpha, alpha) of EmbMix."""
        mix_pool: Literal["hard", "clean_and_hard"] = "hard"
        """What hard examples are mixed with; SelfMix mixes them with clean ones, too."""
        kl_weight: float = Field(0.3, ge=0)
        """Of the symmetric KL between two dropout passes."""

        @field_validator("weak", mode="before")
        @classmethod
        def _name_is_enough(cls, weak: Any) -> Any:
            return {"name": weak} if isinstance(weak, str) else weak

    config: Config
    reviews = True
    default_epochs = 6

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        self.networks = ("strong", "weak") if config.networks == "both" else (config.networks,)
        self.asks = self.expected_queries(config) is not None
        self.first_choice = config.warmup_epochs + 1

    @classmethod
    def expected_queries(cls, config: Config) -> ExpectedQueries | None:
        """See base class."""
        if config.budget == 0 or config.max_queries == 0:
            return None
        return ExpectedQueries(config.max_queries, config.demonstrations, config.candidates)

    def encoders(self, encoder: Plugin) -> dict[str, Plugin]:
        """The run's encoder is the strong one."""
        return {name: encoder if name == "strong" else self.config.weak for name in self.networks}

    def state(self) -> dict[str, tuple[str, float]]:
        """31 bytes per example with both networks (35 from 32,768 classes on; 2 more with `max_queries`). The networks'
        joint confidence is in half precision: it ranks questions and is held against a threshold, nothing is summed
        from it.
        """
        label = "int16" if self.num_classes <= np.iinfo(np.int16).max else "int32"
        columns: dict[str, tuple[str, float]] = {}
        for name in self.networks:
            columns[f"threshold_{name}"] = ("float32", 1 / self.num_classes)
            columns[f"label_probability_{name}"] = ("float32", 0.0)
            columns[f"confidence_{name}"] = ("float32", 0.0)
        if self.config.partition == "agreement":
            columns["agree"] = ("int8", 0)
        if self.config.max_queries is not None:  # a column, so that a resumed run knows
            columns["posed"] = ("int16", 0)
        return columns | {
            "confidence": ("float16", 0.0),
            "predicted": (label, 0),
            "subset": ("int8", Subset.UNUSED),
            "answer": (label, UNANSWERED),
        }

    def seen(self, outputs: dict[str, Output], batch: StepBatch) -> dict[str, Tensor]:
        """Nothing: the networks are read in evaluation mode."""
        return {}

    def observe(self, state: State, rows: Any, seen: dict[str, Any], epoch: int) -> None:
        """See `review`."""

    # -- after an epoch: what the settled networks say -----------------------------------------------------------------

    def judged(self, outputs: dict[str, Output], labels: Tensor) -> dict[str, Tensor]:
        """Q and m of each network; argmax and max of the networks' mean."""
        probabilities = {name: output.logits.softmax(-1) for name, output in outputs.items()}
        seen = {}
        for name, p in probabilities.items():
            seen[f"label_probability_{name}"] = p.gather(1, labels[:, None])[:, 0]
            seen[f"confidence_{name}"] = p.amax(1)
        joint = _mean(list(probabilities.values()))
        if self.config.partition == "agreement":
            first, last = (probabilities[self.networks[place]].argmax(1) for place in (0, -1))
            seen["agree"] = (first == last).to(torch.int8)
        return seen | {"confidence": joint.amax(1), "predicted": joint.argmax(1)}

    def review(
        self, state: State, rows: npt.NDArray[np.int64], seen: dict[str, npt.NDArray[Any]], epoch: int
    ) -> None:
        """Keep it."""
        for name, values in seen.items():
            state[name][rows] = values

    # -- before an epoch: split, then let the thresholds follow --------------------------------------------------------

    def partition(self, state: State, epoch: int) -> None:
        """R, H and P by the last epoch's probabilities and the thresholds before it; then tau(t)."""
        if epoch == 1:
            return
        if epoch > self.config.warmup_epochs:
            state["subset"][:] = self._split(state)
        for name in self.networks:
            source = "confidence" if self.config.ema_of == "max" else "label_probability"
            state[f"threshold_{name}"][:] = thresholds.exponential_average(
                state[f"threshold_{name}"], state[f"{source}_{name}"], self.config.lambda_
            )

    def _split(self, state: State) -> npt.NDArray[np.int8]:
        strong, weak = (self._verdict(state, name) for name in (self.networks[0], self.networks[-1]))
        disputed = state["predicted"] != state["given_label"]
        how = (strong, weak, disputed, state["confidence"], self._mean_threshold(state))
        divide: Callable[..., npt.NDArray[np.int8]] = partition.by_verdicts
        if self.config.partition == "agreement":
            divide = functools.partial(partition.by_agreement, agree=state["agree"] > 0)
        elif self.config.partition == "disc":
            divide = partition.by_disc
        subsets = divide(*how) if self.config.sigma is None else divide(*how, sigma=self.config.sigma)
        if not (subsets == Subset.CLEAN).any():  # thresholds stricter than any label: the most probable ones
            logger.warning(
                "NoiseAL: no example is reliable by its threshold; the tenth of each class whose labels are most probable is "
                "taken instead (lower lambda_, or fixed_threshold)"
            )
            q = self._mean_label_probability(state)
            subsets[partition.most_likely_clean(state["given_label"], q)] = Subset.CLEAN
        return subsets

    def _verdict(self, state: State, name: str) -> npt.NDArray[np.bool_]:
        q = state[f"label_probability_{name}"]
        if self.config.threshold == "mixture":
            loss = -np.log(np.maximum(q, np.finfo(np.float32).tiny))
            return np.asarray(thresholds.clean_posterior(loss, self.seed) > 0.5)
        if self.config.threshold == "fixed":
            return np.asarray(q > self.config.fixed_threshold)
        return np.asarray(q > state[f"threshold_{name}"])

    def _mean_threshold(self, state: State) -> npt.NDArray[Any]:
        if self.config.threshold == "fixed":
            return np.full(len(state["given_label"]), self.config.fixed_threshold)
        return np.asarray(np.mean([state[f"threshold_{name}"] for name in self.networks], axis=0))

    def _mean_label_probability(self, state: State) -> npt.NDArray[Any]:
        return np.asarray(np.mean([state[f"label_probability_{name}"] for name in self.networks], axis=0))

    # -- the annotator -------------------------------------------------------------------------------------------------

    def queries(self, state: State, epoch: int) -> Questions | None:
        """Purified examples that have no answer yet (all of them with `requery`), those first of whose label the networks
        think least.
        """
        if epoch <= self.config.warmup_epochs or not self.asks:
            return None
        purified = np.flatnonzero(state["subset"] == Subset.PURIFIED)
        rows = purified if self.config.requery else purified[state["answer"][purified] == UNANSWERED]
        doubt = state["confidence"][rows].astype(np.float32) - self._mean_label_probability(state)[rows]
        rows = rows[np.argsort(-doubt.round(DIGITS), kind="stable")][
            : round(self.config.budget * len(purified))
        ]
        if self.config.max_queries is not None:
            rows = rows[: max(self.config.max_queries - int(state["posed"].sum(dtype=np.int64)), 0)]
        if not len(rows):
            return None
        return Questions(
            rows=rows, predicted=state["predicted"][rows].astype(np.int64),
            pool=state["subset"] == Subset.CLEAN, demonstrations=self.config.demonstrations,
            selector=self.config.selector, corrupted=self.config.corrupted_demonstrations,
            candidates=self.config.candidates, accept=self.config.accept,
        )  # fmt: skip

    def revise(
        self, state: State, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], epoch: int
    ) -> None:
        """Keep the answers; where nobody answered this time, the earlier one stands."""
        came = labels != UNANSWERED
        state["answer"][rows[came]] = labels[came]
        if "posed" in state:
            state["posed"][rows] += 1

    # -- losses --------------------------------------------------------------------------------------------------------

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: dict[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """Cross-entropy on everything while warming up; then L_R + L_P + L_H of every network."""
        if epoch <= self.config.warmup_epochs:
            return {
                f"warmup_{name}": batch.mean(losses.cross_entropy(output.logits, batch.given_label))
                for name, output in outputs.items()
            }
        clean, purified, hard, labels, answers = self._subsets(batch, rows)
        terms = {}
        for name, output in outputs.items():
            clean_loss = losses.cross_entropy(output.logits, labels)
            terms[f"clean_{name}"] = self.config.clean_weight * self._mean(batch, clean_loss, clean)
            if self.config.purified_weight:
                purified_loss = LOSSES[self.config.purified_loss](output.logits, answers)
                terms[f"purified_{name}"] = self.config.purified_weight * self._mean(
                    batch, purified_loss, purified
                )
        if self.config.hard_weight:
            terms |= self._hard(outputs, batch, clean, hard, labels, epoch)
        return terms

    def _subsets(
        self, batch: StepBatch, rows: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Masks [B] of R, P and H as they train in this step, the labels [B] of R and those of P."""
        subset, answer = rows["subset"], rows["answer"].long()
        clean, purified, hard = (subset == s for s in (Subset.CLEAN, Subset.PURIFIED, Subset.HARD))
        answered = (answer >= 0) & (clean | purified | hard)
        labels, answers = batch.given_label, answer.clamp(min=0)
        silent = purified & ~answered
        if self.config.without_answer == "predicted":
            answers = torch.where(silent, rows["predicted"].long(), answers)
        else:
            purified = purified & ~silent
        if self.config.without_answer == "hard":
            hard = hard | silent
        if self.config.adopt:  # an answer of an earlier epoch stays adopted, wherever the example is now
            labels = torch.where(answered, answers, labels)
            clean, purified, hard = clean | answered, purified & ~answered, hard & ~answered
        return clean, purified, hard, labels, answers

    def _mean(self, batch: StepBatch, values: Tensor, mask: Tensor) -> Tensor:
        """The subset's mean times its share of the batch, which is its sum over the batch's size; or the plain mean."""
        return (
            batch.mean(values.masked_fill(~mask, 0.0))
            if self.config.subset_scale
            else batch.mean_over(values, mask)
        )

    def _hard(
        self,
        outputs: dict[str, Output],
        batch: StepBatch,
        clean: Tensor,
        hard: Tensor,
        labels: Tensor,
        epoch: int,
    ) -> dict[str, Tensor]:
        """EmbMix over the global batch, and the KL of two dropout passes over the hard rows here."""
        probabilities = [output.logits.softmax(-1).detach() for output in outputs.values()]
        joint = _mean(probabilities)
        trust = joint.gather(1, labels[:, None])[:, 0]
        targets = mixing.co_refined_target(labels, trust, joint, self.config.temperature)
        members = clean | hard if self.config.mix_pool == "clean_and_hard" else hard
        ids = batch.gather(batch.example_id)
        everyone = batch.gather((members & batch.valid).to(torch.int8)) > 0
        partner = mixing.partners(ids.cpu().numpy(), everyone.cpu().numpy(), self.seed, epoch)
        mine = slice(batch.rank * len(hard), (batch.rank + 1) * len(hard))
        partner_of_mine = torch.from_numpy(partner[mine]).to(ids.device)
        shares = mixing.mix_weights(batch.example_id.cpu().numpy(), self.seed, epoch, self.config.alpha)
        weights = torch.from_numpy(shares).to(joint)
        mixed_targets = mixing.interpolate(targets, batch.gather(targets)[partner_of_mine], weights)
        terms = {}
        for name, output in outputs.items():
            everyones = batch.gather(output.features)
            mixed = mixing.interpolate(output.features, everyones[partner_of_mine], weights)
            logits = batch.classify(name, mixed)
            term = self._mean(batch, losses.cross_entropy(logits, mixed_targets), hard)
            if self.config.kl_weight:
                again = batch.again(name, hard).logits
                apart = torch.zeros_like(weights)
                apart = apart.masked_scatter(hard, losses.symmetric_kl(output.logits[hard], again).to(apart))
                term = term + self.config.kl_weight * self._mean(batch, apart, hard)
            terms[f"hard_{name}"] = self.config.hard_weight * term
        return terms

    # -- what it says of itself ----------------------------------------------------------------------------------------

    def summary(self, state: State) -> dict[str, float]:
        """Sizes of the subsets, answers so far, mean thresholds."""
        sizes = {f"size_{s.name.lower()}": int((state["subset"] == s).sum()) for s in Subset if s >= 0}
        return sizes | {
            "answered": int((state["answer"] >= 0).sum()),
            **{f"threshold_{name}": float(state[f"threshold_{name}"].mean()) for name in self.networks},
        }

    def quality(self, state: State) -> npt.NDArray[np.float64]:
        """Co-prediction: the mean of the networks' probabilities of the given label."""
        return self._mean_label_probability(state).astype(np.float64)


def _mean(probabilities: list[Tensor]) -> Tensor:
    return torch.stack(probabilities).mean(0)
