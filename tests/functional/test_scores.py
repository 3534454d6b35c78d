import numpy as np
from cleanlab import rank
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional import scores


def random_case(seed: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.4), rows).astype(np.float32)
    return rng.integers(0, classes, rows), p


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 200), classes=st.integers(2, 12))
def test_scores_are_those_of_cleanlab(seed: int, rows: int, classes: int) -> None:
    labels, p = random_case(seed, rows, classes)
    pairs = [
        (scores.self_confidence, rank.get_self_confidence_for_each_label, 0),
        (scores.normalized_margin, rank.get_normalized_margin_for_each_label, 1e-6),
    ]
    for ours, theirs, tolerance in pairs:
        found = ours(labels, p)
        assert found.dtype == np.float32
        assert found.shape == (rows,)
        assert ((found >= 0) & (found <= 1)).all()
        np.testing.assert_allclose(found, theirs(labels, p), atol=tolerance + 1e-7, rtol=0)


def test_golden_numbers() -> None:
    labels = np.array([0, 2])
    p = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], dtype=np.float32)
    assert scores.self_confidence(labels, p).tolist() == [0.5, 0.25]
    # (0.5 - 0.25 + 1) / 2 = 0.625; (0.25 - 0.5 + 1) / 2 = 0.375
    assert scores.normalized_margin(labels, p).tolist() == [0.625, 0.375]


def test_a_certain_and_right_prediction_has_quality_one() -> None:
    labels, p = np.array([1]), np.array([[0, 1, 0]], dtype=np.float32)
    for score in (scores.self_confidence, scores.normalized_margin):
        assert score(labels, p)[0] == 1
    assert scores.self_confidence(np.array([0]), p)[0] == 0
    assert scores.normalized_margin(np.array([0]), p)[0] == 0


def test_margin_of_two_classes_is_self_confidence() -> None:
    # K = 2: (p - (1 - p) + 1) / 2 = p
    p = np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    labels = np.array([0, 1])
    assert (scores.normalized_margin(labels, p) == scores.self_confidence(labels, p)).all()


def test_inputs_are_left_alone() -> None:
    labels, p = random_case(0, 50, 5)
    before = p.copy()
    scores.normalized_margin(labels, p)
    assert (p == before).all()


def test_disagreement_is_zero_where_labels_differ() -> None:
    assert scores.disagreement(np.array([3, 1]), np.array([3, 0])).tolist() == [1, 0]
