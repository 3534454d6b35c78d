"""What an auditor's answers say of all suspects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from rayclean.functional.refit import RightLabel, audited_probability, fit_audit, proven_changes

SUGGESTED, GIVEN, NEITHER, UNKNOWN = (
    int(RightLabel[name]) for name in ("SUGGESTED", "GIVEN", "NEITHER", "UNKNOWN")
)
NOBODY = np.zeros(200, dtype=bool)


def test_without_answers_nothing_changes_and_p_is_as_before() -> None:
    z, s = np.linspace(-3, 3, 20), np.tile([1.0, -1.0], 10)
    scale = fit_audit(z, s, np.full(20, UNKNOWN))
    assert scale == (0, 1, 1)
    np.testing.assert_allclose(audited_probability(z, s, scale), expit(z + s))
    assert not proven_changes(expit(z + s), np.full(20, UNKNOWN), 0.6, np.zeros(20, bool)).any()


def test_a_fit_by_hand() -> None:
    """All z and s are 0, so that the posterior of b0 has its maximum where 40 - 50 sigmoid(b0) = b0 / 4."""
    b0, b1, b2 = fit_audit(np.zeros(50), np.zeros(50), np.repeat([SUGGESTED, GIVEN], [40, 10]))
    assert 40 - 50 * expit(b0) == pytest.approx(b0 / 4)
    assert (b1, b2) == (1, 1)


def test_answers_beside_the_two_labels_take_no_part() -> None:
    rng = np.random.default_rng(0)
    z, s, said = rng.normal(size=60), rng.normal(size=60), rng.integers(0, 2, 60)
    more = np.r_[said, np.full(20, NEITHER), np.full(20, UNKNOWN)]
    assert fit_audit(np.r_[z, np.full(40, 9.0)], np.r_[s, np.full(40, 9.0)], more) == fit_audit(z, s, said)


def test_many_answers_find_the_scale() -> None:
    rng = np.random.default_rng(1)
    z, s = rng.normal(-3, 2, 50_000), rng.choice([-1.5, 0, 1.5], 50_000)
    right = rng.random(50_000) < expit(2 + 0.5 * z + 1.4 * s)
    np.testing.assert_allclose(fit_audit(z, s, right.astype(int)), (2, 0.5, 1.4), atol=0.05)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.9))
def test_order_does_not_matter(seed: int, accept: float) -> None:
    rng = np.random.default_rng(seed)
    z, s, said = rng.normal(size=80), rng.normal(size=80), rng.integers(-2, 2, 80)
    order = rng.permutation(80)
    scale = fit_audit(z, s, said)
    assert fit_audit(z[order], s[order], said[order]) == scale
    p, without = audited_probability(z, s, scale), rng.random(80) < 0.2
    changed = proven_changes(p, said, accept, without)
    np.testing.assert_array_equal(
        proven_changes(p[order], said[order], accept, without[order]), changed[order]
    )


def audited_of(rights: int, wrongs: int, among: int) -> np.ndarray:
    """So many of the first `among` suspects were audited, evenly spread."""
    said = np.full(200, UNKNOWN)
    rows = np.linspace(0, among - 1, rights + wrongs).astype(int)
    said[rows] = np.repeat([SUGGESTED, GIVEN], [rights, wrongs])
    return said


def test_changes_need_proof() -> None:
    p = np.linspace(0.95, 0.55, 200)
    assert proven_changes(p, audited_of(20, 0, 200), 0.5, NOBODY).all()
    assert not proven_changes(p, audited_of(5, 5, 200), 0.5, NOBODY).any()
    assert not proven_changes(p, audited_of(5, 0, 200), 0.5, NOBODY).any()  # (.05 / 3)^(1/5) = .44
    assert proven_changes(p, audited_of(6, 0, 200), 0.5, NOBODY).all()  # .505


def test_the_better_half_is_taken_where_all_are_not_proven() -> None:
    p, said = np.linspace(0.95, 0.55, 200), audited_of(12, 0, 100)
    said[np.linspace(100, 199, 12).astype(int)] = GIVEN
    assert proven_changes(p, said, 0.5, NOBODY).nonzero()[0].tolist() == list(range(100))


def test_what_was_decided_before_stays_unless_it_is_contradicted() -> None:
    p, before = np.linspace(0.95, 0.55, 200), np.arange(200) < 80
    np.testing.assert_array_equal(proven_changes(p, audited_of(2, 2, 80), 0.5, before), before)
    assert not proven_changes(p, audited_of(0, 5, 80), 0.5, before).any()


def test_harm_is_limited() -> None:
    p, said = np.linspace(0.95, 0.55, 200), audited_of(40, 0, 200)
    sizes = [
        int(proven_changes(p, said, 0.5, NOBODY, most_harmed=most).sum()) for most in (200, 14, 13, 5, 0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 200
    assert sizes[-1] == 0
    with pytest.raises(ValueError, match=r"accept must be in \[.5, 1\], got 0.4"):
        proven_changes(p, said, 0.4, NOBODY)


@pytest.mark.parametrize("precision", [0.3, 0.5])
def test_changes_that_are_not_mostly_right_pass_rarely(precision: float) -> None:
    rng, passed = np.random.default_rng(3), 0
    for _ in range(400):
        right = rng.random(500) < precision
        said = np.full(500, UNKNOWN)
        rows = rng.choice(500, 50, replace=False)
        said[rows] = np.where(right[rows], SUGGESTED, GIVEN)
        passed += bool(proven_changes(np.sort(rng.random(500))[::-1], said, 0.5, np.zeros(500, bool)).any())
    assert passed <= 0.05 * 400 + 2 * (0.05 * 0.95 * 400) ** 0.5
