"""relabel from finished load, predict and detect: every suspect decided once, replayed, reverted bit for bit."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from rayclean import schema
from rayclean.annotations import ANNOTATIONS
from rayclean.annotators.final_labels import revert_label_changes
from rayclean.config import Config, parse_config
from rayclean.errors import AnnotationError, ConfigError
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.schema import Label, LabelSet
from rayclean.tasks.classification import Classification
from rayclean.verbs import relabel, relabel_stage
from tests.annotators.hostile import serve_in_process, tokenizer_folder

Ints = npt.NDArray[np.int64]
TASK = Classification(
    Classification.Config(), LabelSet([Label(i, n, n) for i, n in enumerate(("BIZ", "SPO", "HATE"))])
)
ROWS, SUSPECTS, LOST = 90, 23, 5
"""Suspects are the rows n with n % 4 == 1; where n % 20 == 5 the truth is none of the two candidates."""


def config_of(folder: Path, annotator: dict[str, Any], **sections: Any) -> Config:
    words = {"BIZ": "b", "SPO": "s", "HATE": "po"} | sections.pop("words", {})
    dataset = {
        "path": "unread.parquet",
        "labels": sections.pop("names", ["BIZ", "SPO", "HATE"]),
        "words": words,
    }
    return parse_config(
        {"name": "run", "output": str(folder), "dataset": dataset, "annotator": annotator, **sections}
    )


def make(
    folder: Path, shards: int = 3, names: Sequence[str] = ("BIZ", "SPO", "HATE"), ids: Ints | None = None
) -> Run:
    """90 examples in three classes; every suspect is wrong, and the truth is suggested for all but each fifth
    of them. Of other names than three, or in another order, the first three classes keep their examples.
    """
    run = Run(str(folder / "run"))
    labels = LabelSet([Label(i, n, n) for i, n in enumerate(names)])
    run.write_text(labels.to_json(), "load", "labels.json")
    ids = np.arange(ROWS, dtype=np.int64) * 11 - 300 if ids is None else ids
    index = np.array([labels.index(name) for name in ("BIZ", "SPO", "HATE")], dtype=np.int32)
    truth = np.arange(ROWS, dtype=np.int32) % 3
    suspect = np.arange(ROWS) % 4 == 1
    given = np.where(suspect, (truth + 1) % 3, truth).astype(np.int32)
    suggested = np.where(np.arange(ROWS) % 5 == 0, (truth + 2) % 3, truth).astype(np.int32)
    rank = np.full(ROWS, -1)
    rank[suspect] = np.random.default_rng(0).permutation(suspect.sum())
    true, given, suggested = (index[column] for column in (truth, given, suggested))
    features = np.eye(3)[truth] + np.random.default_rng(1).normal(scale=0.1, size=(ROWS, 3))
    letters = np.array(["*b", "*s", "*p"])[truth]
    for number, rows in enumerate(np.array_split(np.arange(ROWS), shards)):
        part = f"part-{number:05d}.parquet"
        columns = [ids[rows], [f"row {r} {letters[r]}" for r in rows], given[rows], ["train"] * len(rows)]
        run.write_table(pa.table(columns, schema=schema.EXAMPLES), "load", "examples", part)
        run.write_table(pa.table([ids[rows], true[rows]], schema=schema.TRUTH), "load", "truth", part)
        vectors = [ids[rows], schema.list_column(features[rows].astype(np.float32))]
        run.write_table(pa.table(vectors, schema=schema.features(3)), "predict", "features", part)
        none, half = [None] * len(rows), np.full(len(rows), 0.5, np.float32)
        columns = [ids[rows], ids[rows], given[rows], suggested[rows], none, none, half, half, np.zeros(len(rows), np.float32), suspect[rows],
                   rank[rows], ["x"] * len(rows)]  # fmt: skip
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
    assert run.read_table("relabel", "annotations", "part-00-00000.parquet").schema.equals(ANNOTATIONS)
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
    assert not run.exists("relabel", "answers")
    kept = Folder(run.path("relabel", "queries", "annotator-00", "chunk-00000"))
    asked = [row for shard in kept.shards() for row in kept.read_table(shard).to_pylist()]
    assert {row["example_id"] for row in asked} == annotations.keys()
    assert all("text" not in row and len(row["demonstrations"]) == 7 for row in asked)
    deciders = {key: row["annotator"] for key, row in labels.items()}
    assert all(name == ("knn" if key in annotations else None) for key, name in deciders.items())
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
    metrics = do(config_of(tmp_path, options | {"max_queries": 12}), run)
    assert (metrics["asked"], metrics["unasked"], metrics["complete"]) == (12, SUSPECTS - 12, False)
    assert "raise annotator.max_queries" in metrics["go_on"]
    annotations = table(run, "relabel", "annotations")
    assert {row["rank"] for row in annotations.values() if row["decision"] == "unasked"} == set(
        range(12, SUSPECTS)
    )
    labels = table(run, "relabel", "labels")
    assert all(labels[key]["final_label"] == labels[key]["given_label"] for key, row in annotations.items()
               if row["decision"] == "unasked")  # fmt: skip
    metrics = do(config_of(tmp_path, options | {"max_queries": 100}), run, "more")
    assert (metrics["asked"], metrics["from_ledger"], metrics["complete"]) == (SUSPECTS - 12, 12, True)


def test_results_do_not_depend_on_shards_and_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for number, (shards, rows) in enumerate([(1, 2048), (5, 4)]):
        monkeypatch.setattr(relabel_stage, "ROWS_PER_CHUNK", rows)
        monkeypatch.setattr(relabel_stage, "ROWS_PER_GROUP", 5 * rows)
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
    one = revert_label_changes(run, TASK, example_ids=[changed[0]])
    assert one == {"reverted": 1, "changed": len(changed) - 1}
    after = table(run, "relabel", "labels")
    assert after[changed[0]]["source"] == "reverted"
    assert [key for key in before if before[key] != after[key]] == [changed[0]]
    assert revert_label_changes(run, TASK, example_ids=[changed[0]])["reverted"] == 0  # again: nothing more
    from_label = sum(before[key]["given_label"] == 2 for key in changed[1:])
    assert revert_label_changes(run, TASK, from_label="HATE")["reverted"] == from_label
    assert revert_label_changes(run, TASK, everything=True)["changed"] == 0
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
    assert revert_label_changes(run, TASK, everything=True, undo=True) == {
        "reverted": len(changed),
        "changed": len(changed),
    }
    assert content() == original
    assert len(list(Path(run.path("ledger", "reverts")).iterdir())) == 4  # a segment for each call
    with pytest.raises(ConfigError, match="say what to revert"):
        revert_label_changes(run, TASK)
    with pytest.raises(ConfigError, match="its label was not changed"):
        revert_label_changes(run, TASK, example_ids=[10**9])
    with pytest.raises(ConfigError, match="did you mean HATE"):
        revert_label_changes(run, TASK, to_label="HATR")


@pytest.mark.parametrize(
    ("form", "calibration"), [("label_words", "batch"), ("label_words", "none"), ("choice", "auto")]
)
@pytest.mark.parametrize("names", [("BIZ", "SPO", "HATE", "ART"), ("HATE", "BIZ", "SPO")])
def test_another_label_set_pays_for_no_answer_again(
    tmp_path: Path, form: str, calibration: str, names: tuple[str, ...]
) -> None:
    """One more class, or the classes in another order: every question is answered from the ledger, alike."""
    tokenizer = tokenizer_folder(tmp_path / "tokenizer")
    run = make(tmp_path / "first")
    sections = {"relabel": {"calibration": calibration, "demonstrations": 2}}
    with serve_in_process() as server:
        options = {
            "name": "openai",
            "base_url": server.url,
            "model": "tiny",
            "tokenizer": tokenizer,
            "form": form,
        }
        do(config_of(tmp_path, options, **sections), run)
        calls = server.calls().total()
        other = make(tmp_path / "second", names=names)
        shutil.copytree(run.path("ledger"), other.path("ledger"))
        words = {"ART": "art"} if "ART" in names else {}
        metrics = do(config_of(tmp_path, options, names=names, words=words, **sections), other, "g")
        assert server.calls().total() == calls
    assert (metrics["asked"], metrics["from_ledger"]) == (0, SUSPECTS)
    before, after = (
        {
            key: ("BIZ", "SPO", "HATE")[row["final_label"]]
            for key, row in table(run, "relabel", "labels").items()
        },
        {key: names[row["final_label"]] for key, row in table(other, "relabel", "labels").items()},
    )
    assert before == after


def test_annotators_in_order(tmp_path: Path) -> None:
    """What the first leaves undecided goes to the second, each with its own budget and price."""
    run, truth = make(tmp_path), {"truth_path": Run(str(tmp_path / "run")).path("load", "truth")}
    cheap = {
        "name": "simulated",
        "max_queries": 10,
        "tokens": 1,
        "price_prompt": 1.0,
        **truth,
        "accuracy": 1.0,
    }
    dear = {"name": "simulated", "seed": 1, "tokens": 7, "price_prompt": 100.0, **truth, "accuracy": 1.0}
    config = config_of(tmp_path, {"name": "knn"}, relabel={"annotators": [cheap, "knn", dear]})
    metrics = do(config, run)
    annotations = table(run, "relabel", "annotations")
    assert len(annotations) == SUSPECTS
    by_rank = sorted(annotations.values(), key=lambda row: row["rank"])
    assert [row["annotator"] for row in by_rank[:10]] == ["simulated"] * 10
    assert {row["annotator"] for row in by_rank[10:]} >= {"knn"}
    names = [each["name"] for each in metrics["annotators"]]
    assert names == ["simulated", "knn", "simulated"]
    asked = [each["asked"] for each in metrics["annotators"]]
    assert asked[:2] == [10, SUSPECTS - 10]
    assert asked[2] == sum(row["annotator"] == "simulated" for row in by_rank[10:])
    assert metrics["cost"] == pytest.approx((10 * 1.0 + asked[2] * 7 * 100.0) / 1e6)
    assert metrics["annotator"]["name"] == "simulated, then knn, then simulated"
    again = do(config, run, "again")
    # Another relabelling has every answer for nothing, and its whole budget for the next ten.
    assert (again["asked"], again["from_ledger"]) == (10, SUSPECTS - 10)


def test_reverts_follow_the_content(tmp_path: Path) -> None:
    """The data read anew in another order have other ids: the same changes stay reverted. Where the text or
    the label is another one, nothing is reverted.
    """
    truth = {"name": "simulated", "accuracy": 1.0}
    run = make(tmp_path / "a")
    do(config_of(tmp_path, {**truth, "truth_path": run.path("load", "truth")}), run)
    labels, true = table(run, "relabel", "labels"), truth_of(run)
    # Where the truth is lost the annotator guesses by the id, and so otherwise in the moved data.
    changed = [
        key for key, row in labels.items() if row["source"] == "changed" and row["final_label"] == true[key]
    ]
    revert_label_changes(run, TASK, example_ids=changed[:3])
    texts = {table(run, "load", "examples")[key]["text"] for key in changed[:3]}
    moved = make(tmp_path / "b", ids=np.arange(ROWS, dtype=np.int64)[::-1] * 7)
    shutil.copytree(run.path("ledger", "reverts"), moved.path("ledger", "reverts"))
    do(config_of(tmp_path, {**truth, "truth_path": moved.path("load", "truth")}), moved)
    examples = table(moved, "load", "examples")
    reverted = [key for key, row in table(moved, "relabel", "labels").items() if row["source"] == "reverted"]
    assert {examples[key]["text"] for key in reverted} == texts


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
