"""Which labels may change: the model's posterior and an annotator's answers, each believed as far as it has earned.

B suspects. Each has a given and a suggested label, and lp = log posterior(suggested) - log posterior(given). An
annotator, whose accuracy a was measured on control questions, says which of the two is right, or nothing. The
posterior ranks well, but its scale is off where labels are wrong systematically (it may expect .03 wrong labels
where .14 are), so the scale is learnt from the answers: were no suggestion right, 1 - a of them would be for the
suggestion, and were all right, a. No true label is used. Labels change only where the answers show that more
changes are right than wrong.

References: Rogan and Gladen, "Estimating prevalence from the results of a screening test", American Journal of
Epidemiology 107, 1978; Neuhaus, "Bias and efficiency loss due to misclassified responses in binary regression",
Biometrika 86, 1999; Dawid and Skene, Applied Statistics 28, 1979 (annotators as noisy observations).
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import scipy
from scipy.special import expit, logit

from rayclean.functional.types import Bools, Doubles, Floats, Ints, Labels
from rayclean.functional.worth import Worth

LEAST_ANSWERS = 30
"""With fewer answers the scale stays at `PRIOR_SCALE`."""
PRIOR_SCALE, PRIOR_SPREAD = (0.0, 0.5), (2.0, 0.5)
"""Mean and standard deviation of (b0, b1) before any answer: half the posterior's own log-odds, any share of right
suggestions from .02 to .98 within two standard deviations."""
LARGEST_LOG_ODDS = 10.0
"""Beyond it lp says no more, so that a few near-certain suspects do not rule the slope."""
SURELY = 0.99
"""Least confidence that most changes of a kind are right: with .95, one set in twenty on which no suggestion is right
would still be changed."""
SURE_ALONE = 0.85
"""Least posterior(suggested) / (posterior(suggested) + posterior(given)) for a change without an annotator. Its scale is not
known then: on relations of drugs and diseases one suggestion in fifteen is right, and at .7 the noise rose by .009."""
FEWEST_ALONE = 3
"""Fewer changes than this are not made without an annotator, but referred. Where all suspects but one or two are below
`SURE_ALONE`, those are rather the scale's outliers than surely wrong labels: over five seeds of three real sets 7 of 17 such
changes were right, and two wrong ones are .004 of 470 labels. A person has looked at two labels in a minute."""


class Decision(IntEnum):
    """What becomes of a suspect's label."""

    CHANGED = 0
    """It becomes the suggested label."""
    KEPT = 1
    """It stays: the answer confirms it, or the suggestion is improbable."""
    REFERRED = 2
    """It stays for now, but a person should look: what is known does not decide."""


class Gate(IntEnum):
    """What decided over the suspects of one annotator."""

    POSTERIOR_ALONE = 0
    """The annotator is not surely better than chance: its answers count for nothing."""
    CLOSED = 1
    """No answers show that more changes are right than wrong: no label changes."""
    OPEN = 2
    """The answers and the posterior on their scale."""


@dataclass(frozen=True)
class Decisions:
    """The decisions on B suspects, and what they rest on."""

    decision: Ints
    """[B] one of `Decision`."""
    probability: Doubles
    """[B] P(the suggested label is right | lp, answer), given that it or the given label is."""
    evidence: Doubles
    """[B] what the answer adds to the log-odds; 0 without one."""
    gate: Gate
    """What decided."""
    scale: tuple[float, float]
    """b0 and b1: P(right | lp) = sigmoid(b0 + b1 lp)."""


