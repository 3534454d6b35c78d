"""What an audit says of all labels: how many are wrong before and after, what detection sees, what the annotator is worth.

Every figure has a 95 % interval. Figures "after" are those of the labels that the machine decided: that the audited labels
themselves are right now is no merit of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.audits.answers import NEITHER_LABEL, UNSURE, AuditAnswer, AuditAnswers
from rayclean.audits.draw import Draw, Population, read_draw, read_population
from rayclean.audits.present_answers import present_answers
from rayclean.audits.units import DoubtedUnit, read_units
from rayclean.config import AuditConfig
from rayclean.folder import Folder
from rayclean.functional.audit_rates import annotator_rates, audit_rates, error_bound
from rayclean.functional.proportions import AuditedPart, Rate, noise_rate
from rayclean.functional.types import Bools, Ids
from rayclean.run import Run
from rayclean.tasks.base import Task


@dataclass(frozen=True)
class Sample:
    """The A audited units of a draw that count: answered, by nobody denied, and not unsure."""

    units: list[DoubtedUnit]
    answers: list[AuditAnswer]
    suspect: Bools
    """[A] whether it is a suspect."""

    @property
    def wrong(self) -> Bools:
        """[A] whether the given label is wrong."""
        pairs = zip(self.units, self.answers, strict=True)
        return np.array([is_wrong(answer, unit.given.value) for unit, answer in pairs], dtype=np.bool_)


def is_wrong(answer: AuditAnswer, value: str) -> bool:
    """Whether a label is wrong by an auditor's answer."""
    return answer.said == NEITHER_LABEL or answer.value != value


def read_sample(
    answers: AuditAnswers, units: Mapping[int, DoubtedUnit], population: Population, ids: Ids
) -> Sample:
    """The units of a draw whose answers count, in the order of their ids."""
    known = [
        unit_id
        for unit_id in np.unique(ids).tolist()
        if unit_id in units and unit_id in answers.settled and answers.settled[unit_id].said != UNSURE
    ]
    is_suspect = np.isin(np.array(known, dtype=np.int64), population.unit_id[population.suspect])
    return Sample(
        [units[unit_id] for unit_id in known], [answers.settled[unit_id] for unit_id in known], is_suspect
    )


def noise_before(sample: Sample, population: Population) -> Rate:
    """Share of wrong labels among all units, as they were given."""
    return noise_rate(_parts(sample.wrong, sample.suspect, population))


def audit_figures(run: Run, config: AuditConfig, task: Task) -> dict[str, Any] | None:
    """All figures of the audit of a run, as plain JSON; None before anybody answered."""
    answers = present_answers(run, task).answers
    draw = read_draw(run, config)
    if not len(draw.units) or not answers.units & {*draw.units.tolist()}:
        return None
    units = read_units(run, task, draw.units.tolist())
    return figures(
        answers.about(units),
        units,
        draw,
        read_population(run.require("detect")),
        run.require("relabel"),
        task,
    )


def final_error(run: Run, config: AuditConfig, task: Task, delta: float) -> dict[str, Any] | None:
    """What the random part of an audit says of all labels at the end, as plain JSON; None where none of it was answered.

    A label that the machine decided counts as wrong by the auditor's word, also if that is unsure or auditors disagree; the
    audited ones are mended afterwards, which only makes the bound safer.

    Returns:
        `bound` (the share of wrong labels is at most this, except with probability delta), `answered`, and how many of
        these are `wrong`.
    """
    present = present_answers(run, task)
    drawn = [key for key in np.unique(read_draw(run, config).random).tolist() if key in present.answers.units]
    if not drawn:
        return None
    settled, wrong = present.answers.settled, 0
    decided, _ = _machine(run.require("relabel"), drawn)
    for key in drawn:
        unit, changed = present.units[key], decided.get(key, {}).get("machine_decision") == "changed"
        label = unit.suggested if changed else unit.given
        wrong += key not in settled or is_wrong(settled[key], label.value)
    size = len(read_population(run.require("detect")).unit_id)
    bound = error_bound(AuditedPart(size, len(drawn), int(wrong)), delta)
    return {"bound": bound, "answered": len(drawn), "wrong": int(wrong)}


