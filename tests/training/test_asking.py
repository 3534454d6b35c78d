"""Questions on their way: exact neighbours, none its own, and the answers end where they belong."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayclean.config import Plugin
from rayclean.folder import Folder
from rayclean.functional import neighbours
from rayclean.functional.partition import Subset
from rayclean.schema import MethodQueries
from rayclean.training import query_demonstrations
from rayclean.training.collectives import Collectives
from rayclean.training.loop import fit
from rayclean.training.query_demonstrations import draw_from_pool, first_of_each, mislabelled, nearest_in_pool
from tests.training.toys import TOY, Answering, Killed, job, spec, write_examples


class Table:
    """Stands for a network: the features of each position."""

    def __init__(self, features: Any):
        self.features = features / np.linalg.norm(features, axis=1, keepdims=True)
        self.device = torch.device("cpu")

    def __call__(self, positions: Any) -> Any:
        return np.ascontiguousarray(self.features[positions], dtype=np.float32)


@pytest.mark.parametrize("rows_per_block", [3, 256])
def test_neighbours_are_those_of_brute_force(rows_per_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_demonstrations, "EVALUATION_ROWS", rows_per_block)
    rng = np.random.default_rng(0)
    read = Table(rng.normal(size=(60, 5)))
    queries, pool = np.array([7, 0, 33, 59]), np.flatnonzero(rng.random(60) < 0.5)
    pool = np.union1d(pool, [7])  # a query may itself be in the pool
    texts = rng.permutation(60)
    found, cosine = nearest_in_pool(read, np.arange(60), texts, queries, pool, 4, Collectives())  # type: ignore[arg-type]
    for row, query in enumerate(queries):
        others = pool[pool != query]
        expected = others[np.argsort(-(read.features[others] @ read.features[query]))[:4]]
        assert found[row].tolist() == expected.tolist()
        np.testing.assert_allclose(cosine[row], read.features[expected] @ read.features[query], atol=2e-5)


def test_neither_blocks_nor_workers_decide_between_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tight clusters, as features collapse per class: hundreds of neighbours are equal to five digits."""
    rng = np.random.default_rng(0)
    centres, count = rng.normal(size=(6, 16)), 1200
    read = Table(centres[rng.integers(6, size=count)] + rng.normal(size=(count, 16)) * 1e-3)
    queries, pool, texts = np.arange(0, count, 40), np.arange(1, count, 2), np.arange(count)
    found = []
    for rows_per_block in (count, 64, 7):
        monkeypatch.setattr(query_demonstrations, "EVALUATION_ROWS", rows_per_block)
        monkeypatch.setattr(neighbours, "QUERY_ROWS", rows_per_block)
        found.append(nearest_in_pool(read, np.arange(count), texts, queries, pool, 5, Collectives()))  # type: ignore[arg-type]
    for places, cosine in found[1:]:
        assert (places == found[0][0]).all()
        assert (cosine == found[0][1]).all()
    cosine = np.round(read(queries) @ read(pool).T, neighbours.DIGITS)
    expected = [pool[np.lexsort((pool, -row))[:5]].tolist() for row in cosine]
    assert found[0][0].tolist() == expected


class OfTwo(Collectives):
    """One of two workers that are threads of this process."""

    world_size = 2

    def __init__(self, rank: int, barrier: Barrier, sent: list[Any]):
        self.rank, self.barrier, self.sent = rank, barrier, sent

    def gather(self, ids: Any, columns: Any) -> Any:
        parts = self._exchange((ids, columns))
        together = {name: np.concatenate([columns[name] for _, columns in parts]) for name in columns}
        return super().gather(np.concatenate([ids for ids, _ in parts]), together)

    def gather_rows(self, rows: Any) -> Any:
        return torch.cat(self._exchange(rows.clone()))

    def _exchange(self, mine: Any) -> list[Any]:
        self.sent[self.rank] = mine
        self.barrier.wait(60)
        everyone = list(self.sent)
        self.barrier.wait(60)
        return everyone


