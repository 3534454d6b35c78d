"""Ablations of NoiseAL: other thresholds, other splits, other uses of the answers. The main line is in
`noiseal.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.functional import partition, thresholds
from rayclean.functional.partition import Subset
from rayclean.methods.base import State
from rayclean.methods.batch import StepBatch
from rayclean.methods.embmix import StepSubsets
from rayclean.methods.noiseal_options import NoiseALOptions

Divide = Callable[..., npt.NDArray[np.int8]]


def verdict(config: NoiseALOptions, label_probability: npt.NDArray[Any], seed: int) -> npt.NDArray[np.bool_]:
    """Whether a network finds the labels right, by a mixture over the losses or by a fixed threshold.

    Args:
        config: `threshold` is `mixture` or `fixed`.
        label_probability: [N] the network's probability of the given labels.
        seed: of the job.

    Returns:
        [N].
    """
    if config.threshold == "fixed":
        return np.asarray(label_probability > config.fixed_threshold)
    loss = -np.log(np.maximum(label_probability, np.finfo(np.float32).tiny))
    return np.asarray(thresholds.clean_posterior(loss, seed) > 0.5)


def division(config: NoiseALOptions, state: State) -> Divide:
    """The function that makes subsets of verdicts, where it is not `partition.by_verdicts`."""
    if config.partition == "agreement":
        return functools.partial(partition.by_agreement, agree=state["agree"] > 0)
    return partition.by_disc


def step_subsets(config: NoiseALOptions, batch: StepBatch, rows: dict[str, Tensor]) -> StepSubsets:
    """Subsets of a batch where answers are adopted as labels, or where silence makes no hard example.

    Args:
        config: `adopt`, or `without_answer` is not `hard`.
        batch: this worker's rows.
        rows: their columns [B].
    """
    subset, answer = rows["subset"], rows["answer"].long()
    clean, purified, hard = (subset == s for s in (Subset.CLEAN, Subset.PURIFIED, Subset.HARD))
    answered = (answer >= 0) & (clean | purified | hard)
    labels, answers = batch.given_label, answer.clamp(min=0)
    silent = purified & ~answered
    if config.without_answer == "predicted":
        answers = torch.where(silent, rows["predicted"].long(), answers)
    else:
        purified = purified & ~silent
    if config.without_answer == "hard":
        hard = hard | silent
    if config.adopt:  # an answer of an earlier epoch stays adopted, wherever the example is now
        labels = torch.where(answered, answers, labels)
        clean, purified, hard = clean | answered, purified & ~answered, hard & ~answered
    return StepSubsets(clean, purified, hard, labels, answers)
