"""Golden numbers, limits and coverage of the certificate of precision."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.certificate import (
    NO_ANSWER,
    Certified,
    audit_permutation,
    certified_size,
    confidence_order,
    enough_answers,
    fewest_answers,
    merged_answers,
    nested_sizes,
    next_questions,
)
from rayclean.functional.sequential_test import least_answers, needed_answers

TARGET, DELTA = 0.95, 0.05


def certify(right: np.ndarray, seed: int = 0, budget: int = 200, target: float = TARGET) -> Certified:
    rows = np.arange(len(right))
    return certified_size(right, rows, audit_permutation(rows, seed), target, DELTA, budget)


# One set.


def test_needed_answers_by_hand() -> None:
    # 20 proposals, target .95: two wrong are too many, bets on 0 and 1 wrong with weights 1 and 1/4, that is .8 and .2.
    # All of t right has probability C(20 - t, a) / C(20, a) if a are wrong: over a = 2, with C(20, 2) = 190,
    # t = 15: .8 * 190/10 + .2 * (5/20) (190/10) = 15.2 + .95 = 16.15 < 20;  t = 16: .8 * 190/6 + .2 * (4/20) (190/6) = 26.6.
    # One wrong: only .2 * L(1) / L(2) is left; 19 right ones are what no bad set has, so that all 20 are needed.
    assert needed_answers(20, TARGET, DELTA, most=9) == (16, 20)


def test_needed_answers_of_tiny_sets_are_all() -> None:
    assert needed_answers(1, TARGET, DELTA, most=9) == (1,)
    assert needed_answers(19, TARGET, DELTA, most=9) == (
        19,
    )  # one wrong is too many: only the last answer shows it


def test_certainty_needs_no_evidence() -> None:
    # Of 100 at target .9 a bad set holds at most 89 right ones: 90 right answers decide at any delta.
    assert needed_answers(100, 0.9, 1e-30, most=2) == (90, 91, 92)


@pytest.mark.parametrize(("wrong", "least"), [(0, 59), (1, 93), (2, 124), (3, 153), (5, 208), (10, 336)])
def test_least_answers_of_a_binomial_test(wrong: int, least: int) -> None:
    assert least_answers(TARGET, DELTA, wrong) == least


def test_least_answers_in_closed_form() -> None:
    # None wrong: target^n <= delta.
    for target in (0.5, 0.8, 0.9, 0.98, 0.99):
        assert least_answers(target, DELTA) == np.ceil(np.log(DELTA) / np.log(target))


def test_a_test_that_may_stop_early_costs_little_and_a_small_set_needs_less() -> None:
    large, small = needed_answers(100_000, TARGET, DELTA, most=5), needed_answers(150, TARGET, DELTA, most=5)
    for wrong in (0, 1, 2, 5):
        least = least_answers(TARGET, DELTA, wrong)
        assert least < large[wrong] < 1.36 * least
        assert small[wrong] < least


sizes, targets, deltas = st.integers(1, 300), st.floats(0.3, 0.99), st.floats(0.01, 0.3)


@settings(max_examples=60, deadline=None)
@given(sizes, targets, deltas, st.floats(0, 1))
def test_a_bad_set_is_certified_with_probability_delta_at_most(
    size: int, target: float, delta: float, extra: float
) -> None:
    """Exactly, by the recursion over (answers, wrong ones); with more wrong ones the less."""
    too_many = int(np.floor(size * (1 - target) + 1e-9)) + 1
    bad = too_many + int(extra * (size - too_many))
    needed = np.array(needed_answers(size, target, delta, most=size))
    state, certified = np.zeros(len(needed) + 1), 0.0  # the last entry: below the target for certain
    state[0] = 1.0
    for t in range(1, size + 1):
        x = np.arange(len(state))
        p_wrong = np.clip((bad - x) / (size - t + 1), 0, 1)
        moved = state * p_wrong
        state = state - moved
        state[1:] += moved[:-1]
        hit = needed <= t
        certified += state[:-1][hit].sum()
        state[:-1][hit] = 0.0
    assert certified <= delta * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), targets, deltas)
def test_needed_answers_rise_with_what_is_asked_of_them(size: int, target: float, delta: float) -> None:
    needed = np.array(needed_answers(size, target, delta, most=40))
    assert np.all(np.diff(needed) >= 1)  # one further wrong answer needs at least one further right one
    assert needed[0] >= 1
    assert needed.max() <= size
    surer = np.array(needed_answers(size, target, delta / 2, most=40))
    assert np.all(surer >= needed)


# Nested sets.


def test_all_right_and_all_wrong() -> None:
    for count in (1, 7, 60, 61, 150, 1000):
        right = certify(np.ones(count))
        assert (right.accepted, right.wrong, right.reason) == (count, 0, "all")
        wrong = certify(np.zeros(count))
        assert (wrong.accepted, wrong.reason) == (0, "below target")
        assert wrong.wrong == len(wrong.audited) <= count // 20 + 1
    assert certify(np.ones(0)) == Certified(0, pytest.approx([]), 0, "all")


def test_a_good_top_is_accepted_and_a_bad_rest_is_not() -> None:
    right = np.arange(1000) < 400
    found = certify(right, budget=300)
    assert 250 <= found.accepted <= 421  # 421 * .95 = 400
    assert found.wrong > 0
    assert found.wrong == (~right[found.audited]).sum()
    assert len(set(found.audited.tolist())) == len(found.audited) <= 300


def test_of_every_ring_the_first_in_random_order_are_asked() -> None:
    rows = np.arange(500)
    permutation = audit_permutation(rows, 3)
    right = np.random.default_rng(0).random(500) < 0.98
    asked = set(certified_size(right, rows, permutation, TARGET, DELTA, 200).audited.tolist())
    for start, end in pairwise([0, *nested_sizes(500)]):
        inside = asked & set(range(start, end))
        first = sorted(range(start, end), key=lambda row: permutation[row])[: len(inside)]
        assert inside == set(first)


@pytest.mark.parametrize(("target", "message"), [(1.0, "every proposal"), (0.0, "0 answers"), (1.2, "every")])
def test_impossible_targets_are_refused_with_what_would_do(target: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certify(np.ones(100), target=target)
    with pytest.raises(ValueError, match=message):
        least_answers(target, DELTA)
    with pytest.raises(ValueError, match="delta must lie"):
        needed_answers(100, TARGET, target, most=1)


def test_a_budget_below_the_least_is_refused_with_the_number_that_would_do() -> None:
    least = fewest_answers(1000, TARGET, DELTA)
    assert least == needed_answers(100, TARGET, DELTA, 0)[0] == 43
    with pytest.raises(ValueError, match=r"42 answers certify nothing of 1000 .* at least 43 are needed"):
        certify(np.ones(1000), budget=42)
    assert certify(np.ones(1000), budget=43).accepted == 100
    assert fewest_answers(0, TARGET, DELTA) == 0


def test_no_question_is_asked_that_cannot_help() -> None:
    # One wrong answer among the first puts the first set out of reach of 43 answers.
    rows = np.arange(1000)
    permutation = audit_permutation(rows, 0)
    first = rows[:100][np.argsort(permutation[:100])][0]
    found = certify(rows != first, budget=43)
    assert (found.accepted, found.audited.tolist(), found.reason) == (0, [first], "budget")


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length, got 3, 3 and 2"):
        certified_size(np.ones(2), np.arange(3), np.arange(3), TARGET, DELTA, 100)
    with pytest.raises(ValueError, match="ids must differ"):
        audit_permutation(np.array([1, 2, 1]), 0)
    with pytest.raises(ValueError, match="rows of answers"):
        merged_answers(3, np.array([3]), np.array([1]))
    with pytest.raises(ValueError, match="steps"):
        nested_sizes(100, 0)


answered = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(answered, st.integers(60, 400), st.sampled_from([0.9, 0.97, 1.0]))
def test_more_right_answers_and_a_larger_budget_never_certify_less(
    seed: int, count: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    right = rng.random(count) < share
    better = right | (rng.random(count) < 0.3)
    found = certify(right, seed, budget=120)
    assert certify(better, seed, budget=120).accepted >= found.accepted
    assert certify(right, seed, budget=200).accepted >= found.accepted
    assert certify(right, seed, budget=120, target=0.9).accepted >= found.accepted
    assert len(found.audited) <= 120


@settings(max_examples=25, deadline=None)
@given(answered, st.integers(1, 300))
def test_the_order_of_rows_changes_nothing(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice(10**9, count, replace=False)
    confidence = rng.integers(0, 5, count) / 5  # ties
    right = rng.random(count) < 0.96
    shuffled = rng.permutation(count)

    def run(rows: np.ndarray) -> tuple[int, list[int]]:
        order, permutation = confidence_order(confidence[rows], ids[rows]), audit_permutation(ids[rows], 1)
        found = certified_size(right[rows], order, permutation, TARGET, DELTA, 300)
        return found.accepted, ids[rows][found.audited].tolist()

    assert run(shuffled) == run(np.arange(count))


def test_most_confident_first_and_ties_apart_from_the_questions() -> None:
    ids = np.arange(2000)
    order = confidence_order(np.where(ids < 1000, 0.5, 0.9), ids)
    assert set(order[:1000].tolist()) == set(range(1000, 2000))
    # Among the ties those that come first are not those that are asked first.
    ranks = np.argsort(np.argsort(audit_permutation(ids, 0)))
    assert abs(np.corrcoef(np.arange(1000), ranks[order[:1000]])[0, 1]) < 0.1


# Answers that come later.


@pytest.mark.parametrize("batch", [1, 25])
def test_forms_end_where_asking_at_once_ends(batch: int) -> None:
    rows = np.arange(400)
    permutation = audit_permutation(rows, 5)
    right = np.random.default_rng(1).random(400) < 0.98
    answers = np.full(400, NO_ANSWER)
    while len(questions := next_questions(answers, rows, permutation, TARGET, DELTA, 150)):
        assert np.all(answers[questions] == NO_ANSWER)
        answers[questions[:batch]] = right[questions[:batch]]
        assert (answers != NO_ANSWER).sum() <= 150
    told = certified_size(answers, rows, permutation, TARGET, DELTA, 150)
    asked = certified_size(lambda row: bool(right[row]), rows, permutation, TARGET, DELTA, 150)
    assert told.reason in ("all", "budget", "below target")
    assert told.accepted <= asked.accepted  # a form asks some questions that a wrong answer makes superfluous
    assert told.accepted >= 0.8 * asked.accepted
    if batch == 1:
        assert told.accepted == asked.accepted
        assert told.audited.tolist() == asked.audited.tolist()


def test_the_first_form_is_what_certifies_most_if_all_is_right() -> None:
    rows = np.arange(300)
    permutation = audit_permutation(rows, 0)
    form = next_questions(np.full(300, NO_ANSWER), rows, permutation, TARGET, DELTA, 200)
    found = certify(np.ones(300))
    assert form.tolist() == found.audited.tolist()
    # Asked again after all answers: nothing is left.
    answers, conflicting = merged_answers(300, form[::-1], np.ones(len(form)))
    assert len(conflicting) == 0
    assert len(next_questions(answers, rows, permutation, TARGET, DELTA, 200)) == 0
    assert certified_size(answers, rows, permutation, TARGET, DELTA, 200).accepted == 300


def test_a_missing_answer_ends_the_test_and_keeps_what_was_certified() -> None:
    rows = np.arange(300)
    permutation = audit_permutation(rows, 0)
    form = next_questions(np.full(300, NO_ANSWER), rows, permutation, TARGET, DELTA, 200)
    part, _ = merged_answers(300, form[:60], np.ones(60))
    found = certified_size(part, rows, permutation, TARGET, DELTA, 200)
    assert 0 < found.accepted < 300
    assert found.reason == "answers"
    assert next_questions(part, rows, permutation, TARGET, DELTA, 200).tolist() == form[60:].tolist()
    # A gap is not skipped.
    gap, _ = merged_answers(300, np.delete(form, 5), np.ones(len(form) - 1))
    assert certified_size(gap, rows, permutation, TARGET, DELTA, 200).accepted == 0
    assert next_questions(gap, rows, permutation, TARGET, DELTA, 200).tolist() == [form[5]]


def test_merged_answers() -> None:
    rows, right = np.array([4, 1, 1, 4, 2, 3]), np.array([1, 0, 0, 0, -1, 1])
    answers, conflicting = merged_answers(6, rows, right)
    assert answers.tolist() == [-1, 0, -1, 1, 0, -1]
    assert conflicting.tolist() == [4]
    assert merged_answers(6, rows[::-1], right[::-1])[0].tolist() == answers.tolist()


# Coverage.


@pytest.mark.parametrize("precision", ["flat", "falling", "bad block"])
def test_false_certificates_are_rare(precision: str) -> None:
    """Of 200 audits at most delta and three standard errors certify a set below the target."""
    place = (np.arange(300) + 0.5) / 300
    shape = {
        "flat": 0.94 + 0 * place,
        "falling": 1 - 0.12 * place,
        "bad block": np.where(place < 0.2, 1, 0.9),
    }
    rng = np.random.default_rng(7)
    false = accepted = 0
    for seed in range(200):
        right = rng.random(300) < shape[precision]
        size = certify(right, seed).accepted
        false += size > 0 and right[:size].sum() < np.ceil(TARGET * size - 1e-9)
        accepted += size
    assert false <= 200 * DELTA + 3 * np.sqrt(200 * DELTA * (1 - DELTA))
    assert accepted > 0


@pytest.mark.parametrize(("target", "delta"), [(0.95, 0.05), (0.9, 0.1), (0.99, 0.05), (0.7, 0.2)])
def test_enough_answers_are_those_of_the_neediest_number_of_proposals(target: float, delta: float) -> None:
    counts = (*range(1, 80), 600, 605, 1000)
    least = {count: fewest_answers(count, target, delta) for count in (*counts, *range(610, 1000, 10))}
    for most in counts:
        neediest = max(needed for count, needed in least.items() if count <= most)
        assert enough_answers(most, target, delta) >= neediest
        if most < 80:
            assert enough_answers(most, target, delta) == neediest
    assert enough_answers(0, target, delta) == 0
