"""A story says what the tables say, event by event."""

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rayclean
from rayclean.annotators.prompts import prompt_hash
from rayclean.annotators.reverts import Change, recorded_reverts, write_reverts
from rayclean.audits.answers import AuditAnswer, record_answers
from rayclean.audits.units import read_units
from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder
from rayclean.schema import LabelSet
from rayclean.stories.events import Event, Story
from rayclean.stories.story import story_of
from rayclean.tasks import TASKS
from tests.stories.conftest import EVIL, Told


def of_kind(story: Story, kind: str) -> list[Any]:
    return [event for event in story.events if event.kind == kind]


def only(story: Story, kind: str) -> Any:
    (event,) = of_kind(story, kind)
    return event


def names(told: Told) -> list[str]:
    return [each["name"] for each in told.run.read_json("load", "labels.json")]


def decided(told: Told, decision: str) -> dict[str, Any]:
    """The first suspect with a decision."""
    return next(row for row in told.rows("relabel", "annotations") if row["decision"] == decision)


@pytest.mark.parametrize("decision", ["changed", "kept", "referred"])
def test_a_suspect_from_its_row_to_the_trained_model(told: Told, decision: str) -> None:
    row = decided(told, decision)
    example = row["example_id"]
    story = story_of(told.run, example)
    label = names(told)
    origin = told.row("load", "origins", example_id=example)
    loaded = told.row("load", "examples", example_id=example)
    assert (story.key, story.file, story.row) == (origin["key"], origin["file"], origin["row"])
    assert story.text == loaded["text"]
    assert story.unfinished == ("evaluate",)
    assert only(story, "loaded").split == loaded["split"]
    assert only(story, "loaded").characters == len(loaded["text"])
    assert only(story, "given").label == label[loaded["given_label"]]
    true = told.row("load", "truth", example_id=example)["true_label"]
    assert only(story, "true_label_for_measuring_only").label == label[true]

    predicted, table = only(story, "predicted"), told.row("predict", "predictions", example_id=example)
    assert (predicted.by, predicted.mode, predicted.fold) == ("all", "out_of_fold", table["fold"])
    order = np.argsort(-np.array(table["probabilities"]), kind="stable")
    assert [each.label for each in predicted.likeliest] == [label[index] for index in order]
    assert [each.probability for each in predicted.likeliest] == pytest.approx(
        sorted(table["probabilities"], reverse=True)
    )

    judged, finding = only(story, "judged"), told.row("detect", "findings", example_id=example)
    for name in ("quality", "given_probability", "suggested_probability", "suspect", "rank", "reason"):
        assert getattr(judged, name) == finding[name]
    assert (judged.given, judged.suggested) == (
        label[finding["given_label"]],
        label[finding["suggested_label"]],
    )
    assert judged.control is None
    assert judged.suspects == told.run.manifest("detect").metrics["suspects"]
    assert [(each.name, each.quality, each.vote) for each in judged.detectors] == [
        ("posterior", finding["quality_posterior"], finding["vote_posterior"])
    ]

    (query,) = queries(told, example)
    asked = only(story, "asked")
    assert (asked.annotator, asked.purpose, asked.problem) == ("openai", "suspect", None)
    assert asked.candidates == tuple(label[index] for index in query["candidates"])
    texts = {each["example_id"]: each["text"] for each in told.rows("load", "examples")}
    assert [(each.example_id, each.text, each.answer) for each in asked.demonstrations] == [
        (each["example_id"], texts[each["example_id"]], label[each["label"]])
        for each in query["demonstrations"]
    ]
    assert asked.prompts_are == "as sent"
    assert prompt_hash(*asked.prompts) == row["prompt_hash"]
    assert asked.prompts[0] in told.sent

    answered = only(story, "answered")
    assert (answered.annotator, answered.model, answered.raw) == ("openai", "tiny", row["raw"])
    assert (answered.prompt_tokens, answered.answer_tokens) == (row["prompt_tokens"], row["answer_tokens"])
    assert answered.cost == pytest.approx((2 * row["prompt_tokens"] + 5 * row["answer_tokens"]) / 1e6)
    assert answered.currency == "USD"
    assert answered.time == row["written"]
    assert answered.session == f"relabel-{told.run.manifest('relabel').fingerprint}"
    assert [np.log(each.probability) for each in answered.scores] == pytest.approx(row["scores"], rel=1e-4)

    decision_ = only(story, "decided")
    assert decision_.decision == decision_.by_machine == decision
    assert decision_.choice == label[row["chosen_label"]]
    for name in ("confidence", "probability", "evidence", "annotator", "auditor", "error"):
        assert getattr(decision_, name) == row[name]
    assert np.log(decision_.model_probability / (1 - decision_.model_probability)) == pytest.approx(
        row["log_odds"]
    )

    final, labelled = only(story, "final"), told.row("relabel", "labels", example_id=example)
    assert (final.label, final.source) == (label[labelled["final_label"]], labelled["source"])
    assert final.changed == (decision == "changed")
    assert (final.confidence, final.decided_by) == (labelled["confidence"], "openai")
    kinds = [event.kind for event in story.events]
    order = ["loaded", "given", "predicted", "neighbours", "judged", "asked", "answered", "decided", "final"]
    assert [kind for kind in kinds if kind in order] == order


