"""Auditors' answers in the ledger."""

from pathlib import Path

import pytest

from rayclean.audits.answers import (
    NEITHER_LABEL,
    UNSURE,
    AuditAnswer,
    answers_fingerprint,
    read_answers,
    record_answers,
)
from rayclean.folder import Folder


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def said(unit_id: int, value: str | None, kind: str = "label") -> AuditAnswer:
    return AuditAnswer(unit_id, "hash", kind if value is None else "label", value)


def record(run: Folder, auditor: str, *answers: AuditAnswer) -> None:
    record_answers(run, answers, auditor, "audit-1")


def test_who_said_what_and_when(run: Folder) -> None:
    assert answers_fingerprint(run) == ""
    record(run, "anna", said(1, '"x"'), said(2, None, NEITHER_LABEL))
    found = read_answers(run)
    assert {key: each.content for key, each in found.settled.items()} == {
        1: ("label", '"x"'),
        2: (NEITHER_LABEL, None),
    }
    assert found.auditors == ["anna"]
    assert found.settled[1].time > 1.7e9
    assert answers_fingerprint(run) != ""


def test_the_last_word_of_an_auditor_counts(run: Folder) -> None:
    record(run, "anna", said(1, '"x"'), said(2, '"x"'))
    record(run, "anna", said(1, '"y"'))
    found = read_answers(run)
    assert {key: each.value for key, each in found.settled.items()} == {1: '"y"', 2: '"x"'}
    assert not found.conflicts


def test_differing_answers_of_one_reading_or_of_two_auditors_are_a_conflict(run: Folder) -> None:
    record(run, "anna", said(1, '"x"'), said(1, '"y"'), said(2, '"x"'), said(3, '"x"'))
    record(run, "ben", said(2, '"y"'), said(3, '"x"'))
    found = read_answers(run)
    assert {*found.conflicts} == {1, 2}
    assert [(each.auditor, each.value) for each in found.conflicts[2]] == [("anna", '"x"'), ("ben", '"y"')]
    assert {*found.settled} == {3}
    record(run, "anna", said(1, '"y"'), said(2, '"y"'))  # she settles both
    assert not read_answers(run).conflicts


def test_who_is_unsure_contradicts_nobody(run: Folder) -> None:
    record(run, "anna", said(1, None, UNSURE), said(2, None, UNSURE))
    record(run, "ben", said(1, '"y"'))
    found = read_answers(run).settled
    assert (found[1].value, found[2].said) == ('"y"', UNSURE)
