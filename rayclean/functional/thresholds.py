"""Criteria for believing a label: a threshold per example (NoiseAL, DISC), or a mixture over losses
(DivideMix).

N examples. A verdict is `label probability > threshold`, or `posterior > 0.5`; `partition` makes subsets of
verdicts.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

APART = 1e-3
"""Components whose means (of min-max normalised losses) differ by less than this count as one."""


def exponential_average(
    threshold: npt.NDArray[Any], confidence: npt.NDArray[Any], rate: float
) -> npt.NDArray[Any]:
    """tau(t) = lambda p(t) + (1 - lambda) tau(t - 1), the dynamic threshold of every example.

    The paper leaves p(t) and tau(0) open. The reading taken: p(t) is the highest class probability max_k p_k,
    as in DISC (the label's own probability is the other reading; pass that), and tau(0) = 1/K. lambda = 0
    keeps the threshold, so a fixed threshold c is lambda = 0 with tau(0) = c; lambda = 1 is the last
    confidence. DISC writes momentum m = 1 - lambda.

    Args:
        threshold: [N] tau(t - 1), in [0, 1].
        confidence: [N] p(t), in [0, 1].
        rate: lambda in [0, 1].

    Returns:
        [N] tau(t), between the two, of `threshold`'s dtype.

    Raises:
        ValueError: lambda is outside [0, 1].

    >>> exponential_average(np.array([1 / 6]), np.array([0.5]), 0.9).round(6)
    array([0.466667])
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate (lambda) must be in [0, 1], got {rate}")
    return (rate * confidence + (1 - rate) * threshold).astype(threshold.dtype)


def clean_posterior(losses: npt.NDArray[Any], seed: int = 0) -> npt.NDArray[np.float64]:
    """omega: the posterior of the lower component of a two-component Gaussian mixture fitted to all losses.

    Losses are scaled to [0, 1] and fitted in sorted order, so that omega does not depend on the order of the
    examples. Beyond the two means omega need not be monotone, because the components' variances differ.

    Args:
        losses: [N] per-example cross-entropy.
        seed: seed of the mixture's initialisation.

    Returns:
        [N] in [0, 1]; all 1 where the losses do not fall into two components (all losses are equal, or the
        components' means differ by less than 1e-3).

    Raises:
        ValueError: a loss is NaN or infinite.

    Reference: Li et al., DivideMix, ICLR 2020, section 3.1; max_iter, tol and reg_covar are those of its
    code.

    >>> clean_posterior(np.array([0.05, 0.1, 2.2, 1.9])).round(3)
    array([1., 1., 0., 0.])
    """
    from sklearn.mixture import GaussianMixture

    losses = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(losses).all():
        raise ValueError(f"losses must be finite, got {int((~np.isfinite(losses)).sum())} that are not")
    span = float(np.ptp(losses)) if len(losses) else 0.0
    if span == 0.0:
        return np.ones(len(losses))
    scaled = ((losses - losses.min()) / span)[:, None]
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)
    mixture.fit(np.sort(scaled, axis=0))
    means = mixture.means_[:, 0]
    if abs(means[0] - means[1]) < APART:
        return np.ones(len(losses))
    return np.asarray(mixture.predict_proba(scaled)[:, means.argmin()], dtype=np.float64)
