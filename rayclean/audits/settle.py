"""What `relabel` makes of auditors' answers, after model and annotator have decided.

    refit       the probabilities once more, by the audited suspects (`functional.refit`), and what is proven by them
    max harm    changes that may make too many right labels wrong stay proposed
    certify     changes that are not in the certified set are referred
    settle      an audited label is what the auditor says it is

The decisions in `annotations/` are written anew from those of model and annotator alone, which stay beside them, so that
this can be repeated whenever an answer comes in, and nobody is asked again. `audited.parquet` holds the auditors' labels of
all units, suspects or not.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotations import ANNOTATIONS, AUDITED, DECISIONS
from rayclean.audits.answers import NEITHER_LABEL, UNSURE, AuditAnswers
from rayclean.audits.certificate import Proposals, answers_digest, certified_proposals, proposal_answers
from rayclean.audits.draw import read_draw, read_population
from rayclean.audits.present_answers import present_answers
from rayclean.audits.rates import noise_before, read_sample
from rayclean.audits.units import DoubtedUnit
from rayclean.config import Config
from rayclean.folder import Folder
from rayclean.functional.decision import LEAST_ANSWERS
from rayclean.functional.lookup import lookup
from rayclean.functional.refit import (
    RightLabel,
    audited_probability,
    fit_audit,
    proven_changes,
)
from rayclean.functional.types import Bools, Doubles, Ids, Ints
from rayclean.run import Run
from rayclean.tasks.base import Task

_LEAST_LOGIT = 1e-12


@dataclass
class _Suspects:
    """The S suspects by the ids of their units, in rising order."""

    unit_id: Ids
    probability: Doubles
    evidence: Doubles
    decision: npt.NDArray[np.object_]

    @property
    def changed(self) -> Bools:
        return np.asarray(self.decision == "changed")


def settle(config: Config, run: Run, out: Folder, task: Task) -> dict[str, Any]:
    """Take auditors' answers, `relabel.max_harm` and `relabel.certify` into account; rewrites `annotations/` where there are
    any of these.

    Returns:
        What was made of them, for the verb's metrics.

    Raises:
        ConfigError: `relabel.certify.labels` is too small for the number of changes.
    """
    out.remove("audited.parquet")
    relabel = config.relabel
    suspects = _read(out)
    present = present_answers(run, task)
    answers, units = present.answers, present.units
    audited, is_audited = _audited(suspects, answers, units)
    scale: tuple[float, float, float] | None = None
    if is_audited.any() or relabel.max_harm is not None:
        scale = fit_audit(*_logits(suspects), audited)
        suspects.probability = audited_probability(*_logits(suspects), scale)
        most = _most_harmed(config, run, answers, units)
        given = suspects.probability, audited, relabel.accept, suspects.changed
        proposed, allowed = proven_changes(*given), proven_changes(*given, most)
        settled = np.isin(audited, (RightLabel.GIVEN, RightLabel.SUGGESTED)).sum()
        _decide(suspects, allowed, relabel.accept, confirms=settled >= LEAST_ANSWERS)
    else:
        proposed = suspects.changed.copy()
    certifiable = suspects.changed.copy()
    proposals = Proposals(
        suspects.unit_id[certifiable & ~is_audited], suspects.probability[certifiable & ~is_audited]
    )
    certified: dict[str, Any] | None = None
    if relabel.certify is not None:
        told = proposal_answers(proposals, answers, units)
        found, inside = certified_proposals(proposals, told, relabel.certify, config.seed)
        beyond = np.isin(suspects.unit_id, proposals.unit_id[~inside])
        suspects.decision[beyond] = "referred"
        certified = {
            "accepted": found.accepted,
            "audited": len(found.audited),
            "wrong": found.wrong,
            "ended_by": found.reason,
        }
    machine = suspects.decision.copy()
    labels = _auditors_labels(answers, units, task)
    if answers.units or scale is not None or certified is not None:
        decisions = _write(out, suspects, proposed, certifiable, machine, answers, labels)
    else:  # what is there stands
        decisions = Counter(suspects.decision.tolist())
    if labels:
        rows = [{"unit_id": key, **each} for key, each in sorted(labels.items())]
        out.write_table(pa.Table.from_pylist(rows, schema=AUDITED), "audited.parquet")
    unchecked = suspects.probability[(machine == "changed") & ~is_audited]
    return {
        "decisions": {name: decisions[name] for name in DECISIONS},
        "expected_wrong": _expected_wrong(unchecked),
        "audited": len(labels),
        "audited_suspects": int(is_audited.sum()),
        "scale": None if scale is None else list(scale),
        "proposals": proposals.digest,
        "answers": answers_digest(answers),
        "proposed": len(proposals.unit_id),
        "certified": certified,
        "warnings": _lost(present.lost),
    }


def _lost(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"auditors judged {count} examples whose texts are no longer in the data (or not under these keys): their answers "
        "count for nothing"
    ]


def read_proposals(relabel: Folder, audited: Collection[int]) -> Proposals:
    """The proposals of a finished relabel that a certificate is about: what `max_harm` withholds cannot change by one.

    Args:
        relabel: its folder.
        audited: units that the answers of an audit are about; the machine does not decide about these.
    """
    columns = ["unit_id", "probability", "certifiable"]
    empty = pa.schema([ANNOTATIONS.field(name) for name in columns]).empty_table()
    parts = [
        relabel.read_table("annotations", shard, columns=columns) for shard in relabel.shards("annotations")
    ]
    table = pa.concat_tables([empty, *(part.filter(part["certifiable"]) for part in parts)]).sort_by(
        "unit_id"
    )
    known = np.isin(table["unit_id"].to_numpy(), np.fromiter(audited, dtype=np.int64))
    table = table.filter(pa.array(~known))
    return Proposals(table["unit_id"].to_numpy(), table["probability"].to_numpy())


def _read(out: Folder) -> _Suspects:
    columns = ["unit_id", "unaudited_probability", "evidence", "unaudited_decision"]
    parts = [out.read_table("annotations", shard, columns=columns) for shard in out.shards("annotations")]
    empty = pa.schema([ANNOTATIONS.field(name) for name in columns]).empty_table()
    table = pa.concat_tables([empty, *parts]).sort_by("unit_id")
    return _Suspects(
        table["unit_id"].to_numpy(),
        table["unaudited_probability"].to_numpy().copy(),
        table["evidence"].to_numpy(),
        np.array(table["unaudited_decision"].to_pylist(), dtype=object),
    )


def _audited(
    suspects: _Suspects, answers: AuditAnswers, units: Mapping[int, DoubtedUnit]
) -> tuple[Ints, Bools]:
    """What an audit says of each suspect [S], and which of them it was asked about [S]."""
    said = np.full(len(suspects.unit_id), RightLabel.UNKNOWN, dtype=np.int64)
    is_audited = np.isin(suspects.unit_id, np.fromiter(answers.audited, dtype=np.int64))
    for row in np.flatnonzero(is_audited):
        answer = answers.settled.get(unit_id := int(suspects.unit_id[row]))
        if answer is not None and answer.said != UNSURE:
            unit = units[unit_id]
            choices = {unit.given.value: RightLabel.GIVEN, unit.suggested.value: RightLabel.SUGGESTED}
            said[row] = (
                RightLabel.NEITHER if answer.value is None else choices.get(answer.value, RightLabel.NEITHER)
            )
    return said, is_audited


def _logits(suspects: _Suspects) -> tuple[Doubles, Doubles]:
    """The two inputs z and s of `functional.refit`, as they were before any refit."""
    p = np.clip(suspects.probability, _LEAST_LOGIT, 1 - _LEAST_LOGIT)
    return np.log(p / (1 - p)) - suspects.evidence, suspects.evidence


def _most_harmed(
    config: Config, run: Run, answers: AuditAnswers, units: Mapping[int, DoubtedUnit]
) -> float | None:
    """Number of right labels that may be made wrong; the number of right labels is the least that the audit allows."""
    if config.relabel.max_harm is None:
        return None
    population = read_population(run.require("detect"))
    sample = read_sample(answers, units, population, read_draw(run, config.audit).units)
    right = (1 - noise_before(sample, population).high) * len(population.unit_id)
    return config.relabel.max_harm * right


def _decide(suspects: _Suspects, proven: Bools, accept: float, *, confirms: bool) -> None:
    """Change what is proven; where the audit `confirms` the scale of probabilities, labels that were referred may be kept."""
    taken_back = suspects.changed & ~proven
    suspects.decision[taken_back] = "referred"
    open_ = (suspects.decision == "referred") & ~taken_back & confirms
    suspects.decision[open_ & (suspects.probability <= 1 - accept)] = "kept"
    suspects.decision[proven] = "changed"


def _expected_wrong(probability: Doubles) -> dict[str, float] | None:
    """Number of changes with these probabilities that are expected to be wrong, with 95 % limits; None without changes."""
    if not len(probability):
        return None
    mean = float((1 - probability).sum())
    reach = 1.96 * float((probability * (1 - probability)).sum()) ** 0.5
    return {"value": mean, "low": max(mean - reach, 0.0), "high": min(mean + reach, float(len(probability)))}


def _auditors_labels(
    answers: AuditAnswers, units: Mapping[int, DoubtedUnit], task: Task
) -> dict[int, dict[str, Any]]:
    found = {}
    for unit_id, answer in answers.settled.items():
        if answer.value is not None and (named := units[unit_id].answer(answer.value, task)) is not None:
            found[unit_id] = {"label": named[0], "value": named[1], "auditor": answer.auditor}
    return found


def _write(
    out: Folder,
    suspects: _Suspects,
    proposed: Bools,
    certifiable: Bools,
    machine: npt.NDArray[np.object_],
    answers: AuditAnswers,
    labels: Mapping[int, Mapping[str, Any]],
) -> Counter[str]:
    """Write `annotations/`; returns the number of suspects by decision."""
    counts = Counter[str]()
    for shard in out.shards("annotations"):
        table = out.read_table("annotations", shard)
        rows, _ = lookup(suspects.unit_id, table["unit_id"].to_numpy())
        given = table["given_label"].to_pylist()
        decision: list[str] = list(suspects.decision[rows])
        audited: list[int | None] = [None] * len(rows)
        auditor: list[str | None] = [None] * len(rows)
        for row, unit_id in enumerate(table["unit_id"].to_pylist()):
            answer = answers.settled.get(unit_id)
            if (label := labels.get(unit_id)) is not None:
                decision[row] = "kept" if label["label"] == given[row] else "changed"
                audited[row], auditor[row] = label["label"], label["auditor"]
            elif unit_id in answers.conflicts or (
                answer is not None and answer.said in (NEITHER_LABEL, UNSURE)
            ):
                decision[row] = "referred"
        columns: dict[str, Any] = {
            "probability": suspects.probability[rows],
            "proposed": proposed[rows],
            "certifiable": certifiable[rows],
            "machine_decision": list(machine[rows]),
            "decision": decision,
            "auditor": auditor,
            "audited_label": audited,
            "accepted": [each == "changed" for each in decision],
        }
        for name, values in columns.items():
            field = ANNOTATIONS.field(name)
            place = table.schema.get_field_index(name)
            table = table.set_column(place, field, pa.array(values, field.type))
        out.write_table(table, "annotations", shard)
        counts.update(decision)
    return counts
