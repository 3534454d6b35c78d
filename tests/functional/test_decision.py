"""Which labels may change: golden numbers, limits, and that labels get no worse whatever the annotator."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.judgement import cell
from rayclean.functional.class_caps import cap_changes_out, supported_changes
from rayclean.functional.decision import (
    PRIOR_SCALE,
    PRIOR_SPREAD,
    Decision,
    Decisions,
    Gate,
    confidence_that_most_are_right,
    decide,
    fit_scale,
    suggestion_probability,
)
from rayclean.functional.worth import Worth

CHANGED, KEPT, REFERRED = Decision
GOOD, GUESSING = Worth(135, 150), Worth(75, 150)


def judged(lp: np.ndarray, says: np.ndarray, worth: Worth = GOOD, accept: float = 0.6) -> Decisions:
    """With given label 3, suggested 5, and `says` 1 (the suggestion), 0 (the given label), -1 (nothing) or 7 (a third label)."""
    lp, says = np.asarray(lp, dtype=float), np.asarray(says)
    answer = np.select([says == 1, says == 0, says == -1], [5, 3, -1], 7)
    return decide(lp, np.full(len(lp), 3), np.full(len(lp), 5), answer, worth, accept)


def drawn(
    seed: int, rows: int = 200, right: float = 0.5, accuracy: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """lp and says: lp knows of the right ones."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=rows)
    truth = rng.random(rows) < expit(logit(right) + 1.5 * known)
    return 1.5 * known - 3, np.where(rng.random(rows) < accuracy, truth, ~truth).astype(int)


def test_probability_by_hand() -> None:
    # b0 + b1 lp = -1 + .5 x 2 = 0; an answer of accuracy .8 adds log 4: 4 / 5. At lp = 4: -1 + 2 = 1, e / (1 + e).
    found = suggestion_probability(np.array([2, 2, 2, 4]), np.array([1, 0, np.nan, np.nan]), 0.8, (-1.0, 0.5))
    assert found == pytest.approx([0.8, 0.2, 0.5, 0.731059], abs=1e-6)


def test_a_score_that_only_ranks_changes_nothing_by_itself() -> None:
    lp, says = drawn(0)
    labels = np.full(len(lp), 3), np.full(len(lp), 5)
    nobody = decide(lp + 6, *labels, np.full(len(lp), -1), GUESSING, 0.6)
    assert (nobody.decision == CHANGED).sum() > 100
    alone = decide(lp + 6, *labels, np.full(len(lp), -1), GUESSING, 0.6, alone=False)
    assert (alone.decision == REFERRED).all()
    # What an annotator has earned counts as ever.
    answer = np.where(says == 1, 5, 3)
    assert (
        decide(lp, *labels, answer, GOOD, 0.6, alone=False).decision
        == decide(lp, *labels, answer, GOOD, 0.6).decision
    ).all()


def test_probability_at_the_limits() -> None:
    lp = np.array([-3.0, 0.0, 3.0])
    for says in (np.ones(3), np.zeros(3)):  # chance: an answer moves nothing
        assert suggestion_probability(lp, says, 0.5, (0.0, 1.0)) == pytest.approx(expit(lp))
        assert suggestion_probability(lp, says, 1.0, (0.0, 1.0)) == pytest.approx(
            says
        )  # never wrong: it decides
    assert suggestion_probability(lp, np.full(3, np.nan), 1.0, (0.0, 1.0)) == pytest.approx(expit(lp))
    for accuracy in (0.49, 1.1):
        with pytest.raises(ValueError, match="accuracy"):
            suggestion_probability(lp, np.ones(3), accuracy, (0.0, 1.0))


def test_scale_by_hand() -> None:
    # Rogan and Gladen: of accuracy .8, 44 % are for the suggestion where (.44 - .2) / .6 = .4 of them are right.
    says = (np.arange(100_000) < 44_000).astype(float)
    b0, b1 = fit_scale(np.zeros(100_000), says, 0.8)
    assert expit(b0) == pytest.approx(0.4, abs=1e-4)
    assert b1 == pytest.approx(0.5)  # nothing is said of the slope
    # A tenth are neither, half of whose answers are for the suggestion: (.446 - .05) / .9 = .44.
    says = (np.arange(100_000) < 44_600).astype(float)
    assert expit(fit_scale(np.zeros(100_000), says, 0.8, 0.1)[0]) == pytest.approx(0.4, abs=1e-4)


