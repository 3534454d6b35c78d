"""Demonstrations: the same as brute force, for any layout; never a suspect, never the query or its duplicate."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean import schema
from rayclean.annotators import demonstrations as module
from rayclean.annotators.demonstrations import (
    DemonstrationSources,
    nearest_demonstrations,
    random_demonstrations,
    random_pool,
)
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
        flags = pa.table({"unit_id": ids[::-1].copy(), "suspect": [int(i) in suspects for i in ids[::-1]]})
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
    monkeypatch.setattr(module, "RANDOM_POOL", 12)
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
