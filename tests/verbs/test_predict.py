"""predict with a tiny network: nothing lost, right folds, resuming, given probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.config import Config
from rayclean.errors import ConfigError, DataError
from rayclean.folder import Folder
from rayclean.functional.folds import stratified_folds
from rayclean.functional.temperature import log_loss, scaled
from rayclean.hashing import text_group
from rayclean.models.loading import load_encoder
from rayclean.verbs import predict
from rayclean.verbs.predict_classifier import _take_given
from rayclean.verbs.predict_experts import FURTHER, chosen_experts
from tests.models import tiny
from tests.verbs.predict_runs import config_of, loaded, rows_of

IDS = 120


def check(config: Config, run: Any, out: Folder, metrics: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What holds for every mode: ids, shards and label columns of the examples, distributions, sums."""
    examples, predictions, features = (
        rows_of(run.sub("load"), "examples"),
        rows_of(out, "predictions"),
        rows_of(out, "features"),
    )
    assert set(predictions) == set(examples) == set(features)
    assert out.shards("predictions") == out.shards("features") == run.shards("load", "examples")
    for key, row in predictions.items():
        assert row["given_label"] == examples[key]["given_label"]
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["given_probability"] == row["probabilities"][row["given_label"]]
    given = np.array([row["given_probability"] for row in predictions.values()])
    assert metrics["log_loss_given"] == pytest.approx(-np.log(given).mean(), rel=1e-5)
    hits = [row["predicted_label"] == row["given_label"] for row in predictions.values()]
    assert metrics["accuracy_given"] == pytest.approx(np.mean(hits))
    assert metrics["examples"] == len(examples) == IDS
    # the temperatures are fitted to all of so few examples, and the mean of the experts is what is written
    assert metrics["log_loss"]["mean"] == pytest.approx(metrics["log_loss_given"], rel=1e-5, abs=1e-8)
    assert 0 <= metrics["calibration_error"] <= 1
    assert set(metrics["temperatures"]) == set(metrics["log_loss"]) - {"mean"}
    assert not out.exists("experts")
    return predictions


def test_out_of_fold_with_a_trained_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"epochs": 10, "learning_rate": 0.02}
    config = config_of(tmp_path, predict={"folds": 3, "training": training, "experts": []})
    run, out = loaded(config)
    metrics = predict.run(config, run, out)
    rows = check(config, run, out, metrics)
    ids, examples = np.array(list(rows)), rows_of(run.sub("load"), "examples")
    groups = np.array([text_group(examples[key]["text"]) for key in rows])
    given = np.array([rows[key]["given_label"] for key in rows])
    expected = stratified_folds(ids, groups, given, config.seed, 3)
    assert [rows[key]["fold"] for key in rows] == expected.tolist()
    table = rows_of(out, "folds")
    assert [(table[key]["group"], table[key]["fold"]) for key in rows] == list(
        zip(groups, expected, strict=True)
    )
    # 40 examples of each class in three folds
    assert {tuple(sorted(np.bincount(expected[given == label]))) for label in range(3)} == {(13, 13, 14)}
    assert metrics["accuracy_given"] > 0.9  # topics have their own words: a network that learnt them is right
    assert metrics["folds"] == 3
    assert not out.exists("ray")

    # every example was predicted by the network of its fold, at its temperature; features come from network 0 alone
    features, temperatures = rows_of(out, "features"), metrics["temperatures"]["classifier"]
    assert len(set(temperatures)) == 3
    for fold in range(3):
        network = load_encoder(out.url("models", f"fold-{fold}", "model"))
        key = int(ids[expected == fold][0])
        from rayclean.models.inference import infer

        tokenizer = network.tokenizer(network.config)
        found = infer([network], tokenizer, [examples[key]["text"]])
        shifted = np.exp((found.logits[0] - found.logits[0].max()) / temperatures[fold])
        np.testing.assert_allclose(rows[key]["probabilities"], shifted / shifted.sum(), atol=0.02)
        same = np.allclose(features[key]["features"], found.features[0], atol=0.02)
        assert same == (fold == 0)

    # a restarted attempt makes again only what is missing
    def dies(*_: Any) -> Any:
        raise RuntimeError("node lost")

    def times() -> dict[str, int]:
        shards = out.shards("experts", "classifier")
        return {each: Path(out.path("experts", "classifier", each)).stat().st_mtime_ns for each in shards}

    after: dict[str, int] = {}
    mix = predict.mix_experts

    def noted(*arguments: Any) -> Any:
        after.update(times())
        return mix(*arguments)

    monkeypatch.setattr(predict, "mix_experts", dies)
    with pytest.raises(RuntimeError, match="node lost"):
        predict.run(config, run, out)
    before = times()
    out.remove("experts", "classifier", "part-00001.parquet")
    monkeypatch.setattr(predict, "mix_experts", noted)
    again = predict.run(config, run, out)
    assert rows_of(out, "predictions") == rows
    assert before.keys() == after.keys() == set(run.shards("load", "examples"))
    assert [shard for shard in before if before[shard] != after[shard]] == ["part-00001.parquet"]
    for name in ("accuracy_given", "truncated", "temperatures", "log_loss"):
        assert again[name] == metrics[name]


