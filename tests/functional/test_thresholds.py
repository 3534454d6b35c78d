import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional import thresholds
from rayclean.functional.thresholds import clean_posterior, exponential_average


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.9, [0.466667, 0.766667, 0.886667]),  # .9 x .5 + .1 / 6; .9 x .8 + .1 x .466667; ...
        (0.1, [0.2, 0.26, 0.324]),
        (0.0, [1 / 6, 1 / 6, 1 / 6]),  # a fixed threshold
        (1.0, [0.5, 0.8, 0.9]),  # the last confidence
    ],
)
def test_golden_recursion(rate, expected):
    threshold, seen = np.array([1 / 6]), []
    for confidence in (0.5, 0.8, 0.9):
        threshold = exponential_average(threshold, np.array([confidence]), rate)
        seen.append(float(threshold[0]))
    assert seen == pytest.approx(expected, abs=1e-6)


def test_golden_thresholds_of_disc_and_of_example_c():
    # DISC, m = .95 = 1 - rate: .95 x .5 + .05 x (.7, .45, .97, .4)
    tau = exponential_average(np.full(4, 0.5), np.array([0.7, 0.45, 0.97, 0.4]), 0.05)
    np.testing.assert_allclose(tau, [0.51, 0.4975, 0.5235, 0.495])
    # Example C, lambda = .3
    tau = exponential_average(np.full(5, 0.5), np.array([0.7, 0.45, 0.97, 0.4, 0.6]), 0.3)
    np.testing.assert_allclose(tau, [0.56, 0.485, 0.641, 0.47, 0.53])
    tau = exponential_average(np.full(5, 0.4), np.array([0.6, 0.5, 0.8, 0.5, 0.8]), 0.3)
    np.testing.assert_allclose(tau, [0.46, 0.43, 0.52, 0.43, 0.52])


@settings(max_examples=100, deadline=None)
@given(start=st.floats(0, 1), seen=st.lists(st.floats(0, 1), min_size=1, max_size=10), rate=st.floats(0, 1))
def test_threshold_stays_between_its_start_and_what_was_seen(start, seen, rate):
    threshold = np.array([start])
    for confidence in seen:
        threshold = exponential_average(threshold, np.array([confidence]), rate)
        assert min(start, *seen) - 1e-12 <= threshold[0] <= max(start, *seen) + 1e-12


def test_dtype_is_kept_and_inputs_are_left_alone():
    threshold = np.full(3, 0.25, np.float32)
    moved = exponential_average(threshold, np.ones(3, np.float64), 0.5)
    assert moved.dtype == np.float32
    assert threshold.tolist() == [0.25] * 3


@pytest.mark.parametrize("rate", [-0.1, 1.1, np.nan])
def test_rate_must_be_a_share(rate):
    with pytest.raises(ValueError, match="must be in"):
        exponential_average(np.ones(1), np.ones(1), rate)


LOSSES = np.array([0.05, 0.1, 0.08, 0.12, 0.07, 2, 2.2, 1.9])


def test_golden_posterior():
    np.testing.assert_allclose(clean_posterior(LOSSES), [1, 1, 1, 1, 1, 0, 0, 0], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10))
def test_posterior_in_general(seed, scale):
    rng = np.random.default_rng(seed)
    losses = scale * np.concatenate([rng.gamma(2, 0.1, 80), rng.normal(2.5, 0.4, 40)])
    posterior = clean_posterior(losses)
    assert ((posterior >= 0) & (posterior <= 1)).all()
    assert (posterior[:80] > 0.5).mean() > 0.9
    assert (posterior[80:] < 0.5).mean() > 0.9
    order = rng.permutation(120)
    assert (clean_posterior(losses[order]) == posterior[order]).all()
    np.testing.assert_allclose(clean_posterior(3 * losses + 1), posterior, atol=1e-6)
    ordered = np.sort(losses)
    between = (ordered > losses[:80].mean()) & (ordered < losses[80:].mean())
    assert (np.diff(posterior[np.argsort(losses)][between]) <= 0).all()  # falls with the loss


@pytest.mark.parametrize("losses", [[], [0.7], [0.7] * 5])
def test_losses_that_are_all_alike_are_all_clean(losses):
    assert clean_posterior(np.array(losses)).tolist() == [1] * len(losses)


def test_components_that_do_not_differ_are_one(monkeypatch):
    monkeypatch.setattr(thresholds, "APART", 10.0)  # further than any two means of losses in [0, 1]
    assert clean_posterior(LOSSES).tolist() == [1] * 8


def test_losses_must_be_finite():
    with pytest.raises(ValueError, match="got 1 that are not"):
        clean_posterior(np.array([0.1, np.nan]))
