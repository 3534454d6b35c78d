import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional import confident_learning as cl

LABELS = np.array([0, 0, 0, 1, 1])
P = np.array([[0.875, 0.125], [0.625, 0.375], [0.25, 0.75], [0.375, 0.625], [0.125, 0.875]], dtype=np.float32)


def test_golden_numbers() -> None:
    sums, counts = cl.self_confidence_sums(LABELS, P, 2)
    assert counts.tolist() == [3, 2]
    limits = cl.thresholds(sums, counts)
    # class 0: (0.875 + 0.625 + 0.25) / 3 = 0.583333; class 1: (0.625 + 0.875) / 2 = 0.75
    assert limits == pytest.approx([1.75 / 3, 0.75])
    # rows 0, 1 reach class 0; row 2 reaches class 1 exactly; row 3 (0.625 < 0.75) none; row 4 class 1
    assert cl.confident_class(P, limits).tolist() == [0, 0, 1, -1, 1]
    joint = np.bincount(cl.joint_cells(LABELS, P, limits), minlength=4).reshape(2, 2)
    assert joint.tolist() == [[2, 1], [0, 1]]
    # rows scaled to the counts 3 and 2: [2, 1] and [0, 2]; the total, 5, is right already
    assert cl.calibrate(joint, counts).tolist() == [[2, 1], [0, 2]]
    assert cl.prune_counts(cl.calibrate(joint, counts)).tolist() == [[2, 1], [0, 2]]


def test_several_confident_classes_give_the_most_probable_of_all() -> None:
    # classes 1 and 2 are confident, but class 0, which is not, is the most probable: cleanlab counts class 0
    p = np.array([[0.5, 0.3, 0.2]], dtype=np.float32)
    assert cl.confident_class(p, np.array([0.9, 0.25, 0.1])).tolist() == [0]


def test_threshold_of_absent_class_is_out_of_reach() -> None:
    limits = cl.thresholds(np.array([0, 1 << 31]), np.array([0, 1]))
    assert limits.tolist() == [2.0, 0.5]
    assert cl.confident_class(np.array([[1.0, 0.0]], dtype=np.float32), limits).tolist() == [-1]


def test_classes_of_few_examples_share_the_threshold_of_all() -> None:
    sums, counts = cl.self_confidence_sums(LABELS, P, 3)
    # class 1 has 2 examples, class 2 none; the mean of all: (0.875 + 0.625 + 0.25 + 0.625 + 0.875) / 5 = 0.65
    assert cl.thresholds(sums, counts, few=3) == pytest.approx([1.75 / 3, 0.65, 2])
    assert cl.thresholds(sums, counts, few=2) == pytest.approx([1.75 / 3, 0.75, 2])
    assert cl.thresholds(sums, counts, few=9) == pytest.approx([0.65, 0.65, 2])
    assert cl.thresholds(np.zeros(2, dtype=int), np.zeros(2, dtype=int), few=9).tolist() == [2, 2]


def test_labels_within_tolerance_of_the_best_are_no_issues() -> None:
    p = np.array([[0.4999997, 0.5000003], [0.4999, 0.5001], [0.5, 0.5]], dtype=np.float32)
    assert cl.agrees(np.array([0, 0, 1]), p).tolist() == [True, False, True]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), sparse=st.booleans(), keep=st.integers(0, 6)
)
def test_matrices_are_those_of_cleanlab(seed: int, classes: int, sparse: bool, keep: int) -> None:
    from cleanlab.count import calibrate_confident_joint
    from cleanlab.filter import _keep_at_least_n_per_class

    rng = np.random.default_rng(seed)
    joint = rng.integers(0, 4 if sparse else 1000, (classes, classes)) * (
        rng.random((classes, classes)) < 0.6
    )
    labels = rng.integers(0, classes, rng.integers(1, 3000))
    counts = np.bincount(labels, minlength=classes)
    theirs = joint.copy(order="F")  # as compute_confident_joint lays it out; the order of a sum decides ties
    np.fill_diagonal(theirs, theirs.diagonal().clip(min=1))  # done in compute_confident_joint
    theirs = calibrate_confident_joint(theirs, labels)
    ours = cl.calibrate(joint, counts)
    assert (ours == theirs).all()
    assert (cl.prune_counts(ours, keep) == _keep_at_least_n_per_class(theirs.T, n=keep).T).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 300), classes=st.integers(2, 9), absent=st.booleans()
)
def test_thresholds_and_joint_are_those_of_cleanlab(seed: int, rows: int, classes: int, absent: bool) -> None:
    from cleanlab.count import compute_confident_joint, get_confident_thresholds

    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.5), rows).astype(np.float32)
    labels = rng.integers(0, classes - 1 if absent else classes, rows)
    sums, counts = cl.self_confidence_sums(labels, p, classes)
    limits = cl.thresholds(sums, counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = p.astype(np.float64)
        np.testing.assert_allclose(limits, get_confident_thresholds(labels, exact), rtol=0, atol=2e-10)
        theirs = compute_confident_joint(labels, exact, calibrate=False)
    joint = np.bincount(cl.joint_cells(labels, p, limits), minlength=classes**2).reshape(classes, classes)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    assert (joint == theirs).all()


def test_sums_do_not_depend_on_order_even_where_float32_would(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    p = rng.random((100_000, 2)).astype(np.float32)
    labels = np.zeros(len(p), dtype=np.int64)
    whole = cl.self_confidence_sums(labels, p, 2)[0]
    order = rng.permutation(len(p))
    assert (cl.self_confidence_sums(labels, p[order], 2)[0] == whole).all()
    monkeypatch.setattr(cl, "BLOCK", 777)
    assert (cl.self_confidence_sums(labels, p, 2)[0] == whole).all()
    assert whole[0] / 2**32 == pytest.approx(p[:, 0].sum(dtype=np.float64), rel=1e-12)


def test_row_sums_survive_rounding() -> None:
    rng = np.random.default_rng(1)
    joint = rng.integers(1, 50, (30, 30))
    counts = rng.integers(1, 500, 30)
    assert (cl.calibrate(joint, counts).sum(axis=1) == counts).all()
