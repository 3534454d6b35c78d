"""The form for an auditor: one row a question, as CSV for a spreadsheet and as JSON lines for a program; and its return.

The form is blind: it shows two labels, `a` and `b`, in an order that depends on the labels alone, and tells neither which
one the data set gives nor whether the unit is a suspect, because people tend to confirm what they are shown. The answer is
one of the two letters, the name of any label (where labels have names), `neither` or `unsure`. Answers that are no labels,
such as the spans of an entity class, are shown as texts in which they are marked; where a unit is a part of an example, such
as one entity class of a sentence, the column `about` names it.

What comes back may be half filled, sorted otherwise, given twice or saved by a spreadsheet with other separators. A wrong
answer is refused before anything is recorded, with its row; rows of unknown units are listed and passed over.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.audits.answers import NEITHER_LABEL, UNSURE, AuditAnswer
from rayclean.audits.units import DoubtedUnit, shown_answer
from rayclean.class_names import ClassNames
from rayclean.errors import ConfigError, DataError
from rayclean.folder import Folder
from rayclean.plain_values import defused
from rayclean.plugins import did_you_mean
from rayclean.schema import Candidate
from rayclean.tasks.base import Task

FORM_COLUMNS = ("form", "id", "text", "a", "b", "answer")
"""Columns of a form; further ones, such as notes, are welcome and not read."""
_ABOUT = "about"
"""Column behind the text that says which part of it is asked about; a form about whole examples has none."""
_SHOWN = 5


@dataclass(frozen=True)
class ReturnedForm:
    """What came back."""

    answers: list[AuditAnswer]
    """All answers, also repeated and contradicting ones, in the order of the rows."""
    unanswered: int
    """Rows left empty."""
    unknown: list[str]
    """Ids that are no unit of this run."""


def write_form(
    folder: Folder, name: str, form: str, units: Sequence[DoubtedUnit], task: Task
) -> tuple[str, str]:
    """Write the questions about some units, in their order.

    Args:
        folder: of the run.
        name: of the files, without ending; older ones of this name are replaced.
        form: name of the sample (`draw.form_name`), by which answers to another one are noticed.
        units: B units.
        task: of the run.

    Returns:
        Paths of the CSV file and of the JSON lines.
    """
    rows = [_row(form, unit, task) for unit in units]
    text = io.StringIO()
    columns = [*FORM_COLUMNS] if task.units_are_examples else [*FORM_COLUMNS[:3], _ABOUT, *FORM_COLUMNS[3:]]
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")  # else a lone \r in a text is not quoted
    writer.writeheader()
    writer.writerows({key: defused(value) for key, value in row.items()} for row in rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # Excel takes a file for UTF-8 only with this mark.
    folder.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode(), "audit", f"{name}.csv")
    folder.write_text(lines, "audit", f"{name}.jsonl")
    return folder.url("audit", f"{name}.csv"), folder.url("audit", f"{name}.jsonl")


def read_rows(path: str, forms: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a form that came back, each with its number in the file.

    Args:
        path: a CSV file with commas, semicolons or tabs, or JSON lines; on any file system.
        forms: the form's name must be one of these.

    Raises:
        DataError: the file cannot be read, is no form, or is one of another run, detection or seed.
    """
    parent, _, name = path.rpartition("/")
    folder = Folder(parent or ".")
    if not folder.exists(name):
        raise DataError(f"{path} does not exist: give the form that was filled in, as CSV or JSON lines")
    try:
        text = folder.read_text(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error}): save it as 'CSV UTF-8', or fill in the JSON lines"
        ) from error
    rows = list(_json_rows(path, text) if path.endswith((".jsonl", ".json")) else _csv_rows(path, text))
    expected = set(forms)
    for row in rows:
        if row["form"] not in expected:
            raise DataError(
                f"{path}, row {row['row']}: the column form holds {row['form']!r}, and this run expects "
                f"{' or '.join(repr(each) for each in sorted(expected))}: the form is of another run, detection or seed, so its "
                "answers cannot be used. Write the form anew (the same command without --answers), and fill that in"
            )
    return rows


def read_form(
    rows: Sequence[Mapping[str, Any]], path: str, units: Mapping[int, DoubtedUnit], task: Task
) -> ReturnedForm:
    """The answers in the rows of a form.

    Args:
        rows: of `read_rows`.
        path: of the file, for messages.
        units: the run's units by id (`row_unit` says which are meant).
        task: of the run.

    Raises:
        DataError: an answer is none of those that the question leaves.
    """
    answers, unknown, unanswered = [], [], 0
    wrong: list[str] = []
    for row in rows:
        said = str(row["answer"]).strip()
        unit_id = row_unit(row)
        unit = None if unit_id is None else units.get(unit_id)
        if not said:
            unanswered += 1
        elif unit is None:
            unknown.append(str(row["id"]))
        else:
            found = _understood(said, unit, task)
            if found is None:
                offered = (
                    _offered(unit, task) if task.candidates_are_labels else ("a", "b")
                )  # not whole texts
                wrong.append(
                    f"row {row['row']}: {said!r} ({did_you_mean(said, [*offered, NEITHER_LABEL, UNSURE])})"
                )
            else:
                answers.append(AuditAnswer(unit.unit_id, unit.text_hash, *found, part=unit.part))
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DataError(
            f"{path}: {len(wrong)} answers cannot be read, and nothing was recorded: "
            f"{'; '.join(wrong[:_SHOWN])}{more}. Write a, b, the name of a label, {NEITHER_LABEL} or "
            f"{UNSURE} in the column answer"
        )
    return ReturnedForm(answers, unanswered, unknown)


