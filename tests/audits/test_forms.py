"""Forms as people send them back."""

import csv
import io
import json
from pathlib import Path

import pytest

from rayclean.audits.answers import NEITHER_LABEL, UNSURE
from rayclean.audits.forms import (
    check_auditor,
    contradictions,
    read_form,
    read_rows,
    row_unit,
    write_form,
)
from rayclean.audits.units import DoubtedUnit
from rayclean.errors import ConfigError, DataError
from rayclean.folder import Folder
from rayclean.schema import Label, LabelSet
from rayclean.tasks.classification import Classification

NAMES = ("ham", "spam", "a", "=cmd|' /C calc'!A0")
TASK = Classification(Classification.Config(), LabelSet(Label(i, n, n) for i, n in enumerate(NAMES)))
IDS = (2**63 - 1, -(2**63), 5, -7)


def unit(unit_id: int, text: str = "text", given: int = 0, suggested: int = 1) -> DoubtedUnit:
    candidates = (TASK.answers.candidate(each) for each in (given, suggested))
    return DoubtedUnit(unit_id, unit_id, text, given, suggested, None, *candidates)


UNITS = {key: unit(key, f"text of {key}") for key in IDS}


@pytest.fixture
def form(tmp_path: Path) -> Path:
    write_form(Folder(str(tmp_path)), "form", "audit-1", list(UNITS.values()), TASK)
    return tmp_path / "audit" / "form.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def filled(
    path: Path, answers: dict[int, str], delimiter: str = ",", order: int = 1, name: str = "back.csv"
) -> str:
    rows = rows_of(path)[::order]
    for row in rows:
        row["answer"] = answers.get(row_unit(row), "")
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], "note"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(row | {"note": "seen"} for row in rows)
    back = path.with_name(name)
    back.write_text(text.getvalue(), encoding="utf-8-sig")
    return str(back)


def answers_in(path: str) -> dict[int, tuple[str, str | None]]:
    returned = read_form(read_rows(path, ["audit-1"]), path, UNITS, TASK)
    return {each.unit_id: each.content for each in returned.answers}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("order", [1, -1])
def test_answers_come_back_whatever_the_spreadsheet_did(form: Path, delimiter: str, order: int) -> None:
    said = dict(zip(IDS, ("spam", " Ham ", NEITHER_LABEL, "UNSURE"), strict=True))
    found = answers_in(filled(form, said, delimiter, order))
    assert found == dict(
        zip(
            IDS, (("label", '"spam"'), ("label", '"ham"'), (NEITHER_LABEL, None), (UNSURE, None)), strict=True
        )
    )


def test_answers_that_a_spreadsheet_made_numbers_or_booleans_of(tmp_path: Path) -> None:
    names = ("1", "true", "caf\u00e9", "US", "us")
    task = Classification(Classification.Config(), LabelSet(Label(i, n, n) for i, n in enumerate(names)))
    candidates = (task.answers.candidate(0), task.answers.candidate(1))
    units = {key: DoubtedUnit(key, key, "text", 0, 1, None, *candidates) for key in range(5)}
    write_form(Folder(str(tmp_path)), "form", "audit-1", list(units.values()), task)
    path = filled(
        tmp_path / "audit" / "form.csv", dict(enumerate(["1.0", "TRUE", "Cafe\u0301 ", "us", "US\u200b"]))
    )
    returned = read_form(read_rows(path, ["audit-1"]), path, units, task)
    found = {each.unit_id: json.loads(each.value or "null") for each in returned.answers}
    assert found == {0: "1", 1: "true", 2: "caf\u00e9", 3: "us", 4: "US"}
    ambiguous = filled(tmp_path / "audit" / "form.csv", {3: "Us"})
    with pytest.raises(DataError, match="'Us'"):
        read_form(read_rows(ambiguous, ["audit-1"]), ambiguous, units, task)


def test_answers_of_a_program_in_json_lines_may_be_numbers_and_booleans(tmp_path: Path) -> None:
    names = ("0", "1", "false", "true")
    task = Classification(Classification.Config(), LabelSet(Label(i, n, n) for i, n in enumerate(names)))
    candidates = (task.answers.candidate(0), task.answers.candidate(1))
    units = {key: DoubtedUnit(key, key, "text", 0, 1, None, *candidates) for key in range(6)}
    write_form(Folder(str(tmp_path)), "form", "audit-1", list(units.values()), task)
    said = dict(enumerate([0, 1, False, True, None, ""]))
    rows = [json.loads(line) for line in (tmp_path / "audit" / "form.jsonl").read_text().splitlines()]
    for row in rows:
        row["answer"] = said[int(row["id"][1:], 16)]
    back = tmp_path / "back.jsonl"
    back.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    returned = read_form(read_rows(str(back), ["audit-1"]), str(back), units, task)
    found = {each.unit_id: json.loads(each.value or "null") for each in returned.answers}
    assert (found, returned.unanswered) == ({0: "0", 1: "1", 2: "false", 3: "true"}, 2)


