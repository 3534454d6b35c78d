"""A certificate of precision: how many of the most confident proposals may be accepted, by a few answers of an auditor.

N proposals (changed labels), most confident first. The certificate states of this finite set that the share of right
proposals among the accepted ones is at least `target`, and a statement of this kind is false with probability at most
`delta` over the random order of the questions, whatever the annotator, its confidence and the labels are like.

The sets N_1 < ... < N_M = N of the most confident are tested in this order, and the first that is not certified ends the
test: no correction for their number is due, because the first set that falls short is certified with probability at most
delta. All sets ask in one order, so that answers are used again.

What the certificate does not say: it speaks of the auditor's judgement and not of the truth, of the whole accepted set and
not of a class; it is void when the proposals or their order change, and when questions are drawn again with another seed
because the first answers were bad. What is not accepted is not thereby wrong.

Reference: the nested test is that of BARGAIN (arXiv 2509.02896); the test of each set stands in `precision`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rayclean.functional.hashing import mix
from rayclean.functional.sequential_test import needed_answers
from rayclean.functional.types import Bools, Floats, Ids, Ints

RIGHT, WRONG, NO_ANSWER = 1, 0, -1
"""What an array of answers holds for each proposal."""
LEAST_SET = 60
"""The first set has at least so many proposals: a smaller one is certified by little less than asking for all of it."""
FIRST_SHARE = 0.1
"""The first set has at least this share of all proposals: each doubling costs some 50 further answers."""

Reason = Literal["all", "below target", "budget", "answers"]
"""Why the test went no further: all sets are certified; the next set holds too many wrong proposals for certain; the
budget could not certify the next set even if all further answers were "right"; the next answer is not there yet.
"""
AnswerSource = Ints | Callable[[int], bool]
"""Whether the proposal of a row is right, as an array of RIGHT, WRONG, NO_ANSWER, or by asking the auditor."""


@dataclass(frozen=True)
class Certified:
    """What the answers certify."""

    accepted: int
    """The so many most confident proposals hold at least `target` right ones."""
    audited: Ints
    """Rows of the proposals whose answers were used, in the order asked."""
    wrong: int
    """So many of them were wrong."""
    reason: Reason


def certified_size(
    answers: AnswerSource,
    order: Ints,
    permutation: Ints,
    target: float,
    delta: float,
    budget: int,
    steps: int = 20,
) -> Certified:
    """How many of the most confident proposals are certified to hold at least `target` right ones.

    An answer that is not there ends the test at that point (skipping it would let the auditor choose); what was certified
    before stands, and `next_questions` says what to ask. Answers that are there but are not reached are not used; they count
    towards the budget, of which the rest is left for questions.

    Args:
        answers: [N] of RIGHT, WRONG, NO_ANSWER, or a function of a row that asks the auditor (called once per row).
        order: [N] rows, most confident first (`confidence_order`), fixed before the first answer.
        permutation: [N] random number of each row (`audit_permutation`), in whose order rows of a set are asked.
        target: precision that the accepted proposals must have, in (0, 1).
        delta: probability of a false certificate, in (0, 1).
        budget: number of proposals that may be asked about.
        steps: number of nested sets M.

    Returns:
        The number of accepted proposals, rows audited, how many of them were wrong, and why the test ended.

    Raises:
        ValueError: target or delta is outside (0, 1), lengths differ, or the budget is less than `fewest_answers`.

    >>> ids = np.arange(400)
    >>> found = certified_size(np.ones(400), ids, audit_permutation(ids, 0), target=0.9, delta=0.05, budget=100)
    >>> found.accepted, len(found.audited), found.wrong, found.reason
    (400, 80, 0, 'all')
    """
    if callable(answers):
        known, answer = np.zeros(len(order), dtype=np.bool_), answers
    else:
        known, answer = np.asarray(answers) != NO_ANSWER, np.asarray(answers).__getitem__
    return _walk(answer, known, order, permutation, target, delta, budget, steps)


def next_questions(
    answers: Ints, order: Ints, permutation: Ints, target: float, delta: float, budget: int, steps: int = 20
) -> Ints:
    """Rows still to be asked about, in the order in which `certified_size` needs them.

    It is the same test, with "right" for every answer that is not there: the most that can be certified with the rest of the
    budget. Any first part of the list may be asked in one go; where some answers are "wrong" the next call lists the
    questions that this makes necessary. Forms of 25 certify what asking one by one does (.41 of 1,000 proposals of precision
    .98 with 200 answers, target .95), forms of 50 nearly so (.38); all 200 in one form waste many (.17). Empty where no
    further answer can change anything.

    Args and errors: those of `certified_size`, whose `answers` are an array here (all NO_ANSWER for the first form).

    >>> ids = np.arange(100)
    >>> rows = next_questions(np.full(100, NO_ANSWER), ids, audit_permutation(ids, 0), target=0.9, delta=0.05, budget=60)
    >>> len(rows), rows[:5]
    (33, array([ 1, 56, 11, 35, 15]))
    """
    known = np.asarray(answers) != NO_ANSWER
    hoped = np.where(known, answers, RIGHT)
    audited = _walk(hoped.__getitem__, known, order, permutation, target, delta, budget, steps).audited
    return np.asarray(audited[~known[audited]])


def _walk(
    answer: Callable[[int], int],
    known: Bools,
    order: Ints,
    permutation: Ints,
    target: float,
    delta: float,
    budget: int,
    steps: int,
) -> Certified:
    order, permutation = np.asarray(order), np.asarray(permutation)
    if not len(order) == len(permutation) == len(known):
        lengths = f"{len(order)}, {len(permutation)} and {len(known)}"
        raise ValueError(f"order, permutation and answers must be of one length, got {lengths}")
    least = fewest_answers(len(order), target, delta, steps)
    if budget < least:
        raise ValueError(
            f"{budget} answers certify nothing of {len(order)} proposals at target {target:g} and delta {delta:g}; "
            f"at least {least} are needed, or a lower target"
        )
    in_turn = order[np.argsort(permutation[order], kind="stable")]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    asked: dict[int, int] = {}
    accepted, paid = 0, int(known.sum())

    def test(size: int) -> Reason | None:
        """Ask until the set is certified (None) or a reason not to go on."""
        needed = needed_answers(size, target, delta, budget)
        rows = in_turn[place[in_turn] < size][: needed[-1]].tolist()
        seen = wrong = 0
        while wrong < len(needed):
            if seen == needed[wrong]:
                return None
            further = [row for row in rows[seen : needed[wrong]] if row not in asked]
            unknown = sum(not known[row] for row in (*asked, *further))
            if len(asked) + len(further) > budget or (unknown and unknown + paid > budget):
                return "budget"
            for row in rows[seen : needed[wrong]]:
                if row not in asked:
                    asked[row] = int(answer(row))
                    if asked[row] == NO_ANSWER:
                        del asked[row]
                        return "answers"
                seen += 1
                if asked[row] == WRONG:
                    wrong += 1
                    break
        return "below target"

    reason: Reason = "all"
    for size in nested_sizes(len(order), steps):
        ended = test(size)
        if ended is not None:
            reason = ended
            break
        accepted = size
    rows = np.fromiter(asked, dtype=np.int64, count=len(asked))
    return Certified(accepted, rows, sum(said == WRONG for said in asked.values()), reason)


def nested_sizes(count: int, steps: int = 20) -> list[int]:
    """N_1 < ... < N_M = N, evenly spaced from the larger of 60 and a tenth of all; only N where that is not less.

    Args:
        count: N, the number of proposals.
        steps: M, at least 1; fewer sizes come back where N_M - N_1 < M - 1.

    Raises:
        ValueError: steps is less than 1.

    >>> nested_sizes(160, steps=6), nested_sizes(1000, steps=4), nested_sizes(50)
    ([60, 80, 100, 120, 140, 160], [100, 400, 700, 1000], [50])
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    first = max(LEAST_SET, round(FIRST_SHARE * count))
    if steps == 1 or first >= count:
        return [count] if count else []
    return [int(size) for size in np.unique(np.round(np.linspace(first, count, steps)).astype(int))]