def queries(told: Told, example: int) -> list[dict[str, Any]]:
    folder = told.run.sub("relabel", "queries", "annotator-00")
    chunks = [name for name in folder.names() if name.startswith("chunk-")]
    rows = [
        row
        for chunk in chunks
        for shard in folder.shards(chunk)
        for row in folder.read_table(chunk, shard).to_pylist()
    ]
    return [row for row in rows if row["example_id"] == example]


def test_what_training_keeps(told: Told) -> None:
    row = next(row for row in told.rows("train", "dynamics") if row["visits_1"])
    trained = only(story_of(told.run, row["example_id"], neighbours=0), "trained")
    assert (trained.method, trained.label) == ("aum", names(told)[row["trained_label"]])
    assert trained.quality == row["quality"]
    assert trained.columns == {
        name: value
        for name, value in row.items()
        if name not in ("example_id", "trained_label", "quality", "given_label")
    }
    assert [f"epoch-{number:03d}" for number in trained.epochs] == told.run.names("train", "epochs")
    assert len(trained.epochs) >= 3
    for number, columns in trained.epochs.items():
        (epoch,) = [
            each
            for each in told.rows("train", "epochs", f"epoch-{number:03d}")
            if each["example_id"] == row["example_id"]
        ]
        assert columns == {name: epoch[name] for name in columns}
        assert {*columns} == {*trained.columns}


def test_a_control_question_is_no_suspect_and_costs_as_well(told: Told) -> None:
    controls = [row for row in told.rows("detect", "findings") if 0 <= row["control"] < 30]
    stories = [story_of(told.run, row["example_id"], neighbours=0) for row in controls]
    fewer = 0
    for row, story in zip(controls, stories, strict=True):
        assert only(story, "judged").control == row["control"]
        assert only(story, "judged").rank is None
        asked, answered = only(story, "asked"), only(story, "answered")
        assert (asked.purpose, asked.prompts_are) == ("control question", "as sent")
        assert asked.prompts[0] in told.sent
        fewer += asked.prompts[0].count("Text: ") <= len(asked.demonstrations)
        assert answered.cost > 0
        assert answered.choice in asked.candidates
        assert of_kind(story, "decided") == []
        assert only(story, "final").source == "given"
    assert 0 < fewer < len(stories), (
        "some prompts lost demonstrations, which the story shows as they were sent"
    )


