"""relabel from finished load, predict and detect: every suspect decided once, replayed, reverted bit for bit."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from rayclean import schema
from rayclean.annotations import ANNOTATIONS
from rayclean.annotators import query_builder
from rayclean.annotators.answers import answer_rows
from rayclean.annotators.base import Annotator
from rayclean.annotators.choices import Measured
from rayclean.annotators.model_server import ModelServer, ServerOptions
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.revert_changes import revert_label_changes
from rayclean.annotators.simulated import SimulatedAnnotator
from rayclean.config import Config, parse_config
from rayclean.errors import AnnotationError, ConfigError
from rayclean.folder import Folder
from rayclean.functional.worth import LEAST_CONTROLS, Worth
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.schema import Label, LabelSet
from rayclean.tasks.classification import Classification
from rayclean.verbs import relabel, relabel_chunks, relabel_stage
from tests.annotators.hostile import serve_in_process, tokenizer_folder

Ints = npt.NDArray[np.int64]
TASK = Classification(
    Classification.Config(), LabelSet([Label(i, n, n) for i, n in enumerate(("BIZ", "SPO", "HATE"))])
)
ROWS, SUSPECTS, LOST, CONTROLS = 90, 23, 5, 60
"""Suspects are the rows n with n % 4 == 1; where n % 20 == 5 the truth is none of the two candidates. Controls are the
first 60 of the others, whose given labels are right.
"""


def config_of(folder: Path, annotator: dict[str, Any], **sections: Any) -> Config:
    names, usual = sections.pop("names", ("BIZ", "SPO", "HATE")), {"BIZ": "b", "SPO": "s", "HATE": "po"}
    words = {name: word for name, word in usual.items() if name in names} | sections.pop("words", {})
    dataset = {"path": "unread.parquet", "labels": list(names), "words": words}
    return parse_config(
        {"name": "run", "output": str(folder), "dataset": dataset, "annotator": annotator, **sections}
    )


def make(
    folder: Path,
    shards: int = 3,
    names: Sequence[str] = ("BIZ", "SPO", "HATE"),
    ids: Ints | None = None,
    believed: Sequence[float] = (0.6,),
) -> Run:
    """90 examples in three classes; every suspect is wrong, and the truth is suggested for all but each fifth
    of them. Of other names than three, or in another order, the first three classes keep their examples.
    `believed` are the probabilities of suggestions, given that they or the given labels are right, in turn by rank;
    with the default one the model alone changes nothing.
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
    suggested = np.where(suspect, suggested, (truth + 1) % 3).astype(np.int32)
    rank, control = np.full(ROWS, -1), np.full(ROWS, -1)
    rank[suspect] = np.random.default_rng(0).permutation(suspect.sum())
    control[~suspect] = np.arange((~suspect).sum())
    control[control >= CONTROLS] = -1
    belief = np.where(suspect, np.resize(believed, SUSPECTS)[rank], 0.1).astype(np.float32)
    true, given, suggested = (index[column] for column in (truth, given, suggested))
    features = np.eye(3)[truth] + np.random.default_rng(1).normal(scale=0.1, size=(ROWS, 3))
    letters = np.array(["*b", "*s", "*po"])[truth]
    for number, rows in enumerate(np.array_split(np.arange(ROWS), shards)):
        part = f"part-{number:05d}.parquet"
        columns = [ids[rows], [f"row {r} {letters[r]}" for r in rows], given[rows], ["train"] * len(rows)]
        run.write_table(pa.table(columns, schema=schema.EXAMPLES), "load", "examples", part)
        run.write_table(pa.table([ids[rows], true[rows]], schema=schema.TRUTH), "load", "truth", part)
        vectors = [ids[rows], schema.list_column(features[rows].astype(np.float32))]
        run.write_table(pa.table(vectors, schema=schema.features(3)), "predict", "features", part)
        none, zero = [None] * len(rows), np.zeros(len(rows), np.float32)
        columns = [ids[rows], ids[rows], given[rows], suggested[rows], none, none, 1 - belief[rows], belief[rows], zero,
                   suspect[rows], rank[rows], control[rows], ["x"] * len(rows)]  # fmt: skip
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


def rows_in(folder: Folder) -> list[dict[str, Any]]:
    return [row for shard in folder.shards() for row in folder.read_table(shard).to_pylist()]


def simulated(run: Run, accuracy: float = 1.0, **options: Any) -> dict[str, Any]:
    return {"name": "simulated", "truth_path": run.path("load", "truth"), "accuracy": accuracy, **options}