def fewest_answers(count: int, target: float, delta: float, steps: int = 20) -> int:
    """The answers, none of them wrong, that certify the first of the nested sets of `count` proposals; a smaller budget
    certifies nothing.

    Raises:
        ValueError: target or delta is outside (0, 1).

    >>> [fewest_answers(count, target=0.95, delta=0.05) for count in (50, 150, 1000, 10_000)]
    [33, 34, 43, 68]
    """
    sizes = nested_sizes(count, steps)
    return int(needed_answers(sizes[0], target, delta, 0)[0]) if sizes else 0


def enough_answers(most: int, target: float, delta: float, steps: int = 20) -> int:
    """The answers that are as many as `fewest_answers` of any number of proposals up to `most`.

    The need grows with the first nested set, but falls back where one more wrong proposal is too few to put it below the
    target: with target .95, 39 answers are needed for 59 proposals and 34 for 60.

    Raises:
        ValueError: target or delta is outside (0, 1).

    >>> [enough_answers(most, target=0.95, delta=0.05) for most in (50, 150, 1000, 10_000)]
    [33, 39, 48, 69]
    """
    if most < 1:
        return 0
    large = nested_sizes(most, steps)[0]
    allowed = int(np.floor(large * (1 - target) + 1e-9))  # wrong proposals, as in `needed_answers`
    before = int(np.ceil(allowed / (1 - target) - 1e-9)) - 1  # the largest set that allows one fewer
    return max(needed_answers(size, target, delta, 0)[0] for size in {large, max(before, 1)})