def test_a_question_beyond_the_suspects_changes_nothing(told: Told) -> None:
    rows = told.rows("relabel", "beyond")
    assert len(rows) == 4
    for row in rows:
        story = story_of(told.run, row["example_id"], neighbours=0)
        asked, beyond = only(story, "asked"), only(story, "asked_beyond")
        assert (asked.purpose, asked.prompts_are) == ("beyond the suspects", "as sent")
        assert asked.prompts[0] in told.sent
        assert beyond.choice == names(told)[row["chosen_label"]]
        assert (beyond.vote, beyond.quality) == (row["vote"], row["quality"])
        assert (beyond.suggested, beyond.probability) == (
            names(told)[row["suggested_label"]],
            row["probability"],
        )
        assert only(story, "answered").annotator == "openai"
        assert not only(story, "judged").suspect
        assert (only(story, "final").changed, only(story, "final").source) == (False, "given")


def test_neighbours_are_the_nearest_texts_that_are_no_copies(told: Told) -> None:
    table = {row["example_id"]: np.array(row["features"]) for row in told.rows("predict", "features")}
    copies = {row["example_id"]: row["copies"] for row in told.rows("predict", "folds")}
    example = told.row("load", "origins", key="copy-2")["example_id"]
    own = table[example] / np.linalg.norm(table[example])
    cosines = {
        other: float(own @ vector / np.linalg.norm(vector))
        for other, vector in table.items()
        if copies[other] != copies[example]
    }
    best = sorted(cosines.values(), reverse=True)[:7]
    story = story_of(told.run, example, neighbours=7)
    nearest = only(story, "neighbours").nearest
    assert [each.similarity for each in nearest] == pytest.approx(best, abs=1e-4)
    origins = {row["example_id"]: row["key"] for row in told.rows("load", "origins")}
    examples = {row["example_id"]: row for row in told.rows("load", "examples")}
    for each in nearest:
        assert cosines[each.example_id] == pytest.approx(each.similarity, abs=1e-4)
        assert each.name == origins[each.example_id]
        assert each.text == examples[each.example_id]["text"]
        assert each.given_label == names(told)[examples[each.example_id]["given_label"]]
    related = only(story, "related")
    assert (related.copies, related.group) == (2, 2)
    assert {each.name for each in related.shown} == {"row-00005", "copy-1"}
    stands = {row["example_id"]: row["stands"] for row in told.rows("predict", "folds")}
    assert related.learnt_from == stands[example]
    assert of_kind(story_of(told.run, example, neighbours=0), "neighbours") == []


def test_an_example_of_the_test_is_never_doubted(own: Told) -> None:
    shard = own.run.shards("load", "test")[0]
    example = own.run.read_table("load", "test", shard)["example_id"][0].as_py()
    story = story_of(own.run, example)
    assert [event.kind for event in story.events] == ["loaded", "given", "true_label_for_measuring_only"]
    assert only(story, "loaded").split == "test"
    # a frozen encoder leaves its features of the test examples; here it reads the text as it has read another one
    other = own.run.read_table("predict", "features", own.run.shards("predict", "features")[0]).slice(0, 1)
    features = other.set_column(0, "example_id", pa.array([example]))
    own.run.write_table(features, "predict", "test_features", shard)
    nearest = only(story_of(own.run, example, neighbours=3), "neighbours").nearest
    assert len(nearest) == 3
    assert (nearest[0].example_id, nearest[0].similarity) == (other["example_id"][0].as_py(), 1.0)


def test_experts_that_were_kept_say_their_own(own: Told) -> None:
    row = decided(own, "changed")
    for shard in own.run.shards("predict", "predictions"):
        mean = own.run.read_table("predict", "predictions", shard)
        flipped = pa.FixedSizeListArray.from_arrays(
            pa.array(np.fliplr(np.stack(mean["probabilities"].to_numpy())).reshape(-1)), 3
        )
        place = mean.schema.get_field_index("probabilities")
        own.run.write_table(
            mean.set_column(place, "probabilities", flipped), "predict", "experts", "words", shard
        )
        own.run.write_table(pa.table({"cells": [1, 2]}), "predict", "experts", "cells", shard)
    predicted = of_kind(story_of(own.run, row["example_id"], neighbours=0), "predicted")
    assert [each.by for each in predicted] == ["all", "words"]
    assert sorted(each.probability for each in predicted[0].likeliest) == sorted(
        each.probability for each in predicted[1].likeliest
    )
    labels = names(own)
    mirrored = {labels[2 - labels.index(each.label)]: each.probability for each in predicted[0].likeliest}
    assert {each.label: each.probability for each in predicted[1].likeliest} == mirrored