def test_answers_repair_labels(tmp_path: Path) -> None:
    run = make(tmp_path)
    sections = {"relabel": {"demonstrations": 7}}
    metrics = do(config_of(tmp_path, simulated(run), **sections), run)
    annotations, labels, truth = (
        table(run, "relabel", "annotations"),
        table(run, "relabel", "labels"),
        truth_of(run),
    )
    examples, findings = table(run, "load", "examples"), table(run, "detect", "findings")
    assert labels.keys() == examples.keys()
    assert run.shards("relabel", "labels") == run.shards("load", "examples")
    assert run.read_table("relabel", "annotations", "part-00-00000.parquet").schema.equals(ANNOTATIONS)
    assert [row["rank"] for row in annotations.values()] == list(range(SUSPECTS))
    for key, row in labels.items():
        assert row["given_label"] == examples[key]["given_label"]
        if key not in annotations:  # control questions are no suspects
            assert (row["source"], row["final_label"], row["confidence"]) == (
                "given",
                row["given_label"],
                None,
            )
        elif truth[key] in annotations[key]["candidates"]:
            assert (row["source"], row["final_label"]) == ("changed", truth[key])
            assert row["confidence"] > 0.9
            assert annotations[key]["log_odds"] == pytest.approx(np.log(0.6 / 0.4), abs=1e-5)
    assert (metrics["suspects"], metrics["asked"]) == (SUSPECTS, SUSPECTS + CONTROLS)
    assert metrics["answered"] == metrics["changed"] + metrics["kept"] == SUSPECTS
    assert (metrics["complete"], metrics["go_on"], metrics["errors"]) == (True, None, {})
    assert sum(metrics["labels"].values()) == ROWS
    (judged,) = metrics["judged"]
    assert (judged["name"], judged["decided_by"], judged["above_chance"]) == ("simulated", "open", True)
    assert judged["controls"] == {"asked": CONTROLS, "right": CONTROLS}
    measured = Measured.from_json(run.manifest("relabel").metrics["judged"][0], 3)  # type: ignore[union-attr]
    assert (measured.worth.lower, measured.asked) == (judged["accuracy"], CONTROLS)
    assert measured.bias.tolist() == [0, 0, 0]  # a simulated annotator has none
    assert not run.exists("relabel", "answers")
    asked = {
        row["example_id"]: row
        for row in rows_in(Folder(run.path("relabel", "queries", "annotator-00", "chunk-00000")))
    }
    controls = {key for key, row in asked.items() if row["rank"] < 0}
    assert asked.keys() - controls == annotations.keys()
    assert controls == {key for key, row in findings.items() if row["control"] >= 0}
    for key, row in asked.items():
        shown = {each["example_id"] for each in row["demonstrations"]}
        assert ("text" in row, len(shown)) == (False, 7)
        assert not shown & (annotations.keys() | {key})  # a control question does not show its own label
    deciders = {key: row["annotator"] for key, row in labels.items()}
    assert all(name == ("simulated" if key in annotations else None) for key, name in deciders.items())


def test_beyond_the_suspects_an_annotator_is_asked_and_no_label_changes(tmp_path: Path) -> None:
    run = make(tmp_path)
    plain = do(config_of(tmp_path, simulated(run)), run)
    labels = rows_in(run.sub("relabel", "labels"))
    metrics = do(config_of(tmp_path, simulated(run), relabel={"beyond": 5}), run, "beyond")
    assert metrics["asked"] == 5  # the others are in the ledger
    assert metrics["suspects"] == plain["suspects"] == SUSPECTS
    assert rows_in(run.sub("relabel", "labels")) == labels
    asked = rows_in(run.sub("relabel", "beyond"))
    findings = {row["unit_id"]: row for row in rows_in(run.sub("detect", "findings"))}
    assert len(asked) == 5
    for row in asked:
        found = findings[row["unit_id"]]
        assert (found["suspect"], found["control"]) == (False, -1)
        assert row["chosen_label"] == row["given_label"]  # it knows the truth, and these labels are right
        assert (row["vote"], row["annotator"]) == (False, "simulated")
        assert row["quality"] == 1 - row["probability"] > 0.5
    (judged,) = metrics["judged"]
    assert (judged["beyond"]["asked"], judged["beyond"]["denied"]) == (5, 0)
    assert judged["beyond"]["wrong"]["low"] == judged["beyond"]["wrong"]["value"] == 0
    again = do(config_of(tmp_path, simulated(run), relabel={"beyond": 5}), make(tmp_path, shards=5), "shards")
    assert again["judged"] == metrics["judged"]


def test_llm_disagreement_is_a_vote_and_a_quality(tmp_path: Path) -> None:
    run = make(tmp_path)
    (judged,) = do(config_of(tmp_path, simulated(run, 0.0), relabel={"beyond": 5}), run)["judged"]
    asked = rows_in(run.sub("relabel", "beyond"))
    assert [row["vote"] for row in asked] == [True] * judged["beyond"]["denied"] == [True] * 5
    assert [row["quality"] for row in asked] == sorted(row["quality"] for row in asked)