def confidence_order(confidence: Floats, ids: Ids) -> Ints:
    """Rows by confidence, highest first; ties in an order that belongs to the ids.

    The order of ties has nothing to do with that of the questions: a set that took those of its ties which are asked first
    would not be asked in random order.
    """
    return np.asarray(
        np.lexsort((mix(ids, 0, "certificate ties"), -np.asarray(confidence, dtype=np.float64)))
    )


def audit_permutation(ids: Ids, seed: int) -> Ints:
    """A random number per id, by which questions are ordered; one seed for the life of a certificate.

    Raises:
        ValueError: an id occurs twice.
    """
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"ids must differ, got {len(np.unique(ids))} different ones among {len(ids)}")
    return np.asarray(mix(ids, seed, "certificate"))


def merged_answers(count: int, rows: Ints, right: Ints) -> tuple[Ints, Ints]:
    """An auditor's answers as an array, whatever order they come in and however often each is given.

    Args:
        count: N.
        rows: [A] row of each answer.
        right: [A] True or RIGHT where the proposal is right, False or WRONG where not, NO_ANSWER where left open.

    Returns:
        answers [N] of RIGHT, WRONG, NO_ANSWER, and the rows that were answered both ways. These count as wrong: the auditor
        has not clearly said that the proposal is right.

    Raises:
        ValueError: a row is not in 0 ... N - 1.

    >>> merged_answers(4, np.array([2, 0, 2, 0, 3]), np.array([1, 1, 1, 0, -1]))
    (array([ 0, -1,  1, -1], dtype=int8), array([0]))
    """
    rows, right = np.asarray(rows, dtype=np.int64), np.asarray(right, dtype=np.int8)
    if np.any((rows < 0) | (rows >= count)):
        raise ValueError(f"rows of answers must be in 0 ... {count - 1}, got {rows.min()} ... {rows.max()}")
    answers = np.full(count, NO_ANSWER, dtype=np.int8)
    answers[rows[right == RIGHT]] = RIGHT
    denied = rows[right == WRONG]
    conflicting = np.unique(denied[answers[denied] == RIGHT])
    answers[denied] = WRONG
    return answers, conflicting
