"""Example A of the specification, and what must hold for any margins."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import RaycleanError
from rayclean.functional import losses, margins
from rayclean.functional.margins import NegativeMargins, gaussian_weights

LABELS = torch.tensor([0, 0, 0, 0, 1])
Z = torch.tensor(
    [
        [[2, 1, 0], [0, 1, 3], [1, 3, 0], [0.5, 1.5, 0], [3, 0, 1]],
        [[3, 0, 0], [0, 1, 4], [0, 4, 1], [1.5, 1, 0], [4, 0, 1]],
    ],
    dtype=torch.float64,
)
W = torch.tensor(
    [
        [[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.4, 0.5, 0.1], [0.5, 0.4, 0.1], [0.5, 0.25, 0.25]],
        [[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1], [0.8, 0.1, 0.1]],
    ],
    dtype=torch.float64,
)
ALM1 = np.array([1.0, -5, -4, -2.5, -6])
ALM2 = np.array([2.0, -6.5, -6, -1, -5.5])


def weights_of(alm, mode="variance"):
    negatives = NegativeMargins.of(alm)
    return gaussian_weights(alm, negatives.mean, negatives.sigma_squared(mode))


def test_example_a_margins():
    total, count, rows = np.zeros(5), np.zeros(5, np.uint32), np.arange(5)
    expected = [
        # M, j, LM = M / w_j where M < 0: -3/.6, -2/.5, -1/.4, -3/.5
        ([1, -3, -2, -1, -3], [1, 2, 1, 1, 0], [1, -5, -4, -2.5, -6]),
        # -4/.5, -4/.5, then .5 stays, -4/.8; row 0 has two rivals of 0: the lower index
        ([3, -4, -4, 0.5, -4], [1, 2, 1, 1, 0], [3, -8, -8, 0.5, -5]),
    ]
    running = NegativeMargins()
    for z, w, (m, j, lm), alm in zip(Z, W, expected, (ALM1, ALM2), strict=True):
        margin, rival = margins.margin(z, LABELS)
        assert margin.tolist() == m
        assert rival.tolist() == j
        adjusted = margins.label_aware(margin, w.gather(1, rival[:, None])[:, 0])
        assert adjusted.tolist() == pytest.approx(lm)
        before, after = margins.update_average(total, count, rows, adjusted.numpy())
        running = running.moved(before, after)
        np.testing.assert_allclose(after, alm, atol=1e-12)
        np.testing.assert_allclose(margins.averages(total, count), alm, atol=1e-12)
        assert running.mean == pytest.approx(NegativeMargins.of(alm).mean, abs=1e-12)
        assert running.variance == pytest.approx(NegativeMargins.of(alm).variance, abs=1e-12)


@pytest.mark.parametrize(
    ("alm", "mean", "variance", "expected"),
    [
        # mean (-5 - 4 - 2.5 - 6) / 4; row 1: exp(-.625^2 / (2 x 1.671875)) = exp(-.116822)
        (ALM1, -4.375, 1.671875, [1, 0.889743, 1, 1, 0.453972]),
        # mean (-6.5 - 6 - 1 - 5.5) / 4; row 3 is negative but above the mean: kept whole
        (ALM2, -4.75, 4.8125, [1, 0.727471, 0.850154, 1, 0.943233]),
        # batches alone: {1, 2}, {1}, {1, 2, 4}
        (ALM2[[1, 2]], -6.25, 0.0625, [0.606531, 1]),
        (ALM2[[1]], -6.5, 0, [1]),
        (ALM2[[1, 2, 4]], -6, 1 / 6, [0.472367, 1, 1]),
    ],
)
def test_example_a_weights(alm, mean, variance, expected):
    negatives = NegativeMargins.of(alm)
    assert negatives.mean == pytest.approx(mean)
    assert negatives.variance == pytest.approx(variance)
    np.testing.assert_allclose(weights_of(alm), expected, atol=1e-6)


def test_example_a_literal_and_fixed():
    # literal: sigma^2 = v^2 = 23.160; row 1: exp(-1.75^2 / 46.320)
    np.testing.assert_allclose(weights_of(ALM2, "literal"), [1, 0.936023, 0.966830, 1, 0.987930], atol=1e-6)
    fixed = gaussian_weights(ALM2, 0.0, 1.0)  # exp(-6.5^2 / 2), ..., exp(-1 / 2), ...
    np.testing.assert_allclose(fixed, [1, 6.69e-10, 1.52e-8, 0.606531, 2.70e-7], rtol=2e-3)
    fixed = gaussian_weights(ALM2, -1.0, 1.0)  # exp(-5.5^2 / 2), ...
    np.testing.assert_allclose(fixed, [1, 2.70e-7, 3.73e-6, 1, 4.01e-5], rtol=2e-3)


def test_example_a_weighted_loss():
    ce = losses.cross_entropy(Z[1], LABELS).numpy()
    np.testing.assert_allclose(ce, [0.094923, 4.065884, 4.065884, 0.604131, 4.065884], atol=1e-6)
    assert (weights_of(ALM2) * ce).sum() == pytest.approx(10.948569, abs=1e-5)
    assert (weights_of(ALM2) * ce).mean() == pytest.approx(2.189714, abs=1e-5)


def test_table_1_of_the_paper():
    # -.6 / .895522 = -.67, -1.15 / .521739 = -2.2042
    w = torch.tensor([0.895522, 0.521739])
    adjusted = margins.label_aware(torch.tensor([-0.6, -1.15]), w)
    assert adjusted.tolist() == pytest.approx([-0.67, -2.204167], abs=1e-5)


def test_two_classes_ties_and_the_clamp():
    margin, rival = margins.margin(torch.tensor([[1.0, 3.0], [1.0, 3.0]]), torch.tensor([0, 1]))
    assert margin.tolist() == [-2, 2]
    assert rival.tolist() == [1, 0]
    tied = margins.margin(torch.tensor([[0.0, 5.0, 1.0, 5.0, 5.0]]), torch.tensor([1]))
    assert (tied[0].tolist(), tied[1].tolist()) == ([0], [3])
    adjusted = margins.label_aware(torch.tensor([-1.0, -1.0]), torch.tensor([0.0, 1e-9]))
    assert adjusted.tolist() == pytest.approx([-20, -20])  # 1 / .05


def test_no_gradient_is_needed_to_compute_a_margin_but_one_flows():
    z = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    margins.margin(z, torch.tensor([0]))[0].sum().backward()
    assert z.grad.tolist() == [[1, -1, 0]]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    classes=st.integers(2, 6),
    shift=st.floats(-50, 50),
)
def test_margins_in_general(seed, rows, classes, shift):
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(3 * rng.standard_normal((rows, classes)))
    y = torch.from_numpy(rng.integers(0, classes, rows))
    w = torch.from_numpy(rng.dirichlet(np.ones(classes), rows))
    margin, rival = margins.margin(z, y)
    assert (rival != y).all()
    assert ((margin >= 0) == (z.argmax(1) == y)).all()
    shifted, same = margins.margin(z + shift, y)
    torch.testing.assert_close(shifted, margin, atol=1e-9, rtol=0)
    assert (same == rival).all()
    adjusted = margins.label_aware(margin, w.gather(1, rival[:, None])[:, 0])
    assert (adjusted[margin < 0] <= margin[margin < 0]).all()
    assert (adjusted[margin >= 0] == margin[margin >= 0]).all()
    assert (adjusted >= margin.clamp(max=0) / margins.W_MIN).all()
    assert (
        margins.label_aware(margin, torch.ones_like(margin)) == margin
    ).all()  # w = 1: LANE without similarity


alms = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=200).map(np.array)


@settings(max_examples=300, deadline=None)
@given(alm=alms)
def test_weights_in_general(alm):
    weights = weights_of(alm)
    negatives = NegativeMargins.of(alm)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (weights[(alm >= 0) | (alm >= negatives.mean)] == 1).all()
    order = np.argsort(alm)
    below = weights[order][alm[order] < 0]
    assert (np.diff(below) >= 0).all()  # the lower the ALM, the lower the weight
    n = int((alm < 0).sum())
    if n:
        for c in (0.01, 0.1, 0.5):  # Cantelli: at most 9.8 %, 17.84 %, 41.9 % of N^t
            assert (weights[alm < 0] < c).mean() <= 1 / (1 + 2 * math.log(1 / c)) + 1e-12
        assert weights.min() >= math.exp(-(n - 1) / 2) * (1 - 1e-6)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-2, 1e3))
def test_only_the_variance_reading_is_free_of_scale(seed, scale):
    alm = np.random.default_rng(seed).normal(-1, 3, 50)
    np.testing.assert_allclose(weights_of(scale * alm), weights_of(alm), atol=1e-9)
    if scale > 2:
        assert (weights_of(scale * alm, "literal") >= weights_of(alm, "literal")).all()
        assert weights_of(scale * alm, "literal").min() > weights_of(alm, "literal").min()


@pytest.mark.parametrize(
    "alm", [[], [1.0, 0.0, 2.0], [-3.0], [-3.0, 5.0], [-0.1] * 7, [-0.1, -0.1 - 1e-8], [0.0, 0.0]]
)
def test_where_nothing_can_be_inferred_all_weights_are_one(alm):
    for mode in ("variance", "literal"):
        assert (weights_of(np.array(alm), mode) == 1).all()


def test_fixed_sigma_must_be_positive():
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="sigma_squared must be positive"):
            gaussian_weights(ALM2, 0.0, sigma)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), centre=st.sampled_from([-1e4, -10.0, 0.0, 5.0]))
def test_running_statistics_are_a_full_recompute(seed, centre):
    rng = np.random.default_rng(seed)
    total, count = np.zeros(60), np.zeros(60, np.uint32)
    running = NegativeMargins()
    for _ in range(40):
        rows = np.sort(rng.choice(60, 16, replace=False))
        running = running.moved(*margins.update_average(total, count, rows, rng.normal(centre, 3, 16)))
        full = NegativeMargins.of(margins.averages(total, count))
        assert running.count == full.count
        assert running.mean == pytest.approx(full.mean, rel=1e-9, abs=1e-9)
        assert running.variance == pytest.approx(full.variance, rel=1e-9, abs=1e-9)


def test_statistics_do_not_cancel_far_from_zero():
    alm = -1e8 + np.array([-1.0, 0.0, 1.0])  # E[x^2] - E[x]^2 in float64 would be off by about 1
    assert NegativeMargins.of(alm).variance == pytest.approx(2 / 3)
    assert NegativeMargins().moved(np.zeros(3), alm).variance == pytest.approx(2 / 3)


def test_the_last_negative_may_leave():
    running = NegativeMargins.of(np.array([-1.0])).moved(np.array([-1.0]), np.array([0.5]))
    assert (running.count, running.mean, running.variance) == (0, 0, 0)
    again = running.moved(np.array([0.5]), np.array([-2.0]))
    assert (again.count, again.mean, again.variance) == (1, -2, 0)


def test_one_negative_left_far_from_the_shift_infers_nothing():
    # Sums of squares near 1e8 leave a variance of rounding alone, 2e-9: larger than V_MIN.
    left = np.array([-77.7])
    running = NegativeMargins.of(np.array([-1e4, -1 / 3, -77.7])).moved(
        np.array([-1e4, -1 / 3]), np.full(2, 5.0)
    )
    assert running.count == 1
    assert running.variance > margins.V_MIN
    assert running.sigma_squared() == math.inf
    assert gaussian_weights(left, running.mean, running.sigma_squared()).tolist() == [1]


def test_an_average_that_is_not_negative_keeps_its_weight_under_any_threshold():
    weights = gaussian_weights(np.array([0.5, 0.0, -0.5]), 2.0, 1.0)
    assert weights.tolist() == pytest.approx([1, 1, math.exp(-(2.5**2) / 2)])


def test_average_counts_visits_not_epochs():
    total, count = np.zeros(3), np.zeros(3, np.uint32)
    for value in (1.0, 2.0, 6.0):
        before, after = margins.update_average(total, count, np.array([2]), np.array([value], np.float32))
    assert (before, after) == (1.5, 3.0)
    assert margins.averages(total, count).tolist() == [0, 0, 3]


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_margins_that_are_not_finite_stop_the_run_and_change_nothing(bad):
    total, count = np.zeros(3), np.zeros(3, np.uint32)
    with pytest.raises(RaycleanError, match=r"1 of 2 margins are not finite.*learning rate"):
        margins.update_average(total, count, np.array([0, 1]), np.array([1.0, bad]))
    assert total.tolist() == [0, 0, 0]
    assert count.tolist() == [0, 0, 0]


def test_an_update_costs_its_batch_and_not_the_whole_data_set():
    """An array over all of the million rows would be larger than all that is allocated for a batch."""
    rng = np.random.default_rng(0)
    total, count = np.zeros(10**6), np.zeros(10**6, np.uint32)
    rows, values = np.sort(rng.choice(10**6, 4096, replace=False)), rng.normal(-1, 3, 4096)
    tracemalloc.start()
    try:
        before, after = margins.update_average(total, count, rows, values)
        running = NegativeMargins().moved(before, after)
        gaussian_weights(after, running.mean, running.sigma_squared())
        assert 0 < tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    assert count.sum() == 4096