@pytest.mark.parametrize("calibration", ["auto", "controls"])
def test_another_acceptance_or_calibration_sends_no_query(tmp_path: Path, calibration: str) -> None:
    run = make(tmp_path)
    metrics = do(config_of(tmp_path, simulated(run)), run)
    again = do(
        config_of(tmp_path, simulated(run), relabel={"accept": 0.99, "calibration": calibration}),
        run,
        "stricter",
    )
    assert (again["asked"], again["from_ledger"], again["changed"]) == (0, SUSPECTS, 0)
    assert again["referred"] >= metrics["changed"]
    assert again["judged"][0]["controls"] == metrics["judged"][0]["controls"]
    fewer = do(config_of(tmp_path, simulated(run), relabel={"controls": 40, "accept": 0.5}), run, "fewer")
    assert (fewer["asked"], fewer["judged"][0]["controls"]["asked"]) == (
        0,
        40,
    )  # they are the first of the others
    assert fewer["changed"] >= metrics["changed"]
    none = do(config_of(tmp_path, simulated(run), relabel={"controls": 0}), run, "none")
    assert (none["asked"], none["from_ledger"], none["changed"]) == (0, 0, 0)  # no answer could count
    assert none["judged"][0]["decided_by"] == "posterior_alone"


BELIEVED = (0.9, 0.55, 0.6, 0.87)
"""Half of the suggestions are sure enough for the model alone."""
LEAST_ODDS = 1.8
"""Just above the log-odds that the model alone needs."""


def test_who_is_no_better_than_the_model_changes_nothing_that_it_would_not(tmp_path: Path) -> None:
    """Not the neighbours, which are no second opinion; not one that guesses; and not one that is wrong."""
    finals = {}
    run = make(tmp_path, believed=BELIEVED)
    annotators = {
        "nobody": {"name": "posterior"},
        "neighbours": {"name": "knn", "neighbours": 7},
        "coin": simulated(run, 0.5),
        "liar": simulated(run, 0.0),
    }
    for name, options in annotators.items():
        metrics = do(config_of(tmp_path, options), run, name)
        (judged,) = metrics["judged"]
        assert (judged["decided_by"], judged["above_chance"]) == ("posterior_alone", False)
        assert judged["controls"]["asked"] == (CONTROLS if name in ("coin", "liar") else 0)
        asked = {"nobody": 0, "neighbours": 0}.get(name, SUSPECTS + CONTROLS)
        assert (metrics["asked"], metrics["complete"]) == (asked, True)
        finals[name] = {key: row["final_label"] for key, row in table(run, "relabel", "labels").items()}
        for row in table(run, "relabel", "annotations").values():
            assert (row["decision"] == "changed") == (row["log_odds"] > LEAST_ODDS)
            assert row["decision"] in ("changed", "referred", "abstained")
            assert row["annotator"] == options["name"]
    assert all(final == finals["nobody"] for final in finals.values())
    given = {key: row["given_label"] for key, row in table(run, "load", "examples").items()}
    assert sum(finals["nobody"][key] != given[key] for key in given) == metrics["changed"] > SUSPECTS // 3


def test_an_annotator_right_nine_times_of_ten_keeps_most_repairs(tmp_path: Path) -> None:
    run = make(tmp_path)
    metrics = do(config_of(tmp_path, simulated(run, 0.9)), run)
    labels, truth = table(run, "relabel", "labels"), truth_of(run)
    annotations = table(run, "relabel", "annotations")
    repaired = [
        key for key, row in labels.items() if row["source"] == "changed" and row["final_label"] == truth[key]
    ]
    assert metrics["judged"][0]["decided_by"] == "open"
    assert 0.75 < metrics["judged"][0]["accuracy"] < 0.95
    assert len(repaired) >= 0.7 * (SUSPECTS - LOST)
    assert all(annotations[key]["chosen_label"] == truth[key] for key in repaired)


