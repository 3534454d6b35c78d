"""All six verbs on toy data, through the command line and through Python."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.run import Run
from rayclean.run_status import status
from rayclean.verb_fingerprints import fingerprints
from tests import toy


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    line = [sys.executable, "-m", "rayclean", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict]:
    """A whole run by the command line: what it printed, its config file and values."""
    folder = tmp_path_factory.mktemp("clean")
    values = toy.config(toy.write(folder / "data"), folder / "runs")
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    done = command("clean", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout, path, values


@pytest.fixture(scope="module")
def cleaned(printed: tuple[str, Path, dict], ray_embedded: None) -> tuple[Run, dict]:
    _, path, values = printed
    return Run(str(path.parent / "runs" / "toy")), values


def table(run: Run, *parts: str) -> dict[int, dict]:
    """Rows of all shards by example_id."""
    rows: dict[int, dict] = {}
    for shard in run.shards(*parts):
        for row in run.read_table(*parts, shard).to_pylist():
            assert row["example_id"] not in rows, "an id appears twice"
            rows[row["example_id"]] = row
    return rows


def test_command_line_from_config_to_report(printed: tuple[str, Path, dict], tmp_path: Path) -> None:
    output, path, values = printed
    assert "report" in output
    assert (path.parent / "runs" / "toy" / "report.html").exists()
    assert "complete" in command("status", str(path)).stdout
    stale = command("status", str(path), "detect.budget=3")
    assert "next: detect" in stale.stdout
    assert "detect.budget=3" in stale.stdout
    wrong = command("clean", str(path), "detect.budgt=3")
    assert wrong.returncode == 2
    assert "did you mean budget" in wrong.stderr
    other = tmp_path / "config.json"
    other.write_text(json.dumps({**values, "name": "other"}))
    missing = command("detect", str(other))
    assert missing.returncode == 2
    assert "rayclean load" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_every_id_appears_once_in_every_table(cleaned: tuple[Run, dict]) -> None:
    run, _ = cleaned
    examples = table(run, "load", "examples")
    for parts in (("predict", "predictions"), ("detect", "findings"), ("relabel", "labels")):
        assert table(run, *parts).keys() == examples.keys()
    assert not examples.keys() & table(run, "load", "test").keys()


def test_noise_falls_and_the_report_is_there(cleaned: tuple[Run, dict]) -> None:
    run, _ = cleaned
    metrics = run.read_json("metrics.json")
    assert metrics["noise"]["final"] < 0.6 * metrics["noise"]["given"]
    assert metrics["harm"] < 0.05
    assert metrics["detection"]["roc_auc"] > 0.9
    assert "<html" in run.read_text("report.html")


def test_only_suspects_change_and_only_to_candidates(cleaned: tuple[Run, dict]) -> None:
    run, _ = cleaned
    findings, labels = table(run, "detect", "findings"), table(run, "relabel", "labels")
    changed = {key for key, row in labels.items() if row["final_label"] != row["given_label"]}
    assert changed
    for key in changed:
        assert findings[key]["suspect"]
        assert labels[key]["final_label"] == findings[key]["suggested_label"]
        assert labels[key]["source"] == "changed"
    assert sum(row["suspect"] for row in findings.values()) <= 0.2 * len(findings)


def test_finished_verbs_are_reused_and_a_threshold_never_reruns_predict(cleaned: tuple[Run, dict]) -> None:
    run, values = cleaned
    config = rayclean.parse_config(values)
    assert [row.state for row in status(config)] == ["done"] * 6
    before = {verb: run.manifest(verb) for verb in ("load", "predict", "detect")}
    rayclean.clean(config)
    assert run.manifest("detect") == before["detect"]
    other = rayclean.parse_config(values, ["detect.budget=0.1"])
    states = {row.verb: row.state for row in status(other)}
    assert states == {
        "load": "done", "predict": "done", "detect": "stale", "relabel": "stale", "train": "stale", "evaluate": "stale",
    }  # fmt: skip
    assert fingerprints(other, run)["predict"] == fingerprints(config, run)["predict"]


def test_without_a_report_none_of_earlier_labels_stays(cleaned: tuple[Run, dict]) -> None:
    run, values = cleaned
    assert run.exists("report.html")
    quick = ["evaluate.compare=false"]  # no other networks: it is the files that count here
    rayclean.evaluate(rayclean.parse_config(values, [*quick, "evaluate.report=false"]))
    assert not run.exists("report.html")
    assert run.exists("metrics.json")
    rayclean.evaluate(rayclean.parse_config(values, quick))
    assert run.exists("report.html")


def test_revert_restores_the_given_labels_and_undo_takes_it_back(cleaned: tuple[Run, dict]) -> None:
    run, values = cleaned
    config = rayclean.parse_config(values)
    before = table(run, "relabel", "labels")
    result = rayclean.revert(config, everything=True)
    assert result["changed"] == 0
    assert all(row["final_label"] == row["given_label"] for row in table(run, "relabel", "labels").values())
    assert {row.verb: row.state for row in status(config)}["relabel"] == "done"
    assert {row.verb: row.state for row in status(config)}["train"] == "stale"
    rayclean.revert(config, everything=True, undo=True)
    assert {k: r["final_label"] for k, r in table(run, "relabel", "labels").items()} == {
        k: r["final_label"] for k, r in before.items()
    }


def test_truth_is_in_its_own_folder_only(cleaned: tuple[Run, dict]) -> None:
    run, _ = cleaned
    for path in Path(run.path()).rglob("*.parquet"):
        if "truth" not in path.parts:
            assert "true_label" not in pq.read_schema(path).names, path


@pytest.mark.slow
def test_result_does_not_depend_on_shards(cleaned: tuple[Run, dict], tmp_path: Path) -> None:
    """Other shards, other blocks, the same predictions, findings and labels."""
    run, values = cleaned
    values = {**values, "output": str(tmp_path), "dataset": {**values["dataset"], "rows_per_shard": 37}}
    config = rayclean.parse_config(values, ["evaluate.compare=false"])
    for verb in (rayclean.load, rayclean.predict, rayclean.detect, rayclean.relabel):
        other = verb(config)
    assert {k: r["final_label"] for k, r in table(other, "relabel", "labels").items()} == {
        k: r["final_label"] for k, r in table(run, "relabel", "labels").items()
    }
    ranks = {k: r["rank"] for k, r in table(run, "detect", "findings").items()}
    assert {k: r["rank"] for k, r in table(other, "detect", "findings").items()} == ranks
