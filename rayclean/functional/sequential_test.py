"""Is the share of right proposals in one finite set at least `target`? A test that may stop at any answer.

Of `size` proposals too many are wrong if W = floor(size (1 - target)) + 1 or more are. They are asked in random order; x
wrong answers among the first t have, if a of all are wrong, the probability

    L(a) = (a)_x (size - a)_(t-x) / (size)_t,        (n)_k = n (n - 1) ... (n - k + 1).

K_t = sum_a w_a L(a) / L(W) over some a < W is a martingale if W are wrong and a supermartingale if more are, so that it ever
reaches 1 / delta with probability at most delta (Ville's inequality): then the set is certified. No bet on answers drawn
without replacement grows faster against one a than its own term, and none has to be capped. K depends on t and x alone and
grows with t: `needed_answers` lists the t that certifies for every x.

References: Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement", NeurIPS 2020
(arXiv 2006.04347), section 2; the same, "Estimating means of bounded random variables by betting", JRSS-B 2024
(arXiv 2010.09686), section 5.
"""

from functools import cache

import numpy as np
import scipy
from scipy.special import gammaln, logsumexp

from rayclean.functional.types import Floats, Ints

ALTERNATIVES = 32
"""Numbers of wrong proposals that K_t bets on, spread over 0 ... W - 1."""


@cache
def needed_answers(size: int, target: float, delta: float, most: int) -> tuple[int, ...]:
    """The number of answers t that certifies a set when x = 0, 1, ... of them are wrong.

    Args:
        size: number of proposals in the set, at least 1.
        target: precision to be shown, in (0, 1).
        delta: probability of a false certificate, in (0, 1).
        most: the list ends at this x.

    Returns:
        t for x = 0 ... min(most, W - 1), rising; with W or more wrong ones the set is below the target.

    Raises:
        ValueError: target or delta is outside (0, 1).

    >>> needed_answers(20, target=0.95, delta=0.05, most=10)  # one wrong of 20 is a share of .95
    (16, 20)
    >>> needed_answers(1000, target=0.95, delta=0.05, most=5)
    (68, 114, 152, 187, 219, 249)
    """
    _check(target, delta)
    too_many = int(np.floor(size * (1 - target) + 1e-9)) + 1  # 1e-9: 20 * (1 - .95) is a little more than 1
    wrong = np.arange(min(too_many - 1, most) + 1)
    spread = np.linspace(0, too_many - 1, min(ALTERNATIVES, too_many))
    bets = np.unique(np.round(spread).astype(np.int64))[:, None]
    # Most weight on few wrong ones: what an auditor's time is worth spending on. For 0 / 1 / 2 wrong answers of 20,000
    # proposals (target .95, delta .05) 71 / 123 / 165 are needed, with equal weights 87 / 135 / 174.
    weights = (1 - bets / too_many) ** 2
    # With size - W + x + 1 answers more are right than in any bad set.
    low, high = wrong.copy(), size - too_many + wrong + 1
    while np.any(low < high):
        middle = (low + high) // 2
        right = middle - wrong  # at most size - W, because middle < high
        likely = np.where(
            bets >= wrong, _log_falling(bets, wrong) + _log_falling(size - bets, right), -np.inf
        )
        null = _log_falling(too_many, wrong) + _log_falling(size - too_many, right)
        reached = logsumexp(likely, axis=0, b=weights / weights.sum()) - null >= -np.log(delta)
        open_ = low < high
        low, high = np.where(open_ & ~reached, middle + 1, low), np.where(open_ & reached, middle, high)
    return tuple(int(t) for t in high)


def least_answers(target: float, delta: float, wrong: int = 0) -> int:
    """The answers by which an exact binomial test shows a precision of `target` when `wrong` of them are wrong.

    The least n with P(Binomial(n, 1 - target) <= wrong) <= delta. It fits a large set of which a fixed number is asked; a
    test that may stop at any answer needs a few more (`needed_answers`), and one of a small set fewer.

    Args:
        target: in (0, 1).
        delta: in (0, 1).
        wrong: at least 0.

    Raises:
        ValueError: target or delta is outside (0, 1).

    >>> [least_answers(0.95, 0.05, wrong) for wrong in (0, 1, 2, 5)]
    [59, 93, 124, 208]
    """
    _check(target, delta)
    low, high = wrong, wrong + 1  # low is too few
    while scipy.stats.binom.cdf(wrong, high, 1 - target) > delta:
        low, high = high, 2 * high
    while low + 1 < high:
        middle = (low + high) // 2
        if scipy.stats.binom.cdf(wrong, middle, 1 - target) > delta:
            low = middle
        else:
            high = middle
    return high


def _log_falling(n: Ints | int, k: Ints) -> Floats:
    """Logarithm of n (n - 1) ... (n - k + 1); without meaning where k > n."""
    return np.asarray(gammaln(n + 1.0) - gammaln(np.maximum(n - k, 0) + 1.0))


def _check(target: float, delta: float) -> None:
    if not 0 < target < 1:
        would_do = "only an answer for every proposal shows this" if target >= 1 else "0 answers show this"
        raise ValueError(f"target must lie between 0 and 1, got {target:g}: {would_do}")
    if not 0 < delta < 1:
        would_do = (
            "only an answer for every proposal is never false" if delta <= 0 else "0 answers do for this"
        )
        raise ValueError(f"delta must lie between 0 and 1, got {delta:g}: {would_do}")