@pytest.mark.parametrize(
    ("form", "calibration"),
    [
        ("label_words", "controls"),
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
    possible = [row for key, row in annotations.items() if truth[key] in row["candidates"]]
    assert len(possible) == SUSPECTS - LOST
    assert all(row["chosen_label"] == truth[row["example_id"]] for row in possible)
    assert all(row["decision"] == "changed" for row in possible)
    assert metrics["judged"][0]["controls"] == {"asked": CONTROLS, "right": CONTROLS}
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-5 for row in annotations.values())
    blanks = {"auto": 0, "controls": 0, "content_free": 1 if form == "label_words" else 3}[calibration]
    assert metrics["asked"] == SUSPECTS + CONTROLS + blanks
    assert metrics["tokens"]["prompt"] > 0
    assert metrics["annotator"] == {"name": "openai", "model": "tiny"}


@pytest.mark.parametrize("selector", ["nearest", "random"])
def test_by_default_label_words_come_with_two_demonstrations_of_each_candidate(
    tmp_path: Path, selector: str
) -> None:
    run = make(tmp_path)
    with serve_in_process() as server:
        options = {
            "name": "openai", "base_url": server.url, "model": "tiny", "tokenizer": tokenizer_folder(tmp_path / "tokenizer"),
        }  # fmt: skip
        do(config_of(tmp_path, options, relabel={"selector": selector}), run)
    given = {key: row["given_label"] for key, row in table(run, "load", "examples").items()}
    for row in rows_in(Folder(run.path("relabel", "queries", "annotator-00", "chunk-00000"))):
        labels = [each["label"] for each in row["demonstrations"]]
        assert labels == [given[each["example_id"]] for each in row["demonstrations"]]
        assert set(labels) <= set(row["candidates"])
        assert sorted(labels) == sorted([*row["candidates"]] * 2)


class RepeatingAnnotator(Annotator):
    """Answers what the query calls the given label."""

    class Config(Annotator.Config):
        shown: bool

    billable = False

    @property
    def shows_given(self) -> bool:
        return bool(self.config.shown)

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        return [
            Annotation(
                key=self.key(each), unit_id=each.unit_id, choice=each.candidates.index(each.given),
                scores=tuple(0.0 if one == each.given else -2.0 for one in each.candidates), model="repeating",
            )
            for each in queries
        ]  # fmt: skip


@pytest.mark.parametrize("shows_given", [False, True])
def test_whoever_repeats_the_given_label_is_no_better_than_chance(tmp_path: Path, shows_given: bool) -> None:
    """Control questions name the given label as such in half of the cases, and its rival in the others."""
    run = make(tmp_path)
    config = config_of(
        tmp_path, {"name": "tests.verbs.test_relabel:RepeatingAnnotator", "shown": shows_given}
    )
    metrics = do(config, run)
    (judged,) = metrics["judged"]
    assert judged["controls"]["asked"] == CONTROLS
    if shows_given:
        assert 0.3 * CONTROLS < judged["controls"]["right"] < 0.7 * CONTROLS
        assert not judged["above_chance"]
    else:
        assert judged["controls"]["right"] == CONTROLS
    assert metrics["kept"] + metrics["referred"] == SUSPECTS


def test_neighbours_that_vote_are_the_nearest_whatever_their_label(tmp_path: Path) -> None:
    run = make(tmp_path)
    do(config_of(tmp_path, {"name": "knn", "neighbours": 40}, relabel={"ask_all": True}), run)
    rows = rows_in(Folder(run.path("relabel", "queries", "annotator-00", "chunk-00000")))
    assert any({each["label"] for each in row["demonstrations"]} - {*row["candidates"]} for row in rows)
    assert all(len(row["demonstrations"]) == 40 for row in rows)
    findings = table(run, "detect", "findings")
    voters = [each for row in rows for each in row["demonstrations"]]
    assert any(findings[each["example_id"]]["suspect"] for each in voters)
    for each in voters:
        assert each["probability"] == findings[each["example_id"]]["given_probability"]


def test_a_larger_budget_is_no_advice_where_the_annotator_is_not_believed(tmp_path: Path) -> None:
    run = make(tmp_path)
    metrics = do(config_of(tmp_path, simulated(run, 0.0) | {"max_queries": 24}), run)
    (judged,) = metrics["judged"]
    assert (judged["above_chance"], metrics["complete"]) == (False, False)
    said, counts = metrics["go_on"], {"unasked": 11, "error": 0}
    assert f"simulated was right on {judged['controls']['right']} of 12 control questions" in said
    assert "another annotator" in said
    assert "`rayclean audit`" in said
    assert "raise" not in said
    perhaps_good = judged | {"controls": {"asked": 12, "right": 9}}
    assert "or, if you know that it is good, raise its budget" in str(
        relabel._advice(counts, SUSPECTS, True, perhaps_good, 150)
    )
    good = perhaps_good | {"above_chance": True}
    assert "raise annotator.max_queries" in str(relabel._advice(counts, SUSPECTS, True, good, 150))


def test_a_budget_leaves_the_least_doubtful_unasked_and_goes_on(tmp_path: Path) -> None:
    run = make(tmp_path)
    options = simulated(run, tokens=5)
    metrics = do(config_of(tmp_path, options | {"max_queries": 24}), run)
    assert (metrics["asked"], metrics["unasked"], metrics["complete"]) == (
        24,
        SUSPECTS - 12,
        False,
    )
    assert metrics["judged"][0]["controls"]["asked"] == 12  # which are asked first, with half of the budget
    assert "raise annotator.max_queries" in metrics["go_on"]
    annotations = table(run, "relabel", "annotations")
    assert {row["rank"] for row in annotations.values() if row["decision"] == "unasked"} == set(
        range(12, SUSPECTS)
    )
    labels = table(run, "relabel", "labels")
    assert all(labels[key]["final_label"] == labels[key]["given_label"] for key, row in annotations.items()
               if row["decision"] == "unasked")  # fmt: skip
    metrics = do(config_of(tmp_path, options | {"max_queries": 100}), run, "more")
    assert (metrics["asked"], metrics["from_ledger"], metrics["complete"]) == (
        CONTROLS - 12 + SUSPECTS - 12,
        12,
        True,
    )


@pytest.mark.parametrize(
    "limit",
    [{"max_queries": 10}, {"max_tokens": 50}, {"max_cost": 50e-6, "price_prompt": 1.0, "currency": "USD"}],
)
def test_a_small_budget_is_for_controls_and_suspects_alike(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: dict[str, Any]
) -> None:
    run = make(tmp_path, believed=BELIEVED)
    metrics = do(config_of(tmp_path, simulated(run, tokens=5, concurrency=1, **limit)), run)
    (judged,) = metrics["judged"]
    assert (metrics["asked"], judged["controls"]["asked"], metrics["answered"]) == (10, 5, 5)
    assert metrics["complete"] is False
    assert ("max_queries allows 5 of 150 control questions" in caplog.text) == ("max_queries" in limit)
    metrics = do(config_of(tmp_path, simulated(run, tokens=5)), run, "more")
    assert (metrics["asked"], metrics["complete"]) == (CONTROLS + SUSPECTS - 10, True)


def test_control_questions_take_what_the_suspects_leave(tmp_path: Path) -> None:
    run = make(tmp_path)
    metrics = do(config_of(tmp_path, simulated(run, max_queries=CONTROLS + SUSPECTS)), run)
    assert metrics["judged"][0]["controls"]["asked"] == CONTROLS
    assert metrics["complete"] is True


def test_a_budget_that_cannot_measure_the_annotator_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert not Worth(LEAST_CONTROLS - 1, LEAST_CONTROLS - 1).above_chance
    assert Worth(LEAST_CONTROLS, LEAST_CONTROLS).above_chance
    with pytest.raises(ConfigError, match=r"max_queries = 9 leaves 4 control questions.*to at least 10"):
        relabel.validate(config_of(tmp_path, simulated(run, max_queries=9)), run)
    for fine in ({"max_queries": 10}, {"max_queries": 0}):
        relabel.validate(config_of(tmp_path, simulated(run, **fine)), run)


def test_too_few_answers_for_a_certificate_are_refused_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path, shards=2)
    certify, said = {"certify": {"labels": 60}}, r"up to 10,000 changed labels .* may need 69 answers"
    with pytest.raises(ConfigError, match=said):
        relabel.validate(
            config_of(tmp_path, simulated(run), relabel=certify, detect={"budget": 10_000}),
            Run(str(tmp_path)),
        )
    config = config_of(tmp_path, simulated(run), relabel=certify)
    relabel.validate(config, run)
    monkeypatch.setattr(relabel, "suspects_of", lambda *_: range(10_000 // 2))
    with pytest.raises(ConfigError, match=said):
        relabel.run(config, run, run.begin("relabel", "f"))
    assert not run.exists("ledger")


@pytest.mark.parametrize("annotator", ["simulated", "knn"])
def test_results_do_not_depend_on_shards_and_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, annotator: str
) -> None:
    results = []
    for number, (shards, rows) in enumerate([(1, 2048), (5, 4)]):
        monkeypatch.setattr(query_builder, "FIRST_SUSPECTS", rows)
        monkeypatch.setattr(relabel_stage, "ROWS_PER_CHUNK", rows)
        monkeypatch.setattr(relabel_stage, "ROWS_PER_GROUP", 5 * rows)
        run = make(tmp_path / str(number), shards, believed=BELIEVED)
        options = {"name": "knn"} if annotator == "knn" else simulated(Run(str(tmp_path / "0" / "run")), 0.8)
        metrics = do(config_of(tmp_path / str(number), options, relabel={"demonstrations": 3}), run)
        assert metrics["changed"]
        judged = [{key: each[key] for key in ("controls", "decided_by")} for each in metrics["judged"]]
        decided = {
            key: [row[name] for name in ("decision", "chosen_label", "candidates", "rank", "key")]
            for key, row in table(run, "relabel", "annotations").items()
        }
        labels = {
            key: [row[name] for name in ("final_label", "source", "annotator")]
            for key, row in table(run, "relabel", "labels").items()
        }
        results.append((judged, decided, labels, metrics["asked"]))
    assert results[0] == results[1]


@pytest.mark.parametrize("ask_all", [False, True])
def test_asking_ends_where_no_answer_can_change_a_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask_all: bool
) -> None:
    """A coin is asked the control questions and about the first suspects; the labels are those of all its answers."""
    monkeypatch.setattr(query_builder, "FIRST_SUSPECTS", 20)
    run = make(tmp_path, believed=BELIEVED)
    options = simulated(run, 0.5)
    metrics = do(config_of(tmp_path, options, relabel={"ask_all": ask_all}), run)
    (judged,) = metrics["judged"]
    left = 0 if ask_all else SUSPECTS - 20
    assert (judged["above_chance"], judged["unneeded"]) == (False, left)
    assert metrics["asked"] == CONTROLS + SUSPECTS - left
    assert (metrics["unasked"], metrics["complete"]) == (0, True)
    decided = {key: row["decision"] for key, row in table(run, "relabel", "annotations").items()}
    assert len(decided) == SUSPECTS
    nobody = make(tmp_path / "nobody", believed=BELIEVED)
    do(config_of(tmp_path / "nobody", {"name": "posterior"}), nobody)
    alone = {key: row["decision"] for key, row in table(nobody, "relabel", "annotations").items()}
    assert {key for key in decided if decided[key] == "changed"} == {
        key for key in alone if alone[key] == "changed"
    }