def test_further_experts_join_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is told the label that it predicts: the classifier decides on the folds, by which the words are predicted,
    too; the neighbours of an example never include itself. None is run twice.
    """
    training = {"epochs": 3, "learning_rate": 0.02}
    config = config_of(tmp_path, predict={"folds": 3, "training": training})
    run, out = loaded(config)
    assert chosen_experts(config) == (
        "words",
    )  # neighbours in features of a trained body have seen the labels
    config = config_of(tmp_path, predict={"folds": 3, "training": training, "experts": list(FURTHER)})
    assert chosen_experts(config) == FURTHER
    kept: dict[str, dict[int, dict[str, Any]]] = {}
    remove = Folder.remove

    def notes(folder: Folder, *parts: str) -> None:
        if parts == ("experts",):
            kept.update({name: rows_of(folder, f"experts/{name}") for name in ("classifier", *FURTHER)})
        remove(folder, *parts)

    monkeypatch.setattr(Folder, "remove", notes)
    metrics = predict.run(config, run, out)
    rows = check(config, run, out, metrics)
    assert list(metrics["temperatures"]) == list(kept) == ["classifier", *FURTHER]
    for key, row in rows.items():
        parts = []
        for name, own in kept.items():
            assert own[key]["fold"] == (-1 if name == "neighbours" else row["fold"])
            temperatures = metrics["temperatures"][name]
            assert len(temperatures) == (1 if name == "neighbours" else 3)
            temperature = temperatures[max(own[key]["fold"], 0)]
            parts.append(scaled(np.array([own[key]["probabilities"]]), temperature)[0])
        np.testing.assert_allclose(row["probabilities"], np.mean(parts, axis=0), atol=1e-6)

    alone = config_of(tmp_path, predict={"folds": 3, "training": training, "experts": []})
    other = run.begin("predict", "1")
    assert chosen_experts(alone) == ()
    of_one = predict.run(alone, run, other)
    assert of_one["temperatures"] == {"classifier": metrics["temperatures"]["classifier"]}
    assert of_one["log_loss"]["classifier"] == metrics["log_loss"]["classifier"]
    assert rows_of(other, "features") == rows_of(out, "features")
    assert rows_of(other, "predictions") != rows


def test_experts_are_chosen_by_the_labels(tmp_path: Path) -> None:
    def chosen(**sections: Any) -> tuple[str, ...]:
        return chosen_experts(config_of(tmp_path, **sections))

    assert chosen() == ("words",)  # a bag of words is trained
    transformer = {"name": "transformer", "model": "m"}
    assert chosen(encoder=transformer | {"trainable": "head"}) == FURTHER
    assert chosen(encoder=transformer | {"trainable": "all"}) == ("words",)
    assert chosen(predict={"experts": list(FURTHER[::-1])}) == FURTHER  # asked for by name
    assert chosen(predict={"mode": "given", "path": "p.parquet"}) == ()
    assert chosen(predict={"mode": "given", "path": "p.parquet", "experts": ["words"]}) == ("words",)
    for task in ("multi_label", "tagging"):
        assert chosen(task={"name": task}) == chosen(task={"name": task}, predict={"experts": []}) == ()
        config = config_of(
            tmp_path, task={"name": task}, encoder={"name": "bilstm"}, predict={"experts": ["words"]}
        )
        with pytest.raises(ConfigError, match=f"words know one class per example.*{task!r}.*leave it out"):
            predict.validate(config, loaded(config)[0])


def test_out_of_fold_with_a_frozen_body(tmp_path: Path) -> None:
    model = tiny.write(tmp_path / "bert")
    encoder = {"name": "transformer", "model": model, "max_length": 8, "trainable": "head"}
    config = config_of(
        tmp_path, encoder=encoder, predict={"folds": 2, "training": {"epochs": 3}, "precision": "float32"}
    )
    run, out = loaded(config, classes=1000)  # most classes have no example at all
    predict.validate(config, run)
    metrics = predict.run(config, run, out)
    rows = check(config, run, out, metrics)
    assert list(metrics["temperatures"]) == ["classifier", *FURTHER]
    assert len(next(iter(rows.values()))["probabilities"]) == 1000
    assert 0 < metrics["truncated"] < IDS  # 5 to 14 words, 6 fit
    assert metrics["truncated_share"] == metrics["truncated"] / IDS
    names = sorted(path.name for path in Path(out.path("models", "fold-0", "model")).iterdir())
    assert names == ["head.safetensors", "rayclean.json"]


def test_in_sample(tmp_path: Path) -> None:
    config = config_of(tmp_path, predict={"mode": "in_sample", "training": {"epochs": 2}})
    run, out = loaded(config)
    rows = check(config, run, out, predict.run(config, run, out))
    assert {row["fold"] for row in rows.values()} == {-1}


def given_config(folder: Path, keys: list[Any], values: list[Any], column: str = "key") -> Config:
    pq.write_table(pa.table({column: keys, "probabilities": values}), folder / "mine.parquet")
    return config_of(folder, predict={"mode": "given", "path": str(folder / "mine.parquet")})


KEYS = [f"row-{row}" for row in range(IDS)]
GOOD = [[0.7, 0.2, 0.1]] * IDS


def test_given(tmp_path: Path) -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(3), IDS)
    order = np.random.default_rng(1).permutation(IDS)
    config = given_config(
        tmp_path, [*(KEYS[i] for i in order), "test-0"], [*values[order].tolist(), [1.0, 0.0, 0.0]]
    )
    run, out = loaded(config)
    predict.validate(config, run)
    metrics = predict.run(config, run, out)
    rows = check(config, run, out, metrics)
    from rayclean.datasets.example_id import key_id

    (temperature,) = metrics["temperatures"]["classifier"]
    labels = np.array([rows[key_id(key)]["given_label"] for key in KEYS])
    assert metrics["log_loss"]["classifier"] < log_loss(values, labels)  # these probabilities know nothing
    for key, value in zip(KEYS, scaled(values, temperature), strict=True):
        np.testing.assert_allclose(rows[key_id(key)]["probabilities"], value, atol=1e-6)
    assert metrics["ignored_rows"] == 1  # the test example
    assert metrics["folds"] == 0
    assert set(rows_of(out, "folds")) == set(rows)  # where copies are, whoever predicts


def test_a_trained_classifier_scores_other_data(tmp_path: Path) -> None:
    from rayclean.config import Plugin
    from rayclean.models.base import pad
    from rayclean.models.loading import build_encoder

    network = build_encoder(Plugin(name="bag_of_words", buckets=500), 3, seed=4).eval()
    network.save(tmp_path / "model", ["c0", "c1", "c2"])
    model = str(tmp_path / "model")
    options = {"mode": "model", "model": model, "precision": "float32", "experts": []}
    config = config_of(tmp_path, predict=options, encoder={"name": "bilstm"})
    run, out = loaded(config)
    predict.validate(config, run)
    metrics = predict.run(config, run, out)
    rows, examples = check(config, run, out, metrics), rows_of(run.sub("load"), "examples")
    assert metrics["folds"] == 0
    tokens, _ = network.tokenizer(network.config)([examples[key]["text"] for key in rows])
    (temperature,) = metrics["temperatures"]["classifier"]
    expected = (network(pad(tokens, 0))[1] / temperature).softmax(-1).detach().numpy()
    np.testing.assert_allclose([row["probabilities"] for row in rows.values()], expected, atol=1e-5)

    network.save(tmp_path / "model", ["c1", "c0", "c2"])
    with pytest.raises(ConfigError, match="knows the classes"):
        predict.run(config, run, out)
    with pytest.raises(ConfigError, match="needs model"):
        config_of(tmp_path, predict={"mode": "model"})


def changed(values: list[Any], row: int, value: Any) -> list[Any]:
    return [*values[:row], value, *values[row + 1 :]]


@pytest.mark.parametrize(
    ("keys", "values", "words"),
    [
        (KEYS, changed(GOOD, 5, [float("nan"), 0.5, 0.5]), ["row 5", "'row-5'", "nan", "class 0"]),
        (KEYS, changed(GOOD, 5, [0.5, None, 0.5]), ["row 5", "nan", "class 1"]),
        (KEYS, changed(GOOD, 7, [float("inf"), 0.0, 0.0]), ["row 7", "inf"]),
        (KEYS, changed(GOOD, 8, [1.5, -0.5, 0.0]), ["row 8", "-0.5 of class 1", "softmax"]),
        (KEYS, changed(GOOD, 9, [0.5, 0.5, 0.5]), ["row 9", "sum to 1.5", "normalise"]),
        (KEYS, changed(GOOD, 9, [0.5, 0.5]), ["row 9", "2 probabilities", "expected 3"]),
        (KEYS, changed(GOOD, 9, None), ["row 9", "no probabilities"]),
        (KEYS[:-2], GOOD[:-2], ["no probabilities for 2 of 120"]),
        ([*KEYS, "stranger"], [*GOOD, GOOD[0]], ["'stranger'", "not in the data set"]),
        ([*KEYS, "row-3"], [*GOOD, GOOD[0]], ["'row-3'", "twice"]),
        (changed(KEYS, 4, None), GOOD, ["row 4", "null"]),
        (KEYS, ["x"] * IDS, ["string", "list of 3 numbers"]),
    ],
)
def test_given_faults_name_row_value_and_fix(
    tmp_path: Path, keys: list[Any], values: list[Any], words: list[str]
) -> None:
    config = given_config(tmp_path, keys, values)
    run, out = loaded(config)
    with pytest.raises(DataError) as error:
        _take_given(config, run.sub("load"), out.sub("predictions"), ["c0", "c1", "c2"])
    for word in words:
        assert word in str(error.value)


def test_given_keys_of_rejected_rows_are_passed_over(tmp_path: Path) -> None:
    config = given_config(tmp_path, [*KEYS, "x", "y"], [*GOOD, *GOOD[:2]])
    run, out = loaded(config, rejected=2)
    figures, passed_over = _take_given(config, run.sub("load"), out.sub("predictions"), ["c0", "c1", "c2"])
    assert passed_over == 2
    assert figures["rows"] == IDS
    # accuracy: every row predicts class 0, labels are 0, 1, 2 in turn; log-loss: mean of -ln .7, -ln .2, -ln .1
    assert figures["correct"] == 40
    assert figures["log_loss"] / IDS == pytest.approx(-np.log([0.7, 0.2, 0.1]).mean(), rel=1e-6)


def test_validate_is_cheap_and_clear(tmp_path: Path) -> None:
    config = given_config(tmp_path, KEYS, GOOD, column="uid")
    with pytest.raises(DataError, match="no column 'key'"):
        predict.validate(config, loaded(config)[0])
    config = config_of(tmp_path, encoder={"name": "transformer", "model": "/nowhere/at-all"})
    with pytest.raises(ConfigError, match="/nowhere/at-all"):
        predict.validate(config, loaded(config)[0])
    config = config_of(tmp_path, predict={"mode": "given", "path": str(tmp_path / "*.nothing")})
    with pytest.raises(DataError, match="no Parquet file"):
        predict.validate(config, loaded(config)[0])
