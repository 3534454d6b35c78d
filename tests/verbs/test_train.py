"""`train` on the folders that the verbs before it leave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean.annotators.choices import Measured
from rayclean.config import Config, parse_config
from rayclean.errors import ArtifactError, ConfigError
from rayclean.functional.worth import Worth
from rayclean.models.loading import load_encoder
from rayclean.run import Run
from rayclean.runtime.engines import Engines
from rayclean.schema import LABELS, Label, LabelSet
from rayclean.verbs import train
from tests.training.toys import TOY, write_examples


@pytest.fixture
def prepared(tmp_path: Path) -> Run:
    """Examples whose given labels are all wrong, and final labels that are right."""
    run = Run(str(tmp_path / "runs" / "toy"))
    for verb in ("load", "predict", "relabel"):
        out = run.begin(verb, "print")
        if verb == "load":
            out.write_text(LabelSet([Label(i, x, x) for i, x in enumerate("abc")]).to_json(), "labels.json")
            write_examples(Path(out.path("examples")), 120, dev=30, noise=1.0)
        if verb == "relabel":
            examples = run.sub("load", "examples")
            for shard in examples.shards():
                table = examples.read_table(shard).to_pandas()
                final = (table["given_label"] + 2) % 3
                columns: list[Any] = [
                    table["example_id"],
                    table["example_id"],
                    table["given_label"],
                    final,
                    [None] * len(table),
                ]
                columns += [
                    ["changed"] * len(table),
                    [1.0] * len(table),
                    ["knn"] * len(table),
                    table["split"],
                ]
                arrays = [pa.array(c, field.type) for c, field in zip(columns, LABELS, strict=True)]
                out.write_table(pa.table(arrays, schema=LABELS), "labels", shard)
        run.commit(verb, "print", out, 0.0, {})
    return run


def config(run: Run, **changes: Any) -> Config:
    values = {
        "output": str(Path(run.root).parent),
        "name": "toy",
        "dataset": {"path": "unused"},
        "encoder": {"name": "bag_of_words", "buckets": 2000},
    }
    return parse_config({**values, "train": {"epochs": 4}, **changes})


def test_trains_on_final_labels(prepared: Run) -> None:
    out = prepared.begin("train", "print")
    train.validate(config(prepared), prepared)
    metrics = train.run(config(prepared), prepared, out)
    assert metrics["epochs"] == 4
    assert metrics["train_examples"] == 120
    assert metrics["dev_examples"] == 30
    last = json.loads(out.read_text("metrics.jsonl").splitlines()[-1])
    assert last["dev_accuracy"] < 0.2  # of the given labels of dev, all of them wrong here
    assert (
        metrics["dev_accuracy_final"] == last["dev_accuracy_final"] > 0.7
    )  # of the final ones, all of them right
    assert (metrics["dev_labels"], metrics["dev_settled"]) == ("settled", 30)
    json.dumps(metrics, allow_nan=False)
    assert len(out.read_text("metrics.jsonl").splitlines()) == 4
    assert out.shards("dynamics") == ["part-00000.parquet"]
    names = {Path(path).name for path in out.fs.ls(out.path(), detail=False)}
    assert names == {
        "model",
        "model_last",
        "metrics.jsonl",
        "measures.json",
        "dynamics",
        "epochs",
        "result.json",
    }

    network = load_encoder(Path(out.path("model_last"))).eval()
    tokens, _ = type(network).tokenizer(network.config)(["red green blue", "one two three", "cat dog bird"])
    from rayclean.models.base import pad

    assert network(pad(tokens, 0))[1].argmax(-1).tolist() == [0, 1, 2]
    dynamics = out.read_table("dynamics", "part-00000.parquet").to_pandas()
    assert np.isfinite(dynamics["quality"]).all()
    final = prepared.sub("relabel").read_table("labels", "part-00000.parquet").to_pandas()
    final = {**final.set_index("example_id")["final_label"]}
    trained = {**dynamics.set_index("example_id")["trained_label"]}
    assert {key: final[key] for key in trained if key in final}.items() <= trained.items()


@pytest.mark.parametrize(
    "changes",
    [{"train": {"epochs": 4, "labels": "given"}}, {"dataset": {"path": "unused", "dev": {"clean": True}}}],
)
def test_given_or_clean_dev_labels_choose_the_epoch_as_they_are(prepared: Run, changes: Any) -> None:
    out = prepared.begin("train", "print")
    metrics = train.run(config(prepared, **changes), prepared, out)
    assert metrics["dev_labels"] == "given"
    lines = [json.loads(line) for line in out.read_text("metrics.jsonl").splitlines()]
    assert metrics["dev_accuracy"] == max(line["dev_accuracy"] for line in lines)
    assert not [name for name in (*metrics, *lines[0]) if name.endswith(("_final", "_settled"))]


def test_too_few_settled_dev_examples_are_told(prepared: Run, caplog: pytest.LogCaptureFixture) -> None:
    """20 of 30 development examples are unresolved: all of them choose the epoch."""
    labels = prepared.sub("relabel", "labels")
    left = 20
    for shard in labels.shards():
        table = labels.read_table(shard).to_pandas()
        chosen = table.index[table["split"] == "dev"][:left]
        table.loc[chosen, "source"] = "referred"
        table.loc[chosen, "final_label"] = table.loc[chosen, "given_label"]
        left -= len(chosen)
        labels.write_table(pa.Table.from_pandas(table, schema=LABELS, preserve_index=False), shard)
    out = prepared.begin("train", "print")
    metrics = train.run(config(prepared), prepared, out)
    assert (metrics["dev_labels"], metrics["dev_settled"]) == ("final", 10)
    assert "only 10 are no unresolved suspects and 20 are needed" in metrics["note"]
    assert metrics["note"] in caplog.text
    assert metrics["dev_accuracy_final"] < 0.5  # of all: two thirds of these final labels are wrong


def test_relabel_must_have_run(prepared: Run) -> None:
    prepared.remove("relabel")
    with pytest.raises(ArtifactError, match="run `rayclean relabel` first"):
        train.run(config(prepared), prepared, prepared.begin("train", "print"))


def test_wrong_names_and_options_are_refused_before_work(prepared: Run) -> None:
    with pytest.raises(ConfigError, match="did you mean cross_entropy"):
        train.validate(config(prepared, method={"name": "cross_entrop"}), prepared)
    with pytest.raises(ConfigError, match="unknown key 'hiden'; did you mean hidden"):
        train.validate(config(prepared, encoder={"name": "bag_of_words", "hiden": 3}), prepared)


@pytest.mark.parametrize(
    ("right", "controls", "said"),
    [(145, 150, None), (75, 150, "no better than chance"), (0, 0, "nothing is known of simulated")],
)
def test_a_method_asks_whom_relabel_found_better_than_chance(
    prepared: Run,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    right: int,
    controls: int,
    said: str | None,
) -> None:
    """By what stands in relabel's manifest; otherwise nobody is paid, no model is started, and the log says why once."""
    started: list[Any] = []
    hosted = Engines.hosted
    monkeypatch.setattr(
        Engines, "hosted", lambda *args, **options: started.append(args) or hosted(*args, **options)
    )
    manifest = json.loads(prepared.read_text("relabel", "manifest.json"))
    measured = Measured(Worth(right, controls), controls, right, np.zeros(3), 0.0)
    manifest["metrics"] = {"judged": [{"name": "simulated", **measured.to_json()}]}
    prepared.write_json(manifest, "relabel", "manifest.json")
    write_examples(Path(prepared.path("load", "examples")), 120, dev=30, noise=0.3)
    method = {"name": "noiseal", "weak": {"name": TOY}, "warmup_epochs": 2, "lambda_": 0.3}
    training = {"epochs": 4, "labels": "given", "learning_rate": 0.05, "batch_size": 8}
    one = config(prepared, method=method, annotator={"name": "simulated"}, train=training)
    with caplog.at_level("WARNING"):
        metrics = train.run(one, prepared, prepared.begin("train", "print"))
    assert (metrics["annotator"]["asked"] > 0) == bool(started) == (said is None)
    remarks = [record.getMessage() for record in caplog.records if "simulated" in record.getMessage()]
    assert len(remarks) == (said is not None)
    assert said is None or said in remarks[0]
