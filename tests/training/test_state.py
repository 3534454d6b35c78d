"""Per-example state: by id, padded, fast, and reloaded whole."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.training.state import ExampleState

COLUMNS = {"sum": ("float64", 0.5), "visits": ("uint32", 0), "flag": ("uint8", 1)}


def state(ids: list[int]) -> ExampleState:
    return ExampleState(np.array(ids, dtype=np.int64), np.zeros(len(ids), dtype=np.int64), COLUMNS)


@given(st.lists(st.integers(0, 2**62), min_size=1, unique=True), st.data())
def test_rows_find_ids(ids: list[int], data: st.DataObject) -> None:
    ids = sorted(ids)
    some = data.draw(st.lists(st.sampled_from(ids)))
    assert [ids[row] for row in state(ids).rows(np.array(some, dtype=np.int64))] == some


def test_unknown_ids_are_refused() -> None:
    for unknown in (0, 4, 99):
        with pytest.raises(KeyError, match=str(unknown)):
            state([1, 3, 7]).rows(np.array([3, unknown]))


def test_padding_takes_initial_values_and_dtypes_stay() -> None:
    table = state([1, 3, 7])
    table.columns["sum"][:] = [1.0, 2.0, 3.0]
    table.columns["visits"][:] = 4
    taken = table.take(np.array([2, -1, 0]))
    assert taken["sum"].tolist() == [3.0, 0.5, 1.0]
    assert taken["visits"].tolist() == [4, 0, 4]
    assert {name: str(value.dtype) for name, value in taken.items()} == {
        "sum": "torch.float64", "visits": "torch.uint32", "flag": "torch.uint8",
    }  # fmt: skip


def test_ids_and_labels_are_read_only() -> None:
    table = state([1, 3, 7])
    for name in ("example_id", "given_label"):
        with pytest.raises(ValueError, match="read-only"):
            table.columns[name][0] = 5


def test_load_refuses_other_examples() -> None:
    table, other = state([1, 3]), state([1, 4])
    with pytest.raises(ValueError, match="other examples"):
        table.load(other.ids, other.own)
    other = state([1, 3])
    other.columns["sum"][:] = 9.0
    table.load(other.ids, other.own)
    assert table.columns["sum"].tolist() == [9.0, 9.0]


def test_a_batch_costs_its_rows_and_not_the_whole_table() -> None:
    """An array over all of the million rows would be larger than all that is allocated for a batch."""
    generator = np.random.default_rng(0)
    ids = np.unique(generator.integers(0, 2**62, 1_000_000))
    table = ExampleState(ids, np.zeros(len(ids), dtype=np.int64), COLUMNS)
    batch = np.sort(generator.choice(ids, 4096, replace=False))
    values = generator.random(4096)
    tracemalloc.start()
    try:
        rows = table.rows(batch)
        table.columns["sum"][rows] += values
        table.columns["visits"][rows] += 1
        table.take(rows)
        assert 0 < tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    assert table.columns["visits"].sum() == 4096
