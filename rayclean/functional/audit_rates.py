"""What an audit of a few dozen examples says about all: how many labels are wrong, and how many of these detection sees.

An auditor has said of some examples whether their label is wrong. The examples fall into two parts, suspects and the rest;
within each part every example was equally likely to be drawn, without replacement (`stratified_draw` keeps to this but for
the rounding of its strata; strata within a part only make the estimates better than their intervals, those of
`proportions`, say).
"""

from dataclasses import dataclass

import numpy as np
import scipy

from rayclean.functional.hashing import mix
from rayclean.functional.proportions import AuditedPart, Rate, found_share, noise_rate, proportion_limits
from rayclean.functional.types import Bools, Floats, Ids, Ints

STRATA = 10
"""`stratified_draw` draws from so many groups of equal size."""
MOST = 0.5
"""Noise is systematic only where less than this share of the wrong labels are suspects."""
CLEARLY_MORE = 0.03
"""Noise outside of the suspects counts as unexpected from so much above the expected rate."""
SURELY_FOUND = 0.2
"""Noise is random-like where at least this share of the wrong labels are surely suspects ..."""
NOT_MUCH_MORE = 0.1
"""... or the rest surely holds at most so much more noise than expected."""


@dataclass(frozen=True)
class AuditRates:
    """What an audit says about the labels of all examples."""

    noise: Rate
    """Wrong labels among all."""
    among_suspects: Rate
    """Wrong labels among the suspects: the precision of detection."""
    among_rest: Rate
    found: Rate
    """Suspects among all wrong labels: what detection can see (its recall)."""
    unexpected: float
    """p-value of so many wrong labels in the rest, were their rate the expected one plus `CLEARLY_MORE`."""
    systematic: bool
    """Whether that is less than 1 - level and most wrong labels are surely no suspects: labels are wrong in ways that
    detection does not see."""


@dataclass(frozen=True)
class AnnotatorRates:
    """What an audit of suspects says about the annotator that was asked about them."""

    accuracy: Rate
    """Its answers that are the auditor's."""
    repaired: Rate
    """Right labels after, among the labels that were wrong before."""
    harmed: Rate
    """Wrong labels after, among the labels that were right before."""


def audit_rates(
    wrong: Bools, suspect: Bools, suspects: int, examples: int, expected_rest: float, level: float = 0.95
) -> AuditRates:
    """All rates of an audit.

    Labels count as systematically wrong when the audited rest holds clearly more wrong ones than detection expects there, in
    a one-sided exact test, and the upper limit of the share of wrong labels that are suspects is below a half. The second
    alone is not enough: where the noise is high and the budget small, most wrong labels lie outside of the suspects. Nor is
    the first: every detection misses some.

    Args:
        wrong: [A] whether the label of each audited example is wrong, each example once.
        suspect: [A] whether it is one of the suspects; those that a draw from all examples hit are included.
        suspects: number of suspects.
        examples: number of all examples.
        expected_rest: the rate of wrong labels among the other examples that detection expects (the mean of 1 - quality
            over them, where quality is a probability).
        level: of the two-sided intervals, and of the one-sided test.

    Returns:
        The rates; a part of which nothing was audited has the limits 0 and 1.

    Raises:
        ValueError: more examples were audited than there are, or expected_rest or level is outside its range.

    >>> wrong, suspect = np.repeat([True, False, True, False], [35, 15, 18, 32]), np.arange(100) < 50
    >>> found = audit_rates(wrong, suspect, suspects=100, examples=1000, expected_rest=0.06)
    >>> round(found.noise.value, 3), round(found.noise.low, 3), round(found.noise.high, 3)  # .1 * .7 + .9 * .36
    (0.394, 0.28, 0.523)
    >>> round(found.found.value, 3), found.systematic  # .07 / .394
    (0.178, True)
    """
    wrong, suspect = np.asarray(wrong, dtype=np.bool_), np.asarray(suspect, dtype=np.bool_)
    inside = AuditedPart(suspects, int(suspect.sum()), int((wrong & suspect).sum()))
    rest = AuditedPart(examples - suspects, int((~suspect).sum()), int((wrong & ~suspect).sum()))
    p_value, found = unexpected_noise(rest, expected_rest), found_share(inside, rest, level)
    return AuditRates(
        noise=noise_rate([inside, rest], level),
        among_suspects=noise_rate([inside], level),
        among_rest=noise_rate([rest], level),
        found=found,
        unexpected=p_value,
        systematic=p_value < 1 - level and found.high < MOST,
    )