@pytest.mark.parametrize("pool_size", [1, 100])
def test_two_workers_find_what_one_finds(pool_size: int) -> None:
    rng = np.random.default_rng(0)
    read = Table(rng.integers(-1, 2, (200, 4)) + 0.1)  # many are equally near
    queries, pool, texts = np.arange(0, 200, 7), np.arange(0, 200, 2)[:pool_size], np.arange(200) % 150
    arguments = (read, np.arange(200), texts, queries, pool, 5)
    barrier, sent = Barrier(2), [None, None]
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(nearest_in_pool, *arguments, OfTwo(rank, barrier, sent)) for rank in range(2)]  # type: ignore[arg-type]
        found = [one.result(60) for one in both]
    alone = nearest_in_pool(*arguments, Collectives())  # type: ignore[arg-type]
    for places, cosine in found:
        assert (places == alone[0]).all()
        assert (cosine == alone[1]).all()


def test_copies_of_a_text_take_no_places() -> None:
    """Nobody is shown its own text, and no text twice: not even where thirty copies are the nearest."""
    features = np.concatenate(
        [np.tile([1.0, 0.0], (30, 1)), np.tile([0.9, 0.1], (20, 1)), [[0.5, 0.5], [0.0, 1.0]]]
    )
    texts = np.array([7] * 30 + [8] * 20 + [1, 2])
    pool = first_of_each(texts, np.arange(1, 52))
    assert pool.tolist() == [1, 30, 50, 51]
    found, _ = nearest_in_pool(Table(features), np.arange(52), texts, np.array([0]), pool, 3, Collectives())  # type: ignore[arg-type]
    assert found.tolist() == [[30, 50, 51]]
    drawn = draw_from_pool(np.arange(52), texts, np.array([0]), pool, 5, seed=0, epoch=1)
    assert set(drawn[0].tolist()) == {-1, 30, 50, 51}  # there are no more


def test_a_pool_smaller_than_asked() -> None:
    read, everyone = Table(np.eye(4) + 0.1), np.arange(4)
    found, cosine = nearest_in_pool(
        read, everyone, everyone, np.array([0, 1]), np.array([0, 2]), 3, Collectives()
    )  # type: ignore[arg-type]
    assert found.tolist() == [[2, -1, -1], [0, 2, -1]] or found.tolist() == [[2, -1, -1], [2, 0, -1]]
    assert (cosine[found < 0] == 0).all()


def test_random_demonstrations_depend_on_the_example_alone() -> None:
    ids, texts = np.arange(50) * 3, np.arange(50)
    rows, pool = np.array([4, 9, 30]), np.array([1, 4, 5, 6, 7, 30])
    found = draw_from_pool(ids, texts, rows, pool, 4, seed=0, epoch=2)
    assert all(rows[i] not in found[i] for i in range(3))
    assert set(found.ravel().tolist()) <= set(pool.tolist())
    assert draw_from_pool(ids, texts, rows[::-1], pool, 4, seed=0, epoch=2)[::-1].tolist() == found.tolist()
    assert draw_from_pool(ids, texts, rows, pool, 4, seed=0, epoch=3).tolist() != found.tolist()
    assert (draw_from_pool(ids, texts, np.array([4]), np.array([4, 5]), 4, 0, 1) == [[5, -1, -1, -1]]).all()


@pytest.mark.parametrize("selector", ["nearest", "random"])
def test_the_loop_asks_about_purified_examples_and_takes_the_answers(tmp_path: Path, selector: str) -> None:
    examples = write_examples(tmp_path / "examples", 90, noise=0.3)
    method = Plugin(
        name="noiseal", weak={"name": TOY}, warmup_epochs=2, demonstrations=3, selector=selector, lambda_=0.3
    )
    consult = Answering()
    one = job(examples, tmp_path / "out", keep_epochs=True)
    fit(one, spec(method=method, epochs=6, learning_rate=0.05), consult=consult)
    assert consult.requests
    asked = np.concatenate([request.ids for request in consult.requests])
    assert len(set(asked.tolist())) == len(asked)  # an example is asked about once
    epochs = {
        n: Folder(one.output).read_table("epochs", f"epoch-{n:03d}", "part-00000.parquet").to_pandas()
        for n in range(1, 7)
    }
    request: MethodQueries = consult.requests[0]
    first = (
        next(n for n in range(3, 7) if (epochs[n]["subset"] == Subset.PURIFIED).any()) if len(asked) else 3
    )
    table = epochs[first].set_index("example_id")
    assert (table.loc[request.ids, "subset"] == Subset.PURIFIED).all()
    shown = request.neighbours[request.neighbours != -1]
    assert (table.loc[shown, "subset"] == Subset.CLEAN).all()
    assert not any(own in others for own, others in zip(request.ids, request.neighbours, strict=True))
    assert (
        table.loc[request.neighbours[:, 0], "given_label"].to_numpy() == request.neighbour_labels[:, 0]
    ).all()
    assert np.isnan(request.similarity).all() == (selector == "random")
    answers = table.loc[request.ids, "answer"].to_numpy()
    assert answers.tolist() == request.neighbour_labels[:, 0].tolist()


