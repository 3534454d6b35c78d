"""relabel from finished load, predict and detect: every suspect decided once, replayed, reverted bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean import schema
from rayclean.annotations import ANNOTATIONS
from rayclean.annotators.final_labels import revert_changes
from rayclean.config import Config, parse_config
from rayclean.errors import AnnotationError, ConfigError
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.schema import Label, LabelSet
from rayclean.verbs import relabel
from tests.annotators.hostile import serve_in_process, tokenizer_folder

ROWS, SUSPECTS, LOST = 90, 23, 5
"""Suspects are the rows n with n % 4 == 1; where n % 20 == 5 the truth is none of the two candidates."""


def config_of(folder: Path, annotator: dict[str, Any], **sections: Any) -> Config:
    dataset = {
        "path": "unread.parquet",
        "labels": ["BIZ", "SPO", "HATE"],
        "words": {"BIZ": "b", "SPO": "s", "HATE": "po"},
    }
    return parse_config(
        {"name": "run", "output": str(folder), "dataset": dataset, "annotator": annotator, **sections}
    )


def make(folder: Path, shards: int = 3) -> Run:
    """90 examples in three classes; every suspect is wrong, and the truth is suggested for all but each fifth of them."""
    run = Run(str(folder / "run"))
    run.write_text(
        LabelSet([Label(i, n, n) for i, n in enumerate(["BIZ", "SPO", "HATE"])]).to_json(),
        "load",
        "labels.json",
    )
    ids = np.arange(ROWS, dtype=np.int64) * 11 - 300
    truth = np.arange(ROWS, dtype=np.int32) % 3
    suspect = np.arange(ROWS) % 4 == 1
    given = np.where(suspect, (truth + 1) % 3, truth).astype(np.int32)
    suggested = np.where(np.arange(ROWS) % 5 == 0, (truth + 2) % 3, truth).astype(np.int32)
    rank = np.full(ROWS, -1)
    rank[suspect] = np.random.default_rng(0).permutation(suspect.sum())
    features = np.eye(3)[truth] + np.random.default_rng(1).normal(scale=0.1, size=(ROWS, 3))
    letters = np.array(["*b", "*s", "*p"])[truth]
    for number, rows in enumerate(np.array_split(np.arange(ROWS), shards)):
        part = f"part-{number:05d}.parquet"
        columns = [ids[rows], [f"row {r} {letters[r]}" for r in rows], given[rows], ["train"] * len(rows)]
        run.write_table(pa.table(columns, schema=schema.EXAMPLES), "load", "examples", part)
        run.write_table(pa.table([ids[rows], truth[rows]], schema=schema.TRUTH), "load", "truth", part)
        vectors = [ids[rows], schema.list_column(features[rows].astype(np.float32))]
        run.write_table(pa.table(vectors, schema=schema.features(3)), "predict", "features", part)
        columns = [ids[rows], given[rows], suggested[rows], np.zeros(len(rows), np.float32), suspect[rows], rank[rows],
                   ["x"] * len(rows)]  # fmt: skip
        run.write_table(pa.table(columns, schema=schema.findings([])), "detect", "findings", part)
    for verb in ("load", "predict", "detect"):
        run.write_json(
            {"verb": verb, "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": {}},
            verb,
            "manifest.json",
        )
    return run


def do(config: Config, run: Run, print_: str = "f", engines: Engines = IN_PROCESS) -> dict[str, Any]:
    relabel.validate(config, run)
    out = run.begin("relabel", print_)
    metrics = relabel.run(config, run, out, engines)
    run.commit("relabel", print_, out, 0.0, metrics)
    json.dumps(metrics, allow_nan=False)
    return metrics


def table(run: Run, *parts: str) -> dict[int, dict[str, Any]]:
    rows = [row for shard in run.shards(*parts) for row in run.read_table(*parts, shard).to_pylist()]
    assert len({row["example_id"] for row in rows}) == len(rows)
    return {row["example_id"]: row for row in rows}


def truth_of(run: Run) -> dict[int, int]:
    return {key: row["true_label"] for key, row in table(run, "load", "truth").items()}


def test_knn_repairs_labels(tmp_path: Path) -> None:
    run = make(tmp_path)
    metrics = do(config_of(tmp_path, {"name": "knn", "neighbours": 7}), run)
    annotations, labels, truth = (
        table(run, "relabel", "annotations"),
        table(run, "relabel", "labels"),
        truth_of(run),
    )
    examples = table(run, "load", "examples")
    assert labels.keys() == examples.keys()
    assert run.shards("relabel", "labels") == run.shards("load", "examples")
    assert run.read_table("relabel", "annotations", "part-00000.parquet").schema.equals(ANNOTATIONS)
    assert [row["rank"] for row in annotations.values()] == list(range(SUSPECTS))
    for key, row in labels.items():
        assert row["given_label"] == examples[key]["given_label"]
        if key not in annotations:
            assert (row["source"], row["final_label"], row["confidence"]) == (
                "given",
                row["given_label"],
                None,
            )
        elif truth[key] in annotations[key]["candidates"]:
            assert (row["source"], row["final_label"]) == ("changed", truth[key])
            assert row["confidence"] > 0.5
    assert metrics["suspects"] == metrics["asked"] == SUSPECTS
    assert (metrics["complete"], metrics["go_on"], metrics["errors"]) == (True, None, {})
    assert sum(metrics["labels"].values()) == ROWS
    assert not run.exists("relabel", "queries")
    again = do(
        config_of(tmp_path, {"name": "knn", "neighbours": 7}, relabel={"accept": 0.99}),
        run,
        "other threshold",
    )
    assert (again["asked"], again["from_ledger"], again["changed"]) == (0, SUSPECTS, 0)
    assert again["abstained"] >= metrics["changed"]


@pytest.mark.parametrize(
    ("form", "calibration"),
    [
        ("label_words", "batch"),
        ("label_words", "auto"),
        ("label_words", "content_free"),
        ("choice", "auto"),
        ("choice", "content_free"),
    ],
)
def test_an_endpoint_repairs_labels(tmp_path: Path, form: str, calibration: str) -> None:
    run = make(tmp_path)
    tokenizer = tokenizer_folder(tmp_path / "tokenizer")
    with serve_in_process() as server:
        options = {
            "name": "openai",
            "base_url": server.url,
            "model": "tiny",
            "tokenizer": tokenizer,
            "form": form,
        }
        sections = {"relabel": {"calibration": calibration, "demonstrations": 2}}
        metrics = do(config_of(tmp_path, options, **sections), run)
        calls = server.calls().total()
        assert metrics["errors"] == {}
        repeated = do(
            config_of(tmp_path, options, relabel={**sections["relabel"], "accept": 0.6}), run, "another"
        )
        assert server.calls().total() == calls  # all in the ledger
    assert repeated["from_ledger"] == SUSPECTS
    truth, annotations = truth_of(run), table(run, "relabel", "annotations")
    possible = [
        row
        for key, row in annotations.items()
        if truth[key] in row["candidates"] and 2 not in row["candidates"]
    ]
    assert possible
    assert all(row["chosen_label"] == truth[row["example_id"]] for row in possible)
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-5 for row in annotations.values())
    blanks = {"auto": 0, "batch": 0, "content_free": 1 if form == "label_words" else 3}[calibration]
    assert metrics["asked"] == SUSPECTS + blanks
    assert metrics["tokens"]["prompt"] > 0
    assert metrics["annotator"] == {"name": "openai", "model": "tiny"}


def test_a_budget_leaves_the_least_doubtful_unasked_and_goes_on(tmp_path: Path) -> None:
    run = make(tmp_path)
    options = {"name": "simulated", "truth_path": run.path("load", "truth"), "accuracy": 1.0, "tokens": 5}
    metrics = do(config_of(tmp_path, options, relabel={"max_queries": 12}), run)
    assert (metrics["asked"], metrics["unasked"], metrics["complete"]) == (12, SUSPECTS - 12, False)
    assert "raise relabel.max_queries" in metrics["go_on"]
    annotations = table(run, "relabel", "annotations")
    assert {row["rank"] for row in annotations.values() if row["decision"] == "unasked"} == set(
        range(12, SUSPECTS)
    )
    labels = table(run, "relabel", "labels")
    assert all(labels[key]["final_label"] == labels[key]["given_label"] for key, row in annotations.items()
               if row["decision"] == "unasked")  # fmt: skip
    metrics = do(config_of(tmp_path, options, relabel={"max_queries": 100}), run, "more")
    assert (metrics["asked"], metrics["from_ledger"], metrics["complete"]) == (SUSPECTS - 12, 12, True)


def test_results_do_not_depend_on_shards_and_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for number, (shards, rows) in enumerate([(1, 2048), (5, 4)]):
        monkeypatch.setattr(relabel, "ROWS_PER_CHUNK", rows)
        monkeypatch.setattr(relabel, "ROWS_PER_GROUP", 5 * rows)
        run = make(tmp_path / str(number), shards)
        do(config_of(tmp_path / str(number), {"name": "knn"}), run)
        results.append({key: row["final_label"] for key, row in table(run, "relabel", "labels").items()})
    assert results[0] == results[1]


def test_errors_keep_the_given_label_and_too_many_stop(tmp_path: Path, on_ray: Engines) -> None:
    """On Ray: the annotator's errors come from the process that asks as they were there."""
    run = make(tmp_path)
    tokenizer = tokenizer_folder(tmp_path / "tokenizer")

    def every(step: int):
        def fault(prompt: str, before: int) -> str | None:
            if "capital of France" in prompt:
                return None
            return "client" if int(prompt.rsplit("row ", 1)[1].split(" ")[0]) % step == 1 else None

        return fault

    options = {"name": "openai", "model": "tiny", "tokenizer": tokenizer}
    with serve_in_process(every(4)) as server, pytest.raises(AnnotationError, match="client"):
        do(config_of(tmp_path, {**options, "base_url": server.url}), run, engines=on_ray)  # all suspects fail
    with serve_in_process(every(40)) as server:
        metrics = do(
            config_of(tmp_path, {**options, "base_url": server.url}, relabel={"max_error_rate": 0.5}),
            run,
            "g",
            on_ray,
        )
    assert metrics["errors"] == {"client": 3}
    assert metrics["error"] == 3
    assert "3 queries failed" in metrics["go_on"]
    failed = [row for row in table(run, "relabel", "labels").values() if row["source"] == "error"]
    assert len(failed) == 3
    assert all(row["final_label"] == row["given_label"] for row in failed)


