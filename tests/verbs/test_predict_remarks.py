"""What `predict` says of its predictions, on whole runs of load and predict."""

import csv
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.api import as_config
from rayclean.config import Config, Plugin, parse_config
from rayclean.errors import ConfigError, DataError
from rayclean.hashing import digest
from rayclean.models.loading import build_encoder
from rayclean.run import Run
from rayclean.verbs import load, predict
from tests.command import run_command

SIZES = ["small", "medium", "large", "huge"]


def data(folder: Path, labels: Sequence[str]) -> str:
    with (folder / "data.csv").open("w", newline="") as file:
        rows = [(f"k{row}", f"parcel {row} weighs {row % 7}", label) for row, label in enumerate(labels)]
        csv.writer(file).writerows([("id", "text", "label"), *rows])
    return str(folder / "data.csv")


def probabilities(
    folder: Path, labels: Sequence[str], columns: Sequence[str], right: float = 0.9, dtype: Any = np.float32
) -> str:
    """Probabilities whose columns are in some order, and of which a share has the label as the most probable class."""
    rng = np.random.default_rng(2)
    values = rng.uniform(0.01, 0.1, (len(labels), len(columns)))
    for row, label in enumerate(labels):
        guess = label if rng.random() < right else columns[rng.integers(len(columns))]
        values[row, columns.index(guess)] += 1
    values = (values / values.sum(axis=1, keepdims=True)).astype(dtype)
    keys = [f"k{row}" for row in range(len(labels))]
    pq.write_table(pa.table({"id": keys, "probabilities": list(values)}), folder / "own.parquet")
    return str(folder / "own.parquet")


def config_of(folder: Path, source: str, **settings: Any) -> Config:
    return parse_config({
        "name": "run", "output": str(folder), "dataset": {"path": source, "id": "id"},
        "encoder": {"name": "bag_of_words", "buckets": 100}, "predict": settings,
    })  # fmt: skip


def predicted(config: Config) -> dict[str, Any]:
    run = Run(f"{config.output}/{config.name}")
    figures: dict[str, Any] = {}
    for verb in (load, predict):
        name = verb.__name__.rpartition(".")[2]
        verb.validate(config, run)
        out = run.begin(name, digest(config.model_dump_json(), digits=8))
        figures = verb.run(config, run, out)
        run.commit(name, "test", out, 0.0, figures)
    return figures


@pytest.mark.parametrize(
    "columns", [["small", "medium", "large", "huge"], ["small", "large", "medium", "huge"]]
)
def test_columns_in_another_order_stop_with_the_likely_one(tmp_path: Path, columns: list[str]) -> None:
    """Sorted, the classes are huge, large, medium, small: all columns are moved, or two of them."""
    labels = [SIZES[row % 4] for row in range(160)]
    own = probabilities(tmp_path, labels, columns)
    path = data(tmp_path, labels)
    with pytest.raises(DataError) as error:
        predicted(config_of(tmp_path, path, mode="given", path=own))
    named = f"predict.columns = {json.dumps(columns)} if that is their order"
    assert named in str(error.value)
    assert 'predict.columns = ["huge", "large", "medium", "small"] if they are right as they are' in str(
        error.value
    )
    figures = predicted(config_of(tmp_path, path, mode="given", path=own, columns=columns))
    assert figures["accuracy_given"] > 0.85
    assert figures["alarms"] == []


def test_the_word_of_the_config_is_believed_with_an_alarm(tmp_path: Path) -> None:
    labels = [SIZES[row % 3] for row in range(90)]
    own = probabilities(tmp_path, labels, SIZES[:3])
    order = ["large", "medium", "small"]  # which is wrong: small and large have changed places
    figures = predicted(config_of(tmp_path, data(tmp_path, labels), mode="given", path=own, columns=order))
    (alarm,) = figures["alarms"]
    assert "'large' mostly bears the label 'small'" in alarm
    assert "predict.columns" in alarm


def test_probabilities_of_other_rows_are_an_alarm(tmp_path: Path) -> None:
    labels = [SIZES[row % 3] for row in range(120)]
    rng = np.random.default_rng(0)
    own = probabilities(tmp_path, [*rng.permutation(labels)], sorted(SIZES[:3]))
    (alarm,) = predicted(config_of(tmp_path, data(tmp_path, labels), mode="given", path=own))["alarms"]
    assert "no better than the 33." in alarm
    assert "same rows" in alarm


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["small", "medium", "lage"], "'lage' is no class of the data set; did you mean large"),
        (["small", "medium"], "'large' is missing"),
        (["small", "medium", "large", "small"], "a class is named twice"),
    ],
)
def test_columns_are_the_classes(tmp_path: Path, columns: list[str], message: str) -> None:
    labels = [SIZES[row % 3] for row in range(30)]
    own = probabilities(tmp_path, labels, SIZES[:3])
    with pytest.raises(ConfigError, match=message):
        predicted(config_of(tmp_path, data(tmp_path, labels), mode="given", path=own, columns=columns))
    with pytest.raises(ConfigError, match="columns gives the order of the classes"):
        config_of(tmp_path, "x.csv", columns=columns)


