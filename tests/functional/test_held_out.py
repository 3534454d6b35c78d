"""Held-out shares: of every class alike, copies together, whatever the order of the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.held_out import held_out_counts, held_out_splits
from tests.functional.test_folds import drawn

SHARES = st.sampled_from([0.0, 0.01, 0.07, 0.1, 0.29, 0.3, 0.49])


def test_golden_numbers() -> None:
    """They are kept for ever: another split of an example would be another result of a run."""
    groups, labels = np.array([7, 7, 1, 2, 3, 4, 5, 6]), np.array([0] * 5 + [1] * 3)
    found = held_out_splits(np.arange(8), groups, labels, 0, test=0.3, dev=0.2)
    assert found.tolist() == [1, 1, 2, 0, 0, 2, 0, 0]
    assert found.dtype == np.int8


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 200), groups=st.integers(1, 200), classes=st.integers(1, 20),
    test=SHARES, dev=SHARES,
)  # fmt: skip
def test_every_class_gives_its_share_of_groups_and_keeps_one(
    seed: int, rows: int, groups: int, classes: int, test: float, dev: float
) -> None:
    ids, group, labels = drawn(seed, rows, groups, classes)
    found = held_out_splits(ids, group, labels, seed, test, dev)
    class_of: dict[int, int] = {}
    split_of: dict[int, int] = {}
    for row in np.argsort(ids):  # a group belongs to the class of its lowest id
        class_of.setdefault(int(group[row]), int(labels[row]))
        assert split_of.setdefault(int(group[row]), int(found[row])) == found[row]
    counts = {
        label: np.bincount([split_of[each] for each, own in class_of.items() if own == label], minlength=3)
        for label in set(class_of.values())
    }
    for train, developed, tested in counts.values():
        size = train + developed + tested
        assert train >= 1
        assert abs(tested - test * size) < 1
        assert abs(developed - dev * size) < 1
    for split, share, other in ((2, test, dev), (1, dev, test)):
        total = sum(int(each[split]) for each in counts.values())
        assert total <= share * len(class_of) + 0.5
        if total < share * len(class_of) - 0.5:  # then no class could give one more, and keep one
            for each in counts.values():
                size = int(each.sum())
                others = np.floor(round(other * size, 6)) if split == 2 else each[2]
                assert each[split] >= share * size or size - each[split] - others == 1
    order = np.random.default_rng(seed).permutation(rows)
    again = held_out_splits(ids[order], group[order], labels[order], seed, test, dev)
    assert (again == found[order]).all()


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(20, 10**6), min_size=1, max_size=40), test=SHARES, dev=SHARES)
def test_totals_are_exact_where_classes_can_spare_a_group(sizes: list[int], test: float, dev: float) -> None:
    counts = held_out_counts(np.arange(len(sizes)), np.array(sizes), 0, test, dev)
    for found, share in zip(counts, (test, dev), strict=True):
        assert abs(int(found.sum()) - share * sum(sizes)) <= 0.5 + 1e-6


def test_rare_classes_are_in_each_part_as_far_as_they_go() -> None:
    """Ten classes of three texts beside one of 970: of those, three are tested and three others are development."""
    labels = np.repeat(np.arange(11), [970, *[3] * 10])
    for seed in range(20):
        found = held_out_splits(np.arange(1000), np.arange(1000) * 31, labels, seed, test=0.1, dev=0.1)
        table = np.array([np.bincount(found[labels == label], minlength=3) for label in range(11)])
        assert table[0].tolist() == [776, 97, 97]
        assert table.sum(0).tolist() == [800, 100, 100]
        assert table[1:].min(0).tolist() == [2, 0, 0]


def test_a_class_of_one_text_is_trained_on() -> None:
    found = held_out_splits(
        np.arange(9), np.array([5] * 4 + [1, 2, 3, 4, 6]), np.arange(9) // 4, 1, 0.6, 0.39
    )
    assert found[:4].tolist() == [0] * 4  # four copies
    assert found[8] == 0
    assert sorted(found[4:8].tolist()) == [0, 1, 2, 2]
    alone = held_out_splits(np.arange(50), np.arange(50), np.arange(50), 0, 0.5, 0.1)
    assert not alone.any()


def test_what_is_exact_in_decimals_is_not_rounded() -> None:
    counts = held_out_counts(np.arange(2), np.array([100, 300]), 0, test=0.29, dev=0.07)
    assert [each.tolist() for each in counts] == [[29, 87], [7, 21]]


def test_few_examples_move_where_the_data_grow() -> None:
    rng = np.random.default_rng(4)
    ids, labels = rng.choice(2**62, 2200, replace=False), rng.integers(0, 4, 2200)
    after = held_out_splits(ids, ids, labels, 0, test=0.2, dev=0.1)
    before = held_out_splits(ids[:2000], ids[:2000], labels[:2000], 0, test=0.2, dev=0.1)
    # thresholds of a class of 500 move by about a standard deviation of its 50 new hashes
    assert 0 < (before != after[:2000]).sum() <= 40
    for label in range(4):
        own = labels[:2000] == label
        kept = ((before == 2) & (after[:2000] == 2))[own].sum()
        assert kept >= 0.9 * (before == 2)[own].sum()


def test_another_seed_gives_other_splits() -> None:
    ids = np.arange(2000)
    one, other = (held_out_splits(ids, ids, ids % 3, seed, test=0.5, dev=0.0) for seed in (0, 1))
    assert (one == other).mean() == pytest.approx(0.5, abs=0.06)