def test_scale_stays_at_its_prior() -> None:
    lp, says = drawn(0)
    assert fit_scale(lp[:29], says[:29], 0.9) == PRIOR_SCALE
    assert fit_scale(lp[:30], says[:30], 0.9) != PRIOR_SCALE
    assert fit_scale(lp, says, 0.5) == pytest.approx(PRIOR_SCALE)  # chance: answers say nothing of it
    assert fit_scale(lp, np.full(200, np.nan), 0.9) == PRIOR_SCALE
    with pytest.raises(ValueError, match="neither"):
        fit_scale(lp, says, 0.9, 1.0)


@pytest.mark.parametrize(("accuracy", "neither"), [(0.6, 0.0), (0.8, 0.2), (0.95, 0.0), (1.0, 0.0)])
def test_scale_is_the_maximum_and_a_fixed_point_of_em(accuracy: float, neither: float) -> None:
    lp, says = drawn(1, accuracy=accuracy)
    scale = fit_scale(lp, says, accuracy, neither)
    precision = 1 / np.square(PRIOR_SPREAD)

    def loss(b: np.ndarray) -> float:
        rate = neither / 2 + (1 - neither) * (1 - accuracy + (2 * accuracy - 1) * expit(b[0] + b[1] * lp))
        return float(
            precision @ (b - PRIOR_SCALE) ** 2 / 2 - np.log(np.where(says == 1, rate, 1 - rate)).sum()
        )

    assert minimize(
        loss, PRIOR_SCALE, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}
    ).x == pytest.approx(scale, abs=1e-4)
    if not neither:  # EM: the logistic regression on the expected truths has its optimum where it came from
        expected = suggestion_probability(lp, says, accuracy, scale)
        left = expected - expit(scale[0] + scale[1] * lp)
        assert [left.sum(), lp @ left] == pytest.approx(precision * (np.array(scale) - PRIOR_SCALE), abs=1e-6)


def test_confidence_by_hand() -> None:
    # Accuracy .9 almost surely (90,000 of 100,000): half of the changes are right where 18 % are for the suggestion
    # (2 x .9 x .1), of the unanswered where 50 % are, of the confirmed where 82 %.
    known = Worth(90_000, 100_000)
    for evidence, rate in ((1, 0.18), (0, 0.5), (-1, 0.82)):
        for count in (15, 25, 45, 90):
            expected = binom.cdf(count - 1, 100, rate)
            assert confidence_that_most_are_right(evidence, count, 100, known) == pytest.approx(
                expected, abs=0.005
            )
    # .3 are neither: .15 + .7 x .18 = .276
    assert confidence_that_most_are_right(1, 30, 100, known, 0.3) == pytest.approx(
        binom.cdf(29, 100, 0.276), abs=0.005
    )
    assert confidence_that_most_are_right(1, 30, 100, Worth(14, 16)) < confidence_that_most_are_right(
        1, 30, 100, known
    )
    # One answer, which is for the suggestion: no such answer came with probability 1 - .18.
    assert confidence_that_most_are_right(1, 1, 1, known) == pytest.approx(0.82, abs=0.005)
    assert (
        confidence_that_most_are_right(1, 0, 5, known) == confidence_that_most_are_right(1, 0, 0, known) == 0
    )


def test_decisions_by_a_good_annotator() -> None:
    """80 of 100 suggestions are right: what it says is done, and a third label, or no answer where lp says little, is referred."""
    lp, says = np.zeros(104), np.array([1] * 74 + [0] * 26 + [1, 0, -1, 7])
    found = judged(lp, says)
    # (75 / 102 - .12) / (1 - .24) = .81 are right, by Rogan and Gladen at the lower bound .88 of the accuracy
    assert found.gate == Gate.OPEN
    assert found.probability[-2] == pytest.approx(0.80, abs=0.02)
    assert found.decision[[0, 80, 100, 101]].tolist() == [CHANGED, KEPT, CHANGED, KEPT]
    assert found.decision[-2] == CHANGED  # most of the suggestions about it are right
    assert found.decision[-1] == REFERRED


def test_a_clear_majority_overrules_an_answer() -> None:
    """Of accuracy .65, 63 % are for the suggestion where 93 % are right: answers against it are mostly wrong."""
    says = (np.arange(1000) < 630).astype(int)
    found = judged(np.zeros(1000), says, Worth(6500, 10_000))
    assert (found.decision == CHANGED).all()
    few = judged(np.zeros(50), says[::20], Worth(6500, 10_000))  # too few to be sure of that
    assert few.decision[-1] != CHANGED