def test_classes_with_fewer_texts_than_folds_are_named(tmp_path: Path) -> None:
    labels = ["usual"] * 40 + ["other"] * 40 + ["rare"] * 3 + ["once"]
    figures = predicted(config_of(tmp_path, data(tmp_path, labels), folds=4, training={"epochs": 1}))
    (warning,) = figures["warnings"]
    assert (
        "2 classes have fewer texts than there are folds (predict.folds = 4): 'once' 1, 'rare' 3." in warning
    )
    figures = predicted(config_of(tmp_path / "b", data(tmp_path, labels), folds=2, training={"epochs": 1}))
    assert (
        "1 class has fewer texts than there are folds (predict.folds = 2): 'once' 1."
        in figures["warnings"][0]
    )


def test_copies_do_not_make_a_class_frequent(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [(f"k{row}", f"parcel {row}", "usual") for row in range(30)]
    rows += [(f"c{row}", ["Lost at sea", "lost  at sea"][row % 2], "rare") for row in range(20)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text", "label"), *rows])
    (warning,) = predicted(config_of(tmp_path, str(path), folds=3, training={"epochs": 1}))["warnings"]
    assert "'rare' 1." in warning


def test_equal_texts_stop_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [(f"k{row}", ["To be done", "to be  done"][row % 2], SIZES[row % 2]) for row in range(30)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text", "label"), *rows])
    with pytest.raises(DataError, match=r"all 30 examples have the same text.*check dataset\.text"):
        predicted(config_of(tmp_path, str(path), folds=2))


def test_the_command_scores_rows_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one command, which says what it left out; detection then has nothing to doubt."""
    network = build_encoder(Plugin(name="bag_of_words", buckets=100), 2, seed=1).eval()
    network.save(tmp_path / "model", ["ebb", "flood"])
    (tmp_path / "new.csv").write_text("text\n" + "".join(f"gauge {row}\n" for row in range(40)) + '""\n')
    config = tmp_path / "new.toml"
    config.write_text(
        f'name = "new"\noutput = "{tmp_path / "runs"}"\n[dataset]\npath = "{tmp_path / "new.csv"}"\n'
        '[encoder]\nname = "bag_of_words"\nbuckets = 100\n'
    )
    model = str(tmp_path / "model")
    done = run_command("predict", str(config), "--model", model, capsys=capsys, monkeypatch=monkeypatch)
    assert done.code == 0, done.stderr
    assert "load: data: 1 of 41 rows left out: blank row 1 (load/rejected/ lists them)" in done.stderr
    run = Run(str(tmp_path / "runs" / "new"))
    (shard,) = run.sub("predict").shards("predictions")
    table = run.sub("predict").read_table("predictions", shard)
    assert table.num_rows == 40
    assert table["given_label"].null_count == 40
    again = run_command("predict", str(config), "--model", model, capsys=capsys, monkeypatch=monkeypatch)
    assert "load: done before, reused" in again.stderr
    assert "1 of 41 rows left out: blank row 1" in again.stderr
    scoring = ["predict.mode=model", f"predict.model={model}"]
    refused = run_command("detect", str(config), *scoring, capsys=capsys, monkeypatch=monkeypatch)
    assert refused.code == 2
    assert "40 of 40 examples have no label, so there is nothing to doubt" in refused.stderr


def test_rows_without_labels_are_scored_without_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or a table of texts is enough, and what is still missing is said in these terms."""
    network = build_encoder(Plugin(name="bag_of_words", buckets=100), 2, seed=1).eval()
    network.save(tmp_path / "model", ["ebb", "flood"])
    texts = [f"gauge {row}" for row in range(40)]
    (tmp_path / "new.csv").write_text("\n".join(["body", *texts]))
    monkeypatch.chdir(tmp_path)
    run = partial(run_command, capsys=capsys, monkeypatch=monkeypatch)
    done = run(
        "predict",
        "new.csv",
        "--text",
        "body",
        "--model",
        "model",
        "encoder.name=bag_of_words",
        "encoder.buckets=100",
    )
    assert done.code == 0, done.stderr
    assert Run("runs/new").manifest("predict").metrics["examples"] == 40
    unnamed = run("predict", "new.csv", "--model", "model")
    assert unnamed.code == 2
    assert "say it with --text COLUMN" in unnamed.stderr
    without_model = run("predict", "new.csv", "--text", "body")
    assert without_model.code == 2
    assert "rayclean predict CONFIG --model" in without_model.stderr
    config = as_config(
        pd.DataFrame({"body": texts}), text="body", predict={"mode": "model", "model": "model"}
    )
    assert config.dataset.text == "body"
    load.validate(config, Run("runs/table"))
    with pytest.raises(ConfigError, match=r"label=\.\.\. is missing"):
        as_config(pd.DataFrame({"body": texts}), text="body")