def is_random_like(found_low: float, rest_high: float, expected_rest: float) -> bool:
    """Whether an audit that shows no systematic noise has enough answers to deny it.

    Where little was answered both limits are wide, and a single answer is never enough. In simulated audits of a tenth of
    suspects that hold half of the wrong labels, 50 + 50 answers are enough in 99 of 100 audits and 10 + 10 in 15; where they
    hold less than a fifth, it is said in 5 of 100 at most.

    Args:
        found_low: lower limit of the share of wrong labels that are suspects (`AuditRates.found`).
        rest_high: upper limit of the share of the rest that is wrong (`AuditRates.among_rest`).
        expected_rest: this share as detection expects it.

    >>> is_random_like(0.3, 0.18, 0.02), is_random_like(0.0, 0.08, 0.02), is_random_like(0.07, 1.0, 0.02)
    (True, True, False)
    """
    return found_low >= SURELY_FOUND or rest_high <= expected_rest + NOT_MUCH_MORE


def annotator_rates(
    answer_right: Bools, wrong_before: Bools, wrong_after: Bools, level: float = 0.95
) -> AnnotatorRates:
    """Accuracy of the annotator on audited suspects, and what became of their labels.

    The limits are Clopper-Pearson's for a large population, which also hold for a small one.

    Args:
        answer_right: [B] whether its answer is the auditor's label, of the suspects that it answered.
        wrong_before: [A] whether the given label is wrong.
        wrong_after: [A] whether the label after all decisions is wrong.
        level: of the intervals.

    >>> rates = annotator_rates(np.arange(50) < 40, np.arange(50) < 30, np.arange(50) < 10)
    >>> rates.accuracy.value, round(rates.repaired.value, 2), rates.harmed.value, round(rates.harmed.high, 3)
    (0.8, 0.67, 0.0, 0.168)
    """
    right, before, after = (
        np.asarray(each, dtype=np.bool_) for each in (answer_right, wrong_before, wrong_after)
    )

    def rate(hits: Bools) -> Rate:
        low, high = proportion_limits(int(hits.sum()), len(hits), None, (1 - level) / 2)
        return Rate(float(hits.mean()) if len(hits) else np.nan, low, high)

    return AnnotatorRates(rate(right), rate(~after[before]), rate(after[~before]))


def unexpected_noise(rest: AuditedPart, expected: float) -> float:
    """P-value of at least as many wrong labels as were seen, if a share `expected + CLEARLY_MORE` of the part is wrong.

    Raises:
        ValueError: expected is outside [0, 1].

    >>> round(unexpected_noise(AuditedPart(size=900, drawn=45, wrong=5), expected=0.01), 3)  # 4 % or 1.8 expected, 5 seen
    0.029
    """
    if not 0 <= expected <= 1:
        raise ValueError(f"the expected rate must be in [0, 1], got {expected:g}")
    bad = min(int(np.ceil((expected + CLEARLY_MORE) * rest.size - 1e-9)), rest.size)
    return float(scipy.stats.hypergeom.sf(rest.wrong - 1, rest.size, bad, rest.drawn)) if rest.drawn else 1.0


def error_bound(part: AuditedPart, delta: float = 0.05) -> float:
    """The share of wrong labels in a set is at most this, except with probability delta (an exact one-sided bound).

    For all labels at the end, the part is the examples of a random draw from all.

    >>> round(error_bound(AuditedPart(size=100_000, drawn=100, wrong=0)), 4)  # 1 - .05 ** (1 / 100)
    0.0295
    """
    return proportion_limits(part.wrong, part.drawn, part.size, delta)[1]


def stratified_draw(ids: Ids, values: Floats, count: int, seed: int, purpose: str) -> Ints:
    """Rows of `count` examples, spread evenly over the order of `values`.

    The examples are cut by value into `STRATA` groups of equal size (ties by a hash of the id); each gives its share of the
    count, those with the lowest hash. Draws under other purposes are independent.

    Args:
        ids: [N].
        values: [N] quality of random examples, probability of being right of suspects.
        count: number of examples to draw; all if there are not more.
        seed: of the audit.
        purpose: a name, such as "audit of suspects".

    Returns:
        Rows in order of the hash: a first part of them is a fair draw too, if less even.

    >>> rows = stratified_draw(np.arange(1000), np.linspace(0, 1, 1000), count=20, seed=0, purpose="audit")
    >>> np.bincount(rows // 100)
    array([2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    ids = np.asarray(ids)
    hashes, ties = mix(ids, seed, purpose), mix(ids, seed, f"{purpose}: ties")
    place = np.empty(len(ids), dtype=np.int64)
    place[np.lexsort((ties, np.asarray(values, dtype=np.float64)))] = np.arange(len(ids))
    stratum = place * STRATA // max(len(ids), 1)
    order = np.argsort(hashes, kind="stable")
    # Rank within the stratum over the stratum's size: the same share of every stratum comes first.
    rank = np.empty(len(ids))
    for each in range(STRATA):
        rows = order[stratum[order] == each]
        rank[rows] = (np.arange(len(rows)) + 0.5) / max(len(rows), 1)
    chosen = np.lexsort((hashes, rank))[:count]
    return np.asarray(chosen[np.argsort(hashes[chosen], kind="stable")])
