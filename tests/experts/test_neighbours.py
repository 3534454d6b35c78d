"""The expert "neighbours": out of fold, groups apart, independent of order and blocks, exact or in cells."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rayclean.experts import neighbours
from rayclean.experts.neighbours import (
    PRIOR_WEIGHT,
    VOTE_TEMPERATURE,
    FeatureRows,
    GivenLabels,
    cell_count,
    fit_centres,
    in_cells,
    mix_votes,
    neighbour_votes,
    sample_for_cells,
)
from rayclean.functional.neighbours import DIGITS, ONE, fixed_point


def clustered(
    size: int, classes: int = 3, seed: int = 0, spread: float = 0.6
) -> tuple[FeatureRows, np.ndarray]:
    """Examples, each a group of its own, around one direction for each class; labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    features = np.eye(classes, 12)[labels] + spread * rng.standard_normal((size, 12)) / np.sqrt(12)
    ids = rng.choice(10**9, size, replace=False)
    return FeatureRows(ids, ids, features.astype(np.float32)), labels


def votes(rows: FeatureRows, labels: np.ndarray, classes: int = 3, k: int = 5) -> np.ndarray:
    return neighbour_votes(rows, [rows], GivenLabels(rows.ids, labels, classes), k)


def small_cells(rows: FeatureRows, monkeypatch: pytest.MonkeyPatch) -> FeatureRows:
    """The examples in cells of 20 or so."""
    monkeypatch.setattr(neighbours, "EXACT_BELOW", 1)
    monkeypatch.setattr(neighbours, "CELL_ROWS", 20)
    monkeypatch.setattr(neighbours, "PROBES", 4)
    centres = fit_centres([sample_for_cells(rows, len(rows.ids))], len(rows.ids))
    return in_cells(rows, centres)


def by_definition(rows: FeatureRows, labels: np.ndarray, classes: int, k: int) -> np.ndarray:
    """Votes by the definition, one example after the other."""
    vectors = fixed_point(rows.features).astype(np.int64)
    result = []
    for row in range(len(labels)):
        others = [other for other in range(len(labels)) if rows.groups[other] != rows.groups[row]]
        cosine = {
            other: np.rint(int(vectors[row] @ vectors[other]) / ONE * 10**DIGITS) / 10**DIGITS
            for other in others
        }
        nearest = sorted(others, key=lambda other: (-cosine[other], rows.ids[other]))[:k]
        weights = np.exp(np.array([cosine[other] for other in nearest]) / VOTE_TEMPERATURE)
        shares = np.bincount(np.delete(labels, row), minlength=classes) + 1.0
        found = PRIOR_WEIGHT * shares / shares.sum()
        for other, weight in zip(nearest, weights / weights.sum(), strict=True):
            found[labels[other]] += weight
        result.append(found / found.sum())
    return np.array(result)


@given(size=st.integers(1, 40), k=st.integers(1, 6), seed=st.integers(0, 100), copies=st.booleans())
@settings(max_examples=40, deadline=None)
def test_votes_follow_the_definition(size: int, k: int, seed: int, copies: bool) -> None:
    rows, labels = clustered(size, seed=seed)
    if copies:
        first = np.arange(size) // 3 * 3
        rows = replace(rows, features=rows.features[first], groups=first)
    assert_allclose(votes(rows, labels, k=k), by_definition(rows, labels, 3, k), atol=2e-6)


def test_neighbours_of_a_class_predict_it() -> None:
    rows, labels = clustered(300)
    wrong = np.arange(300) % 10 == 0
    found = votes(rows, np.where(wrong, (labels + 1) % 3, labels), k=20)
    assert (found.argmax(axis=1) == labels).mean() > 0.97
    assert found.dtype == np.float32
    assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert found.min() > 0


@given(row=st.integers(0, 49), label=st.integers(-1, 2), cells=st.booleans())
@settings(max_examples=20, deadline=None)
def test_an_examples_own_label_never_reaches_its_row(row: int, label: int, cells: bool) -> None:
    rows, labels = clustered(50)
    with pytest.MonkeyPatch.context() as patch:
        rows = small_cells(rows, patch) if cells else rows
        changed = labels.copy()
        changed[row] = label
        assert_array_equal(votes(rows, changed)[row], votes(rows, labels)[row])


def test_copies_do_not_reveal_the_label() -> None:
    rows, labels = clustered(60)
    text = np.arange(60) // 4  # four copies of each text, of the same given label
    rows = replace(rows, features=rows.features[text * 4], groups=text)
    labels = labels[text * 4]
    changed = np.where(text == 3, (labels + 1) % 3, labels)
    before, after = votes(rows, labels), votes(rows, changed)
    # What changes in the rows of these copies is the classes' shares, by a few examples of sixty.
    assert_allclose(after[text == 3], before[text == 3], atol=PRIOR_WEIGHT * 4 / 60)
    alone = replace(rows, groups=rows.ids)
    assert (
        votes(alone, labels, k=3).argmax(axis=1) == labels
    ).all()  # were copies neighbours, they would tell


