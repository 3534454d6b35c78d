"""From answers to labels: calibration, the choice among the candidates, and whether it is accepted.

Everyone who turns answers into labels does it here: `relabel` (`write_decisions` reads `answers/` and writes
`annotations/`) and training methods that query the annotator between epochs (`between_epochs.py`). The rule
by which an answer becomes a label is `accepted_labels`; the rule by which it becomes a decision on a suspect
is `decisions`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotations import ANNOTATIONS, DECISIONS
from rayclean.folder import Folder
from rayclean.functional.calibration import choose, label_sums, probabilities, steady_bias
from rayclean.schema import ABSTAINED

_Scores = Mapping[int, float]
"""Raw log-probability by label index."""
_Indices = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """The calibrated choice of each of B answers among at most C candidates."""

    candidates: _Indices
    """[B, C] Label indices; -1 where an answer has fewer candidates, everywhere without an answer."""
    scores: _Floats
    """[B, C] Raw log-probabilities of the candidates."""
    probabilities: _Floats
    """[B, C] Calibrated probabilities of the candidates."""
    chosen: _Indices
    """[B] The most probable candidate; -1 for a tie and without an answer."""
    confidence: _Floats
    """[B] Probability of the most probable candidate; 0 without an answer."""


def choose_candidates(
    candidates: Sequence[Sequence[int]],
    scores: Sequence[_Scores],
    content_free: Sequence[_Scores],
    bias: _Floats,
) -> Choices:
    """Calibrate answers and choose the most probable candidate of each.

    Args:
        candidates: B lists of label indices; an empty list stands for no answer.
        scores: B answers' raw scores, of all their candidates at least.
        content_free: B scores of the same questions about a text without content, which are subtracted from
            `scores`.
        bias: [K] score per label that is subtracted where `content_free` holds none.
    """
    shape = (len(candidates), max(map(len, candidates), default=0) or 1)
    indices = np.full(shape, -1, dtype=np.int64)
    raw, offsets = np.zeros(shape), np.zeros(shape)
    for row, labels in enumerate(candidates):
        indices[row, : len(labels)] = labels
        raw[row, : len(labels)] = [scores[row][label] for label in labels]
        offsets[row, : len(labels)] = [content_free[row].get(label, bias[label]) for label in labels]
    calibrated = probabilities(raw, offsets, indices)
    chosen, confidence = choose(calibrated, indices)
    return Choices(indices, raw, calibrated, chosen, confidence)


def accepted_labels(choices: Choices, accept: float) -> _Indices:
    """The label of each answer [B]: the choice if its probability is at least `accept`, else `ABSTAINED`."""
    sure = (choices.chosen >= 0) & (choices.confidence >= accept)
    return np.where(sure, choices.chosen, ABSTAINED)


def decisions(choices: Choices, given: _Indices, accept: float) -> list[str]:
    """The decision on each suspect that was answered [B]: changed, kept or abstained.

    Args:
        choices: B choices.
        given: [B] given labels.
        accept: least probability for a change; the given label is kept with any.
    """
    labels = accepted_labels(choices, accept)
    changed = (labels >= 0) & (labels != given)
    decided = np.where(changed, "changed", np.where(choices.chosen == given, "kept", "abstained"))
    return [str(decision) for decision in decided]


def write_decisions(out: Folder, num_classes: int, calibration: str, accept: float) -> dict[str, Any]:
    """Write `annotations/` from `answers/`, one part in memory at a time.

    Args:
        out: folder of the verb.
        num_classes: number of classes K.
        calibration: `none`, `batch` (over all answers) or `content_free`.
        accept: least probability for a change.

    Returns:
        Counts of suspects: answered, answered from the ledger, by decision, of errors by kind; and the models
        that answered.
    """
    bias = _batch_bias(out, num_classes) if calibration == "batch" else np.zeros(num_classes)
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    models: set[str] = set()
    for name in out.shards("answers"):
        rows = _decided(out.read_table("answers", name).to_pylist(), bias, accept)
        out.write_table(pa.Table.from_pylist(rows, schema=ANNOTATIONS), "annotations", name)
        counts.update(row["decision"] for row in rows)
        counts["reused"] += sum(bool(row["reused"]) for row in rows)
        kinds.update(row["error"].partition(":")[0] for row in rows if row["decision"] == "error")
        models |= {row["model"] for row in rows if row["model"]}
    return {
        "answered": counts["changed"] + counts["kept"] + counts["abstained"],
        "from_ledger": counts["reused"],
        **{name: counts[name] for name in DECISIONS},
        "errors": dict(sorted(kinds.items())),
        "model": ", ".join(sorted(models)) or None,
    }


def _batch_bias(out: Folder, num_classes: int) -> _Floats:
    """Mean score of each label over all answers [K]."""
    sums, counts = np.zeros(num_classes), np.zeros(num_classes, dtype=np.int64)
    for name in out.shards("answers"):
        table = out.read_table("answers", name, columns=["state", "all_scores"])
        answered = pa.array([state == "answered" for state in table["state"].to_pylist()])
        pairs = table.filter(answered)["all_scores"].combine_chunks().flatten()
        more = label_sums(pairs.field("label").to_numpy(), pairs.field("score").to_numpy(), num_classes)
        sums, counts = sums + more[0], counts + more[1]
    return steady_bias(sums, counts)


def _decided(rows: list[dict[str, Any]], bias: _Floats, accept: float) -> list[dict[str, Any]]:
    """Rows of `answers/` with the columns that `annotations/` has in addition."""
    answered = [row["state"] == "answered" and bool(row["all_scores"]) for row in rows]
    scores, content_free = (
        [{pair["label"]: pair["score"] for pair in row[column]} for row in rows]
        for column in ("all_scores", "bias")
    )
    candidates = [row["candidates"] if known else [] for row, known in zip(rows, answered, strict=True)]
    choices = choose_candidates(candidates, scores, content_free, bias)
    given = np.array([row["given_label"] for row in rows], dtype=np.int64)
    decided = decisions(choices, given, accept)
    for position, row in enumerate(rows):
        size = len(candidates[position])
        row["scores"] = choices.scores[position, :size].tolist()
        row["probabilities"] = choices.probabilities[position, :size].tolist()
        row["chosen_label"] = int(choices.chosen[position]) if choices.chosen[position] >= 0 else None
        row["confidence"] = float(choices.confidence[position]) if size else None
        row["decision"] = row["state"] if row["state"] in ("error", "unasked") else decided[position]
        row["accepted"] = row["decision"] == "changed"
    return rows
