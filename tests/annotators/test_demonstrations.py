"""Demonstrations: the same as brute force, for any layout; never a suspect, never the query or its duplicate."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean import schema
from rayclean.annotators import demonstrations as module
from rayclean.annotators import random_demonstrations as random_module
from rayclean.annotators.demonstrations import (
    DemonstrationSources,
    LabelledExample,
    _balanced,
    balanced_demonstrations,
    nearest_demonstrations,
)
from rayclean.annotators.random_demonstrations import random_demonstrations, random_pool
from rayclean.folder import Folder
from rayclean.schema import Label, LabelSet
from rayclean.tasks.classification import Classification

ALL = frozenset(range(3))
TASK = Classification(Classification.Config(), LabelSet([Label(i, str(i), str(i)) for i in range(3)]))


def write(
    folder: Path, edges: tuple[int, ...], texts: list[str], features: np.ndarray, suspects: set[int]
) -> DemonstrationSources:
    root = Folder(str(folder))
    for number, (start, stop) in enumerate(pairwise([0, *edges, len(texts)])):
        part, ids = f"part-{number:05d}.parquet", np.arange(start, stop, dtype=np.int64) * 7
        columns = {
            "example_id": ids,
            "text": texts[start:stop],
            "given_label": ids % 3,
            "split": ["train"] * len(ids),
        }
        root.write_table(pa.table(columns, schema=schema.EXAMPLES), "load", "examples", part)
        doubted = [int(i) in suspects for i in ids[::-1]]
        believed = [0.05 if each else 1 - i / 1000 for each, i in zip(doubted, ids[::-1], strict=True)]
        found = {"unit_id": ids[::-1].copy(), "suspect": doubted, "given_probability": believed}
        flags = pa.table(found)
        root.write_table(flags, "detect", "findings", part)
        vectors = {"example_id": ids, "features": schema.list_column(features[start:stop].astype(np.float32))}
        table = pa.table(vectors, schema=schema.features(features.shape[1]))
        root.write_table(table.take(np.arange(stop - start)[::-1].copy()), "predict", "features", part)
    return DemonstrationSources(*(root.url(verb) for verb in ("load", "predict", "detect")), TASK)


@pytest.fixture
def data() -> tuple[list[str], np.ndarray, set[int]]:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, 5))
    texts = [f"text {n}" for n in range(60)]
    texts[10] = texts[20] = " text 0 "  # duplicates of the first query
    texts[31] = texts[32]
    features[[10, 20]] = features[0]
    return texts, features, {0, 7 * 5, 7 * 33, 7 * 59}


def brute(texts: list[str], features: np.ndarray, suspects: set[int], row: int, count: int) -> list[int]:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    seen, picked = {texts[row].strip()}, []
    for other in np.argsort(-(unit @ unit[row]), kind="stable"):
        if (
            other * 7 not in suspects
            and texts[other].strip() not in seen
            and other != row
            and len(picked) < count
        ):
            seen.add(texts[other].strip())
            picked.append(int(other))
    return picked[::-1]


@pytest.mark.parametrize("edges", [(), (13, 14, 40), tuple(range(1, 60, 7))])
@pytest.mark.parametrize("spare", [1, 16])
def test_nearest_equals_brute_force(
    tmp_path: Path, data: tuple[list[str], np.ndarray, set[int]], edges: tuple[int, ...], spare: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "SPARE", spare)
    texts, features, suspects = data
    sources = write(tmp_path, edges, texts, features, suspects)
    rows = [0, 5, 33, 59, 8]  # 8 is no suspect: it must not meet itself
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    found = nearest_demonstrations(
        sources, np.array(rows) * 7, [texts[r] for r in rows], unit[rows], 4, [ALL] * 9
    )
    for row, demonstrations in zip(rows, found, strict=True):
        expected = brute(texts, features, suspects, row, 4)
        assert [d.text.strip() for d in demonstrations] == [texts[r].strip() for r in expected]
        assert [d.label for d in demonstrations] == [r * 7 % 3 for r in expected]
        cosines = [d.similarity for d in demonstrations]
        assert cosines == sorted(cosines)  # the most similar last
        assert "text 0" not in [d.text.strip() for d in demonstrations] or row != 0


def test_all_examples_vote_but_copies_each_with_what_its_label_is_believed(
    tmp_path: Path, data: tuple[list[str], np.ndarray, set[int]]
) -> None:
    texts, features, suspects = data
    texts[7], texts[40] = "Text  0", "TEXT 9"  # copies for a reader: of the query, and of another neighbour
    for number, edges in enumerate([(), (13, 14, 40)]):
        sources = write(tmp_path / str(number), edges, texts, features, suspects)
        (found,) = nearest_demonstrations(
            replace(sources, votes=True), np.array([0]), texts[:1], features[:1].astype(np.float32), 60, [ALL]
        )
        different = {text.casefold() for text in texts} - {"text 0", " text 0 ", "text  0"}
        assert sorted(each.text.casefold() for each in found) == sorted(different)
        assert {each for each in suspects if each} <= {each.example_id for each in found}
        for each in found:
            doubted = each.example_id in suspects
            assert each.probability == pytest.approx(0.05 if doubted else 1 - each.example_id / 1000)
        (trusted,) = nearest_demonstrations(
            sources, np.array([0]), texts[:1], features[:1].astype(np.float32), 60, [ALL]
        )
        assert not suspects & {each.example_id for each in trusted}
        assert {each.probability for each in trusted} == {None}


def brute_balanced(
    texts: list[str],
    features: np.ndarray,
    suspects: set[int],
    row: int,
    count: int,
    candidates: tuple[int, ...],
) -> list[int]:
    """Ids are 7 n and labels 7 n % 3 = n % 3, as `write` makes them."""
    near = [n for n in brute(texts, features, suspects, row, 60)[::-1] if n % 3 in candidates]
    each = {label: [n for n in near if n % 3 == label] for label in candidates}
    share = count // len(candidates)
    m = min(share, *map(len, each.values()))
    picked = [n for label in candidates for n in each[label][:m]]
    if m == share:
        picked += [n for n in near if n not in picked][: count - len(picked)]
    return sorted(picked, key=near.index)[::-1]


@pytest.mark.parametrize("edges", [(), (13, 14, 40), tuple(range(1, 60, 7))])
@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_as_many_of_each_candidate_as_brute_force_finds(
    tmp_path: Path, data: tuple[list[str], np.ndarray, set[int]], edges: tuple[int, ...], count: int
) -> None:
    texts, features, suspects = data
    texts[20], texts[31] = "text 20", "text 31"  # no text has two labels here
    features[np.arange(60) % 3 == 2] += 4.0  # far from most others
    sources = write(tmp_path, edges, texts, features, suspects)
    rows, offered = [0, 5, 33, 59, 8, 2], [(0, 1), (1, 2), (2, 0), (0, 1, 2), (1, 0), (0, 1)]
    found = balanced_demonstrations(
        sources,
        np.array(rows) * 7,
        [texts[r] for r in rows],
        features[rows].astype(np.float32),
        count,
        offered,
    )
    for row, candidates, demonstrations in zip(rows, offered, found, strict=True):
        if len(candidates) > count:
            expected = brute(texts, features, suspects, row, 60)
            expected = [n for n in expected if n % 3 in candidates][-count:]
        else:
            expected = brute_balanced(texts, features, suspects, row, count, candidates)
        assert [d.text.strip() for d in demonstrations] == [texts[n].strip() for n in expected]
        cosines = [d.similarity for d in demonstrations]
        assert cosines == sorted(cosines)  # the most similar last
        shown = [sum(d.label == label for d in demonstrations) for label in candidates]
        assert sum(shown) == len(demonstrations) == count
        if len(candidates) <= count:
            assert min(shown) == count // len(candidates)


def test_no_candidate_is_shown_more_often_for_want_of_the_other(tmp_path: Path) -> None:
    """One example of label 2 among 30 of 0: one of each; of label 1 there is none but suspects: nothing."""
    numbers = [n for n in range(60) if n % 3 == 0] + [2]
    suspects = {7 * n for n in range(60) if n not in numbers}
    features = np.random.default_rng(0).normal(size=(60, 4))
    sources = write(tmp_path, (7, 30), [f"text {n}" for n in range(60)], features, suspects)
    one, none = balanced_demonstrations(
        sources,
        np.array([7 * 4, 7 * 7]),
        ["text 4", "text 7"],
        features[[4, 7]].astype(np.float32),
        4,
        [(0, 2), (0, 1)],
    )
    assert sorted(d.label for d in one) == [0, 2]
    assert none == ()


def test_a_text_with_two_labels_is_shown_with_neither(tmp_path: Path) -> None:
    features = np.array([[1.0, 0.0]] * 4 + [[0.6, 0.8]] * 6)
    texts = ["query", "twice", "new", "twice", *(f"other {n}" for n in range(6))]  # of labels 1 and 0
    sources = write(tmp_path, (3,), texts, features, {0})
    (found,) = balanced_demonstrations(
        sources, np.array([0]), texts[:1], features[:1].astype(np.float32), 4, [(0, 1)]
    )
    assert [(d.text, d.label) for d in found] == [
        ("other 5", 0),
        ("other 3", 1),
        ("other 2", 0),
        ("other 0", 1),
    ]


@given(
    lists=st.lists(
        st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 5)), max_size=8),
        min_size=1,
        max_size=4,
    ),
    count=st.integers(1, 9),
)
def test_balance_holds_for_any_findings(lists: list[list[tuple[str, int]]], count: int) -> None:
    found = [
        [
            LabelledExample(place, text, label, None, -cosine / 10)
            for place, (text, cosine) in enumerate(sorted(set(each), key=lambda one: one[1]))
        ]
        for label, each in enumerate(lists)
    ]
    shown = _balanced(found, count)
    assert len(shown) <= count
    assert [d.similarity for d in shown] == sorted(d.similarity for d in shown)  # type: ignore[type-var]
    numbers = [sum(d.label == label for d in shown) for label in range(len(lists))]
    if len(lists) > 1 and sum(numbers) < count:
        assert len(set(numbers)) == 1 or min(numbers) == count // len(lists)
    for d in shown:
        assert sum(d.text in [one.text for one in each] for each in found) == 1


def test_equals_come_by_id_for_any_layout(tmp_path: Path) -> None:
    """200 cosines that are one number to five digits, ever greater behind them: no shard's cut decides."""
    texts = [f"text {n}" for n in range(201)]
    cosines = 0.1 + 1e-8 * np.arange(200)
    features = np.concatenate([[[1.0, 0.0]], np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)])
    for number, edges in enumerate([(), (150,), (20, 90, 160)]):
        sources = write(tmp_path / str(number), edges, texts, features, {0})
        (found,) = nearest_demonstrations(
            sources, np.array([0]), texts[:1], features[:1].astype(np.float32), 4, [ALL]
        )
        assert [d.text for d in found] == [f"text {n}" for n in (4, 3, 2, 1)]


