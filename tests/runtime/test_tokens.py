"""Tokens are made before a training's workers are, shard by shard; what is finished is not made again."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean.config import ClusterConfig, Plugin, PredictConfig, TrainingConfig
from rayclean.folder import Folder
from rayclean.models.hashed_words import WordTokenizer
from rayclean.runtime import engines, tokens
from rayclean.runtime import train as on_ray
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.predict import predict_shards
from rayclean.training.inputs import WordInputs, open_tokens, open_words
from rayclean.training.job import FitSpec
from rayclean.training.loop import fit
from rayclean.training.setup import build_task
from rayclean.training.token_shards import TokenShards
from tests.training.toys import TOY, Killed, ToyTokenizer, job, spec, write_examples

WORDS = Plugin(name="bilstm", buckets=500, max_length=4)


@pytest.fixture(autouse=True)
def _each_text_counts(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(tokens, "FEW_TEXTS", 0)


def forbid_tokenising(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, texts: Any) -> Any:
        raise AssertionError("a worker tokenises")

    monkeypatch.setattr(ToyTokenizer, "__call__", fail)


def read_whole(folder: str, columns: list[str]) -> pa.Table:
    source = Folder(folder)
    return pa.concat_tables([source.read_table(shard, columns=columns) for shard in source.shards()])


@pytest.mark.parametrize("kept", [False, True])
def test_tokens_are_those_of_the_texts_in_their_order(kept: bool, tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 30, longest=9)
    if kept:
        shards = TokenShards(examples, WORDS)
        assert [shards.keep(shard) for shard in shards.missing()] == [10, 10, 10]
    inputs, table = open_tokens(examples, WORDS), read_whole(examples, ["example_id", "text"])
    expected, cut = TokenShards(examples, WORDS).tokenizer(table["text"].to_pylist())
    assert inputs.tokens.tobytes() == b"".join(each.tobytes() for each in expected)
    assert inputs.offsets.tolist() == [0, *np.cumsum([len(each) for each in expected])]
    assert (inputs.offsets.dtype, inputs.sorted_ids.dtype) == (np.int64, np.int64)
    assert inputs.rows(table["example_id"].to_numpy()).tolist() == [*range(30)]
    assert inputs.truncated == cut.sum() > 0


@pytest.mark.parametrize("kept", [False, True])
def test_words_keep_their_places(kept: bool, tmp_path: Path) -> None:
    texts = [["a", "b"], ["c"], ["d", "e", "f", "g", "h"]]
    table = pa.table({"example_id": pa.array([7, 3, 5], pa.int64()), "tokens": texts})
    Folder(str(tmp_path / "examples")).write_table(table, "part-00000.parquet")
    shards = TokenShards(str(tmp_path / "examples"), WORDS, per_token=True)
    if kept:
        shards.keep("part-00000.parquet")
    inputs = open_words(shards.examples, WORDS)
    expected, places, cut = shards.tokenizer.tokenize_words(texts)
    assert [each.tolist() for each in inputs.tokens_of(np.arange(3))] == [each.tolist() for each in expected]
    assert inputs.first_tokens.tolist() == np.concatenate(places).tolist()
    assert inputs.words(np.arange(3)).tolist() == [2, 1, 5]
    assert inputs.truncated == cut.sum() == 1
    assert isinstance(inputs, WordInputs)


def test_workers_start_when_all_tokens_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Ray, with a map and a group of workers in this process in the place of Ray's."""
    examples = write_examples(tmp_path / "examples", 40, dev=8)
    expected = fit(job(examples, tmp_path / "alone"), spec())
    asked = []

    def map_items(function: Callable[..., Any], items: Sequence[Any], *, num_cpus: float) -> Iterator[Any]:
        asked.append((len(items), num_cpus))
        return map(function, items)

    def train(jobs: Any, keys: Any, spec: Any, *rest: Any) -> None:
        forbid_tokenising(monkeypatch)
        monkeypatch.setenv("RAYCLEAN_CACHE", str(tmp_path / "another-node"))
        for one in jobs:
            fit(one, spec)

    monkeypatch.setattr("rayclean.runtime.ray_data.map_items", map_items)
    monkeypatch.setattr(on_ray, "train_on_workers", train)
    monkeypatch.setattr(engines.auto_precision, "training_precision", lambda *arguments: "float32")
    cluster = Engines(ClusterConfig(cpus_per_worker=0.5), on_ray=True)
    jobs = [job(examples, tmp_path / name, name=name) for name in ("one", "other")]
    found = cluster.fit_jobs(jobs, spec(), str(tmp_path / "work"))
    assert asked == [(3, 0.5)]  # once for jobs that read the same texts
    assert {result.dev_loss for result in found.values()} == {expected.dev_loss}


