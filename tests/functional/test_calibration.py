"""Golden numbers of calibration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.calibration import choose, expected_calibration_error, probabilities


def test_a_bias_turns_a_biased_answer() -> None:
    # A model that always gives label 0 two nats more: means over the three queries -1 and -3.
    scores = np.array([[-1.0, -3.5], [-1.0, -3.5], [-1.0, -2.0]])
    labels = np.array([[0, 1]] * 3)
    bias = np.array([-1.0, -3.0, 0.0])
    # calibrated: [0, -0.5], [0, -0.5], [0, 1]; softmax of the last: e / (1 + e) = 0.731059
    shares = probabilities(scores, bias[labels], labels)
    assert shares[2] == pytest.approx([0.268941, 0.731059], abs=1e-6)
    assert shares[0] == pytest.approx([0.622459, 0.377541], abs=1e-6)  # 1 / (1 + e^-0.5)
    assert choose(shares, labels)[0].tolist() == [0, 0, 1]
    assert choose(probabilities(scores, 0.0, labels), labels)[0].tolist() == [0, 0, 0]  # raw: blind


def test_rows_with_fewer_candidates() -> None:
    candidates = np.array([[4, 2, 7], [1, -1, -1], [-1, -1, -1]])
    shares = probabilities(np.zeros((3, 3)), 0.0, candidates)
    assert shares == pytest.approx(np.array([[1 / 3] * 3, [1, 0, 0], [0, 0, 0]]))
    chosen, confidence = choose(shares, candidates)
    assert chosen.tolist() == [-1, 1, -1]  # a tie, the only one, none
    assert confidence == pytest.approx([1 / 3, 1, 0])


def test_calibration_error() -> None:
    # Bin [.6, .7): confidences .6, .65 (sum 1.25), one right: |1.25 - 1|; bin [.9, 1]: .9, 1.0, both right: |1.9 - 2|.
    # (.25 + .1) / 4 = .0875
    error = expected_calibration_error(np.array([0.6, 0.65, 0.9, 1.0]), np.array([True, False, True, True]))
    assert error == pytest.approx(0.0875)
    assert np.isnan(expected_calibration_error(np.array([]), np.array([], dtype=bool)))


scores = st.lists(st.lists(st.floats(-50, 0), min_size=3, max_size=3), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(scores, st.lists(st.floats(-20, 20), min_size=3, max_size=3))
def test_a_bias_of_labels_is_forgotten_with_the_scores(rows: list[list[float]], bias: list[float]) -> None:
    """Adding a constant per label to all scores changes no calibrated probability."""
    plain, labels = np.array(rows), np.tile(np.arange(3), (len(rows), 1))

    def calibrated(values: np.ndarray) -> np.ndarray:
        return probabilities(values, values.mean(axis=0)[labels], labels)

    assert calibrated(plain + np.array(bias)) == pytest.approx(calibrated(plain), abs=1e-9)
    assert calibrated(plain).sum(axis=1) == pytest.approx(np.ones(len(rows)))
