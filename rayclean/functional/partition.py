"""The split of examples into clean, hard and purified ones, by NoiseAL's rules and by DISC's.

N examples. Two networks (or two views) v have judged each label: q^v is the probability of the given label,
tau^v the example's threshold, and the verdicts are a = [q^s > tau^s] and b = [q^w > tau^w]. pbar and taubar
are the means of the two networks' probabilities and thresholds.

| | verdicts (default) | agreement | disc |
|---|---|---|---|
| CLEAN | a and b | both predict the label, a and b | a and b |
| PURIFIED | neither, disputed, sure | both predict one other class, sure | neither, disputed, sure |
| HARD | the rest | the rest | exactly one of a, b |
| UNUSED | - | - | the rest |

*Disputed*: argmax pbar is not the given label. *Sure*: max_k pbar_k > min(taubar + sigma, 0.99).

The NoiseAL paper's own inequalities are not public. Known are a first split into a consistency and a
discrepancy set by both networks, and that P is "high confidence but low clean probability"; the first two
columns are reconstructions. *Disputed* follows from *neither* and *sure* while taubar + sigma <= 0.99. It is
required besides, because thresholds of sure networks rise above the cap: a small dip of an example that both
predict as labelled would purify it otherwise.
"""

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.functional.types import Mask

SURE = 0.99
"""A confidence above this counts as sure whatever the threshold is (DISC's code)."""

Values = npt.NDArray[Any]


class Subset(IntEnum):
    """The subset that an example belongs to; the papers' R, H and P."""

    UNUSED = -1
    """The example belongs to none: it is not split yet, or belongs to DISC's rest."""
    CLEAN = 0
    """R, reliable: the method trains on the given label."""
    HARD = 1
    """H: the method trains on mixed examples, without trust in the label."""
    PURIFIED = 2
    """P: the label is taken for wrong, and the annotator is asked."""


def by_verdicts(
    strong: Mask,
    weak: Mask,
    disputed: Mask,
    confidence: Values,
    threshold: Values,
    sigma: float = 0.0,
) -> npt.NDArray[np.int8]:
    """NoiseAL's split in its default reading: the networks' verdicts on the given label decide.

    Args:
        strong: [N] a.
        weak: [N] b.
        disputed: [N] argmax pbar != given label.
        confidence: [N] max_k pbar_k.
        threshold: [N] taubar.
        sigma: by how much the confidence of P must exceed taubar.

    Returns:
        [N] `Subset`; CLEAN, HARD and PURIFIED cover all.
    """
    sure = _sure(confidence, threshold, sigma)
    return _subsets(clean=strong & weak, purified=~strong & ~weak & disputed & sure, rest=Subset.HARD)


def by_agreement(
    strong: Mask,
    weak: Mask,
    disputed: Mask,
    confidence: Values,
    threshold: Values,
    sigma: float = 0.0,
    *,
    agree: Mask,
) -> npt.NDArray[np.int8]:
    """NoiseAL's split in another reading: whether both networks predict the same class comes first.

    Args:
        strong: [N] a.
        weak: [N] b.
        disputed: [N] argmax pbar != given label; where both networks agree that is their common class.
        confidence: [N] max_k pbar_k.
        threshold: [N] taubar.
        sigma: by how much the confidence of P must exceed taubar.
        agree: [N] argmax p^s = argmax p^w.

    Returns:
        [N] `Subset`; CLEAN, HARD and PURIFIED cover all.
    """
    sure = _sure(confidence, threshold, sigma)
    return _subsets(agree & ~disputed & strong & weak, agree & disputed & sure, rest=Subset.HARD)


def by_disc(
    strong: Mask,
    weak: Mask,
    disputed: Mask,
    confidence: Values,
    threshold: Values,
    sigma: float = 0.5,
) -> npt.NDArray[np.int8]:
    """DISC's selection (Li et al., CVPR 2023, with the constants of its code): HARD where the verdicts
    differ, the rest unused.

    Args:
        strong: [N] a, of the strong view.
        weak: [N] b, of the weak view.
        disputed: [N] argmax pbar != given label.
        confidence: [N] max_k pbar_k.
        threshold: [N] taubar.
        sigma: by how much the confidence of P must exceed taubar; at 1 or more only the cap of 0.99 lets any
            in.

    Returns:
        [N] `Subset`.
    """
    subsets = by_verdicts(strong, weak, disputed, confidence, threshold, sigma)
    subsets[(subsets == Subset.HARD) & (strong == weak)] = Subset.UNUSED
    return subsets


def most_likely_clean(
    labels: npt.NDArray[np.integer[Any]], label_probability: Values, share: float = 0.1
) -> Mask:
    """The examples whose label is the most probable, a share of every class; they replace an empty CLEAN.

    Args:
        labels: [N] given labels.
        label_probability: [N] the given label's probability, the networks' mean.
        share: share of each class, rounded up.

    Returns:
        Whether each example is chosen [N]; at least one of every class that occurs is. Ties go to the example
        that comes first.

    >>> most_likely_clean(np.array([0, 0, 0, 1]), np.array([0.2, 0.9, 0.9, 0.1]), share=0.3)
    array([False,  True, False,  True])
    """
    order = np.lexsort((-label_probability, labels))  # stable: by label, then the most probable first
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(first, counts)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    chosen[order] = rank < np.repeat(np.ceil(share * counts - 1e-9), counts)  # .3 x 10 is not more than 3
    return chosen


def _sure(confidence: Values, threshold: Values, sigma: float) -> Mask:
    return np.asarray(confidence > np.minimum(threshold + sigma, SURE), dtype=np.bool_)


def _subsets(clean: Mask, purified: Mask, rest: Subset) -> npt.NDArray[np.int8]:
    return np.select([clean, purified], [Subset.CLEAN, Subset.PURIFIED], rest).astype(np.int8)