def decide(
    lp: Floats,
    given: Labels,
    suggested: Labels,
    answer: Labels,
    worth: Worth,
    accept: float,
    neither: float = 0.0,
    confidence: Floats | None = None,
    alone: bool = True,
) -> Decisions:
    """The decision on each suspect.

    1. *The annotator is not surely better than chance* (`Worth.above_chance`): the posterior alone decides, with
       P = sigmoid(lp). A label changes where P >= max(accept, .85), if it may decide `alone` and three or more do; all
       others are referred and none is kept, since the posterior's scale is unknown and most suspects may be wrong even
       where it believes their labels.
    2. Else P = `suggestion_probability` on the scale of `fit_scale`. An answer counts as right with the annotator's
       accuracy less one standard error, or with the confidence that the annotator itself has in it, where that is
       lower: control questions are easier than suspects, and an annotator that errs on hard ones is less sure there
       (on news with an annotator right on .98 of the controls and .69 of the right labels among suspects, wrong
       changes had a mean confidence of .73, right ones of .92). Suspects with P >= accept fall into three kinds:
       answer for the suggestion, for the given label, no answer. The labels of a kind change only where
       `confidence_that_most_are_right` is .99 or more, by the answers about all suspects that are no less suspect
       than any of this kind; else they are referred.
    3. *No kind passes*: nothing changes; an answer for the given label keeps it, all others are referred.
    4. Else labels with P <= 1 - accept are kept, and so are those that the answer confirms; between, and where the
       answer is a third label, they are referred.

    Args:
        lp: [B] log posterior(suggested) - log posterior(given).
        given: [B] given labels.
        suggested: [B] suggested labels, other than the given ones.
        answer: [B] the annotator's label; -1 for no answer. One that is neither given nor suggested, or any other
            negative number, stands for "neither".
        worth: of the annotator, from control questions.
        accept: least P for a change, harm / (harm + gain) of the two kinds of outcome, at least .5.
        neither: share of the suspects for which neither label is right, where something is known about it: their
            answers are guesses, and for the suggestion half of the time.
        confidence: [B] probability that the annotator gives its answer, between the two labels; None: it says none.
        alone: whether the posterior may change labels by itself; not where lp is a score that only ranks.

    Raises:
        ValueError: accept is outside [.5, 1].
    """
    if not 0.5 <= accept <= 1:
        raise ValueError(f"accept must be in [.5, 1], got {accept}")
    lp, answer = np.asarray(lp, dtype=np.float64), np.asarray(answer)
    agrees, confirms = answer == suggested, answer == given
    if not worth.above_chance:
        probability = expit(lp)
        changed = (probability >= max(accept, SURE_ALONE)) & alone
        changed &= changed.sum() >= FEWEST_ALONE
        decision, nothing = _decisions(changed, np.zeros_like(changed)), np.zeros(len(lp))
        return Decisions(decision, probability, nothing, Gate.POSTERIOR_ALONE, (0.0, 1.0))
    says = np.where(agrees, 1.0, np.where(confirms, 0.0, np.nan))
    accuracy = np.full(len(lp), worth.lower)
    if confidence is not None:
        accuracy = np.clip(np.where(np.isnan(says), worth.lower, confidence), 0.5, worth.lower)
    scale = fit_scale(lp, says, accuracy, neither)
    added = answer_evidence(lp, says, accuracy)
    probability = suggestion_probability(lp, says, accuracy, scale)
    suspicion, answered = scale[1] * _limited(lp), ~np.isnan(says)
    changed = np.zeros(len(lp), dtype=bool)
    for of_kind, evidence in ((agrees, 1), (confirms, -1), (answer == -1, 0)):
        if (rows := of_kind & (probability >= accept)).any():
            near = answered & (suspicion >= suspicion[rows].min())
            counts = int((agrees & near).sum()), int(near.sum())
            if confidence_that_most_are_right(evidence, *counts, worth, neither) >= SURELY:
                changed |= rows
    if not changed.any():
        return Decisions(_decisions(changed, confirms), probability, added, Gate.CLOSED, scale)
    third = ~answered & (answer != -1)
    kept = (confirms & (probability < accept)) | ((probability <= 1 - accept) & ~third)
    return Decisions(_decisions(changed, kept), probability, added, Gate.OPEN, scale)


def fit_scale(
    lp: Floats, says_suggested: Floats, accuracy: Floats | float, neither: float = 0.0
) -> tuple[float, float]:
    """The scale (b0, b1) of the posterior, from answers that are right with probability `accuracy`.

    Whether a suggestion is right is latent, with probability sigmoid(b0 + b1 lp); the answers observe it with
    errors of both kinds alike:

        P(answer for the suggestion) = u / 2 + (1 - u) (1 - a + (2 a - 1) sigmoid(b0 + b1 lp)).

    The scale maximises the likelihood of the answers times the normal prior of `PRIOR_SCALE` and `PRIOR_SPREAD`, by
    Fisher scoring with halved steps. It is where EM over the latent truths ends, which needs hundreds of steps for
    an annotator near chance.

    Args:
        lp: [B] log posterior(suggested) - log posterior(given).
        says_suggested: [B] 1 where the answer is the suggested label, 0 where it is the given one, NaN for none.
        accuracy: a, in [.5, 1], of all answers or of each [B].
        neither: u, the share of suspects for which neither label is right.

    Returns:
        b0, b1; `PRIOR_SCALE` where fewer than `LEAST_ANSWERS` answered.

    Raises:
        ValueError: the accuracy is outside [.5, 1] or `neither` outside [0, 1).

    >>> b0, b1 = fit_scale(np.zeros(1000), np.arange(1000) < 300, 0.8)  # (.3 - .2) / (.8 - .2) = 1 / 6 are right
    >>> round(float(expit(b0)), 3), round(b1, 3)
    (0.168, 0.5)
    """
    every = _of_each(accuracy, lp)
    _check(every, neither)
    says = np.asarray(says_suggested, dtype=np.float64)
    answered = ~np.isnan(says)
    lp, says, every = _limited(lp)[answered], says[answered], every[answered]
    if len(lp) < LEAST_ANSWERS:
        return PRIOR_SCALE
    order = np.lexsort((every, says, lp))  # sums of floating-point numbers depend on their order
    says, every, inputs = says[order], every[order], np.stack([np.ones_like(lp), lp[order]])
    prior, precision = np.array(PRIOR_SCALE), 1 / np.square(PRIOR_SPREAD)

    def loss(scale: Doubles) -> float:
        rate = _rate(expit(scale @ inputs), every, neither)
        return float(precision @ (scale - prior) ** 2 / 2 - np.log(np.where(says == 1, rate, 1 - rate)).sum())

    scale, current = prior, loss(prior)
    for _ in range(_STEPS):
        right = expit(scale @ inputs)
        rate = _rate(right, every, neither)
        variance = rate * (1 - rate)
        slope = (1 - neither) * (2 * every - 1) * right * (1 - right)
        gradient = inputs @ (slope * (says - rate) / variance) - precision * (scale - prior)
        information = (inputs * (slope**2 / variance)) @ inputs.T + np.diag(precision)
        step = np.linalg.solve(information, gradient)
        while (found := loss(scale + step)) > current and np.abs(step).max() > _SMALL_STEP:
            step = step / 2
        if found > current or np.abs(step).max() <= _SMALL_STEP:
            break
        scale, current = scale + step, found
    return float(scale[0]), float(scale[1])