def test_no_task_is_waited_for_while_a_language_model_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two runs each might wait for the CPUs of the other's model (`runtime.lease`)."""
    events: list[str] = []

    class Noting(Engines):
        def map_items(self, function: Any, items: Any) -> Any:
            events.append(getattr(function, "__name__", "needs_server"))
            return map(function, items)

        @contextmanager
        def hosted(self, annotator: Any, owner: str | None = None, *, trains: bool = False) -> Iterator[Any]:
            events.append("model")
            yield annotator
            events.append("end of model")

        def _asks_on_ray(self, annotator: Any) -> bool:
            return False

    monkeypatch.setattr(query_builder, "FIRST_SUSPECTS", 20)
    monkeypatch.setattr(relabel, "validate_server", lambda annotator: None)
    monkeypatch.setattr(SimulatedAnnotator, "server", lambda self: ModelServer("m", None, ServerOptions()))
    run = make(tmp_path, believed=BELIEVED)
    do(config_of(tmp_path, simulated(run, 0.5)), run, engines=Noting())
    assert events == ["build", "needs_server", "model", "end of model", "leave_out"]


@pytest.mark.parametrize("on", ["this process", pytest.param("ray", marks=pytest.mark.slow)])
def test_errors_keep_the_given_label_and_too_many_stop(
    tmp_path: Path, on: str, request: pytest.FixtureRequest
) -> None:
    """On Ray the annotator's errors come from the process that asks as they were there."""
    engines = request.getfixturevalue("on_ray") if on == "ray" else IN_PROCESS
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
        do(
            config_of(tmp_path, {**options, "base_url": server.url}), run, engines=engines
        )  # all suspects fail
    with serve_in_process(every(40)) as server:
        metrics = do(
            config_of(tmp_path, {**options, "base_url": server.url}, relabel={"max_error_rate": 0.5}),
            run,
            "g",
            engines,
        )
    assert metrics["errors"] == {"client": 3}
    assert metrics["error"] == 3
    assert "3 queries failed" in metrics["go_on"]
    failed = [row for row in table(run, "relabel", "labels").values() if row["source"] == "error"]
    assert len(failed) == 3
    assert all(row["final_label"] == row["given_label"] for row in failed)


