"""Rows that are left out: what is said of them, and when a loss is called biased."""

import numpy as np
import pytest

from rayclean.datasets.left_out import (
    BEYOND_ASCII,
    Kinds,
    add_kinds,
    biased_losses,
    count_loss,
    count_row,
    is_beyond_ascii,
    left_out_sentence,
)
from rayclean.datasets.rejected_rows import UNKNOWN_LABEL, RejectedRow


def counted(rows: list[tuple[str, str, bool, bool]]) -> Kinds:
    """Counts of rows given as file, class, whether beyond ASCII, whether lost."""
    kinds: Kinds = {}
    for file, label, beyond, lost in rows:
        count_row(kinds, file, {label}, beyond, lost)
    return kinds


def test_reasons_are_named_the_most_frequent_first() -> None:
    assert left_out_sentence(2000, {"null text": 2, "duplicate key": 1100}) == (
        "1,102 of 2,000 rows left out: duplicate key 1,100, null text 2"
    )
    assert left_out_sentence(5, {}) == "0 of 5 rows left out"


@pytest.mark.parametrize(
    ("place", "named"),
    [(0, "of the file 'odd.csv'"), (1, "of the class 'odd'"), (2, "with characters beyond ASCII")],
)
def test_a_kind_that_is_lost_far_more_often_is_named(place: int, named: str) -> None:
    usual = ("a.csv", "s:usual", False)
    odd = [*usual]
    odd[place] = ("odd.csv", "s:odd", True)[place]
    rows = [(*usual, row < 4) for row in range(400)] + [(*odd, row < 9) for row in range(30)]  # type: ignore[misc]
    (found,) = biased_losses(counted(rows))
    assert found == f"9 of the 30 rows {named} (30%) are left out, and 4 of the 400 others (1.0%)"


def test_losses_by_chance_are_not_biased() -> None:
    """With 20 classes, 10 files and 3 % lost at random, one of a thousand data sets may be called biased."""
    called = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = [
            (
                f"{rng.integers(10)}.csv",
                f"s:{rng.integers(20)}",
                bool(rng.random() < 0.2),
                bool(rng.random() < 0.03),
            )
            for _ in range(1000)
        ]
        called += bool(biased_losses(counted(rows)))
    assert called <= 1


def test_few_losses_and_equal_shares_are_no_pattern() -> None:
    few = [("a", "s:x", False, row < 4) for row in range(5)] + [("a", "s:y", False, False)] * 1000
    assert biased_losses(counted(few)) == []
    equal = [("a", f"s:{row % 2}", False, row % 10 < 3) for row in range(2000)]
    assert biased_losses(counted(equal)) == []
    assert biased_losses(counted([("a", "s:x", True, True)] * 50)) == []  # no other rows to compare with


def test_the_second_pass_adds_losses_of_rows_that_are_counted() -> None:
    kinds = counted([("a", "s:x", False, False)] * 3 + [("b", "s:y", True, False)])
    later: Kinds = {}
    count_loss(later, "a", {"s:x"}, False, "duplicate key")
    count_loss(later, "b", {"s:y"}, True, UNKNOWN_LABEL)  # which is why all of the class are lost
    add_kinds(kinds, later)
    assert kinds == {
        "file": {"a": [3, 1], "b": [1, 1]},
        "class": {"s:x": [3, 1], "s:y": [1, 0]},
        "characters": {"ASCII": [3, 1], BEYOND_ASCII: [1, 1]},
    }


def test_rows_beyond_ascii() -> None:
    assert is_beyond_ascii(["plain", 3, None, "señal"])
    assert not is_beyond_ascii(["plain", 3, None])
    assert is_beyond_ascii(RejectedRow("not UTF-8", "caf\\xe9"))  # the excerpt is escaped
    assert is_beyond_ascii(RejectedRow("malformed CSV line", "naïve"))
    assert not is_beyond_ascii(RejectedRow("malformed CSV line", "naive"))