def test_fewer_than_asked_for(tmp_path: Path) -> None:
    sources = write(tmp_path, (2,), ["a", "b", "b", "c"], np.eye(4), {0, 21})
    (found,) = nearest_demonstrations(
        sources, np.array([0]), ["a"], np.eye(4, dtype=np.float32)[:1], 5, [ALL] * 9
    )
    assert [d.text for d in found] == ["b"]
    nothing = write(tmp_path / "none", (), ["a", "b"], np.eye(2), {0, 7})
    assert nearest_demonstrations(
        nothing, np.array([0]), ["a"], np.eye(2, dtype=np.float32)[:1], 5, [ALL] * 9
    ) == [()]


def test_a_text_that_is_everywhere_has_fewer_demonstrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind 300 duplicates of one query lie others; the search for them ends, and the other query is not
    held up.
    """
    features = np.array([[1.0, 0.0]] * 300 + [[0.6, 0.8]] * 5)
    texts = ["same"] * 300 + [f"other {n}" for n in range(5)]
    sources = write(tmp_path, (100,), texts, features, {0, 7 * 300})
    ids, queries = np.array([0, 7 * 300]), features[[0, 300]].astype(np.float32)
    first, second = nearest_demonstrations(sources, ids, ["same", "other 0"], queries, 3, [ALL] * 9)
    assert [len(first), len(second)] == [3, 3]
    monkeypatch.setattr(module, "MOST_FETCHED", 64)
    first, second = nearest_demonstrations(sources, ids, ["same", "other 0"], queries, 3, [ALL] * 9)
    assert [len(first), len(second)] == [0, 3]


def test_random_ones_depend_on_ids_alone(tmp_path: Path, data: tuple[list[str], np.ndarray, set[int]],
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(random_module, "RANDOM_POOL", 12)
    texts, features, suspects = data
    pools = [
        random_pool(write(tmp_path / str(n), edges, texts, features, suspects), seed=1)
        for n, edges in enumerate([(), (5, 30), (20, 21, 22)])
    ]
    assert pools[0] == pools[1] == pools[2]
    assert len(pools[0]) == 12
    assert not suspects & {each.example_id for each in pools[0]}
    first = random_demonstrations(pools[0], 0, "text 0", 3, seed=1, answers=ALL)
    assert first == random_demonstrations(pools[0], 0, "text 0", 3, seed=1, answers=ALL)
    assert first != random_demonstrations(pools[0], 1, "text 1", 3, seed=1, answers=ALL)
    example, text = pools[0][0].example_id, pools[0][0].text
    assert text not in [
        d.text for d in random_demonstrations(pools[0], example, text, 50, seed=1, answers=ALL)
    ]
    assert len(random_demonstrations(pools[0], example, text, 50, seed=1, answers=ALL)) <= 11
    assert random_demonstrations(pools[0], 0, "text 0", 0, seed=1, answers=ALL) == ()
