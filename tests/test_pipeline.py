"""What is reused, what is stale, and who may work in a run folder."""

from pathlib import Path

import pytest

import rayclean
from rayclean import pipeline
from rayclean.errors import ArtifactError, ConfigError
from rayclean.run import VERBS
from rayclean.runtime.engines import IN_PROCESS
from rayclean.verb_fingerprints import check_plugins, fingerprints
from tests import toy
from tests.models.tiny import write


@pytest.fixture
def config(tmp_path: Path) -> rayclean.Config:
    return rayclean.parse_config(toy.config(toy.write(tmp_path / "data", rows=60), tmp_path / "runs"))


def changed(config: rayclean.Config, *overrides: str) -> set[str]:
    """Verbs whose fingerprint another config changes."""
    run = pipeline.open_run(config)
    other = rayclean.parse_config(config.model_dump(mode="json", exclude_none=True), overrides)
    old, new = fingerprints(config, run), fingerprints(other, run)
    return {verb for verb in old if old[verb] != new[verb]}


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("dataset.rows_per_shard=10", "load"),
        ("seed=1", "load"),
        ("encoder.buckets=4096", "predict"),
        ("predict.folds=3", "predict"),
        ("detect.budget=0.05", "detect"),
        ("dataset.words.garden='gardening'", "relabel"),
        ("relabel.accept=0.9", "relabel"),
        ("dataset.max_rejected=0.5", None),
        ("annotator.concurrency=1", None),
        ("predict.actors=2", None),
        ("cluster.workers=2", None),
        ("train.epochs=3", "train"),
        ("evaluate.top_changes=3", "evaluate"),
    ],
)
def test_a_key_re_runs_the_verb_that_reads_it_and_what_follows(
    config: rayclean.Config, override: str, first: str | None
) -> None:
    verbs = list(VERBS)
    expected = set(verbs[verbs.index(first) :]) if first else set()
    assert changed(config, override) == expected


def test_other_data_is_noticed(config: rayclean.Config, tmp_path: Path) -> None:
    run = pipeline.open_run(config)
    before = fingerprints(config, run)
    toy.write(tmp_path / "data", rows=61)
    assert fingerprints(config, run)["load"] != before["load"]


def test_one_process_at_a_time(config: rayclean.Config) -> None:
    run = pipeline.open_run(config)
    with run.locked(), pytest.raises(ArtifactError, match="another rayclean"), run.locked():
        pass


def test_a_verb_does_not_run_on_inputs_that_are_not_there(config: rayclean.Config) -> None:
    with pytest.raises(ArtifactError, match="rayclean load"):
        rayclean.detect(config)


def test_again_makes_what_follows_stale(config: rayclean.Config, ray_embedded: None) -> None:
    rayclean.load(config)
    run = pipeline.open_run(config)
    out = run.begin("predict", fingerprints(config, run)["predict"])
    run.commit("predict", fingerprints(config, run)["predict"], out, 0.0, {})
    assert {row.verb: row.state for row in rayclean.status(config)}["predict"] == "done"
    rayclean.load(config, again=True)
    assert {row.verb: row.state for row in rayclean.status(config)}["predict"] != "done"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json"):
        pipeline.resolved_config(str(tmp_path))


def finish(config: rayclean.Config, verb: str) -> None:
    """Pretend that a verb is done under this config."""
    run = pipeline.open_run(config)
    expected = fingerprints(config, run)
    run.commit(verb, expected[verb], run.begin(verb, expected[verb]), 0.0, {})


def test_a_stale_relabelling_is_not_reverted(config: rayclean.Config) -> None:
    finish(config, "relabel")
    other = rayclean.parse_config(config.model_dump(mode="json", exclude_none=True), ["detect.budget=0.05"])
    with pytest.raises(ArtifactError, match="another config"):
        rayclean.revert(other, everything=True)
    assert rayclean.status(other)[3].state == "stale"