def test_corrupted_demonstrations_are_wrong_for_everyone_alike(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 90, noise=0.3)
    parts = [Folder(examples).read_table(shard) for shard in Folder(examples).shards()]
    given = pa.concat_tables(parts).to_pandas().set_index("example_id")["given_label"]
    shares = {}
    for share in (0.0, 0.4, 1.0):
        consult = Answering()
        options = {"demonstrations": 3, "lambda_": 0.3, "corrupted_demonstrations": share}
        method = Plugin(name="noiseal", weak={"name": TOY}, **options)
        fit(
            job(examples, tmp_path / str(share)),
            spec(method=method, epochs=4, learning_rate=0.05),
            consult=consult,
        )
        shown = np.concatenate(
            [np.stack([r.neighbours, r.neighbour_labels]).reshape(2, -1) for r in consult.requests], 1
        )
        ids, labels = shown[:, shown[0] != -1]
        assert all(len(set(labels[ids == one])) == 1 for one in ids)  # whoever sees it, and whenever
        shares[share] = (given.loc[ids].to_numpy() != labels).mean()
    assert shares[0.0] == 0
    assert 0.1 < shares[0.4] < 0.7
    assert shares[1.0] == 1


def test_corrupted_labels_are_drawn_evenly_among_the_others() -> None:
    ids, labels = np.arange(30_000), np.arange(30_000) % 3
    wrong = mislabelled(ids, labels, 3, 0.4, seed=1)
    shares = np.bincount((wrong - labels) % 3) / len(ids)
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.01)
    again = mislabelled(ids[::-1], labels[::-1], 3, 0.4, seed=1)
    assert (again[::-1] == wrong).all()


def test_an_attempt_that_repeats_an_epoch_asks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where it would find other neighbours, as with other workers in bfloat16: what was paid for is used."""

    class Dying(Answering):
        def __call__(self, asked: Any) -> Any:
            super().__call__(asked)
            raise Killed

    examples = write_examples(tmp_path / "examples", 90, noise=0.3)
    method = Plugin(name="noiseal", weak={"name": TOY}, demonstrations=3, lambda_=0.3)
    one, how = job(examples, tmp_path / "out"), spec(method=method, epochs=4, learning_rate=0.05)
    first, second = Dying(), Answering()
    with pytest.raises(Killed):
        fit(one, how, consult=first)

    def others(*arguments: Any) -> Any:
        return query_demonstrations.no_neighbours(len(arguments[3]), arguments[5])

    monkeypatch.setattr(query_demonstrations, "nearest_in_pool", others)
    fit(one, how, consult=second)
    again, before = second.requests[0], first.requests[0]
    assert (before.neighbours != -1).any()
    for column in ("ids", "neighbours", "neighbour_labels", "similarity"):
        np.testing.assert_array_equal(getattr(again, column), getattr(before, column))
    assert not Folder(one.output).exists("shown")


def test_without_an_annotator_methods_train_on(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 60, noise=0.3)
    method = Plugin(name="noiseal", weak={"name": TOY}, warmup_epochs=1)
    assert fit(job(examples, tmp_path / "out"), spec(method=method, epochs=3)).epochs == 3


def test_an_error_of_whoever_asks_is_raised(tmp_path: Path) -> None:
    class Broken(Answering):
        def __call__(self, request: Any) -> Any:
            raise ZeroDivisionError("broken")

    examples = write_examples(tmp_path / "examples", 90, noise=0.3)
    method = Plugin(name="noiseal", weak={"name": TOY}, warmup_epochs=2, lambda_=0.3)
    with pytest.raises(ZeroDivisionError, match="broken"):
        fit(
            job(examples, tmp_path / "out"),
            spec(method=method, epochs=6, learning_rate=0.05),
            consult=Broken(),
        )
