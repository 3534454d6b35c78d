"""The bias of an annotator and its accuracy on control questions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom

from rayclean.functional.calibration import probabilities
from rayclean.functional.worth import Worth, confirmation_contrast, marginal_bias, underclaimed


def unbalanced(rows: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [rows, 2] of an unbiased annotator, beliefs before it is asked, and truths, of which 85 % are 1.

    Log-likelihood ratios of two normal distributions, N(2, 4) and N(-2, 4): right where of the truth's sign, Phi(1) = .84.
    """
    rng = np.random.default_rng(0)
    prior = expit(logit(0.85) + rng.normal(0, 0.5, rows))
    truth = (rng.random(rows) < prior).astype(int)
    ratio = rng.normal(np.where(truth == 1, 2, -2), 2)
    return np.stack([-ratio / 2, ratio / 2], axis=1), np.stack([1 - prior, prior], axis=1), truth


def test_bias_by_hand() -> None:
    # Half of 400 queries are answered "0" by 2 nats, half "1" by 2, of a model that gives label 0 four nats more:
    # raw differences 6 and 2. Under even beliefs, sigmoid(6 - d) + sigmoid(2 - d) = 1 for d = 4, so b = (2, -2), less
    # the penalty 8/400 x 2 = .04 of 400 rows: nothing.
    scores = np.array([[3.0, -3.0], [1.0, -1.0]] * 200)
    candidates = np.tile([0, 1], (400, 1))
    bias = marginal_bias(scores, candidates, np.full((400, 2), 0.5), 3)
    assert bias == pytest.approx([2, -2, 0], abs=1e-3)


def test_an_unbiased_annotator_on_unbalanced_suspects_is_left_as_it_is() -> None:
    """A flat marginal takes the frequent label's answers, a marginal that scores alone must have the rare one's."""
    scores, belief, truth = unbalanced()
    candidates = np.tile([0, 1], (len(truth), 1))

    def right(bias: np.ndarray) -> list[float]:
        answers = (scores - bias).argmax(axis=1)
        return [round(float(np.mean(answers[truth == label] == label)), 2) for label in (0, 1)]

    assert right(np.zeros(2)) == pytest.approx([0.84, 0.84], abs=0.02)
    assert right(marginal_bias(scores, candidates, belief, 2)) == pytest.approx([0.84, 0.84], abs=0.03)
    assert right(scores.mean(axis=0)) == pytest.approx([0.96, 0.62], abs=0.03)  # .67 in all
    matched = marginal_bias(scores - np.log(belief), candidates, belief, 2)
    assert right(matched) == pytest.approx([0.60, 0.96], abs=0.03)


def test_beliefs_shares_are_kept() -> None:
    """sum_r p_rk = sum_r belief_rk, where texts are many."""
    rng = np.random.default_rng(1)
    candidates = np.array([rng.permutation(5)[:3] for _ in range(3000)])
    candidates[::7, 2] = -1
    belief = rng.dirichlet(np.ones(3), 3000)
    scores = rng.normal(0, 2, (3000, 3)) + np.array([3.0, 0, -2, 1, 0])[candidates]
    bias = marginal_bias(scores, candidates, belief, 5)
    belief = np.where(candidates >= 0, belief, 0)
    belief /= belief.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        after = probabilities(scores + np.log(belief), bias[candidates], candidates)
    known = candidates >= 0
    shares = [np.bincount(candidates[known], weights=x[known]) for x in (belief, after)]
    assert shares[1] == pytest.approx(shares[0], rel=1e-3)
    assert bias / np.bincount(candidates[known]) @ np.ones(5) == pytest.approx(
        0, abs=1e-5
    )  # the penalty chooses the mean that scores leave open


def test_few_texts_say_little_of_a_label() -> None:
    even, first = np.full((200, 2), 0.5), [[4.0, 0.0]]
    few = [
        marginal_bias(np.repeat(first, n, 0), np.tile([0, 1], (n, 1)), even[:n], 2)[0]
        for n in (1, 4, 8, 30, 200)
    ]
    assert few == sorted(few)
    assert few[0] < 0.1
    assert few[1] < 1
    assert few[-1] == pytest.approx(2, abs=0.01)


def test_nothing_to_learn_from() -> None:
    assert marginal_bias(np.zeros((0, 2)), np.zeros((0, 2), dtype=int), np.zeros((0, 2)), 3).tolist() == [
        0,
        0,
        0,
    ]
    alone = np.array([[1, -1], [2, -1]])
    assert marginal_bias(np.array([[-5.0, 0], [-1, 0]]), alone, np.ones((2, 2)), 3).tolist() == [0, 0, 0]
    certain = marginal_bias(
        np.array([[-1.0, -2.0]] * 20), np.tile([0, 1], (20, 1)), np.array([[1.0, 0.0]] * 20), 2
    )
    assert np.isfinite(certain).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(-6, 6), min_size=4, max_size=4), st.permutations(range(4)))
