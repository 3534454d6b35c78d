"""An audit works on the units of every task: classes of examples, entity classes of sentences."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.annotators.final_labels import write_labels
from rayclean.audits.answers import record_answers
from rayclean.audits.draw import draw_sample, read_population
from rayclean.audits.forms import read_form, read_rows, write_form
from rayclean.audits.oracle import oracle_answers
from rayclean.audits.rates import audit_figures
from rayclean.audits.settle import settle
from rayclean.audits.units import read_units
from rayclean.config import Config, parse_config
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
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
    for row, unit in zip(rows, units.values(), strict=True):
        answer = said[unit.unit_id]
        shown = {row["a"]: row["a"], row["b"]: row["b"]}
        assert len(shown) == (1 if unit.given == unit.suggested else 2)
        row["answer"] = "neither" if answer.value is None else _letter(row, answer.value)
    returned = read_form(rows, csv_path, units, task)
    assert {each.unit_id: each.content for each in returned.answers} == {
        key: each.content for key, each in said.items()
    }

    record_answers(run, returned.answers, "anna", draw.form)
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


def _letter(row: dict, value: str) -> str:
    from rayclean.audits.units import label_name

    return "a" if row["a"] == label_name(value) else "b"