def check_auditor(auditor: str, annotators: Iterable[str]) -> None:
    """Refuse an annotator as its own auditor.

    Args:
        auditor: name of the person.
        annotators: names of the run's annotators and of their models.

    Raises:
        ConfigError: it is one of them.
    """
    if not auditor.strip():
        raise ConfigError("--auditor: the name is empty; say who answered, such as --auditor anna")
    same = [name for name in annotators if name.casefold() == auditor.strip().casefold()]
    if same:
        raise ConfigError(
            f"--auditor: {auditor!r} is the annotator of this run; its own answers cannot show that it is right: have a "
            "person (or another, better model under its own name) answer the form"
        )


def row_unit(row: Mapping[str, Any]) -> int | None:
    """Id of the unit of a row; None where the id was damaged."""
    digits = str(row["id"]).strip().removeprefix("u")
    try:
        value = int(digits, 16)
    except ValueError:
        return None
    return value - 2**64 if value >= 2**63 else value


def contradictions(answers: Sequence[AuditAnswer]) -> list[int]:
    """Ids of units that were answered in several ways."""
    ways = Counter(unit for unit, _ in {(each.unit_id, each.content) for each in answers})
    return sorted(unit for unit, count in ways.items() if count > 1)


def _row(form: str, unit: DoubtedUnit, task: Task) -> dict[str, str]:
    a, b = (shown_answer(each, task) for each in _in_order(unit, task))
    # Not a number: a spreadsheet would round it.
    row = {"form": form, "id": f"u{unit.unit_id % 2**64:016x}", "text": unit.text}
    about = {} if task.units_are_examples else {_ABOUT: unit.part}
    return {**row, **about, "a": a, "b": b, "answer": ""}


def _in_order(unit: DoubtedUnit, task: Task) -> list[Candidate]:
    """The two labels, in an order that does not tell which one is given."""
    return sorted((unit.given, unit.suggested), key=lambda each: (each.word, each.value))


def _offered(unit: DoubtedUnit, task: Task) -> dict[str, Candidate]:
    """All answers by what an auditor may write. A label's name goes before a letter; a letter before a marked text, which may
    be one letter long, and which nobody types.
    """
    a, b = _in_order(unit, task)
    letters = {"a": a, "b": b}
    named = {shown_answer(each, task): each for each in (a, b, *unit.further(task))}
    if task.candidates_are_labels:
        return {**letters, **named}
    return {a.value: a, b.value: b, **named, **letters}


def _understood(said: str, unit: DoubtedUnit, task: Task) -> tuple[str, str | None] | None:
    """`said` and `value` of an answer; None if it is no answer."""
    offered = _offered(unit, task)
    if said not in offered and said.startswith("'"):
        said = said[1:]
    if said not in offered:
        # A spreadsheet turns 1 into 1.0 and true into TRUE, and people type names in their own way.
        names = list(offered)
        index = ClassNames(names).find(said)
        said = said if index is None else names[index]
    if said in offered:
        return "label", offered[said].value
    return (said.casefold(), None) if said.casefold() in (NEITHER_LABEL, UNSURE) else None


def _csv_rows(path: str, text: str) -> Iterator[dict[str, Any]]:
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    csv.field_size_limit(
        max(csv.field_size_limit(), len(text) + 1)
    )  # a text may be longer than the usual 128 KiB
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    _check_columns(path, reader.fieldnames or [])
    for row in reader:
        if any(row.get(name) for name in FORM_COLUMNS):  # blank lines are no rows
            yield {**{name: row.get(name) or "" for name in FORM_COLUMNS}, "row": reader.line_num}


def _json_rows(path: str, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error}): one object a line") from error
            _check_columns(path, row if isinstance(row, dict) else [])
            said = {name: row.get(name) for name in FORM_COLUMNS}
            yield {**{name: "" if each is None else each for name, each in said.items()}, "row": number}


def _check_columns(path: str, found: Iterable[str]) -> None:
    needed = ("form", "id", "answer")
    if missing := [name for name in needed if name not in found]:
        raise DataError(
            f"{path} has no column {missing[0]!r}: a form has {', '.join(FORM_COLUMNS)}; columns may be added, but these "
            "must stay"
        )
