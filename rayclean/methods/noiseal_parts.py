"""Parts of NoiseAL: how the rows of a batch train, the loss of the hard ones, and who is asked about first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.functional import mixing
from rayclean.functional.partition import Subset
from rayclean.methods.base import State
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.embmix import EmbMix, dropout_divergence
from rayclean.methods.noiseal_options import NoiseALOptions
from rayclean.schema import UNANSWERED

DOUBT_DIGITS = 4
"""Decimals to which doubts are compared before ids: their last digits depend on batches and machines."""


@dataclass(frozen=True)
class StepSubsets:
    """How this worker's rows of a batch train."""

    clean: Tensor
    """[B] bool: R, trained on `labels`."""
    purified: Tensor
    """[B] bool: P, trained on `answers`."""
    hard: Tensor
    """[B] bool: H, mixed."""
    labels: Tensor
    """[B] int64 labels of R; H trusts them as far as the networks do."""
    answers: Tensor
    """[B] int64 labels of P; without meaning elsewhere."""
    mixed: Tensor
    """[B] bool: rows that are mixed among themselves."""
    hard_rows: npt.NDArray[np.int64]
    """Places of H among the B rows, on the host."""

    @classmethod
    def on_device(
        cls,
        batch: StepBatch,
        masks: Sequence[npt.NDArray[np.bool_]],
        labels: Tensor,
        answers: npt.NDArray[np.int64],
    ) -> "StepSubsets":
        """Subsets that the host knows: `masks` [4, B] of R, P, H and what is mixed."""
        clean, purified, hard, mixed = batch.put(np.stack(masks))
        return cls(clean, purified, hard, labels, batch.put(answers), mixed, np.flatnonzero(masks[2]))

    @classmethod
    def of(cls, batch: StepBatch) -> "StepSubsets":
        """Subsets by the columns `subset` and `answer` of the batch; a purified example without an answer is hard."""
        subset, answer = batch.on_host("subset"), batch.on_host("answer").astype(np.int64)
        clean, purified, hard = (subset == s for s in (Subset.CLEAN, Subset.PURIFIED, Subset.HARD))
        silent = purified & (answer < 0)
        hard = hard | silent
        masks = clean, purified & ~silent, hard, hard
        return cls.on_device(batch, masks, batch.given_label, np.maximum(answer, 0))


def hard_losses(
    outputs: dict[str, Output],
    batch: StepBatch,
    subsets: StepSubsets,
    mean: Callable[[StepBatch, Tensor, Tensor], Tensor],
    config: NoiseALOptions,
    seed: int,
    epoch: int,
) -> dict[str, Tensor]:
    """NoiseAL's L_H of every network: EmbMix over the global batch, and the KL of two dropout passes over the
    hard rows here. A collective.

    Args:
        outputs: of the networks.
        batch: this worker's rows.
        subsets: how they train.
        mean: reduces values [B] over a mask [B].
        config: temperature, alpha and weight of the KL.
        seed: of the job.
        epoch: other epochs give other partners and shares.
    """
    joint = torch.stack([output.logits.softmax(-1).detach() for output in outputs.values()]).mean(0)
    trust = joint.gather(1, subsets.labels[:, None])[:, 0]
    targets = mixing.co_refined_target(subsets.labels, trust, joint, config.temperature)
    mix = EmbMix.draw(batch, subsets.mixed, targets, seed, epoch, config.alpha)
    terms = {}
    for name, output in outputs.items():
        terms[name] = mean(batch, mix.loss(batch, name, output), subsets.hard)
        if config.kl_weight:
            divergence = dropout_divergence(batch, name, output, subsets.hard_rows)
            terms[name] = terms[name] + config.kl_weight * mean(batch, divergence, subsets.hard)
    return terms


def log_odds_of_predicted(
    state: State, label_probability: npt.NDArray[np.floating], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Co-prediction's log pbar(predicted) - log qbar [Q]: at least 0, since the predicted label is the most probable one.

    Args:
        state: the columns.
        label_probability: [N] qbar.
        rows: [Q] positions of the examples.
    """
    tiny = np.finfo(np.float32).tiny
    predicted, given = (
        np.maximum(values[rows].astype(np.float64), tiny)
        for values in (state["confidence"], label_probability)
    )
    return np.asarray(np.log(predicted) - np.log(given))


def whom_to_ask(
    state: State, label_probability: npt.NDArray[np.floating], config: NoiseALOptions
) -> npt.NDArray[np.int64]:
    """Positions of the purified examples to ask about, the most doubtful first: those that have no answer yet,
    or all of them with `requery`, as far as the budget goes.

    Args:
        state: the columns.
        label_probability: [N] qbar.
        config: budget and questions in all.
    """
    purified = np.flatnonzero(state["subset"] == Subset.PURIFIED)
    rows = purified if config.requery else purified[state["answer"][purified] == UNANSWERED]
    doubt = state["confidence"][rows].astype(np.float32) - label_probability[rows]
    most = round(config.budget * len(purified))
    rows = rows[np.argsort(-doubt.round(DOUBT_DIGITS), kind="stable")][:most]
    if config.max_queries is not None:
        rows = rows[: max(config.max_queries - int(state["posed"].sum(dtype=np.int64)), 0)]
    return rows
