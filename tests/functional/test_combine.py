import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from rayclean.functional.combine import combine, relative_rank
from rayclean.functional.suspect_budget import most_doubtful, suspects_allowed


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.integers(0, 6), min_size=2, max_size=60))
def test_rank_is_the_average_rank(values: list[int]) -> None:
    array = np.array(values, dtype=np.float32)
    expected = (rankdata(array, method="average") - 1) / (len(array) - 1)
    np.testing.assert_allclose(relative_rank(np.sort(array), array), expected)


def test_golden_numbers() -> None:
    first = np.array([0.9, 0.1, 0.5], dtype=np.float32)
    second = np.array([0.25, 0.25, 0.75], dtype=np.float32)
    ordered = [np.sort(first), np.sort(second)]
    # ranks / 2: [1, 0, 0.5] and, with a tie for places 0 and 1, [0.25, 0.25, 1]
    assert combine("mean_rank", [first, second], ordered).tolist() == [0.625, 0.125, 0.75]
    assert combine("mean", [first, second], []) == pytest.approx([0.575, 0.175, 0.625])
    assert combine("min", [first, second], []).tolist() == pytest.approx([0.25, 0.1, 0.5])


def test_one_example_and_none() -> None:
    one = np.array([0.3], dtype=np.float32)
    assert combine("mean_rank", [one], [one]).tolist() == [0.5]
    none = np.zeros(0, dtype=np.float32)
    assert combine("mean_rank", [none], [none]).shape == (0,)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="median"):
        combine("median", [np.zeros(1, np.float32)], [])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(0, 50), limit=st.integers(0, 60))
def test_choice_does_not_depend_on_order(seed: int, rows: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    quality = rng.integers(0, 4, rows).astype(np.float32)
    ids = rng.permutation(1000)[:rows].astype(np.int64)
    chosen = most_doubtful(quality, ids, limit)
    order = rng.permutation(rows)
    assert (chosen == most_doubtful(quality[order], ids[order], limit)).all()
    assert len(chosen) == min(rows, limit)
    expected = sorted(zip(quality.tolist(), ids.tolist(), strict=True))[:limit]
    assert chosen.tolist() == [identity for _, identity in expected]


def test_budget() -> None:
    assert suspects_allowed(0.29, 100) == 29  # 0.29 * 100 = 28.999999999999996
    assert suspects_allowed(0.1, 9) == 0
    assert suspects_allowed(1.0, 9) == 9
    assert suspects_allowed(1, 9) == 1
    assert suspects_allowed(50, 9) == 9