@given(order=st.permutations(range(40)), cuts=st.sets(st.integers(0, 40), max_size=4), cells=st.booleans())
@settings(max_examples=25, deadline=None)
def test_order_and_blocks_change_nothing(order: list[int], cuts: set[int], cells: bool) -> None:
    rows, labels = clustered(40)
    rows = replace(rows, features=np.rint(rows.features * 2))  # many cosines are equal
    with pytest.MonkeyPatch.context() as patch:
        rows = small_cells(rows, patch) if cells else rows
    expected = votes(rows, labels)
    given_labels = GivenLabels(rows.ids[order], labels[order], 3)
    blocks = [rows[part] for part in np.split(np.array(order), sorted(cuts))]
    found = np.concatenate([neighbour_votes(block, blocks[::-1], given_labels, 5) for block in blocks])
    assert_array_equal(found, expected[order])


def test_cells_find_most_neighbours_and_all_where_all_cells_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, labels = clustered(1500, seed=1)
    exact = votes(rows, labels, k=10)
    celled = small_cells(rows, monkeypatch)
    assert celled.cells is not None
    assert celled.cells.shape == (1500, 4)
    assert len(np.unique(celled.cells[:, 0])) > 50
    found = votes(celled, labels, k=10)
    assert np.abs(found - exact).mean() < 0.05
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.95
    monkeypatch.setattr(neighbours, "PROBES", 1500)
    everywhere = in_cells(rows, fit_centres([sample_for_cells(rows, 1500)], 1500))
    assert_array_equal(votes(everywhere, labels, k=10), exact)


def test_centres_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = clustered(500)
    for name, value in {"EXACT_BELOW": 1, "CELL_ROWS": 20, "SAMPLE_PER_CELL": 10}.items():
        monkeypatch.setattr(neighbours, name, value)
    whole = sample_for_cells(rows, 500)
    assert 150 < len(whole.ids) < 350  # half of them
    order = np.random.default_rng(0).permutation(500)
    parts = [sample_for_cells(rows[part], 500) for part in np.split(order, [13, 200])]
    assert_array_equal(fit_centres(parts, 500), fit_centres([whole], 500))


def test_few_examples_need_no_cells() -> None:
    assert cell_count(0) == cell_count(10_000) == 0
    assert cell_count(100_000) == 391
    assert cell_count(10**9) == neighbours.MOST_CELLS


def test_examples_without_a_label_are_nobodys_neighbours() -> None:
    rows, labels = clustered(60)
    known = np.arange(60) % 3 > 0
    found = votes(rows, np.where(known, labels, -1))
    without = neighbour_votes(rows, [rows[known]], GivenLabels(rows.ids[known], labels[known], 3), 5)
    assert_array_equal(found, without)


def test_without_neighbours_there_are_the_shares_of_the_classes() -> None:
    rows, _ = clustered(4)
    one_group = replace(rows, groups=np.zeros(4, dtype=np.int64))
    # Without itself, the first example sees one 0 and two 1: (2, 3, 1) / 6.
    expected = [[2, 3, 1], [2, 3, 1], [3, 2, 1], [3, 2, 1]]
    assert_allclose(votes(one_group, np.array([0, 0, 1, 1])), np.array(expected) / 6, rtol=1e-6)
    assert_allclose(votes(rows, np.full(4, -1)), 1 / 3, rtol=1e-6)
    assert votes(rows[np.arange(0)], np.zeros(0, dtype=np.int64)).shape == (0, 3)


def test_votes_by_hand() -> None:
    # Cosines of 1 and .9: weights e^0 : e^-1 = .731 : .269; shares (.5, .5) with weight 1/20.
    found = mix_votes(np.array([[0, 1, -1]]), np.array([[1.0, 0.9, 0.0]]), np.array([[0.5, 0.5]]))
    assert_allclose(found, [[(0.731059 + 0.025) / 1.05, (0.268941 + 0.025) / 1.05]], atol=1e-6)
    # Opposite vectors, whose weights are as small as they get, still vote.
    assert_allclose(
        mix_votes(np.array([[1]]), np.array([[-1.0]]), np.array([[0.5, 0.5]]))[0, 1], 1.025 / 1.05, rtol=1e-6
    )


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match=r"labels are from 0 to 2, expected \[-1, 2\)"):
        GivenLabels(np.arange(3), np.arange(3), 2)
