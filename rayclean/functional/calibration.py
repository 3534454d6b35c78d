"""From an annotator's scores to probabilities and a choice, and how well probabilities are calibrated.

Rows are queries, columns their candidates: `candidates` [B, C] holds label indices, -1 where a query has fewer. A
small language model prefers some label words whatever the text says; what is subtracted for it is measured by control
questions (`worth.marginal_bias`), or is the score of a text without content.

Reference: Zhao et al., "Calibrate before use", ICML 2021.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.types import Floats, Ints


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