def test_no_label_changes_where_most_changes_would_harm() -> None:
    """Of accuracy .9, 13 % are for the suggestion where 1 in 27 is right: an answer for it is more often wrong."""
    says = np.array([1] * 26 + [0] * 174 + [-1, 7])
    found = judged(np.full(202, -1.0), says)
    assert found.gate == Gate.CLOSED
    assert found.decision.tolist() == [REFERRED] * 26 + [KEPT] * 174 + [REFERRED] * 2


def test_answers_near_the_suspicious_ones_count() -> None:
    """Where lp knows which tenth is right, its labels change, although all answers together would not allow it."""
    lp = np.repeat([-6.0, 2.0], [450, 50])
    says = np.concatenate([np.arange(450) % 10 == 0, np.arange(50) % 10 != 0]).astype(int)
    found = judged(lp, says)
    assert confidence_that_most_are_right(1, int(says.sum()), 500, GOOD) < 0.95
    assert found.gate == Gate.OPEN
    assert set(found.decision[(lp > 0) & (says == 1)]) == {CHANGED}
    assert CHANGED not in found.decision[lp < 0]


@pytest.mark.parametrize("worth", [Worth(0, 0), GUESSING, Worth(20, 150)])
def test_an_annotator_that_may_be_guessing_changes_nothing_of_the_posteriors_decisions(worth: Worth) -> None:
    lp = np.array([-3.0, 0.0, 1.7, 1.8, 2.5, 3.0, 4.0])  # sigmoid(1.7) = .845, sigmoid(1.8) = .858
    for says in ([1] * 7, [0] * 7, [-1] * 7, [7, 0, 1, 0, 1, 0, 1]):
        found = judged(lp, np.array(says), worth)
        assert found.gate == Gate.POSTERIOR_ALONE
        assert found.decision.tolist() == [REFERRED] * 3 + [CHANGED] * 4
        assert found.probability == pytest.approx(expit(lp))
    assert judged(lp, np.array(says), worth, accept=0.9).decision.tolist() == [REFERRED] * 4 + [CHANGED] * 3


@pytest.mark.parametrize("sure", [0, 1, 2, 3, 4])
def test_one_or_two_changes_without_an_annotator_are_left_to_a_person(sure: int) -> None:
    lp = np.append(np.full(30, 1.0), np.full(sure, 3.0))
    found = judged(lp, np.full(len(lp), -1), GUESSING)
    assert (found.decision == CHANGED).tolist() == [False] * 30 + [sure >= 3] * sure
    assert set(found.decision[:30]) == {REFERRED}


def test_an_annotator_that_is_never_wrong_decides() -> None:
    lp, says = drawn(3, accuracy=1.0)
    found = judged(lp, says, Worth(100_000, 100_000))
    assert found.decision.tolist() == np.where(says == 1, CHANGED, KEPT).tolist()


def test_an_answer_counts_for_no_more_than_the_annotators_confidence() -> None:
    """Unsure answers about hard suspects are no evidence that their suggestions are right."""
    lp = np.repeat([1.0, -3.0], 60)  # all suggestions of the first half are right, none of the second
    answer = np.where(np.arange(120) < 60, 5, np.where(np.arange(120) % 3 == 0, 5, 3))
    given, suggested = np.full(120, 3), np.full(120, 5)
    hard = (lp < 0) & (answer == 5)
    unsure = np.where(hard, 0.55, 0.95)
    believed = decide(lp, given, suggested, answer, GOOD, 0.6)
    careful = decide(lp, given, suggested, answer, GOOD, 0.6, confidence=unsure)
    assert (careful.probability[hard] < believed.probability[hard]).all()
    assert (careful.decision[hard] != CHANGED).all()
    assert (careful.decision[lp > 0] == CHANGED).all()
    # More confidence than was measured counts for nothing, and none at all is that of the controls.
    boasting = decide(lp, given, suggested, answer, GOOD, 0.6, confidence=np.ones(120))
    np.testing.assert_array_equal(boasting.probability, believed.probability)


