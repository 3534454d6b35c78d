"""Temperature scaling: one number that makes a model's probabilities as sure as they are right.

    softmax(log p / T),  T > 1 makes them less sure, T < 1 surer; the order of the classes stays.

T is fitted by the log-loss on given labels, which needs no truth: what is calibrated are the probabilities of the labels
that would be given.

Reference: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2.
"""

import numpy as np
from scipy.optimize import minimize_scalar

from rayclean.functional.types import Doubles, Floats, Labels

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a temperature: beyond them the labels say nothing of the probabilities."""
LEAST = 20
"""Fewer labels leave the probabilities as they are."""
_TINY = 1e-12
"""A probability of 0 is taken for this."""


def scaled(probabilities: Floats, temperature: float) -> Doubles:
    """Probabilities [N, K] at a temperature; rows sum to 1.

    >>> scaled(np.array([[0.9, 0.1]]), 2.0).round(3)
    array([[0.75, 0.25]])
    """
    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _TINY)) / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def log_loss(probabilities: Floats, labels: Labels) -> float:
    """Mean of -log p of the labels; NaN without any."""
    if not len(labels):
        return float("nan")
    given = np.asarray(probabilities, dtype=np.float64)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(given, _TINY)).mean())


def fit_temperature(probabilities: Floats, labels: Labels) -> float:
    """The temperature of the lowest log-loss; 1 for fewer than `LEAST` labels.

    Args:
        probabilities: [N, K].
        labels: [N] known given labels.
    """
    if len(labels) < LEAST:
        return 1.0
    found = minimize_scalar(
        lambda log_temperature: log_loss(scaled(probabilities, np.exp(log_temperature)), labels),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))
