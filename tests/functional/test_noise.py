"""Noise kinds: their exact rates, and that order and shards do not matter."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, ttest_ind
from sklearn.metrics import confusion_matrix

from rayclean.functional import noise

N, K = 20_000, 4
KINDS = get_args(noise.Kind)
RNG = np.random.default_rng(7)
IDS = RNG.permutation(2**40 + np.arange(N)).astype(np.int64)
LABELS = RNG.choice(K, N, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int32)
# Features that tell the classes apart, but not always.
FEATURES = (np.eye(K)[LABELS] * 2.0 + RNG.standard_normal((N, K))).astype(np.float32)
PROBABILITIES = np.exp(FEATURES) / np.exp(FEATURES).sum(1, keepdims=True)


def corrupt(kind, rate, seed=0, select=slice(None), **kw):
    features = {"idn_softmax": PROBABILITIES, "idn_xia": FEATURES}.get(kind)
    return noise.corrupt(
        IDS[select], LABELS[select], K, kind, rate, seed,
        mapping={0: 2, 3: 1} if kind == "asym_map" else None,
        features=None if features is None else features[select], **kw,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_rate_zero_changes_nothing(kind):
    assert (corrupt(kind, 0.0) == LABELS).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_result_other_seed_another(kind):
    first = corrupt(kind, 0.3)
    assert (first == corrupt(kind, 0.3)).all()
    if kind != "idn_softmax":  # goes by the classifier alone
        assert (first != corrupt(kind, 0.3, seed=1)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_examples_does_not_matter(kind):
    order = np.random.default_rng(1).permutation(N)
    assert (corrupt(kind, 0.3, select=order) == corrupt(kind, 0.3)[order]).all()


@pytest.mark.parametrize("kind", ["sym", "asym", "asym_map"])
def test_local_kinds_may_be_corrupted_shard_by_shard(kind):
    assert noise.is_local(kind, exact=False)
    parts = [corrupt(kind, 0.3, select=slice(start, start + 999)) for start in range(0, N, 999)]
    assert (np.concatenate(parts) == corrupt(kind, 0.3)).all()


def test_global_kinds_are_not_local():
    assert [kind for kind in KINDS if noise.is_local(kind, exact=True)] == ["asym_map"]


@pytest.mark.parametrize(
    ("kind", "kw", "count"),
    [
        ("sym", {"exact": True}, 6000),  # round(.3 x 20000)
        ("asym", {"exact": True}, 6000),
        ("lane_flip", {}, 6000),
        ("idn_softmax", {}, 6000),  # floor(.3 x 20000)
    ],
)
def test_realised_rate_is_exact(kind, kw, count):
    assert (corrupt(kind, 0.3, **kw) != LABELS).sum() == count


def test_round_is_half_up_and_floor_forgives_floating_point():
    ids, labels = np.arange(100), np.zeros(100, np.int32)
    flip = noise.corrupt(ids[:5], labels[:5], 2, "lane_flip", 0.5, 0)
    assert flip.sum() == 3  # 2.5 rounds up
    probabilities = np.tile([0.6, 0.4], (100, 1))
    assert (
        noise.corrupt(ids, labels, 2, "idn_softmax", 0.29, 0, features=probabilities).sum() == 29
    )  # 28.999...96


@pytest.mark.parametrize("seed", range(3))
def test_lane_shuffle_preserves_the_histogram_exactly(seed):
    noisy = corrupt("lane_shuffle", 0.37, seed)
    assert (np.bincount(noisy) == np.bincount(LABELS)).all()
    touched = noisy != LABELS
    assert touched.sum() <= round(0.37 * N)


@pytest.mark.parametrize(
    ("kind", "rate", "expected"),
    [
        ("sym", 0.2, 0.2),
        ("asym", 0.2, 0.2),
        ("sym_incl", 0.4, 0.3),  # .4 x (1 - 1/4)
        ("lane_shuffle", 0.2, 0.14),  # .2 x (1 - (.16 + .09 + .04 + .01)) = .2 x .7
        ("asym_map", 0.2, 0.1),  # classes 0 and 3: .2 x (.4 + .1)
        ("idn_xia", 0.3, 0.3),
    ],
)
def test_realised_rate_is_near_the_expected_one(kind, rate, expected):
    mapping = {0: 2, 3: 1}
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    assert noise.expected_rate(kind, rate, shares, mapping) == pytest.approx(expected)
    realised = (corrupt(kind, rate) != LABELS).mean()
    assert realised == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / N))


def test_expected_rates_of_balanced_shuffles():
    assert noise.expected_rate("lane_shuffle", 0.2, np.full(10, 0.1)) == pytest.approx(
        0.18
    )  # .2 x (1 - 1/10)
    assert noise.expected_rate("lane_shuffle", 0.2, np.full(2, 0.5)) == pytest.approx(0.10)


def test_sym_matrix_by_chi_square():
    counts = confusion_matrix(LABELS, corrupt("sym", 0.2))
    for y in range(K):
        expected = np.full(K, 0.2 / 3)  # .066667 off the diagonal
        expected[y] = 0.8
        assert chisquare(counts[y], expected * counts[y].sum()).pvalue > 1e-3


def test_sym_incl_matrix_by_chi_square():
    counts = confusion_matrix(LABELS, corrupt("sym_incl", 0.4))
    for y in range(K):
        expected = np.full(K, 0.1)  # .4 / 4 for each of the four, the true one keeps .6 besides
        expected[y] = 0.7
        assert chisquare(counts[y], expected * counts[y].sum()).pvalue > 1e-3


def test_lane_shuffle_matrix_by_chi_square():
    counts = confusion_matrix(LABELS, corrupt("lane_shuffle", 0.5))
    shares = np.bincount(LABELS) / N
    for y in range(K):
        expected = 0.5 * shares  # a shuffled label comes from a class in proportion to its share
        expected[y] += 0.5
        assert chisquare(counts[y], expected * counts[y].sum()).pvalue > 1e-3


@pytest.mark.parametrize("exact", [False, True])
def test_asym_never_produces_other_classes(exact):
    noisy = corrupt("asym", 0.4, exact=exact)
    assert np.isin((noisy - LABELS) % K, [0, 1]).all()


def test_asym_map_leaves_unmapped_classes_alone():
    noisy = corrupt("asym_map", 1.0)
    assert (noisy == np.array([2, 1, 2, 1])[LABELS]).all()


@pytest.mark.parametrize("kind", ["idn_softmax", "idn_xia"])
def test_instance_dependent_flips_go_by_features(kind):
    flipped = corrupt(kind, 0.2) != LABELS
    rows = np.arange(N)
    others = PROBABILITIES.copy()
    others[rows, LABELS] = -1
    margin = PROBABILITIES[rows, LABELS] - others.max(1)
    if kind == "idn_softmax":
        subset = np.random.default_rng(3).permutation(N)[: flipped.sum()]
        test = ttest_ind(margin[flipped], margin[subset], alternative="less")
        assert test.pvalue < 0.01
    else:  # the wrong class depends on x: within one true class, means of x differ between wrong classes
        noisy = corrupt(kind, 0.2)
        a, b = (FEATURES[(LABELS == 0) & (noisy == c)] for c in (1, 2))
        assert min(ttest_ind(a, b).pvalue) < 0.01


def test_idn_softmax_takes_the_surest_disagreements_first():
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.1, 0.6], [0.0, 1.0, 0.0], [0.0, 0.05, 0.95]]
    )
    labels = np.array([0, 0, 0, 1, 2], np.int32)
    # disagree: row 1 (.8 for class 1), row 2 (.6 for class 2); then by second largest: row 0 (.1), row 4 (.05)
    for count, expected in [
        (1, [0, 1, 0, 1, 2]),
        (2, [0, 1, 2, 1, 2]),
        (3, [1, 1, 2, 1, 2]),
        (4, [1, 1, 2, 1, 1]),
    ]:
        noisy = noise.corrupt(np.arange(5), labels, 3, "idn_softmax", count / 5, 0, features=probabilities)
        assert noisy.tolist() == expected
    noisy = noise.corrupt(np.arange(5), labels, 3, "idn_softmax", 1.0, 0, features=probabilities)
    assert noisy[3] in (0, 2)  # second largest probability is 0: a random wrong class


def test_rows_of_the_transition_matrix_sum_to_the_classes():
    for kind in KINDS:
        counts = confusion_matrix(LABELS, corrupt(kind, 0.3))
        assert (counts.sum(1) == np.bincount(LABELS)).all()
        assert (counts / counts.sum(1, keepdims=True)).sum(1) == pytest.approx(1)


@given(
    st.sampled_from(KINDS), st.floats(0, 1), st.integers(-(2**63), 2**63 - 1),
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30), st.integers(2, 1000),
)  # fmt: skip
def test_labels_stay_in_the_set(kind, rate, seed, ids, num_classes):
    labels = (np.arange(len(ids)) % num_classes).astype(np.int32)
    width = num_classes if kind == "idn_softmax" else 3
    features = np.random.default_rng(0).random((len(ids), width))
    noisy = noise.corrupt(
        np.array(ids, np.int64), labels, num_classes, kind, rate, seed, mapping={0: 1}, features=features
    )
    assert noisy.dtype == np.int32
    assert noisy.shape == labels.shape
    assert ((noisy >= 0) & (noisy < num_classes)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.5}, "rate"), ({"num_classes": 1}, "K >= 2"), ({"kind": "idn_xia"}, "features"),
        ({"kind": "asym_map"}, "mapping"), ({"kind": "other"}, "unknown kind"), ({"num_classes": 3}, "labels must be"),
    ],
)  # fmt: skip
def test_wrong_arguments(change, message):
    arguments = {"num_classes": K, "kind": "sym", "rate": 0.2, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        noise.corrupt(IDS, LABELS, **arguments)
