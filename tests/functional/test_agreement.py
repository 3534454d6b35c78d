"""Agreement of predictions and labels: chance, and orders of classes that explain it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.agreement import (
    chance_agreement,
    is_below_chance,
    is_no_better_than_chance,
    likely_order,
)


def test_chance_by_hand() -> None:
    # given 3/4, 1/4; predicted 1/2, 1/2: 3/4 * 1/2 + 1/4 * 1/2
    assert chance_agreement(np.array([[40, 20], [0, 20]])) == pytest.approx(0.5)
    assert chance_agreement(np.zeros((2, 2), dtype=np.int64)) == 0.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 9))
def test_any_order_of_good_columns_is_found(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    right = np.diag(rng.integers(20, 60, classes)) + rng.integers(0, 3, (classes, classes))
    order = rng.permutation(classes)
    moved = right[:, order]  # column j holds the predictions of class order[j]
    found = likely_order(moved)
    if (order == np.arange(classes)).all():
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == order.tolist()


def test_two_of_many_columns_that_changed_places_are_found_though_most_labels_agree() -> None:
    confusion = np.diag([40] * 10)
    confusion[[3, 7]] = confusion[[7, 3]]
    assert np.trace(confusion) > 0.7 * confusion.sum()
    found = likely_order(confusion)
    assert found is not None
    assert np.flatnonzero(found != np.arange(10)).tolist() == [3, 7]
    assert not is_below_chance(confusion)


def test_noise_is_no_order() -> None:
    # 45 % of one class given as the other, and back: no exchange explains more
    assert likely_order(np.array([[55, 45], [45, 55]])) is None
    # all labels of a rare class are doubted: the frequent one stays where it is
    assert likely_order(np.array([[0, 6], [5, 900]])) is None
    # too few examples to say
    assert likely_order(np.array([[0, 5], [5, 0]])) is None


def test_below_and_at_chance() -> None:
    assert is_below_chance(np.array([[10, 40], [40, 10]]))
    assert not is_no_better_than_chance(np.array([[40, 10], [10, 40]]))
    majority = np.array(
        [[90, 0], [10, 0]]
    )  # always the frequent class: as good as a guess that knows nothing
    assert is_no_better_than_chance(majority)
    assert not is_below_chance(majority)
    assert not is_below_chance(np.array([[0, 10], [10, 0]]))  # too few
