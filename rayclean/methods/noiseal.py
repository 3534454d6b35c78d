"""NoiseAL: Yuan et al., "Hide and Seek in Noise Labels: Noise-Robust Collaborative Active Learning with
LLMs-Powered Assistance", ACL 2024 (long papers, pp. 10977-11011; arXiv 2504.02901).

Two networks of different strength judge each label together (co-prediction). A threshold per example, which follows its
confidence over the epochs, turns each network's probability of the given label into a verdict, and the verdicts split the data
in three: *reliable* examples are trained on as they are labelled, *purified* ones (both networks sure of another class) are sent
to a language model with nearest reliable examples as demonstrations and trained on its answer by a loss that tolerates its
mistakes, and *hard* ones are mixed in embedding space without trust in their label.

| paper | here |
|---|---|
| strong / weak network (BERT, BiLSTM) | networks `strong` (the run's encoder) and `weak` (`config.weak`) |
| tau(t) = lambda p(t) + (1 - lambda) tau(t-1) | the end of `partition`, `config.lambda_`; columns `threshold_*` |
| q, m: probability of the label, confidence | columns `label_probability_*`, `confidence_*` |
| R, H, P | `Subset.CLEAN`, `HARD`, `PURIFIED`; `functional.partition.by_verdicts`; column `subset` |
| label of the LLM | column `answer`; negative = none |
| L_R | term `clean`: cross-entropy |
| L_P | term `purified`: `functional.losses.reverse_cross_entropy` |
| L_H | term `hard`: `methods.embmix`, `functional.mixing` |

This is the main line, with the options of `noiseal_options.py`; `method.name = "noiseal"` means its subclass
in `noiseal_ablations.py`, which does the same unless an ablation is asked for.

Differences from the paper, whose inequalities and constants are not public (options in parentheses):
* The partition is a reconstruction (`partition`, `threshold`, `sigma`); P asks besides that the networks' mean prediction is
  not the given label, because thresholds of sure networks rise above the cap of 0.99 and a small dip would purify a right label.
* lambda = 0.7 (`lambda_`), tau(0) = 1/K, p(t) the highest class probability (`ema_of`); probabilities are
  read in evaluation mode after each epoch.
* The best epoch is one after the warm-up (`warmup_epochs`), whose networks are plain cross-entropy's; the
  paper does not say. Trainings no longer than the warm-up choose among all epochs.
* A subset's mean loss is weighted by its share of the batch: rare ones do not dominate (`subset_scale`).
* The answer is not taken as it is: `functional.decision.decide` weighs it and co-prediction's log-odds, per epoch, by what
  `relabel`'s control questions say the annotator is worth, as for suspects (`accept`). Pairs alone are measured, so
  questions are between given and predicted label, and a third one abstains (`candidates`); none go to one no better than chance.
* Purified examples without an answer (budget, failure, abstention) train as hard ones (`without_answer`).
* EmbMix as in SelfMix (`alpha`, `temperature`) within the hard examples of the global batch (`mix_pool`), without a pseudo-label
  term. Soft target and trust in the label are the two networks' mean in this very forward pass, not as of the last review; the
  regulariser is the symmetric KL of two dropout passes over the hard rows (`kl_weight`).
* An example is asked about until it is answered or abstained from (`requery`), and the split always uses the given label.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.functional import losses, partition, thresholds
from rayclean.functional.partition import Subset
from rayclean.measures import Measures
from rayclean.methods.base import AnnotatorRequest, ExpectedQueries, Method, State
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.noiseal_measures import noiseal_measures
from rayclean.methods.noiseal_options import PURIFIED_LOSSES, NoiseALOptions
from rayclean.methods.noiseal_parts import StepSubsets, hard_losses, log_odds_of_predicted, whom_to_ask
from rayclean.plugins import Plugin
from rayclean.schema import UNANSWERED

logger = logging.getLogger(__name__)


class NoiseAL(Method):
    """Co-prediction, dynamic thresholds, an annotator in the loop."""

    class Config(NoiseALOptions):
        """Options beside `name`."""

    config: Config
    networks: tuple[str, ...] = ("strong", "weak")
    reviews = True
    observes_late = True
    default_epochs = 6

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        self.first_choice = config.warmup_epochs + 1

    @classmethod
    def expected_queries(cls, config: Config) -> ExpectedQueries | None:
        """See base class."""
        most, asks = config.max_queries, config.budget > 0 and config.max_queries != 0
        return ExpectedQueries(most, config.demonstrations, config.candidates) if asks else None

    def encoders(self, encoder: Plugin) -> dict[str, Plugin]:
        """The run's encoder is the strong one."""
        return {name: encoder if name == "strong" else self.config.weak for name in self.networks}

    def state(self) -> dict[str, tuple[str, float]]:
        """31 bytes per example with both networks (35 from 32,768 classes on; 2 more with `max_queries`). The
        joint confidence is in half precision: it ranks questions and is compared with a threshold.
        """
        label = "int16" if self.num_classes <= np.iinfo(np.int16).max else "int32"
        columns: dict[str, tuple[str, float]] = {}
        for name in self.networks:
            columns[f"threshold_{name}"] = ("float32", 1 / self.num_classes)
            columns[f"label_probability_{name}"] = ("float32", 0.0)
            columns[f"confidence_{name}"] = ("float32", 0.0)
        if self.config.max_queries is not None:  # a column, so that a resumed run knows
            columns["posed"] = ("int16", 0)
        return columns | {
            "confidence": ("float16", 0.0),
            "predicted": (label, 0),
            "subset": ("int8", Subset.UNUSED),
            "answer": (label, UNANSWERED),
        }

    def seen(self, outputs: dict[str, Output], batch: StepBatch, rows: Any) -> dict[str, Tensor]:
        """No columns: the networks are read in evaluation mode, by `judged`."""
        return {}

    # -- after an epoch: probabilities of the networks in evaluation mode ------------------------------------

    def judged(self, outputs: dict[str, Output], labels: Tensor, rows: Any) -> dict[str, Tensor]:
        """Probability q of the label and confidence m of each network; argmax and max of their mean."""
        probabilities = {name: output.logits.softmax(-1) for name, output in outputs.items()}
        seen = {}
        for name, p in probabilities.items():
            seen[f"label_probability_{name}"] = p.gather(1, labels[:, None])[:, 0]
            seen[f"confidence_{name}"] = p.amax(1)
        joint = torch.stack(list(probabilities.values())).mean(0)
        return seen | {"confidence": joint.amax(1), "predicted": joint.argmax(1)}

    # -- before an epoch: split, then let the thresholds follow ----------------------------------------------

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        """R, H and P by the last epoch's probabilities and the thresholds before it; then tau(t)."""
        if epoch == 1:
            return
        if epoch > self.config.warmup_epochs:
            state["subset"][:] = self._split(state)
        self._move_thresholds(state)

    def _move_thresholds(self, state: State) -> None:
        """tau(t): each network's thresholds follow its probabilities by an exponential average."""
        source = "confidence" if self.config.ema_of == "max" else "label_probability"
        for name in self.networks:
            state[f"threshold_{name}"][:] = thresholds.exponential_average(
                state[f"threshold_{name}"], state[f"{source}_{name}"], self.config.lambda_
            )

    def _split(self, state: State) -> npt.NDArray[np.int8]:
        """Subsets [N] by the networks' verdicts on the given labels."""
        strong, weak = (self._verdict(state, name) for name in (self.networks[0], self.networks[-1]))
        disputed = state["predicted"] != state["given_label"]
        sigma = {} if self.config.sigma is None else {"sigma": self.config.sigma}
        threshold = self._mean_threshold(state)
        subsets = self._division(state)(strong, weak, disputed, state["confidence"], threshold, **sigma)
        if not (subsets == Subset.CLEAN).any():  # thresholds stricter than any label: the most probable ones
            logger.warning(
                "NoiseAL: no example is reliable by its threshold; the tenth of each class whose labels are most "
                "probable is taken instead (lower lambda_, or fixed_threshold)"
            )
            q = self._mean_label_probability(state)
            subsets[partition.most_likely_clean(state["given_label"], q)] = Subset.CLEAN
        return subsets

    def _division(self, state: State) -> Callable[..., npt.NDArray[np.int8]]:
        """The function that makes subsets of verdicts."""
        return partition.by_verdicts

    def _verdict(self, state: State, name: str) -> npt.NDArray[np.bool_]:
        """[N] whether a network finds the given label right: q > tau."""
        return np.asarray(state[f"label_probability_{name}"] > state[f"threshold_{name}"])

    def _mean_threshold(self, state: State) -> npt.NDArray[Any]:
        """[N] taubar, which the confidence of a purified example exceeds."""
        return np.asarray(np.mean([state[f"threshold_{name}"] for name in self.networks], axis=0))

    def _mean_label_probability(self, state: State) -> npt.NDArray[Any]:
        """[N] qbar."""
        return np.asarray(np.mean([state[f"label_probability_{name}"] for name in self.networks], axis=0))

    # -- the annotator ---------------------------------------------------------------------------------------

    def queries(self, state: State, epoch: int) -> AnnotatorRequest | None:
        """Purified examples, those first of whose label the networks think least."""
        if epoch <= self.config.warmup_epochs or self.expected_queries(self.config) is None:
            return None
        q = self._mean_label_probability(state)
        rows = whom_to_ask(state, q, self.config)
        if not len(rows):
            return None
        return AnnotatorRequest(
            rows=rows, predicted=state["predicted"][rows].astype(np.int64), log_odds=log_odds_of_predicted(state, q, rows),
            pool=state["subset"] == Subset.CLEAN, demonstrations=self.config.demonstrations,
            selector=self.config.selector, candidates=self.config.candidates, accept=self.config.accept,
        )  # fmt: skip

    def revise(
        self, state: State, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], epoch: int
    ) -> None:
        """Keep the answers; where nobody answered this time, the earlier one stands."""
        answered = labels != UNANSWERED
        state["answer"][rows[answered]] = labels[answered]
        if "posed" in state:
            state["posed"][rows] += 1

    # -- losses ----------------------------------------------------------------------------------------------

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """Cross-entropy on everything while warming up; then L_R + L_P + L_H of every network."""
        if epoch <= self.config.warmup_epochs:
            return {
                f"warmup_{name}": batch.mean(losses.cross_entropy(output.logits, batch.given_label))
                for name, output in outputs.items()
            }
        subsets = self._step_subsets(batch)
        terms = {}
        for name, output in outputs.items():
            clean_loss = losses.cross_entropy(output.logits, subsets.labels)
            terms[f"clean_{name}"] = self.config.clean_weight * self._mean(batch, clean_loss, subsets.clean)
            if self.config.purified_weight:
                purified_loss = PURIFIED_LOSSES[self.config.purified_loss](output.logits, subsets.answers)
                term = self._mean(batch, purified_loss, subsets.purified)
                terms[f"purified_{name}"] = self.config.purified_weight * term
        if self.config.hard_weight:
            hard = hard_losses(outputs, batch, subsets, self._mean, self.config, self.seed, epoch)
            terms |= {f"hard_{name}": self.config.hard_weight * term for name, term in hard.items()}
        return terms

    def _step_subsets(self, batch: StepBatch) -> StepSubsets:
        """R, P and H as they train in this step: a purified example without an answer is a hard one."""
        return StepSubsets.of(batch)

    def _mean(self, batch: StepBatch, values: Tensor, mask: Tensor) -> Tensor:
        """The subset's mean times its share of the batch, which is its sum over the batch's size."""
        return batch.mean(values.masked_fill(~mask, 0.0))

    # -- figures ---------------------------------------------------------------------------------------------

    def summary(self, state: State) -> dict[str, float]:
        """Answers so far, mean thresholds."""
        return {
            "answered": int((state["answer"] >= 0).sum()),
            **{f"threshold_{name}": float(state[f"threshold_{name}"].mean()) for name in self.networks},
        }

    def measures(self) -> Measures:
        """See `noiseal_measures`."""
        return noiseal_measures(self.networks)

    def quality(self, state: State) -> npt.NDArray[np.float64]:
        """Co-prediction: the mean of the networks' probabilities of the given label."""
        return self._mean_label_probability(state).astype(np.float64)
