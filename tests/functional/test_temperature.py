"""Temperatures: golden numbers, identities, and that a fitted one makes probabilities as sure as they are right."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.temperature import HIGHEST, LEAST, LOWEST, fit_temperature, log_loss, scaled


def drawn(seed: int, rows: int, classes: int, concentration: float = 0.7) -> tuple[Any, Any]:
    """Probabilities, and labels that are drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, concentration), rows)
    p = (p + 1e-6) / (p + 1e-6).sum(axis=1, keepdims=True)
    return p, (p.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(0, classes - 1)


def test_golden_numbers() -> None:
    # square roots of .9 and .1 are as 3 to 1; squares of .75 and .25 as 9 to 1
    np.testing.assert_allclose(scaled(np.array([[0.9, 0.1]]), 2.0), [[0.75, 0.25]])
    np.testing.assert_allclose(scaled(np.array([[0.75, 0.25]]), 0.5), [[0.9, 0.1]])
    p = np.array([[0.5, 0.5], [0.75, 0.25]])
    assert log_loss(p, np.array([0, 1])) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert np.isnan(log_loss(p[:0], np.array([], dtype=int)))
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 20),
    one=st.floats(0.2, 5.0),
    other=st.floats(0.2, 5.0),
)
def test_identities(seed: int, classes: int, one: float, other: float) -> None:
    p, _ = drawn(seed, 30, classes)
    np.testing.assert_allclose(scaled(p, 1.0), p, atol=1e-12)
    found = scaled(p, one)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == p.argmax(axis=1)).all()
    for row, before in zip(found, p, strict=True):  # the order of the classes stays
        assert (np.diff(row[np.argsort(before, kind="stable")]) >= 0).all()
    if p.min() ** (1 / one) > 1e-10:  # above what counts as 0
        np.testing.assert_allclose(scaled(found, other), scaled(p, one * other), atol=1e-6)
    surer = scaled(p, one / 2).max(axis=1)
    assert (surer >= found.max(axis=1) - 1e-12).all()
    order = np.random.default_rng(seed).permutation(30)
    assert (scaled(p[order], one) == found[order]).all()


def test_limits() -> None:
    p = np.array([[0.5, 0.3, 0.2]])
    np.testing.assert_allclose(scaled(p, 1e6), np.full((1, 3), 1 / 3), atol=1e-5)
    np.testing.assert_allclose(scaled(p, 1e-2), [[1, 0, 0]], atol=1e-12)
    certain = np.array([[0.0, 1.0, 0.0]], dtype=np.float32)
    for temperature in (LOWEST, 1.0, HIGHEST):
        found = scaled(certain, temperature)
        assert np.isfinite(found).all()
        assert found.argmax() == 1
    np.testing.assert_allclose(scaled(certain, 1.0), certain, atol=1e-11)
    assert scaled(np.zeros((0, 3)), 2.0).shape == (0, 3)


@pytest.mark.parametrize("true", [0.3, 1.0, 3.0])
def test_a_temperature_is_found_again(true: float) -> None:
    p, labels = drawn(1, 20_000, 4)
    spoiled = scaled(p, 1 / true)  # at the temperature `true` it is p again
    assert fit_temperature(spoiled, labels) == pytest.approx(true, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 8), spoil=st.floats(0.2, 5.0))
def test_none_of_a_grid_is_better(seed: int, classes: int, spoil: float) -> None:
    p, labels = drawn(seed, 100, classes)
    p = scaled(p, spoil)
    found = fit_temperature(p, labels)
    assert LOWEST <= found <= HIGHEST
    least = log_loss(scaled(p, found), labels)
    assert (
        min(log_loss(scaled(p, each), labels) for each in np.geomspace(LOWEST, HIGHEST, 40)) >= least - 1e-5
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_rows_and_classes_have_no_order(seed: int) -> None:
    p, labels = drawn(seed, 200, 5)
    p, rng = scaled(p, 0.4), np.random.default_rng(seed)
    rows, classes = rng.permutation(200), rng.permutation(5)
    found = fit_temperature(p, labels)
    assert fit_temperature(p[rows], labels[rows]) == pytest.approx(found, rel=1e-3)
    assert fit_temperature(p[:, classes], np.argsort(classes)[labels]) == pytest.approx(found, rel=1e-3)


def test_few_labels_leave_the_probabilities_as_they_are() -> None:
    p, labels = drawn(2, LEAST, 3)
    p = scaled(p, 0.2)
    assert fit_temperature(p[:-1], labels[:-1]) == 1.0
    assert fit_temperature(p, labels) > 1.5
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0


def test_what_is_always_sure_ends_at_a_bound() -> None:
    certain, right = np.tile([1.0, 0.0], (100, 1)), np.zeros(100, dtype=int)
    wrong = np.where(np.arange(100) < 30, 1, 0)
    assert fit_temperature(certain, wrong) == pytest.approx(HIGHEST, rel=0.01)
    almost = np.tile([0.9, 0.1], (100, 1))
    assert LOWEST <= fit_temperature(almost, right) < 0.1  # from here on the loss is 0