@pytest.mark.parametrize("side_by_side", [False, True])
def test_what_was_finished_before_a_kill_is_not_made_again(
    side_by_side: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = write_examples(tmp_path / "examples", 40, dev=8, shards=4)
    calls, whole = [], ToyTokenizer.__call__

    def killed_at_the_third(self: Any, texts: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 3:
            raise Killed
        return whole(self, texts)

    monkeypatch.setattr(ToyTokenizer, "__call__", killed_at_the_third)
    if side_by_side:

        def train(name: str) -> Any:
            return IN_PROCESS.fit_side_by_side([job(examples, tmp_path / name)], spec())
    else:

        def train(name: str) -> Any:
            return IN_PROCESS.fit_jobs([job(examples, tmp_path / name)], spec(), str(tmp_path / "work"))

    with pytest.raises(Killed):
        train("out")
    train("out")
    assert calls == [12] * 5  # two shards, the one that was under way, and after it that one and the last


def test_few_texts_are_left_to_whoever_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "FEW_TEXTS", 48)
    examples = write_examples(tmp_path / "examples", 40, dev=8)
    IN_PROCESS.fit_jobs([job(examples, tmp_path / "out")], spec(epochs=1), str(tmp_path / "work"))
    assert not (tmp_path / "tokens").exists()


def test_other_examples_have_other_tokens(tmp_path: Path) -> None:
    shards = TokenShards(write_examples(tmp_path / "examples", 30), WORDS)
    for shard in shards.missing():
        shards.keep(shard)
    assert shards.missing() == []
    write_examples(tmp_path / "examples", 30, seed=1)
    assert len(TokenShards(shards.examples, WORDS).missing()) == 3


def test_encoders_with_an_equal_tokenizer_share_their_tokens(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 10)
    keys = {
        TokenShards(examples, Plugin(name="bilstm", buckets=500, max_length=4, **options)).key
        for options in ({}, {"hidden": 8}, {"dropout": 0.3})
    }
    assert len(keys) == 1
    other = Plugin(name="bilstm", buckets=500, max_length=5)
    assert TokenShards(examples, other).key not in keys


def test_prediction_reads_the_tokens_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = write_examples(tmp_path / "examples", 40, dev=8, longest=9)
    words = FitSpec(WORDS, Plugin(name="cross_entropy"), TrainingConfig(epochs=1), ("a", "b", "c"))
    IN_PROCESS.fit_jobs([job(examples, tmp_path / "out")], words, str(tmp_path / "work"))
    task, model = build_task(words), str(tmp_path / "out" / "model")

    def predict(name: str) -> list[Any]:
        out = Folder(str(tmp_path / name))
        figures = predict_shards(
            IN_PROCESS, Folder(examples), out, [model], task, folds=None, config=PredictConfig()
        )
        return [figures, *(out.read_table(shard).to_pylist() for shard in out.shards())]

    shutil.copytree(tmp_path / "tokens", tmp_path / "aside")
    shutil.rmtree(tmp_path / "tokens")
    expected = predict("tokenised")
    shutil.copytree(tmp_path / "aside", tmp_path / "tokens")
    monkeypatch.setattr(WordTokenizer, "__call__", None)
    assert predict("read") == expected
    assert expected[0]["cut"] > 0


@pytest.mark.slow
def test_tasks_of_ray_make_them(tmp_path: Path, ray_embedded: None) -> None:
    examples = write_examples(tmp_path / "examples", 40)
    tokens.make_tokens([job(examples, tmp_path / "out")], spec(), ClusterConfig(), on_ray=True)
    shards = TokenShards(examples, Plugin(name=TOY))
    assert shards.missing() == []
    for shard, table in zip(Folder(examples).shards(), shards.tables(), strict=True):
        assert table.equals(shards.make(shard))