def test_revert_restores_the_given_labels_bit_for_bit(tmp_path: Path) -> None:
    run = make(tmp_path)
    config = config_of(
        tmp_path, {"name": "simulated", "truth_path": run.path("load", "truth"), "accuracy": 1.0}
    )
    do(config, run)

    def content() -> list[bytes]:
        names = run.shards("relabel", "labels")
        return [Path(run.path("relabel", "labels", name)).read_bytes() for name in names]

    original, before = content(), table(run, "relabel", "labels")
    changed = [key for key, row in before.items() if row["source"] == "changed"]
    assert SUSPECTS - LOST <= len(changed) <= SUSPECTS  # where the truth is lost, it guesses
    one = revert_changes(run, example_ids=[changed[0]])
    assert one == {"reverted": 1, "changed": len(changed) - 1}
    after = table(run, "relabel", "labels")
    assert after[changed[0]]["source"] == "reverted"
    assert [key for key in before if before[key] != after[key]] == [changed[0]]
    assert revert_changes(run, example_ids=[changed[0]])["reverted"] == 0  # again: nothing more
    from_label = sum(before[key]["given_label"] == 2 for key in changed[1:])
    assert revert_changes(run, from_label="HATE")["reverted"] == from_label
    assert revert_changes(run, everything=True)["changed"] == 0
    for row in table(run, "relabel", "labels").values():
        assert row["final_label"] == row["given_label"]
    given = [
        run.read_table("load", "examples", s)["given_label"].combine_chunks().buffers()[1].to_pybytes()
        for s in run.shards("load", "examples")
    ]
    final = [
        run.read_table("relabel", "labels", s)["final_label"].combine_chunks().buffers()[1].to_pybytes()
        for s in run.shards("relabel", "labels")
    ]
    assert final == given
    redone = do(config, run, "again")  # another relabelling keeps what was reverted
    assert (redone["reverted"], redone["labels"]["changed"]) == (len(changed), 0)
    assert revert_changes(run, everything=True, undo=True) == {
        "reverted": len(changed),
        "changed": len(changed),
    }
    assert content() == original
    assert len(run.read_text("ledger", "reverts.jsonl").splitlines()) == 4  # append-only
    with pytest.raises(ConfigError, match="say what to revert"):
        revert_changes(run)
    with pytest.raises(ConfigError, match="its label was not changed"):
        revert_changes(run, example_ids=[10**9])
    with pytest.raises(ConfigError, match="did you mean HATE"):
        revert_changes(run, to_label="HATR")


