"""Calibration of an annotator's scores: its bias towards some labels, probabilities, the choice.

Rows are queries, columns their candidates: `candidates` [B, C] holds label indices, -1 where a query has
fewer. A small language model prefers some label words whatever the text says; subtracting each label's mean
score over many texts (batch calibration), or its score for a text without content, removes that and needs no
truth.

References: Zhou et al., "Batch calibration", ICLR 2024, eq. 5; Zhao et al., "Calibrate before use", ICML
2021.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.types import Floats, Ints

LEAST_TEXTS = 8
"""Batch calibration needs at least so many answers."""


def label_sums(
    labels: Ints, scores: Floats, num_classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Sum and number of the scores of each label; those of several batches may be added before `batch_bias`
    divides them.

    Args:
        labels: [M] label index of each score, -1 for none.
        scores: [M] log-probabilities.
        num_classes: K.

    Returns:
        sums [K] and counts [K].
    """
    keep = np.asarray(labels) >= 0
    labels, scores = np.asarray(labels)[keep], np.asarray(scores, dtype=np.float64)[keep]
    sums = np.bincount(labels, weights=scores, minlength=num_classes).astype(np.float64)
    return sums, np.bincount(labels, minlength=num_classes).astype(np.int64)


def batch_bias(sums: Floats, counts: Ints) -> npt.NDArray[np.float64]:
    """Mean score of each label [K]; 0 where a label was never scored.

    >>> batch_bias(np.array([-6.0, 0.0]), np.array([3, 0]))
    array([-2.,  0.])
    """
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), 0.0))


def steady_bias(sums: Floats, counts: Ints) -> npt.NDArray[np.float64]:
    """`batch_bias`, but 0 everywhere for fewer than `LEAST_TEXTS` texts.

    The mean of a few answers is mostly these answers (of a single one it is that answer), and subtracting it
    leaves nothing to decide by.

    >>> steady_bias(np.array([-6.0, -9.0]), np.array([3, 3]))
    array([0., 0.])
    """
    return batch_bias(sums, counts) if np.max(counts, initial=0) >= LEAST_TEXTS else np.zeros(len(sums))


def probabilities(scores: Floats, bias: Floats, candidates: Ints) -> npt.NDArray[np.float64]:
    """softmax(scores - bias) over the candidates of each row [B, C]; 0 in places without a candidate.

    Args:
        scores: [B, C] log-probabilities.
        bias: [B, C], or any shape that broadcasts to it.
        candidates: [B, C] label indices, -1 for none.

    >>> probabilities(np.array([[-1.0, -1.0]]), np.array([[-2.0, -2.0]]), np.array([[0, 1]]))
    array([[0.5, 0.5]])
    """
    is_candidate = np.asarray(candidates) >= 0
    logits = np.where(is_candidate, np.asarray(scores, dtype=np.float64) - bias, -np.inf)
    top = logits.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(weights / np.where(total > 0, total, 1.0))


def choose(probability: Floats, candidates: Ints) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The most probable candidate [B] and its probability [B]; the candidate is -1 where two tie or there is
    none.

    >>> choose(np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([[3, 7], [3, 7]]))
    (array([ 7, -1]), array([0.8, 0.5]))
    """
    probability = np.where(np.asarray(candidates) >= 0, probability, -1.0)
    best = probability.argmax(axis=1)
    rows = np.arange(len(probability))
    confidence = probability[rows, best]
    ties = (probability == confidence[:, None]).sum(axis=1) > 1
    chosen = np.where(ties | (confidence <= 0), -1, np.asarray(candidates)[rows, best])
    return chosen.astype(np.int64), np.maximum(confidence, 0.0)


def expected_calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over equal-width bins, weighted by the bins' sizes; NaN if
    empty.

    ECE = sum_b n_b / N |mean confidence_b - mean correct_b|; a confidence on an edge belongs to the bin above
    it.

    Reference: Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(confidence):
        return float("nan")
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