def test_what_comes_after_a_verb_that_runs_again_runs_again_too(
    config: rayclean.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in VERBS:
        finish(config, verb)
    executed = []

    class Verb:
        VERSION = 1

        def __init__(self, name: str):
            self.name = name

        def validate(self, config: object, run: object) -> None:
            pass

        def run(self, config: object, run: object, out: object, engines: object) -> dict:
            executed.append(self.name)
            return {}

    run = pipeline.open_run(config)
    fingerprint = fingerprints(config, run)["detect"]
    monkeypatch.setattr(pipeline, "verb_module", Verb)
    pipeline._run_verb(config, run, "detect", fingerprint, IN_PROCESS)  # what `detect --again` does
    monkeypatch.undo()
    assert [row.state for row in rayclean.status(config)] == ["done"] * 3 + ["missing"] * 3
    assert executed == ["detect"]


def test_a_moved_run_folder_is_itself(config: rayclean.Config, tmp_path: Path) -> None:
    run = pipeline.open_run(config)
    run.write_text(config.model_dump_json(), "config.json")
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    Path(run.path()).rename(moved)
    assert pipeline.open_run(pipeline.resolved_config(str(moved))).path() == str(moved)


def test_replaced_probabilities_and_weights_are_other_inputs(config: rayclean.Config, tmp_path: Path) -> None:
    given = tmp_path / "p.parquet"
    given.write_bytes(b"1")
    values = config.model_dump(mode="json", exclude_none=True)
    values["predict"] = {"mode": "given", "path": str(given)}
    changed_config = rayclean.parse_config(values)
    run = pipeline.open_run(changed_config)
    before = fingerprints(changed_config, run)
    given.write_bytes(b"22")
    after = fingerprints(changed_config, run)
    assert before["predict"] != after["predict"]
    assert before["load"] == after["load"]
    body = tmp_path / "body"
    body.mkdir()
    (body / "model.safetensors").write_bytes(b"1")
    options = {"name": "transformer", "model": str(body)}
    plugins = check_plugins(rayclean.parse_config({**values, "encoder": options}))
    (body / "model.safetensors").write_bytes(b"22")
    assert check_plugins(rayclean.parse_config({**values, "encoder": options})) != plugins


def test_an_unknown_protocol_says_what_to_install(config: rayclean.Config) -> None:
    values = config.model_dump(mode="json", exclude_none=True)
    with pytest.raises(ConfigError, match=r"rayclean\[s3\]"):
        pipeline.open_run(rayclean.parse_config({**values, "output": "nope://bucket"}))


@pytest.mark.parametrize("encoder", ["bag_of_words", "frozen"])
def test_two_networks_that_predict_together_go_through_all_verbs(tmp_path: Path, encoder: str) -> None:
    """DivideMix: its ensemble is trained, tested beside its last epoch, and scores other data."""
    values = toy.config(toy.write(tmp_path / "data", rows=120), tmp_path / "runs")
    values["encoder"] = {"name": "bag_of_words", "buckets": 500}
    if encoder == "frozen":
        model = write(tmp_path / "bert")
        values["encoder"] = {
            "name": "transformer",
            "model": model,
            "trainable": "head",
            "hidden": 8,
            "max_length": 32,
        }
    values |= {"method": {"name": "dividemix", "warmup_epochs": 1}, "cluster": {"ray": False}}
    config = rayclean.parse_config(values, ["train.epochs=3"])
    rayclean.clean(config)
    run = pipeline.open_run(config)
    described = run.read_json("train", "model", "rayclean.json")
    assert described["encoder"] == "rayclean.models.ensemble:Ensemble"
    assert {"trained", "last", "given"} <= set(run.read_json("evaluate", "metrics.json")["accuracy"])
    other = rayclean.parse_config(
        {**values, "name": "other"}, ["predict.mode=model", f"predict.model={run.path('train', 'model')}"]
    )
    rayclean.load(other)
    rayclean.predict(other)
    predictions = pipeline.open_run(other).sub("predict", "predictions")
    assert sum(predictions.read_table(shard).num_rows for shard in predictions.shards()) > 90