def test_bias_follows_labels_and_forgets_constants(seed: int, shift: list[float], order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    candidates = np.array([rng.permutation(4)[:2] for _ in range(400)])
    scores, belief = rng.normal(0, 2, (400, 2)), rng.dirichlet([2, 2], 400)
    bias = marginal_bias(scores, candidates, belief, 4)
    shuffled = rng.permutation(400)
    assert marginal_bias(scores[shuffled], candidates[shuffled], belief[shuffled], 4) == pytest.approx(
        bias, abs=1e-3
    )
    renamed = marginal_bias(scores, np.array(order)[candidates], belief, 4)
    assert renamed[order] == pytest.approx(bias, abs=1e-3)
    moved = marginal_bias(scores + np.array(shift)[candidates], candidates, belief, 4)
    plain = probabilities(scores, bias[candidates], candidates)
    again = probabilities(scores + np.array(shift)[candidates], moved[candidates], candidates)
    assert again == pytest.approx(plain, abs=0.02)
    assert marginal_bias(scores + 3.0, candidates, belief, 4) == pytest.approx(bias, abs=1e-3)


def test_worth_by_hand() -> None:
    worth = Worth(8, 10)
    assert worth.accuracy == pytest.approx(10 / 14)
    assert worth.lower == pytest.approx(10 / 14 - np.sqrt(10 / 14 * 4 / 14 / 15))
    # Clopper-Pearson: at the bound, 8 or more of 10 come by chance in 5 of 100 cases.
    assert binom.sf(7, 10, worth.bound) == pytest.approx(0.05)
    assert not worth.above_chance  # .493


def test_who_is_above_chance() -> None:
    # Of 150, the least number whose bound is at least .52: P(X >= 89 | .52) = .044, P(X >= 88 | .52) = .062.
    assert [Worth(right, 150).above_chance for right in (75, 88, 89, 150)] == [False, False, True, True]
    assert not Worth(4, 4).above_chance  # .05^(1/4) = .473
    assert Worth(5, 5).above_chance  # .05^(1/5) = .549
    assert Worth(0, 5).bound == 0
    assert Worth(0, 5).lower == 0.5
    with pytest.raises(ValueError, match="between 0 and asked"):
        Worth(6, 5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_worth_grows_with_right_answers(right: int, wrong: int) -> None:
    worth, better = Worth(right, right + wrong), Worth(right + 1, right + 1 + wrong)
    assert 0.5 <= worth.lower <= max(0.5, worth.accuracy)
    assert worth.bound <= worth.accuracy or worth.accuracy < 0.5 or right + wrong < 5
    assert worth.bound < better.bound
    assert worth.accuracy < better.accuracy


@settings(max_examples=50)
@given(st.floats(0.5, 1), st.integers(0, 20), st.floats(0.5, 0.99))
def test_what_an_annotator_always_claims_too_little_is_added(
    claim: float, count: int, accuracy: float
) -> None:
    confidence = np.full(count, claim)
    lacks = underclaimed(confidence, accuracy)
    if not count or claim >= accuracy:  # nobody is believed less for claiming more
        assert lacks == pytest.approx(0, abs=1e-6)
    else:
        odds = logit(np.clip(confidence, 0.5, 1 - 1e-9))
        assert lacks > 0 or accuracy - claim < 1e-9  # as good as equal
        assert expit(odds + lacks).mean() == pytest.approx(accuracy, abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.floats(0.5, 1), max_size=20), st.floats(0.5, 0.99))
def test_who_tells_hard_questions_from_easy_ones_is_taken_at_its_word(
    confidence: list[float], accuracy: float
) -> None:
    lacks = underclaimed(np.array(confidence), accuracy)
    odds = logit(np.clip(confidence, 0.5, 1 - 1e-9))
    assert lacks == 0 or np.subtract(*np.percentile(odds, [75, 25])) <= 0.1
    spread = np.array([0.55, 0.9] * 20)
    assert underclaimed(spread, 0.99) == 0


@pytest.mark.parametrize("preference", [0.1, 0.5, 0.9])
def test_a_preference_is_no_contrast(preference: float) -> None:
    """Whoever answers by the two labels alone passes in one case of twenty, however the pairs are mixed."""
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(500):
        controls, suspects = rng.integers(0, 2, 150), (rng.random(200) < 0.9).astype(int)
        rate = np.array([preference, 1 - preference])
        confirmed = [rng.random(len(pairs)) < rate[pairs] for pairs in (controls, suspects)]
        passed += confirmation_contrast(controls, confirmed[0], suspects, confirmed[1]) <= 0.05
    assert passed / 500 < 0.08


def test_wrong_controls_hide_a_good_annotator_from_them_alone() -> None:
    """Right nine times of ten; .4 of the controls are wrong, and .8 of the suspects."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        wrong = [rng.random(150) < 0.4, rng.random(400) < 0.8]
        confirmed = [(rng.random(len(each)) < 0.9) ^ each for each in wrong]
        pairs = [np.zeros(len(each), int) for each in wrong]
        contrast = confirmation_contrast(pairs[0], confirmed[0], pairs[1], confirmed[1])
        worth = Worth(int(confirmed[0].sum()), 150)
        found.append((worth.above_chance, Worth(worth.right, 150, contrast).above_chance))
    alone, together = np.mean(found, axis=0)
    assert alone < 0.6
    assert together > alone + 0.3


def test_contrast_needs_a_pair_in_both() -> None:
    assert confirmation_contrast(np.zeros(9, int), np.ones(9, bool), np.ones(9, int), np.zeros(9, bool)) == 1
    assert confirmation_contrast(*[np.zeros(0, int), np.zeros(0, bool)] * 2) == 1
    assert not Worth(50, 100, 0.001).above_chance  # at chance on the controls, whatever it says of suspects