def test_the_form_is_blind(tmp_path: Path) -> None:
    """Nothing in it depends on which of the two labels is the given one."""
    content = []
    for number, (given, suggested) in enumerate([(0, 1), (1, 0)]):
        write_form(Folder(str(tmp_path)), f"form{number}", "audit-1", [unit(5, "x", given, suggested)], TASK)
        content.append((tmp_path / "audit" / f"form{number}.csv").read_text())
    assert content[0] == content[1]


def test_letters_stand_for_the_labels_shown_unless_a_label_has_this_name(form: Path) -> None:
    assert answers_in(filled(form, {5: "b"})) == {5: ("label", '"spam"')}
    assert answers_in(filled(form, {5: "a"})) == {5: ("label", '"a"')}  # the third class


def test_nothing_in_a_form_is_run_by_a_spreadsheet(tmp_path: Path) -> None:
    hostile = unit(5, "=HYPERLINK(0)", 0, 3)
    write_form(Folder(str(tmp_path)), "form", "audit-1", [hostile], TASK)
    path = tmp_path / "audit" / "form.csv"
    assert [value[:2] for value in rows_of(path)[0].values() if value.lstrip("'").startswith("=")] == [
        "'=",
        "'=",
    ]
    back = filled(path, {5: "'" + NAMES[3]})
    assert read_form(read_rows(back, ["audit-1"]), back, {5: hostile}, TASK).answers[0].value == json.dumps(
        NAMES[3]
    )
    lines = (tmp_path / "audit" / "form.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["text"] == "=HYPERLINK(0)"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_cells_that_a_spreadsheet_would_run_are_texts(tmp_path: Path, start: str) -> None:
    write_form(Folder(str(tmp_path)), "form", "audit-1", [unit(5, f"{start}1+1")], TASK)
    (row,) = read_rows(str(tmp_path / "audit" / "form.csv"), ["audit-1"])
    assert row["text"] == f"'{start}1+1"


def test_long_texts_and_separators_of_lines_survive(tmp_path: Path) -> None:
    text = "word\u2028 \n;," * 40_000
    write_form(Folder(str(tmp_path)), "form", "audit-1", [unit(5, text)], TASK)
    for name in ("form.csv", "form.jsonl"):
        (row,) = read_rows(str(tmp_path / "audit" / name), ["audit-1"])
        assert row["text"] == text


def test_a_half_filled_form(form: Path) -> None:
    path = filled(form, {5: "ham"})
    returned = read_form(read_rows(path, ["audit-1"]), path, UNITS, TASK)
    assert (len(returned.answers), returned.unanswered, returned.unknown) == (1, 3, [])


def test_unknown_ids_are_listed_and_passed_over(form: Path) -> None:
    path = filled(form, dict.fromkeys(IDS, "ham"))
    content = Path(path).read_text(encoding="utf-8-sig").replace("u0000000000000005", "u00000000000000ff")
    Path(path).write_text(content.replace("ufffffffffffffff9", "1.8E+19"))
    returned = read_form(read_rows(path, ["audit-1"]), path, UNITS, TASK)
    assert sorted(returned.unknown) == ["1.8E+19", "u00000000000000ff"]
    assert len(returned.answers) == 2


def test_contradictions_are_found(form: Path) -> None:
    path = filled(form, {5: "ham", -7: "ham"})
    first = read_form(read_rows(path, ["audit-1"]), path, UNITS, TASK).answers
    path = filled(form, {5: "spam", -7: "ham"})
    second = read_form(read_rows(path, ["audit-1"]), path, UNITS, TASK).answers
    assert contradictions([*first, *second]) == [5]


def test_an_answer_outside_of_the_candidates_names_its_row(form: Path) -> None:
    path = filled(form, {IDS[0]: "ham", IDS[1]: "spma"})
    with pytest.raises(
        DataError,
        match=r"row 3: 'spma' \(did you mean .*spam.*nothing was recorded|nothing was recorded.*row 3: 'spma'",
    ):
        answers_in(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("audit-1", "audit-2"),
            "the column form holds 'audit-2', and this run expects",
        ),
        (lambda text: text.replace("answer", "label", 1), "has no column 'answer'"),
        (lambda text: text.replace("id,", "example,", 1), "has no column 'id'"),
    ],
)
def test_what_is_no_form_of_this_run_is_refused(form: Path, change, message: str) -> None:
    form.write_text(change(form.read_text()))
    with pytest.raises(DataError, match=message):
        read_rows(str(form), ["audit-1"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_rows(str(tmp_path / "gone.csv"), ["audit-1"])
    (tmp_path / "latin.csv").write_bytes("form,id,answer\naudit-1,u5,h\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read_rows(str(tmp_path / "latin.csv"), ["audit-1"])
    (tmp_path / "broken.jsonl").write_text('{"form": "audit-1", "id": "u5", "answer": "ham"}\n{"form"\n')
    with pytest.raises(DataError, match="line 2: no JSON"):
        read_rows(str(tmp_path / "broken.jsonl"), ["audit-1"])


def test_an_annotator_is_not_its_own_auditor() -> None:
    with pytest.raises(ConfigError, match="'SmolLM2' is the annotator of this run"):
        check_auditor("SmolLM2", ["served", "smollm2"])
    with pytest.raises(ConfigError, match="the name is empty"):
        check_auditor(" ", [])
    check_auditor("anna", ["served"])