def test_another_row_with_the_key_was_rejected(told: Told) -> None:
    story = rayclean.log(told.config(), key="row-00003", neighbours=0)
    rejected = only(story, "rejected")
    assert (rejected.file, rejected.row) == ("002.parquet", 3)
    assert rejected.reason == "duplicate key: first in 000.parquet row 3"


def test_what_people_said_in_order_of_time(own: Told) -> None:
    run, row = own.run, decided(own, "changed")
    task = TASKS.build(own.config().task, LabelSet.from_json(run.read_text("load", "labels.json")))
    key = own.row("load", "origins", example_id=row["example_id"])["key"]
    for undo in (False, True, False):
        assert rayclean.revert(own.config(), keys=[key], undo=undo)["reverted"] == 1
    unit = read_units(run, task, [row["unit_id"]])[row["unit_id"]]
    said = AuditAnswer(unit.unit_id, unit.text_hash, "label", unit.suggested.value)
    record_answers(run, [said], "anna", "audit-1")
    story = rayclean.log(run, key=key, neighbours=0)
    audited = only(story, "audited")
    assert [each.reverted for each in of_kind(story, "reverted")] == [True, False, True]
    assert (audited.auditor, audited.said, audited.form) == ("anna", "label", "audit-1")
    assert audited.label == names(own)[row["suggested_label"]]
    kinds = [
        event.kind for event in story.events if event.kind in ("decided", "reverted", "audited", "final")
    ]
    assert kinds == ["decided", "reverted", "reverted", "reverted", "audited", "final"]
    assert (only(story, "final").source, only(story, "final").changed) == ("reverted", False)
    other = decided(own, "kept")["example_id"]
    assert (
        of_kind(story_of(run, other, neighbours=0), "reverted")
        == of_kind(story_of(run, other, neighbours=0), "audited")
        == []
    )


def test_without_the_ledger_the_question_is_still_known(own: Told) -> None:
    row = decided(own, "changed")
    own.run.remove("ledger")
    story = story_of(own.run, row["example_id"], neighbours=0)
    assert only(story, "asked").prompts_are == "as sent"  # `annotations/` has its hash
    assert of_kind(story, "answered") == []
    assert only(story, "decided").decision == "changed"


def test_a_prompt_that_cannot_be_made_again_is_not_called_sent(own: Told) -> None:
    row = decided(own, "changed")
    values = own.run.read_json("config.json")
    own.run.write_json(
        values | {"annotator": values["annotator"] | {"instruction": "Another one."}}, "config.json"
    )
    story = story_of(own.run, row["example_id"], neighbours=0)
    assert only(story, "asked").prompts_are == "uncut"
    assert only(story, "asked").prompts[0].startswith("Another one.")
    assert only(story, "answered").annotator == "openai"
    own.run.write_json(
        values | {"annotator": values["annotator"] | {"template": "gone.jinja"}}, "config.json"
    )
    asked = only(story_of(own.run, row["example_id"], neighbours=0), "asked")
    assert asked.prompts == ()
    assert "gone.jinja" in asked.problem


def test_a_run_that_has_only_loaded(own: Told) -> None:
    for verb in ("predict", "detect", "relabel", "train"):
        own.run.remove(verb)
    story = rayclean.log(own.run, key="evil")
    assert [event.kind for event in story.events] == ["loaded", "given", "true_label_for_measuring_only"]
    assert story.unfinished == ("predict", "detect", "relabel", "train", "evaluate")
    own.run.remove("load", "manifest.json")
    with pytest.raises(ArtifactError, match="load"):
        rayclean.log(own.run, key="evil")


