"""Rewrites of many rows at once: what they may change, how often they do, and that a row does not see its neighbours."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.training.augment import Replacing, switch_counts
from rayclean.training.rewrites import (
    Replacement,
    TokenRows,
    drop_tokens,
    swap_tokens,
    switch_out,
)

VOCABULARY = np.array([99], dtype=np.int32)
MANY = 4000


class Next(Replacing):
    """Words of digits, of which those below 5 may become one of the two that follow."""

    def neighbours(self, word: str) -> list[str]:
        return [str(int(word) + 1), "no token", str(int(word) + 2)] if int(word) < 5 else []


REWRITES: dict[str, Callable[[TokenRows], TokenRows]] = {
    "drop": drop_tokens,
    "swap": swap_tokens,
    "switch_out": lambda rows: switch_out(rows, VOCABULARY),
    "replacement": Replacement([str(number) for number in range(100)], Next()),
}


def rows_of_tokens(texts: Sequence[Sequence[int]], seed: int = 0) -> TokenRows:
    """Rows of some tokens, with seeds of their own."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    tokens = np.array([token for text in texts for token in text], dtype=np.int32)
    seeds = np.random.default_rng(seed).integers(0, 2**63, len(texts), dtype=np.uint64)
    return TokenRows(tokens, lengths, seeds)


def texts_of(rows: TokenRows) -> list[list[int]]:
    return [part.tolist() for part in np.split(rows.tokens, np.cumsum(rows.lengths)[:-1])]


def copies(length: int) -> TokenRows:
    """Many rows of the tokens 0, 1, 2, ..."""
    return rows_of_tokens([range(length)] * MANY)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, 9), max_size=40), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_they_may_change(texts: list[list[int]], seed: int) -> None:
    found = {name: texts_of(rewrite(rows_of_tokens(texts, seed))) for name, rewrite in REWRITES.items()}
    for row, text in enumerate(texts):
        kept, swapped, switched, replaced = (found[name][row] for name in REWRITES)
        assert bool(kept) == bool(text)
        left = iter(text)
        assert all(token in left for token in kept)  # a subsequence
        assert sorted(swapped) == sorted(text)
        changes = sum(a != b for a, b in zip(text, swapped, strict=True))
        assert changes <= 2 * max(1, round(0.1 * len(text)))
        assert all(new in (old, 99) for old, new in zip(text, switched, strict=True))
        assert all(
            new - old in (0, *((1, 2) if old < 5 else ())) for old, new in zip(text, replaced, strict=True)
        )
        assert (replaced != text) == (min(text, default=9) < 5)  # at least one, where one can be


@pytest.mark.parametrize("name", REWRITES)
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    lengths = np.random.default_rng(1).integers(0, 30, 50)
    rows = rows_of_tokens([np.arange(length) % 10 for length in lengths])
    together = texts_of(REWRITES[name](rows))
    order = np.random.default_rng(2).permutation(50)
    texts = texts_of(rows)
    tokens = np.concatenate([texts[row] for row in order]).astype(np.int32)
    shuffled = texts_of(REWRITES[name](TokenRows(tokens, lengths[order], rows.seeds[order])))
    assert shuffled == [together[row] for row in order]


def test_a_tenth_is_dropped_wherever_it_stands() -> None:
    found = drop_tokens(copies(20))
    assert len(found.tokens) / (20 * MANY) == pytest.approx(0.9, abs=0.005)
    kept = np.bincount(found.tokens, minlength=20) / MANY
    assert kept == pytest.approx(np.full(20, 0.9), abs=0.025)
    one = drop_tokens(copies(5), rate=1.0)
    assert set(one.lengths) == {1}
    assert np.bincount(one.tokens) / MANY == pytest.approx(np.full(5, 0.2), abs=0.03)
    assert drop_tokens(copies(5), rate=0.0).tokens.tolist() == copies(5).tokens.tolist()


def test_every_pair_is_swapped_equally_often() -> None:
    found = swap_tokens(copies(4)).tokens.reshape(-1, 4)  # once
    moved = found != np.arange(4)
    assert set(moved.sum(1)) == {2}
    pairs, counts = np.unique(moved, axis=0, return_counts=True)
    assert len(pairs) == 6
    assert counts / MANY == pytest.approx(np.full(6, 1 / 6), abs=0.025)
    assert (swap_tokens(copies(30)).tokens.reshape(-1, 30) != np.arange(30)).sum(1).max() == 6  # three times
    assert texts_of(swap_tokens(rows_of_tokens([[1], [1, 2], []]))) == [[1], [2, 1], []]


def test_switch_out_replaces_ten_percent_on_average() -> None:
    changed = switch_out(copies(20), np.arange(100, 110, dtype=np.int32)).tokens.reshape(-1, 20)
    numbers = (changed >= 100).sum(1)
    assert numbers.mean() == pytest.approx(2.0, abs=4 * numbers.std() / MANY**0.5)
    shares = np.bincount(numbers, minlength=21) / MANY
    assert shares == pytest.approx(switch_counts(20), abs=0.03)
    assert (changed >= 100).mean(0) == pytest.approx(np.full(20, 0.1), abs=0.025)
    new = np.bincount(changed[changed >= 100] - 100) / numbers.sum()
    assert new == pytest.approx(np.full(10, 0.1), abs=0.02)


def test_a_tenth_of_the_replaceable_tokens_is_replaced_by_each_of_their_neighbours() -> None:
    texts = [[9, 1, 1, 1, 1, 1] * 8] * MANY
    found = REWRITES["replacement"](rows_of_tokens(texts)).tokens
    old = rows_of_tokens(texts).tokens
    assert (found[old == 9] == 9).all()
    shares = np.bincount(found[old == 1], minlength=4) / (old == 1).sum()
    assert shares == pytest.approx([0, 0.9, 0.05, 0.05], abs=0.005)
    few = REWRITES["replacement"](rows_of_tokens([[9, 1, 1, 1]] * MANY)).tokens.reshape(-1, 4)
    changed = few != [9, 1, 1, 1]
    assert changed.any(1).all()  # at least one
    # One alone is any of the three: 1/3 of the rows where none was drawn, beside a tenth.
    assert changed[:, 1:].mean(0) == pytest.approx(np.full(3, 0.1 + 0.9**3 / 3), abs=0.03)
