"""Decisions on an example's labels, what people said of them, and the label in the end."""

from collections.abc import Iterator
from math import exp

from rayclean.annotators.final_labels import EXAMPLE_LABELS, answer_name
from rayclean.annotators.reverts import Change, has_reverts, recorded_reverts
from rayclean.audits.answers import recorded_readings
from rayclean.audits.present_answers import answers_given
from rayclean.audits.units import label_name
from rayclean.folder import Folder
from rayclean.origins import Origins
from rayclean.stories.decision_events import AskedBeyond, AuditorAnswered, Decided, Final, Reverted
from rayclean.stories.events import Event
from rayclean.stories.subject import Subject, Unit


def deciding_events(subject: Subject) -> Iterator[Event]:
    """The decisions, then what people said in order of time, then the final label."""
    relabel = subject.done("relabel")
    if relabel is not None:
        yield from _decided(subject, relabel)
        yield from _beyond(subject, relabel)
    people: list[AuditorAnswered | Reverted] = [*_audited(subject), *_reverted(subject)]
    yield from sorted(people, key=lambda each: each.time)
    if relabel is not None:
        yield from _final(subject, relabel)


def _decided(subject: Subject, relabel: Folder) -> Iterator[Event]:
    tables = relabel.rows_with("annotations", "unit_id", subject.unit_ids)
    rows = {row["unit_id"]: row for _, table in tables for row in table.to_pylist()}
    for unit in subject.units:
        if (row := rows.get(unit.unit_id)) is None:
            continue
        values = {row["given_label"]: row["given_value"], row["suggested_label"]: row["suggested_value"]}
        yield Decided(
            part=unit.part,
            decision=row["decision"],
            given=subject.answer(row["given_label"], row["given_value"]) or "",
            suggested=subject.answer(row["suggested_label"], row["suggested_value"]) or "",
            choice=subject.answer(row["chosen_label"], values.get(row["chosen_label"])),
            confidence=row["confidence"],
            model_probability=1 / (1 + exp(-max(min(row["log_odds"], 700.0), -700.0))),
            evidence=row["evidence"],
            probability=row["probability"],
            by_machine=row["machine_decision"],
            annotator=row["annotator"],
            auditor=row["auditor"],
            error=row["error"],
        )


def _beyond(subject: Subject, relabel: Folder) -> Iterator[Event]:
    tables = relabel.rows_with("beyond", "unit_id", subject.unit_ids)
    rows = {row["unit_id"]: row for _, table in tables for row in table.to_pylist()}
    for unit in subject.units:
        if (row := rows.get(unit.unit_id)) is not None:
            yield AskedBeyond(
                part=unit.part,
                suggested=subject.names[row["suggested_label"]],
                choice=subject.answer(row["chosen_label"]),
                vote=row["chosen_label"] not in (None, row["given_label"]),
                quality=1 - row["probability"],
                probability=row["probability"],
            )


def _audited(subject: Subject) -> Iterator[AuditorAnswered]:
    if subject.done("detect") is None or not recorded_readings(subject.run):
        return
    units = {unit.unit_id: unit for unit in subject.units}
    for answer in answers_given(subject.run, subject.task, units):
        unit = units[answer.unit_id]
        yield AuditorAnswered(
            part=unit.part,
            auditor=answer.auditor,
            said=answer.said,
            label=None if answer.value is None else _said(subject, unit, answer.value),
            form=answer.form,
            time=answer.time,
        )


def _said(subject: Subject, unit: Unit, value: str) -> str:
    """The label that an auditor named by its content."""
    named = None if subject.task.candidates_are_labels else subject.answer(unit.given_label, value)
    return label_name(value) if named is None else named


def _reverted(subject: Subject) -> Iterator[Reverted]:
    if not has_reverts(subject.run):
        return
    keyed = Origins(subject.run.require("load")).keyed
    for unit in subject.units:
        if unit.given_label is not None:
            given = answer_name(subject.names, unit.given_label, unit.given_value)
            change = Change.of(unit.unit_id, subject.text, given, "")
            for time, reverted in recorded_reverts(subject.run, keyed, change):
                yield Reverted(part=unit.part, reverted=reverted, time=time)


def _final(subject: Subject, relabel: Folder) -> Iterator[Event]:
    for unit, row in subject.unit_rows(relabel, "labels"):
        yield Final(
            part=unit.part,
            label=subject.answer(row["final_label"], row["final_value"]) or "",
            changed=row["final_label"] != row["given_label"],
            source=row["source"],
            confidence=row["confidence"],
            decided_by=row["annotator"],
        )
    whole = subject.row(relabel, EXAMPLE_LABELS)
    if whole is not None:
        yield Final(
            label=subject.written(whole["final_label"]) or "",
            changed=whole["final_label"] != subject.example["given_label"],
            source=None,
            confidence=None,
            decided_by=None,
        )