def test_only_the_shard_of_the_example_is_read(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    row = decided(told, "changed")
    whole: list[tuple[str, ...]] = []
    read: Callable[..., Any] = Folder.read_table

    def watched(self: Folder, *parts: str, columns: Any = None) -> Any:
        whole.append((self.name, *parts, str(columns)))
        return read(self, *parts, columns=columns)

    monkeypatch.setattr(Folder, "read_table", watched)
    story_of(told.run, row["example_id"], neighbours=0)
    own = told.run.shards("predict", "predictions")
    assert len(own) > 2
    for table in ("predictions", "findings", "labels", "truth"):
        shards = {parts[-2] for parts in whole if table in parts}
        assert len(shards) == 1, table
    # of all shards ids alone
    others = [parts for parts in whole if "examples" in parts and parts[-1] == "['example_id']"]
    assert {parts[-2] for parts in others} == {*told.run.shards("load", "examples")}


def test_json_is_what_the_events_hold(told: Told) -> None:
    story = rayclean.log(told.config(), key="evil", neighbours=2)
    values = json.loads(json.dumps(story.to_json(), allow_nan=False))
    assert values["text"] == EVIL
    assert [each["event"] for each in values["events"]] == [event.kind for event in story.events]
    for event, each in zip(story.events, values["events"], strict=True):
        assert {*each} == {"event", *(field.name for field in fields(event))}
    kinds = {cls.kind for cls in Event.__subclasses__()}
    assert len(kinds) == len(Event.__subclasses__()), "every kind of event has a name of its own"


def test_the_ways_to_name_an_example(told: Told) -> None:
    example = told.row("load", "origins", key="row-00042")
    place = (example["file"], example["row"])
    text = rayclean.log(told.run, key="row-00042", neighbours=0).text
    for given in (
        {"key": "row-00042"},
        {"row": place},
        {"example_id": example["example_id"]},
        {"text": text[2:].upper()},
    ):
        for which in (told.config(), told.run, told.run.url()):
            assert rayclean.log(which, **given, neighbours=0).example_id == example["example_id"]


def test_rejected_rows_have_a_story(told: Told) -> None:
    story = rayclean.log(told.run, row=("002.parquet", 4))
    assert (story.example_id, story.name) == (None, "002.parquet:4")
    assert [event.kind for event in story.events] == ["rejected"]
    assert only(story, "rejected").reason == "empty text"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": "row-0005"}, r"no example has the key 'row-0005' \(did you mean .*row-0\d+5"),
        ({"key": "evli"}, "did you mean 'evil'"),
        ({"row": ("000.parquet", 999)}, "row 999 of '000.parquet' was not read.*up to 119"),
        ({"row": ("00.parquet", 1)}, "no file '00.parquet' was read: did you mean"),
        ({"example_id": 1}, "no example has the id 1"),
        ({"text": "no text of the toy"}, "no text holds"),
        ({"text": ""}, "is empty"),
        ({}, "in one way, got 0"),
        ({"key": "evil", "example_id": 1}, "in one way, got 2"),
        ({"text": "rose"}, r"\d+ examples are meant: .*; \.\.\.: give the"),
    ],
)
def test_what_names_no_example_or_several(told: Told, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rayclean.log(told.run, **given)
    with pytest.raises(ArtifactError, match="holds no run"):
        rayclean.log(rayclean.Run(told.run.path("load")), key="evil")


def test_recorded_reverts_without_keys_are_about_all_copies(own: Told) -> None:

    one, copy = (Change.of(unit, "the same", "ham", "spam") for unit in (1, 2))
    write_reverts(own.run, [one], undo=False, keyed=True)
    assert len(recorded_reverts(own.run, True, one)) == 1
    assert recorded_reverts(own.run, True, copy) == []
    assert len(recorded_reverts(own.run, False, copy)) == 1
