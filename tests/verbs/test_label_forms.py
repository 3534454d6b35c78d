"""predict and train on sets of classes and on tags: every mode that can be, and what is refused before any work."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayclean.config import Config, Plugin
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.functional.folds import stratified_folds
from rayclean.hashing import text_group
from rayclean.models.loading import describe_encoder
from rayclean.origins import ORIGINS
from rayclean.run import Run
from rayclean.schema import Label, LabelSet
from rayclean.tasks import TASKS
from rayclean.verbs import predict, train
from rayclean.verbs.predict_remarks import unread_tags
from tests.models import tiny
from tests.training.label_forms import BAG, LSTM, NAMES, write
from tests.verbs.predict_runs import config_of, rows_of

FORMS = ["multi_label", "tagging"]
LISTS_OF_TAGS = pa.list_(pa.list_(pa.float32()))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(folder: Path, task: str, **sections: Any) -> Config:
    encoder = sections.pop("encoder", (LSTM if task == "tagging" else BAG).model_dump())
    return config_of(folder, task={"name": task}, encoder=encoder, **sections)


def loaded(config: Config, task: str) -> tuple[Run, Folder]:
    """A run whose load wrote 60 train and 20 dev examples."""
    run = Run(f"{config.output}/{config.name}")
    write(Path(run.url()) / "load" / "examples", task, 60, dev=20)
    labels = LabelSet(Label(number, name, name) for number, name in enumerate(NAMES))
    run.write_text(labels.to_json(), "load", "labels.json")
    manifest = {"verb": "load", "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": {}}
    run.write_json(manifest, "load", "manifest.json")
    return run, run.begin("predict", "0")


def frozen(tmp_path: Path) -> dict[str, Any]:
    model = tiny.write(tmp_path / "bert")
    return {"name": "transformer", "model": model, "trainable": "head", "max_length": 24}


@pytest.mark.parametrize("body", ["trained", "frozen"])
@pytest.mark.parametrize("task", FORMS)
def test_out_of_fold_then_train_then_the_trained_one_predicts(tmp_path: Path, task: str, body: str) -> None:
    encoder = {"encoder": frozen(tmp_path)} if body == "frozen" else {}
    training = {"epochs": 3, "learning_rate": 0.03}
    one = config(
        tmp_path, task, predict={"folds": 2, "training": training, "precision": "float32"},
        train={"labels": "given", **training}, **encoder,
    )  # fmt: skip
    run, out = loaded(one, task)
    predict.validate(one, run)
    metrics = predict.run(one, run, out)
    assert metrics["examples"] == 80
    assert "accuracy_given" not in metrics
    rows, features = rows_of(out, "predictions"), rows_of(out, "features")
    examples = rows_of(run.sub("load"), "examples")
    assert set(rows) == set(features) == set(examples)
    groups = np.array([text_group(examples[key]["text"]) for key in rows])
    classes = np.full(len(rows), -1)  # labels that are more than one class do not stratify
    expected = stratified_folds(np.array(list(rows)), groups, classes, one.seed, 2)
    assert [rows[key]["fold"] for key in rows] == expected.tolist()
    folds_of = {(group, fold) for group, fold in zip(groups, expected, strict=True)}
    assert len(folds_of) == len(set(groups))
    assert (len(set(groups)) < 80) == (task == "tagging")  # there some texts are copies
    assert abs(sum(1 if fold else -1 for _, fold in folds_of)) <= 1
    assert all(rows[key]["given_label"] == examples[key]["given_label"] for key in rows)
    width = 32 if body == "frozen" else {"multi_label": 128, "tagging": 16}[task]
    assert {len(row["features"]) for row in features.values()} == {width}
    if task == "tagging":
        assert all(len(rows[key]["probabilities"]) == len(examples[key]["tokens"]) for key in rows)

    run.commit("predict", "0", out, 0, {})
    train.validate(one, run)
    model_folder = run.begin("train", "0")
    result = train.run(one, run, model_folder)
    assert result["epochs"] == 3
    assert result["dev_accuracy"] > 0.5
    model = model_folder.url("model")
    assert describe_encoder(model)["label_form"] == {"multi_label": "classes", "tagging": "tags"}[task]

    again = config(tmp_path, task, predict={"mode": "model", "model": model}, **encoder)
    predict.validate(again, run)
    other = run.begin("predict", "1")
    assert predict.run(again, run, other)["examples"] == 80
    assert set(rows_of(other, "predictions")) == set(examples)

    wrong = config(
        tmp_path,
        "multi_label" if task == "tagging" else "classification",
        predict={"mode": "model", "model": model},
        encoder=BAG.model_dump(),
    )
    with pytest.raises(ConfigError, match="trained on labels of another form"):
        predict.run(wrong, run, run.begin("predict", "2"))


def test_tags_behind_the_end_of_what_is_read_are_told(tmp_path: Path) -> None:
    fast = {"mode": "in_sample", "training": {"epochs": 1}}
    for length in (5, 8):
        encoder = {**LSTM.model_dump(), "max_length": length}
        one = config(tmp_path / str(length), "tagging", encoder=encoder, predict=fast)
        run, out = loaded(one, "tagging")
        examples = rows_of(run.sub("load"), "examples")
        longer = [key for key, row in examples.items() if len(row["tokens"]) > length]
        for shard in run.shards("load", "examples") if length == 5 else ():
            ids = run.read_table("load", "examples", shard)["example_id"]
            rows = [{"example_id": key.as_py(), "file": "a.conll", "row": 7} for key in ids]
            run.write_table(pa.Table.from_pylist(rows, schema=ORIGINS), "load", "origins", shard)
        found = predict.run(one, run, out)
        assert found["truncated"] == len(longer)
        assert found.get("warnings", []) == ([] if length == 8 else [
            f"{len(longer)} texts are longer than the 5 tokens that the network reads (a.conll:7, for one): tags behind them stay "
            "as given and are never doubted. Raise encoder.max_length"
        ])  # fmt: skip


def test_how_more_of_a_text_may_be_read(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "predictions"))
    task = TASKS.build(Plugin(name="tagging"), LabelSet([Label(0, "a", "a")]))
    unread = [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]
    columns = {"example_id": [3, 4], "probabilities": pa.array([unread[:1], unread], LISTS_OF_TAGS)}
    folder.write_table(pa.table(columns), "part-00000.parquet")
    model = tiny.write(tmp_path / "bert", max_positions=32)
    for length, remedy in (
        (16, "Raise encoder.max_length; the model reads up to 32"),
        (32, "The model reads no more"),
    ):
        encoder = {"name": "transformer", "model": model, "max_length": length}
        one = config(tmp_path, "tagging", encoder=encoder)
        (warning,) = unread_tags(one, task, Folder(str(tmp_path / "load")), folder, map, length)
        assert warning.startswith(
            f"1 text is longer than the {length} tokens that the network reads (example_id 4)"
        )
        assert remedy in warning
    one = config(tmp_path, "tagging", predict={"mode": "model", "model": "m"})
    (warning,) = unread_tags(one, task, Folder(str(tmp_path / "load")), folder, map, 5)
    assert "Train the classifier of predict.model again" in warning


def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    one = config(tmp_path, "tagging", encoder=BAG.model_dump())
    run, _ = loaded(one, "tagging")
    for verb in (predict, train):
        with pytest.raises(ConfigError, match=r"'bag_of_words' answers for whole texts.*bilstm, transformer"):
            verb.validate(one, run)
    for task in FORMS:
        with pytest.raises(
            ConfigError, match=r"'noiseal' cannot learn from the labels.*choose cross_entropy"
        ):
            train.validate(config(tmp_path, task, method={"name": "noiseal"}), run)
        with pytest.raises(ConfigError, match="reads the probability of each class of one label"):
            predict.validate(config(tmp_path, task, predict={"mode": "given", "path": "p.parquet"}), run)