def figures(
    answers: AuditAnswers,
    units: Mapping[int, DoubtedUnit],
    draw: Draw,
    population: Population,
    relabel: Folder,
    task: Task,
) -> dict[str, Any]:
    """The figures of `audit_figures`."""
    sample = read_sample(answers, units, population, draw.units)
    wrong, suspect = sample.wrong, sample.suspect
    count = int(population.suspect.sum())
    rates = audit_rates(wrong, suspect, count, len(population.unit_id), population.expected_rest)
    decided, changed = _machine(relabel, [unit.unit_id for unit in sample.units])
    after, answered_right, neither, changes, changed_wrong = wrong.copy(), [], 0, 0, 0
    for row, (unit, answer) in enumerate(zip(sample.units, sample.answers, strict=True)):
        machine = decided.get(unit.unit_id)
        if machine is None:
            continue
        neither += is_wrong(answer, unit.given.value) and is_wrong(answer, unit.suggested.value)
        if machine["machine_decision"] == "changed":
            after[row] = is_wrong(answer, unit.suggested.value)
            changes, changed_wrong = changes + 1, changed_wrong + int(after[row])
        if machine["chosen_label"] is not None:
            answered_right.append(not is_wrong(answer, _chosen_value(machine["chosen_label"], unit, task)))
    annotator = annotator_rates(np.array(answered_right, dtype=np.bool_), wrong[suspect], after[suspect])
    ids = {*draw.units.tolist()}
    return {
        "auditors": sorted({answer.auditor for answer in sample.answers}),
        "drawn": len(ids),
        "answered": len(sample.units),
        "suspects_answered": int(suspect.sum()),
        "unsure": sum(answers.settled[key].said == UNSURE for key in ids & {*answers.settled}),
        "conflicts": len(ids & {*answers.conflicts}),
        "noise_before": _plain(rates.noise),
        "noise_after": _plain(noise_rate(_parts(after, suspect, population))),
        "among_suspects": _plain(rates.among_suspects),
        "among_rest": _plain(rates.among_rest),
        "expected_rest": population.expected_rest,
        "found": _plain(rates.found),
        "neither": _plain(noise_rate([AuditedPart(count, int(suspect.sum()), int(neither))])),
        "annotator_accuracy": _plain(annotator.accuracy) if answered_right else None,
        "changes_wrong": _plain(noise_rate([AuditedPart(changed, changes, changed_wrong)]))
        if changed
        else None,
        "repaired": _plain(annotator.repaired),
        "harm_among_suspects": _plain(annotator.harmed),
        "unexpected_p_value": rates.unexpected,
        "systematic": bool(rates.systematic),
    }


def _parts(wrong: Bools, suspect: Bools, population: Population) -> list[AuditedPart]:
    count = int(population.suspect.sum())
    return [
        AuditedPart(count, int(suspect.sum()), int((wrong & suspect).sum())),
        AuditedPart(len(population.unit_id) - count, int((~suspect).sum()), int((wrong & ~suspect).sum())),
    ]


def _chosen_value(chosen: int, unit: DoubtedUnit, task: Task) -> str:
    """The annotator's answer by its content; with `relabel.candidates = "all"` it may be a third label."""
    if chosen == unit.given_label:
        return unit.given.value
    if chosen == unit.suggested_label or not task.candidates_are_labels:
        return unit.suggested.value
    return task.answers.candidate(chosen).value


def _machine(relabel: Folder, ids: Sequence[int]) -> tuple[dict[int, dict[str, Any]], int]:
    """What the machine decided about some suspects, by unit; and how many labels of all suspects it would change."""
    wanted, found, changed = pa.array(ids, pa.int64()), dict[int, dict[str, Any]](), 0
    columns = ["unit_id", "machine_decision", "chosen_label"]
    for shard in relabel.shards("annotations"):
        table = relabel.read_table("annotations", shard, columns=columns)
        changed += pc.sum(pc.equal(table["machine_decision"], "changed")).as_py() or 0
        found |= {row["unit_id"]: row for row in table.filter(pc.is_in(table["unit_id"], wanted)).to_pylist()}
    return found, changed


def _plain(rate: Rate) -> dict[str, float | None]:
    value = None if math.isnan(rate.value) else float(rate.value)
    return {"value": value, "low": float(rate.low), "high": float(rate.high)}
