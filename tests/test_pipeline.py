"""What is reused, what is stale, and who may work in a run folder."""

from pathlib import Path

import pytest

import rayclean
from rayclean import pipeline
from rayclean.errors import ArtifactError
from tests import toy


@pytest.fixture
def config(tmp_path: Path) -> rayclean.Config:
    return rayclean.parse_config(toy.config(toy.write(tmp_path / "data", rows=60), tmp_path / "runs"))


def changed(config: rayclean.Config, *overrides: str) -> set[str]:
    """Verbs whose fingerprint another config changes."""
    run = pipeline.open_run(config)
    other = rayclean.parse_config(config.model_dump(mode="json", exclude_none=True), overrides)
    old, new = pipeline.fingerprints(config, run), pipeline.fingerprints(other, run)
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
    verbs = list(pipeline.VERBS)
    expected = set(verbs[verbs.index(first) :]) if first else set()
    assert changed(config, override) == expected


def test_other_data_is_noticed(config: rayclean.Config, tmp_path: Path) -> None:
    run = pipeline.open_run(config)
    before = pipeline.fingerprints(config, run)
    toy.write(tmp_path / "data", rows=61)
    assert pipeline.fingerprints(config, run)["load"] != before["load"]


def test_one_process_at_a_time(config: rayclean.Config) -> None:
    run = pipeline.open_run(config)
    with pipeline._locked(run), pytest.raises(ArtifactError, match="another rayclean"), pipeline._locked(run):
        pass


def test_a_verb_does_not_run_on_inputs_that_are_not_there(config: rayclean.Config) -> None:
    with pytest.raises(ArtifactError, match="rayclean load"):
        rayclean.detect(config)


def test_again_makes_what_follows_stale(config: rayclean.Config, ray_embedded: None) -> None:
    rayclean.load(config)
    run = pipeline.open_run(config)
    out = run.begin("predict", pipeline.fingerprints(config, run)["predict"])
    run.commit("predict", pipeline.fingerprints(config, run)["predict"], out, 0.0, {})
    assert {row.verb: row.state for row in pipeline.status(config)}["predict"] == "done"
    rayclean.load(config, again=True)
    assert {row.verb: row.state for row in pipeline.status(config)}["predict"] != "done"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json"):
        pipeline.resolved_config(str(tmp_path))
