"""Stories of examples with several units: classes of an example, entity classes of a sentence."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rayclean.config import Config, parse_config
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.stories.story import story_of
from rayclean.tasks import TASKS
from rayclean.verbs import detect, relabel
from tests.tasks import test_multi_label, test_tagging
from tests.tasks.test_multi_label import do, rows_of

Make = Callable[[Path], tuple[Run, Config]]


@pytest.mark.parametrize(
    "make", [test_multi_label.make, partial(test_tagging.make, clean=60)], ids=["multi_label", "tagging"]
)
def test_every_unit_has_its_events(tmp_path: Path, make: Make) -> None:
    run, config = make(tmp_path)
    truth = {"truth_path": run.url("load", "truth"), "accuracy": 0.95}
    values: dict[str, Any] = {"annotator": {"name": "simulated", **truth}, "relabel": {"controls": 60}}
    config = parse_config(config.model_dump(mode="json") | values)
    run.write_text(config.model_dump_json(), "config.json")
    for verb, module in (("detect", detect), ("relabel", relabel)):
        do(config, run, module, verb)
    task = TASKS.build(config.task, LabelSet.from_json(run.read_text("load", "labels.json")))
    labels, answers = task.labels.names, task.answers.names
    changed = next(row for row in rows_of(run, "relabel", "annotations") if row["decision"] == "changed")
    example = changed["example_id"]
    units = [row for row in rows_of(run, "relabel", "labels") if row["example_id"] == example]
    (loaded,) = [row for row in rows_of(run, "load", "examples") if row["example_id"] == example]
    findings = {row["unit_id"]: row for row in rows_of(run, "detect", "findings")}
    story = story_of(run, example)

    (given,) = [event for event in story.events if event.kind == "given"]
    assert given.label == task.written(loaded["given_label"], loaded["text"])
    judged = [event for event in story.events if event.kind == "judged"]
    assert [event.part for event in judged] == labels
    for event, unit in zip(judged, units, strict=True):
        finding = findings[unit["unit_id"]]
        assert (event.quality, event.suspect) == (finding["quality"], finding["suspect"])
        value, number = finding["suggested_value"], finding["suggested_label"]
        assert event.suggested == (
            answers[number] if value is None else task.candidate(number, value, story.text).word
        )
    predicted = [event for event in story.events if event.kind == "predicted"]
    assert [event.part for event in predicted] == labels
    for event, unit in zip(predicted, units, strict=True):
        assert answers[unit["given_label"]] in [each.label for each in event.likeliest]
        assert sum(each.probability for each in event.likeliest) == pytest.approx(1, abs=1e-5)

    place = [unit["unit_id"] for unit in units].index(changed["unit_id"])
    asked = {event.part: event for event in story.events if event.kind == "asked"}
    answered = {event.part: event for event in story.events if event.kind == "answered"}
    (decided,) = [event for event in story.events if event.kind == "decided" and event.part == labels[place]]
    assert decided.decision == "changed"
    assert answered[labels[place]].choice in asked[labels[place]].candidates
    assert answered[labels[place]].annotator == "simulated"
    final = [event for event in story.events if event.kind == "final"]
    assert [event.part for event in final] == [*labels, ""]
    assert [event.source for event in final[:-1]] == [unit["source"] for unit in units]
    assert [event.changed for event in final[:-1]] == [
        unit["final_label"] != unit["given_label"] for unit in units
    ]
    (whole,) = [row for row in rows_of(run, "relabel", "example_labels") if row["example_id"] == example]
    assert final[-1].label == task.written(whole["final_label"], story.text)
    assert final[-1].changed == (whole["final_label"] != loaded["given_label"])
    (true,) = [row for row in rows_of(run, "load", "truth") if row["example_id"] == example]
    (told,) = [event for event in story.events if event.kind == "true_label_for_measuring_only"]
    assert told.label == task.written(true["true_label"], story.text)
    (neighbours,) = [event for event in story.events if event.kind == "neighbours"]
    assert example not in {each.example_id for each in neighbours.nearest}
    texts = {row["example_id"]: row for row in rows_of(run, "load", "examples")}
    for each in neighbours.nearest:
        other = texts[each.example_id]
        assert each.given_label == task.written(other["given_label"], other["text"])


def test_labels_as_people_read_them() -> None:
    assert test_multi_label.TASK.written([0, 2], "any text") == "joy, fear"
    assert test_multi_label.TASK.written([], "any text") == "none of the classes"
    tags = [test_tagging.B_PER, test_tagging.I_PER, test_tagging.OUT, test_tagging.B_LOC]
    assert test_tagging.TASK.written(tags, "Ada Lovelace met London") == "[PER Ada Lovelace] met [LOC London]"
