"""From answers to labels: what an annotator chose, what it is worth, and which labels change.

    controls     questions about labels that are as good as known say how often the annotator is right, and which words
                 it prefers whatever the text says (`choices.measure_annotator`)
    choices      its answers, with that preference removed (`choices.choices`)
    decisions    the model's posterior and the answers, each believed as far as it has earned (`functional.decision`)
    caps         no class loses more labels than its suspects support (`functional.class_caps`)

`relabel` reads `answers/` and writes `annotations/` (`write_decisions`). A training method that asks between epochs takes the
same path with what `relabel` measured, except the caps, since none of its answers becomes a final label (`between_epochs.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotations import ANNOTATIONS, DECISIONS, UNDECIDED
from rayclean.annotators.answers import answered_query
from rayclean.annotators.beyond import write_beyond
from rayclean.annotators.choices import choices
from rayclean.annotators.measuring import NOBODY, measure_answers
from rayclean.folder import Folder
from rayclean.functional.class_caps import cap_changes_out, supported_changes
from rayclean.functional.decision import Decision, Decisions, Gate, decide
from rayclean.functional.worth import Worth

_Indices = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DecidedStage:
    """Statistics of the decisions on one annotator's answers."""

    counts: Counter[str]
    """Number of suspects by final decision, and `reused`: number of answers from the ledger."""
    error_kinds: Counter[str]
    models: tuple[str, ...]
    """Names of the models that answered."""
    prompt_tokens: int
    """Tokens of all prompts, including those of answers from the ledger."""
    answer_tokens: int
    """Tokens of all answers, including those from the ledger."""
    undecided: _Indices
    """Sorted ids of the suspects for the next annotator; empty for the last annotator."""
    judged: dict[str, Any]
    """What control questions measured (`Measured.to_json`, the accuracy that counts), what decided, and the numbers of capped
    changes and of suspects that nobody was asked about because no answer could have changed a label."""


def write_decisions(
    out: Folder,
    stage: int,
    annotator: str,
    num_classes: int,
    calibration: str,
    accept: float,
    seed: int,
    *,
    suspects: int,
    asks: bool,
    last: bool,
    decides_alone: bool,
) -> DecidedStage:
    """Write `annotations/` from the answers of one annotator; a few numbers per suspect are in memory.

    Args:
        out: folder of the verb.
        stage: position of the annotator in the sequence of annotators.
        annotator: name of the annotator.
        num_classes: number of classes K.
        calibration: `none`, `controls` or `content_free`.
        accept: least probability for a change.
        seed: decides between equal probabilities.
        suspects: number of suspects; a row of a higher rank is a question beyond them (`beyond.py`).
        asks: whether the annotator answers at all; else the model alone decides.
        last: whether undecided suspects get a final decision; otherwise the next annotator is asked about
            them.
        decides_alone: whether the model may change labels by itself (`tasks.base.Task.decides_alone`).
    """
    folder = stage_name(stage)
    names = out.shards("answers", folder)
    answered_stage = measure_answers(out, folder, num_classes, calibration, suspects)
    measured, every = answered_stage.measured, answered_stage.suspects
    decisions: Decisions | None = None
    capped = 0
    if every:
        decisions, capped = _decide(every, measured.worth, accept, num_classes, seed, decides_alone)
    counts, kinds = Counter[str](), Counter[str]()
    models, undecided, beyond = set[str](), list[int](), list[dict[str, Any]]()
    prompt_tokens = answer_tokens = start = 0
    for name in names:
        answered = out.read_table("answers", folder, name).to_pylist()
        prompt_tokens += sum(row["prompt_tokens"] or 0 for row in answered)
        answer_tokens += sum(row["answer_tokens"] or 0 for row in answered)
        rows = [row for row in answered if 0 <= row["rank"] < suspects]
        beyond += [row for row in answered if row["rank"] >= suspects]
        assert decisions is not None
        _decided(rows, measured.bias, decisions, start, annotator, asks)
        start += len(rows)
        if not last:  # what the model says by itself is not final as long as somebody is left to ask
            is_open = [
                row["decision"] in UNDECIDED
                or (asks and (row["state"] != "answered" or decisions.gate == Gate.POSTERIOR_ALONE))
                for row in rows
            ]
            undecided += [row["unit_id"] for row, left in zip(rows, is_open, strict=True) if left]
            rows = [row for row, left in zip(rows, is_open, strict=True) if not left]
        part = f"part-{stage:02d}-{name.removeprefix('part-')}"
        out.write_table(pa.Table.from_pylist(rows, schema=ANNOTATIONS), "annotations", part)
        counts.update(row["decision"] for row in rows)
        counts["reused"] += sum(bool(row["reused"]) for row in rows)
        counts["answered"] += sum(row["state"] == "answered" for row in rows)
        counts["unneeded"] += sum(row["state"] == "unneeded" for row in rows)
        kinds.update(row["error"].partition(":")[0] for row in rows if row["state"] == "error")
        models |= {row["model"] for row in rows if row["model"]}
    left = np.sort(np.array(undecided, dtype=np.int64))
    judged = {
        **measured.to_json(),
        "accuracy": measured.worth.lower,
        "above_chance": measured.worth.above_chance,
        "decided_by": None if decisions is None else decisions.gate.name.lower(),
        "alone": decides_alone,
        "scale": None if decisions is None else list(decisions.scale),
        "capped": capped,
        "unneeded": counts["unneeded"],
        "beyond": write_beyond(out, beyond, measured, annotator),
    }
    return DecidedStage(counts, kinds, tuple(sorted(models)), prompt_tokens, answer_tokens, left, judged)