def test_few_answers() -> None:
    for rows in (0, 1):
        found = judged(np.zeros(rows), np.ones(rows, dtype=int))
        assert found.gate == Gate.CLOSED  # one answer is not enough to be sure
        assert found.scale == PRIOR_SCALE
    ten = judged(np.zeros(10), np.ones(10, dtype=int))
    assert (ten.decision == CHANGED).all()
    with pytest.raises(ValueError, match="accept"):
        judged(np.zeros(1), np.ones(1), accept=0.4)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 0.7, 0.95]), st.sampled_from([0.55, 0.7, 0.9]),
    st.sampled_from([0, 1, 40, 300]), st.floats(0.5, 1), st.integers(60, 150),
)  # fmt: skip
def test_what_always_holds(
    seed: int, right: float, accuracy: float, rows: int, accept: float, controls: int
) -> None:
    rng = np.random.default_rng(seed)
    lp, says = drawn(seed, rows, right, accuracy)
    says = np.where(rng.random(rows) < 0.2, rng.choice([-1, 7], rows), says)
    worth = Worth(controls, 150)
    found = judged(lp, says, worth, accept)
    assert ((found.probability >= 0) & (found.probability <= 1)).all()
    assert (found.probability[found.decision == CHANGED] >= accept).all()
    assert not (found.decision[says == 7] == KEPT).any()
    order = rng.permutation(rows)
    again = judged(lp[order], says[order], worth, accept)
    assert again.decision.tolist() == found.decision[order].tolist()
    assert again.probability.tolist() == found.probability[order].tolist()
    if found.gate == Gate.CLOSED:
        assert CHANGED not in found.decision


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5, 5))
def test_an_answer_for_the_suggestion_makes_it_likelier(seed: int, at: float) -> None:
    lp, says = drawn(seed)
    scale = fit_scale(lp, says, 0.8)
    against, none, in_favour = suggestion_probability(np.full(3, at), np.array([0, np.nan, 1]), 0.8, scale)
    assert against < none < in_favour


@pytest.mark.parametrize("neither", [0.0, 0.3])
@pytest.mark.parametrize("informed", [0.0, 1.5])
@pytest.mark.parametrize("accuracy", [0.5, 0.65, 0.8, 0.9])
def test_labels_get_no_worse_and_a_good_annotators_repairs_are_kept(
    accuracy: float, informed: float, neither: float
) -> None:
    for right in (0.02, 0.2, 0.5, 0.8):
        found = cell(accuracy, 200, right, informed, neither, seeds=12)
        rule, blind = (found["mean_added"][name] for name in ("judge", "blind"))
        assert rule <= 0.03, right  # of the suspects; .003 of all labels where a tenth are suspects
        assert accuracy > 0.5 or abs(rule) < 0.02
        if accuracy == 0.9 and right >= 0.5:
            assert rule <= 0.9 * blind < 0
        if accuracy <= 0.65 and right <= 0.2:
            assert blind > 0.05 > rule + 0.02  # where believing it blindly does damage


def test_how_many_labels_may_leave_a_class() -> None:
    # 50 + 1.645 x sqrt(100 x .25) = 58.2; 1.8 + 1.645 x sqrt(2 x .09) = 2.49
    probability, labels = np.array([0.5] * 100 + [0.9] * 2), np.array([1] * 100 + [2] * 2)
    assert supported_changes(probability, labels, 4).tolist() == [0, 58, 2, 0]


def test_cap_takes_the_most_probable_first() -> None:
    decision = np.array([CHANGED, CHANGED, KEPT, CHANGED, CHANGED, REFERRED])
    labels, probability = np.array([0, 0, 0, 0, 1, 0]), np.array([0.7, 0.9, 0.95, 0.8, 0.6, 0.99])
    ids, most = np.arange(6), np.array([2, 5])
    capped = cap_changes_out(decision, labels, probability, ids, most)
    assert capped.tolist() == [REFERRED, CHANGED, KEPT, CHANGED, CHANGED, REFERRED]
    assert decision[0] == CHANGED
    assert cap_changes_out(decision, labels, probability, ids, np.zeros(2)).tolist() == [
        REFERRED, REFERRED, KEPT, REFERRED, REFERRED, REFERRED
    ]  # fmt: skip


@given(st.integers(0, 1000), st.integers(0, 60))
def test_a_cap_does_not_depend_on_order(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    decision, labels = rng.choice(list(Decision), rows), rng.integers(0, 3, rows)
    probability, ids, most = (
        rng.choice([0.6, 0.7], rows),
        rng.permutation(1000)[:rows],
        rng.integers(0, 10, 3),
    )
    capped = cap_changes_out(decision, labels, probability, ids, most)
    order = rng.permutation(rows)
    again = cap_changes_out(decision[order], labels[order], probability[order], ids[order], most)
    assert again.tolist() == capped[order].tolist()
    before, after = (np.bincount(labels[x == CHANGED], minlength=3) for x in (decision, capped))
    assert after.tolist() == np.minimum(before, most).tolist()
