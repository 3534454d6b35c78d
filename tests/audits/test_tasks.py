"""An audit works on the units of every task: classes of examples, entity classes of sentences."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.annotators.final_labels import write_labels
from rayclean.audits import commands
from rayclean.audits.answers import AuditAnswer, record_answers
from rayclean.audits.draw import draw_sample, read_population
from rayclean.audits.forms import read_form, read_rows, write_form
from rayclean.audits.oracle import oracle_answers
from rayclean.audits.rates import audit_figures
from rayclean.audits.settle import settle
from rayclean.audits.units import DoubtedUnit, read_units, shown_answer
from rayclean.config import Config, parse_config
from rayclean.errors import DataError
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.stories.story import story_of
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.verbs import detect, relabel
from tests.tasks import test_multi_label, test_tagging

Make = Callable[[Path], tuple[Run, Config]]
SAMPLE = {"suspects": 15, "random": 25}


@pytest.mark.parametrize("make", [test_multi_label.make, test_tagging.make], ids=["multi_label", "tagging"])
def test_an_audit_of_units(tmp_path: Path, make: Make) -> None:
    run, config = make(tmp_path)
    values = {"annotator": {"name": "posterior"}, "audit": SAMPLE}
    config = parse_config(config.model_dump(mode="json") | values)
    task = TASKS.build(config.task, LabelSet.from_json(run.read_text("load", "labels.json")))
    for verb, module in (("detect", detect), ("relabel", relabel)):
        test_multi_label.do(config, run, module, verb)
    before = measure_labels(config, run)[0]["noise"]
    draw = draw_sample(run, config.audit, read_population(run.require("detect")))
    units = read_units(run, task, draw.units.tolist())
    answers = oracle_answers(run, units, task)
    assert len(answers) == len(units) == len(draw.units)

    csv_path, _ = write_form(run, "form", draw.form, list(units.values()), task)
    rows = read_rows(csv_path, [draw.form])
    said = {each.unit_id: each for each in answers}
    with open(csv_path, encoding="utf-8-sig", newline="") as file:
        about = [row["about"] for row in csv.DictReader(file)]
    assert about == [unit.part for unit in units.values()]
    for row, unit in zip(rows, units.values(), strict=True):
        answer = said[unit.unit_id]
        shown = {row["a"]: row["a"], row["b"]: row["b"]}
        assert len(shown) == (1 if unit.given == unit.suggested else 2)
        row["answer"] = "neither" if answer.value is None else _letter(row, unit, answer.value, task)
    returned = read_form(rows, csv_path, units, task)
    assert {each.unit_id: each.content for each in returned.answers} == {
        key: each.content for key, each in said.items()
    }

    record_answers(run, returned.answers, "anna", draw.form)
    run.write_text(config.model_dump_json(), "config.json")
    judged = next(
        unit for key, unit in units.items() if said[key].value == unit.suggested.value != unit.given.value
    )
    word = shown_answer(judged.suggested, task)
    events = story_of(run, judged.example_id).events
    assert [e.label for e in events if e.kind == "audited" and e.part == judged.part] == [word]
    settled = settle(config, run, run.require("relabel"), task)
    write_labels(run, run.require("relabel"), task)
    known = {each.unit_id for each in answers if each.value is not None}
    assert settled["audited"] == len(known)
    labels = {row["unit_id"]: row for row in test_multi_label.rows_of(run, "relabel", "labels")}
    assert {key for key, row in labels.items() if row["source"] == "audited"} == known
    after = measure_labels(config, run)[0]["noise"]
    assert after["given"] == before["given"]
    assert after["final"] <= before["final"]
    figures = audit_figures(run, config.audit, task)
    assert figures["noise_before"]["low"] <= before["given"] <= figures["noise_before"]["high"]
    assert run.sub("relabel").shards("example_labels") == run.sub("load").shards("examples")

    contrary = AuditAnswer(judged.unit_id, judged.text_hash, "label", judged.given.value, part=judged.part)
    record_answers(run, [contrary], "bob", draw.form)
    (conflict,) = commands._conflicts(run, task)
    if not task.candidates_are_labels:
        assert conflict["answers"] == [f"anna: {word}", f"bob: {judged.given.word}"]


def _letter(row: dict, unit: DoubtedUnit, value: str, task: Task) -> str:
    (answer,) = {each for each in (unit.given, unit.suggested) if each.value == value}
    return "a" if row["a"] == shown_answer(answer, task) else "b"


def tagging_unit(unit_id: int, text: str, given: str, suggested: str) -> DoubtedUnit:
    """A doubt about the entity class PER."""
    answers = (
        test_tagging.TASK.candidate(3 + kind, each, text) for kind, each in enumerate((given, suggested))
    )
    return DoubtedUnit(unit_id, unit_id, text, 3, 4, suggested, *answers, part="PER")


def test_a_person_can_judge_spans_by_the_form(tmp_path: Path) -> None:
    """The form shows the text with the spans of both answers and names the entity class; answers come back by letter, as
    text, and as forms of earlier versions showed them.
    """
    texts = dict(enumerate(["Ada Lovelace met Babbage"] * 4 + ["a"]))
    units = {
        key: tagging_unit(key, text, "[]", "[[0, 2]]" if key < 4 else "[[0, 1]]")
        for key, text in texts.items()
    }
    task = test_tagging.TASK
    path, lines = write_form(Folder(str(tmp_path)), "form", "audit-1", list(units.values()), task)
    for where in (path, lines):
        rows = read_rows(where, ["audit-1"])
        assert rows[0]["a"] == "Ada Lovelace met Babbage"
        assert rows[0]["b"] == "[PER Ada Lovelace] met Babbage"
    assert json.loads(Path(lines).read_text().splitlines()[0])["about"] == "PER"
    for row, said in zip(rows, ["b", "[PER Ada Lovelace] met Babbage", "[]", "neither", "a"], strict=True):
        row["answer"] = said
    returned = read_form(rows, path, units, task)
    expected = ["[[0, 2]]", "[[0, 2]]", "[]", None, "[[0, 1]]"]  # a letter is no text of one word
    assert [each.value for each in returned.answers] == expected
    with pytest.raises(DataError, match=r"row 1: 'c' \(known: a, b, neither, unsure\)"):
        read_form([rows[0] | {"answer": "c"}], path, units, task)