def _decide(
    suspects: Mapping[str, npt.NDArray[Any]],
    worth: Worth,
    accept: float,
    num_classes: int,
    seed: int,
    decides_alone: bool,
) -> tuple[Decisions, int]:
    """The decisions on all suspects, and how many changes the classes' caps took back."""
    given = suspects["given_label"]
    found = decide(
        suspects["log_odds"],
        given,
        suspects["suggested_label"],
        suspects["answer"],
        worth,
        accept,
        confidence=suspects["confidence"],
        alone=decides_alone,
    )
    most = supported_changes(found.probability, given, num_classes)
    decision = cap_changes_out(found.decision, given, found.probability, suspects["unit_id"], most, seed)
    return replace(found, decision=decision), int((decision != found.decision).sum())


def changed_by_model_alone(
    suspects: dict[str, npt.NDArray[Any]],
    accept: float,
    num_classes: int,
    seed: int,
    *,
    decides_alone: bool = True,
) -> npt.NDArray[np.bool_]:
    """Whether each label would change [S] if nobody were asked: the row that every annotator has to beat.

    Args:
        suspects: [S] `unit_id`, `given_label`, `suggested_label` and `log_odds`.
        accept: least probability for a change.
        num_classes: number of classes K.
        seed: of the run.
        decides_alone: whether the model may change labels by itself (`tasks.base.Task.decides_alone`).
    """
    count = len(suspects["unit_id"])
    nothing = {"answer": np.full(count, NOBODY), "confidence": np.ones(count)}
    found, _ = _decide(suspects | nothing, Worth(0, 0), accept, num_classes, seed, decides_alone)
    return np.asarray(found.decision == Decision.CHANGED)


def stage_name(stage: int) -> str:
    """Name of the sub-folders with the queries and the answers of one annotator."""
    return f"annotator-{stage:02d}"


def decision_counts(stages: Sequence[DecidedStage]) -> dict[str, Any]:
    """Counts of suspects over all annotators (answered, answered from the ledger, by decision, errors by
    kind), and the models that answered.
    """
    counts = sum((stage.counts for stage in stages), Counter[str]())
    kinds = sum((stage.error_kinds for stage in stages), Counter[str]())
    models = sorted({model for stage in stages for model in stage.models})
    return {
        "answered": counts["answered"],
        "from_ledger": counts["reused"],
        "unneeded": counts["unneeded"],
        **{name: counts[name] for name in DECISIONS},
        "errors": dict(sorted(kinds.items())),
        "model": ", ".join(models) or None,
    }


def _decided(
    rows: list[dict[str, Any]], bias: _Floats, decisions: Decisions, start: int, annotator: str, asks: bool
) -> None:
    """Extend rows of `answers/` by the further columns of `annotations/`.

    Args:
        rows: of suspects; row r has decision `start` + r.
        bias: of the annotator.
        decisions: on all suspects.
        start: see `rows`.
        annotator: its name.
        asks: whether it answers at all.
    """
    answers = [answered_query(row) for row in rows]
    found = choices([answer for answer in answers if answer is not None], bias)
    place = 0
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True), start):
        row |= {"scores": [], "probabilities": [], "chosen_label": None, "confidence": None}
        decision = decisions.decision[number]
        row |= {"annotator": annotator, "probability": float(decisions.probability[number])}
        row["evidence"] = float(decisions.evidence[number])
        row["decision"] = Decision(decision).name.lower()
        if answer is not None:
            label = int(found.label[place])
            row |= {"scores": found.scores[place], "probabilities": found.probabilities[place]}
            row |= {
                "chosen_label": label if label >= 0 else None,
                "confidence": float(found.confidence[place]),
            }
            if decision == Decision.REFERRED and label not in (row["given_label"], row["suggested_label"]):
                row["decision"] = "abstained"
            place += 1
        elif asks and row["state"] in ("error", "unasked") and decision != Decision.CHANGED:
            row["decision"] = row["state"]
        row["accepted"] = row["proposed"] = row["certifiable"] = row["decision"] == "changed"
        row["unaudited_decision"] = row["machine_decision"] = row["decision"]
        row["unaudited_probability"] = row["probability"]
