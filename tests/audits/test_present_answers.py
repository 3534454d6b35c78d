"""Answers of auditors follow the texts that they are about, and are counted where these are gone."""

import csv
from pathlib import Path
from typing import Any

import pytest

import rayclean
from rayclean import pipeline
from rayclean.audits.answers import AuditAnswer, record_answers
from rayclean.audits.present_answers import present_answers
from rayclean.hashing import digest
from rayclean.schema import LabelSet
from rayclean.tasks.classification import Classification
from tests import toy
from tests.csv_runs import Row, cleaned, config, copy, labels, make, toy_rows, write

AUDITOR = "anna"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    return make(tmp_path_factory.mktemp("made"), rows)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return toy_rows(tmp_path_factory.mktemp("toy"))


def audited(folder: Path, config: rayclean.Config) -> dict[str, str]:
    """Answer the form: every text is about the topic after the one that most of its words are of."""
    rayclean.audit(config)
    form = Path(pipeline.open_run(config).path("audit", "form.csv"))
    told = list(csv.DictReader(form.read_text(encoding="utf-8-sig").splitlines()))
    names = list(toy.TOPICS)
    for row in told:
        words = row["text"].split()
        topic = max(names, key=lambda name: sum(word in toy.TOPICS[name] for word in words))
        row["answer"] = names[(names.index(topic) + 1) % len(names)]
    back = folder / "back.csv"
    with back.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*told[0]])
        writer.writeheader()
        writer.writerows(told)
    rayclean.audit(config, [str(back)], auditor=AUDITOR)
    return {row["text"]: row["answer"] for row in told}


def test_audited_labels_follow_their_texts(tmp_path: Path, rows: list[Row], made: Path) -> None:
    copy(made)
    small = {"audit": {"suspects": 8, "random": 12}}
    values = cleaned(config()).read_json("config.json") | small
    told = audited(tmp_path, rayclean.parse_config(values))
    gone = sorted(told)[:2]
    left = [row for row in rows if row["text"] not in gone]
    (tmp_path / "data.csv").unlink()
    new = {"key": "new", "text": "a tulip and a rose in the hedge", "label": "garden"}
    write(tmp_path / "parts" / "b.csv", [new, *left[90::-1]])
    write(tmp_path / "parts" / "a.csv", left[:90:-1])
    values["dataset"]["path"] = "parts"
    run = cleaned(rayclean.parse_config(values))
    names = [each["name"] for each in run.read_json("load", "labels.json")]
    after = labels(run)
    assert {text for text, row in after.items() if row["source"] == "audited"} == {*told} - {*gone}
    for text in {*told} - {*gone}:
        assert names[after[text]["final_label"]] == told[text]
        assert after[text]["annotator"] == AUDITOR
    metrics = run.manifest("relabel").metrics
    (warning,) = metrics["warnings"]
    assert warning.startswith("auditors judged 2 examples whose texts are no longer in the data")


def present(run: rayclean.Run) -> Any:
    task = Classification(Classification.Config(), LabelSet.from_json(run.read_text("load", "labels.json")))
    return present_answers(run, task)


def answer(unit_id: int, text: str, value: str) -> AuditAnswer:
    return AuditAnswer(unit_id, digest(text), "label", f'"{value}"')


def test_with_a_key_an_answer_is_about_no_other_example(tmp_path: Path, rows: list[Row]) -> None:
    write(tmp_path / "data.csv", rows)
    run = pipeline.run_verbs(config(id="key"), ("load", "predict", "detect"))
    record_answers(run, [answer(5, rows[0]["text"], "garden")], AUDITOR, "audit-1")
    found = present(run)
    assert (found.answers.settled, found.lost) == ({}, 1)


def test_one_answer_is_about_one_of_identical_texts_and_later_answers_meet_it(
    tmp_path: Path, rows: list[Row]
) -> None:
    write(tmp_path / "data.csv", [*rows, rows[0], rows[0]])
    run = pipeline.run_verbs(config(), ("load", "predict", "detect"))
    text = rows[0]["text"]
    record_answers(run, [answer(5, text, "garden")], AUDITOR, "audit-1")  # from another order of the rows
    (unit_id,) = present(run).answers.settled
    table = run.read_table("load", "examples", run.shards("load", "examples")[0]).to_pylist()
    copies = [row["example_id"] for row in table if row["text"] == text]
    assert unit_id in copies
    record_answers(run, [answer(unit_id, text, "kitchen")], AUDITOR, "audit-2")
    assert {key: each.value for key, each in present(run).answers.settled.items()} == {unit_id: '"kitchen"'}
    record_answers(run, [answer(unit_id, text, "harbour")], "ben", "audit-2")
    assert [*present(run).answers.conflicts] == [unit_id]


def test_answers_about_two_copies_stay_two(tmp_path: Path, rows: list[Row]) -> None:
    write(tmp_path / "data.csv", [*rows, rows[0], rows[0]])
    run = pipeline.run_verbs(config(), ("load", "predict", "detect"))
    told = [answer(number, rows[0]["text"], "garden") for number in (5, 6)]
    record_answers(run, told, AUDITOR, "audit-1")
    assert len(present(run).answers.settled) == 2
