"""Folds: copies together, classes spread evenly, whatever the order of the rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.folds import stand_for_copies, stratified_folds


def drawn(seed: int, rows: int, groups: int, classes: int) -> tuple[Any, Any, Any]:
    """Ids, groups and labels; -1 is among the labels. Copies may have several labels."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(2**62, rows, replace=False) - 2**61
    names = rng.choice(2**62, groups, replace=False) - 2**61
    return ids, names[rng.integers(0, groups, rows)], rng.integers(-1, classes, rows)


def test_golden_numbers() -> None:
    """They are kept for ever: another fold of an example would be another result of a run."""
    groups, labels = np.array([7, 7, 8, 9, 10, 11]), np.array([0, 0, 0, 1, 1, 1])
    found = stratified_folds(np.arange(6), groups, labels, seed=0, count=3)
    assert found.tolist() == [2, 2, 1, 2, 1, 0]
    assert found.dtype == np.int16


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 200), groups=st.integers(1, 200),
    classes=st.integers(1, 8), count=st.integers(2, 7),
)  # fmt: skip
def test_groups_stay_together_and_classes_are_spread(
    seed: int, rows: int, groups: int, classes: int, count: int
) -> None:
    ids, group, labels = drawn(seed, rows, groups, classes)
    found = stratified_folds(ids, group, labels, seed, count)
    assert found.min() >= 0
    assert found.max() < count
    class_of: dict[int, int] = {}
    fold_of: dict[int, int] = {}
    for row in np.argsort(ids):  # a group belongs to the class of its lowest id
        class_of.setdefault(int(group[row]), int(labels[row]))
        assert fold_of.setdefault(int(group[row]), int(found[row])) == found[row]
    for label in set(class_of.values()):
        dealt = np.bincount(
            [fold_of[each] for each, own in class_of.items() if own == label], minlength=count
        )
        assert dealt.max() - dealt.min() <= 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 7))
def test_the_order_of_the_rows_changes_nothing(seed: int, count: int) -> None:
    ids, group, labels = drawn(seed, 150, 60, 4)
    order = np.random.default_rng(seed).permutation(150)
    found = stratified_folds(ids, group, labels, seed, count)
    assert (stratified_folds(ids[order], group[order], labels[order], seed, count) == found[order]).all()


def test_a_class_does_not_move_the_others() -> None:
    """An example keeps its fold where other classes gain or lose examples."""
    ids, _, labels = drawn(3, 300, 1, 5)
    some = labels < 3
    whole = stratified_folds(ids, ids, labels, 0, 5)
    assert 100 < some.sum() < 250
    assert (stratified_folds(ids[some], ids[some], labels[some], 0, 5) == whole[some]).all()


def test_another_seed_gives_other_folds() -> None:
    ids, group, labels = drawn(0, 1000, 1000, 3)
    one, other = (stratified_folds(ids, group, labels, seed, 5) for seed in (0, 1))
    assert (one == other).mean() == pytest.approx(1 / 5, abs=0.06)  # as often as by chance


def test_many_classes_of_one_example_do_not_fill_the_first_folds() -> None:
    size = 1000
    found = stratified_folds(np.arange(size), np.arange(size) * 31, np.arange(size), 0, 5)
    # each fold is drawn with probability 1/5: 200 on average, with a deviation of 12.6
    assert np.bincount(found, minlength=5).min() > 150
    assert np.bincount(found, minlength=5).max() < 250


def test_fewer_groups_than_folds_and_no_rows() -> None:
    found = stratified_folds(np.arange(3), np.array([5, 6, 7]), np.zeros(3, dtype=int), 0, 10)
    assert len(set(found.tolist())) == 3
    one = stratified_folds(np.arange(4), np.full(4, 8), np.arange(4), 0, 5)
    assert len(set(one.tolist())) == 1
    none = np.zeros(0, dtype=np.int64)
    assert stratified_folds(none, none, none, 0, 5).tolist() == []


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 150), groups=st.integers(1, 80))
def test_one_example_with_the_most_frequent_label_stands_for_all_copies(
    seed: int, rows: int, groups: int
) -> None:
    ids, copies, labels = drawn(seed, rows, groups, 3)
    stands = stand_for_copies(ids, copies, labels)
    for text in np.unique(copies):
        own = copies == text
        known = own & (labels >= 0)
        assert stands[own & ~known].all()  # nobody knows what their copies say
        assert int(stands[known].sum()) == bool(known.any())
        if known.any():
            counts = np.bincount(labels[known])
            assert counts[labels[known & stands][0]] == counts.max()
    order = np.random.default_rng(seed).permutation(rows)
    assert (stand_for_copies(ids[order], copies[order], labels[order]) == stands[order]).all()


def test_two_texts_of_two_classes_are_in_two_folds() -> None:
    """Whatever the seed: else the network of a fold would have nothing to learn from."""
    for seed in range(50):
        found = stratified_folds(np.array([4, 5]), np.array([70, 90]), np.array([0, 1]), seed, 3)
        assert found[0] != found[1]
