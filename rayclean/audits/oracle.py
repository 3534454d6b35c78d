"""An auditor for experiments on data whose truth is known. It reads the true labels and is named so in all it leaves."""

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.audits.answers import NEITHER_LABEL, UNSURE, AuditAnswer
from rayclean.audits.units import DoubtedUnit
from rayclean.errors import DataError
from rayclean.evaluation.counts import UNKNOWN
from rayclean.evaluation.label_metrics import true_answers
from rayclean.run import Run
from rayclean.tasks.base import Task


def oracle_answers(run: Run, units: Mapping[int, DoubtedUnit], task: Task) -> list[AuditAnswer]:
    """The true answers about some units; `UNSURE` where the truth is not known.

    Raises:
        DataError: the run knows the truth of none of them.
    """
    load, detect = run.require("load"), run.require("detect")
    columns = ["unit_id", "given_value", "suggested_value"]
    wanted, found = pa.array(sorted(units), pa.int64()), []
    for shard in detect.shards("findings"):
        findings = detect.read_table("findings", shard, columns=columns)
        findings = findings.filter(pc.is_in(findings["unit_id"], wanted))
        if len(findings):
            true = true_answers(load, shard, findings, task)
            for unit_id, answer in zip(findings["unit_id"].to_pylist(), true.tolist(), strict=True):
                unit = units[unit_id]
                found.append(replace(_answer(unit, answer, task), part=unit.part))
    if found and all(each.said == UNSURE for each in found):
        raise DataError(
            "--oracle answers by the true labels, and this run knows none (dataset.truth): leave --oracle out and have a "
            "person fill in the form"
        )
    return found


def _answer(unit: DoubtedUnit, true: int, task: Task) -> AuditAnswer:
    key = unit.unit_id, unit.text_hash
    if true == UNKNOWN:
        return AuditAnswer(*key, UNSURE, None)
    if true == unit.given_label:
        return AuditAnswer(*key, "label", unit.given.value)
    if true == unit.suggested_label:
        return AuditAnswer(*key, "label", unit.suggested.value)
    named = task.answers.candidate(true).value if task.candidates_are_labels else None
    return AuditAnswer(*key, "label", named) if named else AuditAnswer(*key, NEITHER_LABEL, None)