def test_no_suspects(tmp_path: Path) -> None:
    run = make(tmp_path)
    for shard in run.shards("detect", "findings"):
        found = run.read_table("detect", "findings", shard)
        none = pa.array(np.zeros(len(found), dtype=bool))
        run.write_table(
            found.set_column(found.schema.get_field_index("suspect"), "suspect", none),
            "detect",
            "findings",
            shard,
        )
    metrics = do(
        config_of(tmp_path, {"name": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "x"}), run
    )
    assert (metrics["suspects"], metrics["asked"], metrics["complete"]) == (0, 0, True)
    assert {row["source"] for row in table(run, "relabel", "labels").values()} == {"given"}


def test_a_crash_resumes_and_pays_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path)
    with serve_in_process() as server:
        options = {
            "name": "openai",
            "base_url": server.url,
            "model": "tiny",
            "form": "choice",
            "constraint": "json_schema",
        }
        config = config_of(tmp_path, options)
        with monkeypatch.context() as patch:
            patch.setattr(relabel, "write_labels", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                do(config, run)
        calls = server.calls()
        metrics = do(config, run)
        assert server.calls() == calls
    assert metrics["asked"] == SUSPECTS  # by this relabelling, over both attempts
    assert metrics["from_ledger"] == 0


def test_validate_refuses_before_any_work(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "run"))
    given = {"predict": {"mode": "given", "path": "p.parquet"}}
    relabel.validate(
        config_of(tmp_path, {"name": "knn"}, **given), run
    )  # predict writes features in this mode, too
    with pytest.raises(ConfigError, match="base_url is required"):
        relabel.validate(config_of(tmp_path, {"name": "openai", "model": "m"}), run)
    with pytest.raises(ConfigError, match="truth_path"):
        relabel.validate(config_of(tmp_path, {"name": "simulated", "truth_path": "/nowhere"}), run)
