"""`rayclean audit` and `rayclean certify`: write a form, read it back, say what it shows.

Both work on a run whose `relabel` is finished, and ask no annotator anything: decisions are made again from what is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayclean.annotators import relabel_annotators
from rayclean.annotators.final_labels import write_labels
from rayclean.audits.answers import AUDIT, CERTIFICATE, ORACLE, AuditAnswer, record_answers
from rayclean.audits.certificate import (
    certified_proposals,
    proposal_answers,
    questions,
    read_certificate,
    write_certificate,
)
from rayclean.audits.draw import FOLDER, draw_sample, form_name, read_population
from rayclean.audits.forms import (
    check_auditor,
    contradictions,
    read_form,
    read_rows,
    row_unit,
    write_form,
)
from rayclean.audits.oracle import oracle_answers
from rayclean.audits.present_answers import present_answers
from rayclean.audits.rates import audit_figures, final_error
from rayclean.audits.settle import read_proposals, settle
from rayclean.audits.units import DoubtedUnit, read_units
from rayclean.config import CertifyConfig, Config
from rayclean.errors import ArtifactError
from rayclean.functional.hashing import mix
from rayclean.functional.types import Ids
from rayclean.run import MANIFEST, Run
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.verb_fingerprints import fingerprints, is_relabelled

AUDIT_FORM_FILE, CERTIFY_FORM_FILE = "form", "certificate-form"


@dataclass
class Reading:
    """What forms that came back held."""

    answers: int = 0
    """Answers that were new to the ledger."""
    repeated: int = 0
    """Answers that the same auditor has given before."""
    unanswered: int = 0
    """Rows left empty."""
    unknown: list[str] = field(default_factory=list)
    """Ids that are no unit of this run."""
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """Of every unit about which answers differ: `id`, `text`, `answers` (who said what)."""


@dataclass
class Audited:
    """The state of an audit."""

    figures: dict[str, Any] | None
    """`rates.audit_figures`; None before the first answer."""
    questions: int
    """Units of the sample that still have no answer."""
    forms: tuple[str, str]
    """CSV and JSON lines with these."""
    reading: Reading


@dataclass
class CertificateState:
    """The state of a certificate."""

    statement: dict[str, Any]
    """`target`, `delta`, `seed`, `proposals`, `accepted`, `audited`, `wrong`, `ended_by`, `restricts` (whether labels
    beyond the certified ones stay as they were), `final_error` (`rates.final_error`)."""
    certificate: dict[str, Any]
    """The certificate file."""
    questions: int
    """Questions of the next form; 0 where no answer would certify more."""
    forms: tuple[str, str]
    reading: Reading


def audit_run(config: Config, run: Run, files: Sequence[str], auditor: str, *, oracle: bool) -> Audited:
    """Draw the sample, read what came back, decide again, write the form of what is open.

    Args:
        config: of the run.
        run: with a finished relabel; locked by the caller.
        files: forms that came back.
        auditor: who answered them.
        oracle: whether the true labels answer what is open, in experiments.

    Raises:
        RaycleanError: relabel is not finished, the auditor is the annotator, or a form is wrong.
    """
    task = require_relabelled(config, run)
    draw = draw_sample(run, config.audit, read_population(run.require("detect")))
    reading = _read(config, run, task, files, auditor)
    if oracle:
        units = read_units(run, task, _open(run, task, draw.units).tolist())
        record_answers(run, oracle_answers(run, units, task), ORACLE, draw.form)
    decide_again(config, run, task)
    left = _open(run, task, draw.units)
    left = left[np.argsort(mix(left, config.audit.seed, "audit form"))]
    units = read_units(run, task, left.tolist())
    forms = write_form(run, AUDIT_FORM_FILE, draw.form, [units[key] for key in left.tolist()], task)
    reading.conflicts = _conflicts(run, task)
    figures = audit_figures(run, config.audit, task)
    if figures is not None:
        run.write_json(figures, FOLDER, "audit.json")
    return Audited(figures, len(left), forms, reading)


def certify_run(
    config: Config, run: Run, files: Sequence[str], auditor: str, *, oracle: bool
) -> CertificateState:
    """Read what came back, certify, decide again, write the next form.

    Args and errors: those of `audit_run`.
    """
    task = require_relabelled(config, run)
    rule = config.relabel.certify or CertifyConfig()
    form = form_name(run, config.seed, CERTIFICATE)
    reading = _read(config, run, task, files, auditor)
    decide_again(config, run, task)  # a form of an audit among the files changes the proposals
    while True:
        present = present_answers(run, task)
        answers, units = present.answers, present.units
        proposals = read_proposals(run.require("relabel"), answers.audited)
        told = proposal_answers(proposals, answers, units)
        following = questions(proposals, told, rule, config.seed).tolist()
        asked = read_units(run, task, following)
        if not (oracle and following):
            break
        record_answers(run, oracle_answers(run, asked, task), ORACLE, form)
    found, _ = certified_proposals(proposals, told, rule, config.seed)
    decide_again(config, run, task)
    statement = {
        "target": rule.target,
        "delta": rule.delta,
        "seed": config.seed,
        "proposals": len(proposals.unit_id),
        "accepted": found.accepted,
        "audited": len(found.audited),
        "wrong": found.wrong,
        "ended_by": found.reason,
        "auditors": sorted(
            {answers.settled[key].auditor for key in proposals.unit_id.tolist() if key in answers.settled}
        ),
        "restricts": config.relabel.certify is not None,
        "final_error": final_error(run, config.audit, task, rule.delta),
    }
    write_certificate(config, run, statement)
    forms = write_form(run, CERTIFY_FORM_FILE, form, [asked[key] for key in following], task)
    reading.conflicts = _conflicts(run, task)
    certificate = read_certificate(config, run)
    assert certificate is not None
    return CertificateState(statement, certificate, len(following), forms, reading)


def require_relabelled(config: Config, run: Run) -> Task:
    """The task of a run whose relabel is finished; what people have said since may wait for `decide_again`.

    Raises:
        ArtifactError: relabel is not finished under this config.
    """
    if not is_relabelled(config, run):
        raise ArtifactError(
            f"{run.url('relabel')} is missing or was made from another config: run `rayclean clean` first"
        )
    return TASKS.build(config.task, LabelSet.from_json(run.read_text("load", "labels.json")))


def _read(config: Config, run: Run, task: Task, files: Sequence[str], auditor: str) -> Reading:
    """Take the answers of some forms into the ledger, all or none."""
    relabel = run.manifest("relabel")
    assert relabel is not None
    model = relabel.metrics["annotator"]["model"]
    annotators = [each.name for each in relabel_annotators(config)]
    check_auditor(auditor, [*annotators, *(model.split(", ") if model else [])])
    forms = [
        form_name(run, config.audit.seed, AUDIT),
        form_name(run, config.seed, CERTIFICATE),
    ]
    reading, told = Reading(), dict[str, list[AuditAnswer]]()
    for path in files:
        rows = read_rows(path, forms)
        ids = {unit for row in rows if (unit := row_unit(row)) is not None}
        units = read_units(run, task, ids)
        for form in forms:  # a file may hold rows of both
            returned = read_form([row for row in rows if row["form"] == form], path, units, task)
            reading.unanswered += returned.unanswered
            reading.unknown += returned.unknown
            told.setdefault(form, []).extend(returned.answers)
    known = present_answers(run, task).answers.settled
    for form, answers in told.items():
        differing = set(contradictions(answers))
        new = dict[Any, AuditAnswer]()
        for answer in answers:
            before = known.get(answer.unit_id)
            now = (form, auditor, *answer.content)
            repeated = before is not None and (before.form, before.auditor, *before.content) == now
            key = answer.unit_id, answer.content
            if key in new or (repeated and answer.unit_id not in differing):
                reading.repeated += 1
            else:
                new[key] = answer
        if new:
            record_answers(run, new.values(), auditor, form)
            reading.answers += len(new)
    return reading


def decide_again(config: Config, run: Run, task: Task) -> None:
    """Decisions and labels by all that people have said; the verbs after relabel become stale."""
    expected = fingerprints(config, run)["relabel"]
    if run.done("relabel", expected):  # no answer came
        return
    relabel = run.require("relabel")
    manifest = run.read_json("relabel", MANIFEST)
    settled = settle(config, run, relabel, task)
    labels = write_labels(run, relabel, task)
    del settled["warnings"]  # the relabel that ran last has said what is lost
    metrics = manifest["metrics"] | settled.pop("decisions") | {"audit": settled, "labels": labels}
    run.write_json({**manifest, "fingerprint": expected, "metrics": metrics}, "relabel", MANIFEST)


def _open(run: Run, task: Task, units: Ids) -> Ids:
    """Units without an answer that counts."""
    settled = present_answers(run, task).answers.settled
    return units[~np.isin(units, np.fromiter(settled, dtype=np.int64))]


def _conflicts(run: Run, task: Task) -> list[dict[str, Any]]:
    present = present_answers(run, task)
    return [
        {
            "id": f"u{key % 2**64:016x}",
            "text": present.units[key].text,
            "answers": [f"{each.auditor}: {_content(each, present.units[key], task)}" for each in several],
        }
        for key, several in sorted(present.answers.conflicts.items())
    ]


def _content(answer: AuditAnswer, unit: DoubtedUnit, task: Task) -> str:
    """What an auditor said, in words where its JSON says nothing to a person."""
    shown = {each.value: each.word for each in (unit.given, unit.suggested)}
    known = {} if task.candidates_are_labels else shown
    return answer.said if answer.value is None else known.get(answer.value, answer.value)
