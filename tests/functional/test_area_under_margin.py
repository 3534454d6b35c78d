import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.area_under_margin import below_threshold, spare_every_class, threshold_runs


def test_golden_threshold():
    """METHODS 5.1: ten threshold samples -3, -2.5, ..., 1.5, whose 99th percentile is 1.455."""
    reference = np.arange(-3, 2, 0.5)
    assert np.percentile(reference, 99) == pytest.approx(1.455)
    aum = np.array([*reference, 1.4, 1.5, 2.0])
    low = below_threshold(aum, np.arange(13) < 10)
    assert low.tolist() == [False] * 10 + [True, False, False]  # 10 % are greater than 1.4, none than 1.5


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.integers(1, 400), percentile=st.sampled_from([50, 90, 99, 99.5])
)
def test_the_rule_of_the_code_is_the_percentile_but_between_two_samples(seed, size, percentile):
    rng = np.random.default_rng(seed)
    reference, others = rng.standard_normal(size), rng.standard_normal(50)
    low = below_threshold(np.append(reference, others), np.arange(size + 50) < size, percentile)[size:]
    share = (reference[:, None] > others).mean(0)
    assert (low == (share * 100 > 100 - percentile + 1e-9)).all()
    lower = np.percentile(reference, percentile, method="lower")
    assert low[others < lower].all()
    assert not low[others >= np.percentile(reference, percentile, method="higher")].any()


def test_without_threshold_samples_nothing_is_below():
    assert not below_threshold(np.array([-9.0, 3.0]), np.zeros(2, bool)).any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60), classes=st.integers(2, 7))
def test_threshold_samples_are_disjoint_of_the_right_size_and_of_ids(seed, count, classes):
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(2**40, count, replace=False).astype(np.int64))
    runs = threshold_runs(ids, classes, 2, seed % 1000)
    size = count // (classes + 1)
    assert [(runs == run).sum() for run in (1, 2)] == [size, size]
    order = rng.permutation(count)
    assert (threshold_runs(ids[order], classes, 2, seed % 1000) == runs[order]).all()


def test_threshold_samples_are_random():
    ids = np.arange(3000)
    runs = [threshold_runs(ids, 2, 2, seed) for seed in range(2)]
    assert (runs[0] != runs[1]).mean() > 0.5
    assert 0.28 < (runs[0][:1500] == 1).mean() < 0.38


def test_a_class_that_would_be_lost_keeps_its_tenth():
    labels, removed = np.repeat([0, 1], 20), np.arange(40) < 25
    kept = ~spare_every_class(labels, removed, np.linspace(-1, 1, 40))
    assert np.flatnonzero(kept).tolist() == [18, 19, *range(25, 40)]  # class 1 has others left
