import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional import selection as module
from rayclean.functional.selection import Selection, key_values, sort_keys


def search(groups: np.ndarray, keys: np.ndarray, need: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """The cut of each group, from `parts` random pieces of the data."""
    piece = np.random.default_rng(seed).integers(0, parts, len(keys))
    selection = Selection.start(need, np.bincount(groups, minlength=len(need)), -2.0, 2.0, 1 / 64)
    rounds = 0
    while selection.open:
        rounds += 1
        assert rounds < 40
        members = [np.flatnonzero(piece == index) for index in range(parts)]
        members = [m[keys[m] >= selection.lower[groups[m]]] for m in members]  # as a worker may prefilter
        if selection.collectable:
            found = [selection.pick(groups[m], keys[m]) for m in members]
            selection.finish(np.concatenate([g for g, _ in found]), np.concatenate([k for _, k in found]))
        else:
            counts = np.zeros(len(need) * selection.bins, dtype=np.int64)
            for m in members:
                np.add.at(counts, selection.tally(groups[m], keys[m]), 1)
            selection.narrow(counts)
    return selection.cut


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 400), groups=st.integers(1, 6), parts=st.integers(1, 5),
    distinct=st.sampled_from([1, 2, 7, 10**6]), collect=st.sampled_from([0, 30, 10**6]),
)  # fmt: skip
def test_takes_exactly_the_greatest(
    seed: int, rows: int, groups: int, parts: int, distinct: int, collect: int
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.integers(-distinct, distinct + 1, rows) / distinct).astype(np.float32)
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, max(0, rows - groups))])[
        : max(rows, groups)
    ]
    values = np.resize(values, len(group))
    keys = sort_keys(values, rng.permutation(len(group)).astype(np.int64))
    population = np.bincount(group, minlength=groups)
    need = rng.integers(1, population + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_COLLECTED", collect)
        patch.setattr(module, "MAX_UNPROBED", collect // 2)
        patch.setattr(module, "MAX_COUNTERS", 16 * groups)  # few bins: many rounds
        cut = search(group, keys, need, parts, seed)
    for index in range(groups):
        own = np.sort(keys[group == index])[::-1]
        assert (own >= cut[index]).sum() == need[index]


def test_keys_sort_like_values_then_by_hash() -> None:
    values = np.array([-2, -1.5, -1e-30, 0.0, 1e-30, 0.3, 1, 2], dtype=np.float32)
    ids = np.arange(len(values))
    keys = sort_keys(values, ids)
    assert (np.diff(keys.astype(object)) > 0).all()
    assert (key_values(keys) == values).all()
    # -0.0 and 0.0 are one value: only the hash of the id tells them apart
    zero = sort_keys(np.array([0.0, -0.0], dtype=np.float32), np.array([5, 5]))
    assert zero[0] == zero[1]


def test_nothing_to_do_when_all_are_taken() -> None:
    selection = Selection.start(np.array([3, 1]), np.array([3, 1]), -2.0, 2.0, 0.5)
    assert not selection.open
    assert (selection.cut <= sort_keys(np.array([-2.0], dtype=np.float32), np.array([0]))).all()


def test_counters_are_bounded() -> None:
    for groups in (1, 90, 9_900, 999_000):
        ones = np.ones(groups, dtype=np.int64)
        bins = Selection.start(ones, 5 * ones, -2.0, 2.0, 0.5).bins
        assert 4 <= bins <= 4096
        assert groups * bins <= max(module.MAX_COUNTERS, 4 * groups)