def suggestion_probability(
    lp: Floats, says_suggested: Floats, accuracy: Floats | float, scale: tuple[float, float]
) -> Doubles:
    """P(the suggestion is right | lp, answer) [B], by Bayes' rule:

    sigmoid(b0 + b1 lp + y logit(a)), y = 1 for an answer for the suggestion, -1 for the given label, 0 for none.
    Arguments are those of `fit_scale`, and its result.

    >>> suggestion_probability(np.zeros(3), np.array([1, 0, np.nan]), 0.8, (0.0, 0.5)).round(3)
    array([0.8, 0.2, 0.5])
    """
    added = answer_evidence(lp, says_suggested, accuracy)
    return np.asarray(expit(scale[0] + scale[1] * _limited(lp) + added))


def answer_evidence(lp: Floats, says_suggested: Floats, accuracy: Floats | float) -> Doubles:
    """What each answer adds to the log-odds of its suggestion, y logit(a) [B]: y = 1 for an answer for it, -1 for the
    given label, 0 for none. Arguments are those of `fit_scale`.

    >>> answer_evidence(np.zeros(3), np.array([1, 0, np.nan]), 0.8).round(3)
    array([ 1.386, -1.386,  0.   ])
    """
    every = _of_each(accuracy, lp)
    _check(every)
    says = np.asarray(says_suggested, dtype=np.float64)
    sign = np.nan_to_num(2 * says - 1, nan=0.0)
    return np.asarray(np.multiply(sign, logit(every), out=np.zeros_like(sign), where=sign != 0))


def confidence_that_most_are_right(
    evidence: int, for_suggestion: int, answered: int, worth: Worth, neither: float = 0.0
) -> float:
    """How sure it is, in [0, 1], that most of the suggestions with some answer are right, by the number of answers for them.

    After an answer for it (`evidence` 1) a suggestion is right with probability 1/2 if before it is with 1 - a, after
    one for the given label (-1) if with a, without an answer (0) if with 1/2. The rate of answers for suggestions is
    then 2 a (1 - a), a^2 + (1 - a)^2 and 1/2. Returned is the probability of fewer answers for suggestions than there
    are, had they this rate: one less the p-value of the one-sided binomial test, averaged over the posterior of the
    annotator's accuracy a (`Worth.quantiles`), of which few control questions leave much open.

    >>> worth = Worth(135, 150)
    >>> [round(confidence_that_most_are_right(1, count, 100, worth), 2) for count in (15, 20, 25, 30)]
    [0.19, 0.52, 0.82, 0.96]
    """
    accuracy = np.maximum(worth.quantiles, 0.5)
    share = {1: 1 - accuracy, 0: np.full_like(accuracy, 0.5), -1: accuracy}[evidence]
    return float(scipy.stats.binom.cdf(for_suggestion - 1, answered, _rate(share, accuracy, neither)).mean())


_STEPS, _SMALL_STEP = 100, 1e-10


def _rate(right: Doubles, accuracy: Doubles | float, neither: float) -> Doubles:
    """Share of answers for the suggestion where suggestions are right with probability `right`."""
    rate = neither / 2 + (1 - neither) * (1 - accuracy + (2 * accuracy - 1) * right)
    return np.asarray(np.clip(rate, 1e-12, 1 - 1e-12))


def _limited(lp: Floats) -> Doubles:
    return np.clip(np.asarray(lp, dtype=np.float64), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)


def _decisions(changed: Bools, kept: Bools) -> Ints:
    codes = np.where(kept, Decision.KEPT, Decision.REFERRED)
    return np.where(changed, Decision.CHANGED, codes).astype(np.int8)


def _of_each(accuracy: Floats | float, lp: Floats) -> Doubles:
    return np.broadcast_to(np.asarray(accuracy, dtype=np.float64), np.shape(lp))


def _check(accuracy: Doubles, neither: float = 0.0) -> None:
    if (outside := accuracy[~((accuracy >= 0.5) & (accuracy <= 1))]).size:
        raise ValueError(
            f"accuracy must be in [.5, 1], got {outside[0]}: below chance, turn the answers round"
        )
    if not 0 <= neither < 1:
        raise ValueError(f"neither must be in [0, 1), got {neither}")