def test_revert_restores_the_given_labels_bit_for_bit(tmp_path: Path) -> None:
    run = make(tmp_path)
    config = config_of(tmp_path, simulated(run))
    do(config, run)

    def content() -> list[bytes]:
        names = run.shards("relabel", "labels")
        return [Path(run.path("relabel", "labels", name)).read_bytes() for name in names]

    original, before = content(), table(run, "relabel", "labels")
    changed = [key for key, row in before.items() if row["source"] == "changed"]
    assert SUSPECTS - LOST <= len(changed) <= SUSPECTS  # where the truth is lost, it guesses
    one = revert_label_changes(run, TASK, example_ids=[changed[0]])
    assert one == {"reverted": 1, "copies": 0, "changed": len(changed) - 1}
    after = table(run, "relabel", "labels")
    assert after[changed[0]]["source"] == "reverted"
    assert [key for key in before if before[key] != after[key]] == [changed[0]]
    assert revert_label_changes(run, TASK, example_ids=[changed[0]])["reverted"] == 0  # again: nothing more
    from_label = sum(before[key]["given_label"] == 2 for key in changed[1:])
    with pytest.raises(ConfigError, match="unknown label 'HAT'"):
        revert_label_changes(run, TASK, from_label="HAT")
    assert revert_label_changes(run, TASK, from_label=" hate\u200b")["reverted"] == from_label
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
        "copies": 0,
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


