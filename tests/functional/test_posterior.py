"""The posterior of a label: golden numbers, its limits, and that neither classes nor rows have an order."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.posterior import class_probabilities, posterior, rival, transition

JOINT, COUNTS = np.array([[80, 20], [0, 100]]), np.array([100, 100])


def case(seed: int, classes: int, rows: int = 40) -> tuple[Any, Any, Any, Any]:
    """A joint, its counts, probabilities [rows, classes] and given labels."""
    rng = np.random.default_rng(seed)
    joint = rng.integers(0, 30, (classes, classes)) + np.diag(rng.integers(1, 200, classes))
    p = rng.dirichlet(np.full(classes, 0.4), rows).astype(np.float32)
    return joint, joint.sum(axis=1), p, rng.integers(0, classes, rows)


def test_transition_by_hand() -> None:
    # columns of the joint: [80, 0] of 80 and [20, 100] of 120
    np.testing.assert_allclose(transition(JOINT, COUNTS, 0), [[1, 1 / 6], [0, 5 / 6]])
    # n n' / N = 100 * 100 / 200 = 50 everywhere; 2 % of it is 1: columns [81, 1] of 82 and [21, 101] of 122
    np.testing.assert_allclose(transition(JOINT, COUNTS, 0.02), [[81 / 82, 21 / 122], [1 / 82, 101 / 122]])


def test_posterior_by_hand() -> None:
    noise = transition(JOINT, COUNTS, 0)
    found = posterior(np.full((2, 2), 0.5), np.array([0, 1]), noise)
    # given 0: 1 to 1/6, that is 6/7 and 1/7; given 1: 0 to 5/6
    np.testing.assert_allclose(found, [[6 / 7, 1 / 7], [0, 1]])


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("q", [0.01, 0.5, 0.8])
def test_two_classes_and_symmetric_noise(rate: float, q: float) -> None:
    """The odds are those of the model times those of the noise."""
    joint = 1000 * np.array([[1 - rate, rate], [rate, 1 - rate]])
    noise = transition(joint, np.array([1000, 1000]), 0)
    (found,) = posterior(np.array([[q, 1 - q]]), np.array([0]), noise)
    assert found[0] / found[1] == pytest.approx(q / (1 - q) * (1 - rate) / rate)


def test_a_class_that_collects_errors_is_doubted_more() -> None:
    """Labels of class 0 became 1, not the other way round: of two labels that the model half agrees with, 1 is
    doubtful, which no margin says.
    """
    joint = np.array([[60, 0], [40, 100]])
    found = posterior(np.full((2, 2), 0.5), np.array([0, 1]), transition(joint, joint.sum(axis=1), 0.02))
    assert found[0, 0] > 0.9 > 0.75 > found[1, 1]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), smoothing=st.sampled_from([1e-6, 0.02, 1]))
def test_columns_and_rows_are_distributions(seed: int, classes: int, smoothing: float) -> None:
    joint, counts, p, labels = case(seed, classes)
    noise = transition(joint, counts, smoothing)
    assert (noise > 0).all()  # every given label may be any class
    np.testing.assert_allclose(noise.sum(axis=0), 1)
    found = posterior(p, labels, noise)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[p == 0] == 0).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 9))
def test_other_names_of_the_classes_change_nothing(seed: int, classes: int) -> None:
    joint, counts, p, labels = case(seed, classes)
    order = np.random.default_rng(seed).permutation(classes)
    noise = transition(joint, counts)
    renamed = transition(joint[np.ix_(order, order)], counts[order])
    np.testing.assert_allclose(renamed, noise[np.ix_(order, order)])
    found = posterior(p[:, order], np.argsort(order)[labels], renamed)
    np.testing.assert_allclose(found, posterior(p, labels, noise)[:, order], atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 30))
def test_a_row_does_not_depend_on_the_others(seed: int, classes: int) -> None:
    joint, counts, p, labels = case(seed, classes)
    noise, order = transition(joint, counts), np.random.default_rng(seed).permutation(len(p))
    whole = posterior(p, labels, noise)
    assert (posterior(p[order], labels[order], noise) == whole[order]).all()  # the same bits
    assert (posterior(p[:1], labels[:1], noise) == whole[:1]).all()
    # a layout by columns gives the same up to the order in which a row's weights are added
    np.testing.assert_allclose(posterior(np.asfortranarray(p), labels, noise), whole, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 8))
def test_without_noise_smoothing_decides(seed: int, classes: int) -> None:
    """A joint without errors: as smoothing goes to 0 the given label is all; as it grows, only the model is left."""
    joint, _, p, labels = case(seed, classes)
    counts, p = joint.diagonal(), (p + 0.01) / (p + 0.01).sum(axis=1, keepdims=True)
    rows = np.arange(len(p))

    def found(smoothing: float) -> Any:
        return posterior(p, labels, transition(np.diag(counts), counts, smoothing))

    by_smoothing = np.stack([found(each)[rows, labels] for each in (1e-9, 1e-3, 0.02, 1, 1e9)])
    assert (np.diff(by_smoothing, axis=0) <= 1e-12).all()
    np.testing.assert_allclose(by_smoothing[0], 1, atol=1e-5)
    np.testing.assert_allclose(found(1e9), p, atol=1e-5)
    exact = posterior(p, labels, np.eye(classes))
    assert (exact == np.eye(classes)[labels]).all()


def test_where_the_noise_rules_out_all_only_the_model_is_left() -> None:
    p = np.array([[0, 1], [0.25, 0.75]])
    found = posterior(p, np.array([0, 0]), np.eye(2))
    assert found.tolist() == [[0, 1], [1, 0]]
    assert posterior(np.zeros((1, 2)), np.array([0]), np.eye(2)).tolist() == [[0, 0]]


def test_a_class_that_nobody_was_given_excludes_nothing() -> None:
    """Of its noise nothing is known: each given label may be it, as far as the model says so and no further."""
    joint, counts = np.diag([50, 0, 50]), np.array([50, 0, 50])
    noise = transition(joint, counts, 0.02)
    assert noise[:, 1].tolist() == [1, 1, 1]
    np.testing.assert_allclose(noise[:, [0, 2]].sum(axis=0), 1)  # the others are as if it were not there
    np.testing.assert_allclose(
        noise[np.ix_([0, 2], [0, 2])], transition(np.diag([50, 50]), np.array([50, 50]), 0.02)
    )
    # 50 + .02 * 25 = 50.5 of 51 and .5 of 51, by hand
    q = np.array([[0.1, 0.8, 0.1], [0.9, 0.0, 0.1]])
    weights = q * [50.5 / 51, 1, 0.5 / 51]
    found = posterior(q, np.array([0, 0]), noise)
    np.testing.assert_allclose(found, weights / weights.sum(axis=1, keepdims=True))
    assert rival(found, np.array([0, 0])).tolist() == [1, 2]
    assert transition(np.zeros((2, 2)), np.zeros(2, dtype=int)).tolist() == [[1, 1], [1, 1]]


def test_the_arguments_stay_as_they_are() -> None:
    joint, counts, p, labels = case(0, 4)
    before = [each.copy() for each in (joint, counts, p, labels)]
    noise = transition(joint, counts)
    posterior(p, labels, noise)
    rival(p, labels)
    for each, other in zip((joint, counts, p, labels), before, strict=True):
        assert (each == other).all()


def test_no_rows() -> None:
    assert posterior(np.zeros((0, 3)), np.zeros(0, dtype=int), np.eye(3)).shape == (0, 3)
    assert rival(np.zeros((0, 3)), np.zeros(0, dtype=int)).shape == (0,)


def test_the_rival_is_the_best_of_the_others() -> None:
    values = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.4, 0.2, 0.4], [0, 1, 0]])
    # in the fourth row 0 and 2 tie; in the last two columns do with nothing
    assert rival(values, np.array([0, 1, 1, 1, 1])).tolist() == [1, 0, 2, 0, 0]
    assert rival(values, np.array([2, 2, 0, 0, 0])).tolist() == [0, 0, 1, 2, 1]


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_probabilities_of_classes(seed: int, classes: int) -> None:
    """They sum to 1, are q where labels are never confused, and come nearer to what would explain q."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), size=20)
    noise = 0.7 * np.eye(classes) + 0.3 * rng.dirichlet(np.ones(classes), size=classes).T
    q = p @ noise.T
    found = class_probabilities(q, noise)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(class_probabilities(q, np.eye(classes)), q, atol=1e-12)

    def unexplained(values: np.ndarray) -> np.ndarray:
        return (q * np.log(q / (values @ noise.T))).sum(axis=1)

    assert (unexplained(found) <= unexplained(q) + 1e-12).all()  # a step of EM never raises it