def test_what_has_no_answer_yet_is_no_budget_that_was_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People answer tomorrow: what they have not seen keeps its label, and the next attempt asks for that alone."""
    run = make(tmp_path)
    config = config_of(tmp_path, simulated(run))
    answer = SimulatedAnnotator.annotate

    async def tomorrow(self: SimulatedAnnotator, queries: Sequence[Query]) -> list[Annotation | None]:
        return [
            each if query.unit_id % 3 else None
            for each, query in zip(await answer(self, queries), queries, strict=True)
        ]

    monkeypatch.setattr(SimulatedAnnotator, "annotate", tomorrow)
    metrics = do(config, run)
    assert not metrics["complete"]
    assert re.fullmatch(
        rf"{metrics['unasked']} of {SUSPECTS} suspects have no answer yet .*--again.*", metrics["go_on"]
    )
    monkeypatch.setattr(SimulatedAnnotator, "annotate", answer)
    again = do(config, run, "again")
    assert (again["complete"], again["go_on"], again["unasked"]) == (True, None, 0)


@pytest.mark.parametrize(
    ("form", "calibration"), [("label_words", "controls"), ("label_words", "none"), ("choice", "auto")]
)
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("BIZ", "SPO", "HATE", "ART"), {"ART": "art"}),
        (("BIZ", "SPO", "HATE", "ART"), {"ART": "pot"}),  # begins with the word of another class
        (("HATE", "BIZ", "SPO"), {}),
        (("BIZ", "SPO", "TOXIC"), {"TOXIC": "po"}),  # HATE by another name
    ],
)
def test_another_label_set_pays_for_no_answer_again(
    tmp_path: Path, form: str, calibration: str, names: tuple[str, ...], words: dict[str, str]
) -> None:
    """One more class, the classes in another order, or one renamed: the ledger answers every question, alike."""
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
        other = make(tmp_path / "second", names=tuple("HATE" if name == "TOXIC" else name for name in names))
        renamed = LabelSet([Label(number, name, name) for number, name in enumerate(names)])
        other.write_text(renamed.to_json(), "load", "labels.json")
        shutil.copytree(run.path("ledger"), other.path("ledger"))
        metrics = do(config_of(tmp_path, options, names=names, words=words, **sections), other, "g")
        assert server.calls().total() == calls
    assert (metrics["asked"], metrics["from_ledger"]) == (0, SUSPECTS)
    of_first = ("BIZ", "SPO", "TOXIC" if "TOXIC" in names else "HATE")
    before, after = (
        {key: of_first[row["final_label"]] for key, row in table(run, "relabel", "labels").items()},
        {key: names[row["final_label"]] for key, row in table(other, "relabel", "labels").items()},
    )
    assert before == after
    first = {key: as_said(row, of_first) for key, row in table(run, "relabel", "annotations").items()}
    second = {key: as_said(row, names) for key, row in table(other, "relabel", "annotations").items()}
    assert first == second
    # Without the preference for some words removed, so few answers do not show surely enough what is right.
    assert any(row[1] == "changed" for row in first.values()) == (calibration != "none")


def as_said(row: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """What was answered and decided, by the names of labels."""
    chosen = None if row["chosen_label"] is None else names[row["chosen_label"]]
    return chosen, row["decision"], round(row["probability"], 5), names[row["suggested_label"]]


def test_annotators_in_order(tmp_path: Path) -> None:
    """What the first leaves undecided goes to the second, each with its own controls, budget and price."""
    run = make(tmp_path)
    cheap = simulated(run, max_queries=20, tokens=1, price_prompt=1.0, currency="USD")
    dear = simulated(run, seed=1, tokens=7, price_prompt=100.0, currency="USD")
    config = config_of(tmp_path, {"name": "knn"}, relabel={"annotators": [cheap, "knn", dear]})
    metrics = do(config, run)
    annotations = table(run, "relabel", "annotations")
    assert len(annotations) == SUSPECTS
    by_rank = sorted(annotations.values(), key=lambda row: row["rank"])
    assert [row["model"] for row in by_rank] == ["simulated-0"] * 10 + ["simulated-1"] * (SUSPECTS - 10)
    names = [each["name"] for each in metrics["annotators"]]
    assert names == [each["name"] for each in metrics["judged"]] == ["simulated", "knn", "simulated"]
    asked = [each["asked"] for each in metrics["annotators"]]
    assert asked == [
        20,
        0,
        CONTROLS + SUSPECTS - 10,
    ]  # neighbours are no second opinion: they could change nothing
    assert [each["controls"]["asked"] for each in metrics["judged"]] == [10, 0, CONTROLS]
    assert [each["decided_by"] for each in metrics["judged"]] == ["open", "posterior_alone", "open"]
    assert metrics["cost"] == pytest.approx((asked[0] * 1.0 + asked[2] * 7 * 100.0) / 1e6)
    assert metrics["currency"] == "USD"
    assert metrics["annotator"]["name"] == "simulated, then knn, then simulated"
    again = do(config, run, "again")
    # Another relabelling has every answer for nothing, and its whole budget for those left.
    # Half of it is for further control questions; the last one has answered what the first still leaves.
    assert (again["asked"], again["from_ledger"]) == (20, 10 + SUSPECTS - 20)
    assert [each["asked"] for each in again["annotators"]] == [20, 0, 0]
    last = do(config, run, "once more")
    assert (last["asked"], last["from_ledger"], last["complete"]) == (10 + SUSPECTS - 20, 20, True)


def test_an_annotator_is_asked_about_what_the_model_alone_leaves(tmp_path: Path) -> None:
    run = make(tmp_path, believed=BELIEVED)
    config = config_of(tmp_path, {"name": "knn"}, relabel={"annotators": ["posterior", simulated(run)]})
    metrics = do(config, run)
    rows = table(run, "relabel", "annotations").values()
    sure = [row for row in rows if row["log_odds"] > LEAST_ODDS]
    assert all((row["annotator"], row["decision"]) == ("posterior", "changed") for row in sure)
    assert {row["annotator"] for row in rows if row["log_odds"] < LEAST_ODDS} == {"simulated"}
    assert [each["asked"] for each in metrics["annotators"]] == [0, CONTROLS + SUSPECTS - len(sure)]


def test_nobody_is_asked_when_nothing_is_left(tmp_path: Path) -> None:
    """Not even control questions: the second annotator would fail at its start."""
    run = make(tmp_path, believed=(0.9,))
    away = {"name": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "x", "health_timeout": 0.2}
    metrics = do(config_of(tmp_path, away, relabel={"annotators": ["posterior", away]}), run)
    assert (metrics["changed"], metrics["asked"]) == (SUSPECTS, 0)


def test_reverts_follow_the_content(tmp_path: Path) -> None:
    """The data read anew in another order have other ids: the same changes stay reverted. Where the text or
    the label is another one, nothing is reverted.
    """
    run = make(tmp_path / "a")
    do(config_of(tmp_path, simulated(run)), run)
    labels, true = table(run, "relabel", "labels"), truth_of(run)
    # Where the truth is lost the annotator guesses by the id, and so otherwise in the moved data.
    changed = [
        key for key, row in labels.items() if row["source"] == "changed" and row["final_label"] == true[key]
    ]
    revert_label_changes(run, TASK, example_ids=changed[:3])
    texts = {table(run, "load", "examples")[key]["text"] for key in changed[:3]}
    moved = make(tmp_path / "b", ids=np.arange(ROWS, dtype=np.int64)[::-1] * 7)
    shutil.copytree(run.path("ledger", "reverts"), moved.path("ledger", "reverts"))
    do(config_of(tmp_path, simulated(moved)), moved)
    examples = table(moved, "load", "examples")
    reverted = [key for key, row in table(moved, "relabel", "labels").items() if row["source"] == "reverted"]
    assert {examples[key]["text"] for key in reverted} == texts


def test_no_suspects(tmp_path: Path) -> None:
    run = make(tmp_path)
    for shard in run.shards("detect", "findings"):
        found = run.read_table("detect", "findings", shard)
        columns = {"suspect": np.zeros(len(found), dtype=bool), "rank": np.full(len(found), -1)}
        for name, column in columns.items():
            found = found.set_column(found.schema.get_field_index(name), name, pa.array(column))
        run.write_table(found, "detect", "findings", shard)
    metrics = do(
        config_of(
            tmp_path,
            {"name": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "x", "health_timeout": 0.2},
        ),
        run,
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
    assert metrics["asked"] == SUSPECTS + CONTROLS  # by this relabelling, over both attempts
    assert metrics["judged"][0]["controls"] == {"asked": CONTROLS, "right": CONTROLS}
    assert metrics["from_ledger"] == 0


def test_a_crash_between_chunks_asks_no_control_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file of answers holds all controls, and counts for those that follow."""
    monkeypatch.setattr(query_builder, "FIRST_SUSPECTS", 4)
    monkeypatch.setattr(relabel_stage, "ROWS_PER_CHUNK", 4)
    run = make(tmp_path)
    with serve_in_process() as server:
        options = {"name": "openai", "base_url": server.url, "model": "tiny", "form": "choice"}
        config, written = config_of(tmp_path, options), []

        def dies(*args: Any) -> list[dict[str, Any]]:
            written.append(args)
            if len(written) == 3:
                raise ZeroDivisionError
            return answer_rows(*args)

        with monkeypatch.context() as patch:
            patch.setattr(relabel_chunks, "answer_rows", dies)
            with pytest.raises(ZeroDivisionError):
                do(config, run)
        before = server.calls().total()
        metrics = do(config, run)
        assert set(server.calls().values()) == {1}
        assert before < server.calls().total() == 2 * (SUSPECTS + CONTROLS)  # in both orders
    assert (metrics["asked"], metrics["answered"]) == (SUSPECTS + CONTROLS, SUSPECTS)
    assert metrics["judged"][0]["controls"] == {"asked": CONTROLS, "right": CONTROLS}


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
