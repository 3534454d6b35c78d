"""The conversion of answers to labels: calibration, choice among the candidates, and acceptance.

`decide` is the only such rule; it is used by `relabel` (`write_decisions` reads `answers/` and writes
`annotations/`) and for training methods that query the annotator between epochs (`between_epochs.py`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotations import ANNOTATIONS, DECISIONS, UNDECIDED
from rayclean.annotators.answers import AnsweredQuery, answered_query
from rayclean.folder import Folder
from rayclean.functional.calibration import choose, label_sums, probabilities, steady_bias
from rayclean.schema import ABSTAINED

_Indices = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """The decision on one answered query."""

    name: str
    """`changed`, `kept` or `abstained` (one of `DECISIONS`)."""
    chosen: int | None
    """Index of the most probable candidate; None for a tie."""
    label: int
    """Index of the resulting label, or `ABSTAINED` if its probability is too low."""
    confidence: float
    """Calibrated probability of the most probable candidate."""
    scores: tuple[float, ...]
    """Raw log-probability of each candidate; () if the annotator gives none."""
    probabilities: tuple[float, ...]
    """Calibrated probability of each candidate."""


def decide(answers: Sequence[AnsweredQuery], bias: _Floats, accept: float) -> list[Decision]:
    """Decide on answers: the label changes to the most probable candidate if its probability reaches
    `accept`.

    Args:
        answers: B answers.
        bias: [K] mean score of each label (`LabelBias`), which is subtracted if an answer has no scores of a
            content-free text.
        accept: least calibrated probability for a change; keeping the given label needs none.

    An answer without scores, as from people, has probability 1.
    """
    indices, raw, offsets = _candidate_arrays(answers, bias)
    calibrated = probabilities(raw, offsets, indices)
    for row, answer in enumerate(answers):
        if not answer.scores:
            calibrated[row] = indices[row] == answer.choice
    chosen, confidence = choose(calibrated, indices)
    decisions = []
    for row, answer in enumerate(answers):
        size = len(answer.candidates)
        label = int(chosen[row]) if chosen[row] >= 0 and confidence[row] >= accept else ABSTAINED
        changed = label not in (ABSTAINED, answer.given)
        name = "changed" if changed else "kept" if chosen[row] == answer.given else "abstained"
        decisions.append(
            Decision(
                name,
                int(chosen[row]) if chosen[row] >= 0 else None,
                label,
                float(confidence[row]),
                tuple(raw[row, :size].tolist()) if answer.scores else (),
                tuple(calibrated[row, :size].tolist()),
            )
        )
    return decisions


def _candidate_arrays(answers: Sequence[AnsweredQuery], bias: _Floats) -> tuple[_Indices, _Floats, _Floats]:
    """Label indices (-1 = no candidate), raw scores and offsets of the candidates, each [B, C]."""
    shape = (len(answers), max((len(answer.candidates) for answer in answers), default=0) or 1)
    indices = np.full(shape, -1, dtype=np.int64)
    raw, offsets = np.zeros(shape), np.zeros(shape)
    for row, answer in enumerate(answers):
        size = len(answer.candidates)
        indices[row, :size] = answer.candidates
        if answer.scores:
            raw[row, :size] = [answer.scores[label] for label in answer.candidates]
            offsets[row, :size] = [answer.content_free.get(label, bias[label]) for label in answer.candidates]
    return indices, raw, offsets


@dataclass
class LabelBias:
    """The mean score of each label over many answers, which measures a model's preference for some words."""

    num_classes: int
    sums: _Floats = field(init=False)
    counts: _Indices = field(init=False)

    def __post_init__(self) -> None:
        self.sums, self.counts = np.zeros(self.num_classes), np.zeros(self.num_classes, dtype=np.int64)

    def add(self, answers: Iterable[AnsweredQuery]) -> "LabelBias":
        """Include the scores of some answers."""
        pairs = [pair for answer in answers for pair in answer.scores.items()]
        labels, scores = (np.array(column) for column in zip(*pairs, strict=True)) if pairs else ([], [])
        sums, counts = label_sums(np.asarray(labels, dtype=np.int64), np.asarray(scores), self.num_classes)
        self.sums, self.counts = self.sums + sums, self.counts + counts
        return self

    @property
    def mean(self) -> _Floats:
        """Mean score of each label [K]; all 0 if there are few answers."""
        return steady_bias(self.sums, self.counts)


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


def write_decisions(
    out: Folder, stage: int, annotator: str, num_classes: int, calibration: str, accept: float, *, last: bool
) -> DecidedStage:
    """Write `annotations/` from the answers of one annotator, one part in memory at a time.

    Args:
        out: folder of the verb.
        stage: position of the annotator in the sequence of annotators.
        annotator: name of the annotator.
        num_classes: number of classes K.
        calibration: `none`, `batch` (over all answers) or `content_free`.
        accept: least probability for a change.
        last: whether undecided suspects get a final decision; otherwise the next annotator is asked about
            them.
    """
    folder = stage_name(stage)
    bias = LabelBias(num_classes)
    if calibration == "batch":
        for name in out.shards("answers", folder):
            table = out.read_table("answers", folder, name, columns=_ANSWER_COLUMNS)
            bias.add(answer for row in table.to_pylist() if (answer := answered_query(row)) is not None)
    counts, kinds = Counter[str](), Counter[str]()
    models, undecided = set[str](), list[int]()
    prompt_tokens = answer_tokens = 0
    for name in out.shards("answers", folder):
        rows = _decided(out.read_table("answers", folder, name).to_pylist(), bias.mean, accept, annotator)
        prompt_tokens += sum(row["prompt_tokens"] or 0 for row in rows)
        answer_tokens += sum(row["answer_tokens"] or 0 for row in rows)
        if not last:
            undecided += [row["unit_id"] for row in rows if row["decision"] in UNDECIDED]
            rows = [row for row in rows if row["decision"] not in UNDECIDED]
        part = f"part-{stage:02d}-{name.removeprefix('part-')}"
        out.write_table(pa.Table.from_pylist(rows, schema=ANNOTATIONS), "annotations", part)
        counts.update(row["decision"] for row in rows)
        counts["reused"] += sum(bool(row["reused"]) for row in rows)
        kinds.update(row["error"].partition(":")[0] for row in rows if row["decision"] == "error")
        models |= {row["model"] for row in rows if row["model"]}
    left = np.sort(np.array(undecided, dtype=np.int64))
    return DecidedStage(counts, kinds, tuple(sorted(models)), prompt_tokens, answer_tokens, left)


_ANSWER_COLUMNS = ["state", "given_label", "candidates", "choice", "all_scores", "content_free"]


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
        "answered": counts["changed"] + counts["kept"] + counts["abstained"],
        "from_ledger": counts["reused"],
        **{name: counts[name] for name in DECISIONS},
        "errors": dict(sorted(kinds.items())),
        "model": ", ".join(models) or None,
    }


def _decided(
    rows: list[dict[str, Any]], bias: _Floats, accept: float, annotator: str
) -> list[dict[str, Any]]:
    """Rows of `answers/` extended by the further columns of `annotations/`."""
    answers = [answered_query(row) for row in rows]
    decided = iter(decide([answer for answer in answers if answer is not None], bias, accept))
    for row, answer in zip(rows, answers, strict=True):
        row |= {"scores": [], "probabilities": [], "chosen_label": None, "confidence": None}
        row |= {"annotator": annotator, "decision": "abstained"}
        if answer is not None:
            decision = next(decided)
            row |= {"scores": decision.scores, "probabilities": decision.probabilities}
            row |= {"chosen_label": decision.chosen, "confidence": decision.confidence}
            row["decision"] = decision.name
        elif row["state"] in ("error", "unasked"):
            row["decision"] = row["state"]
        row["accepted"] = row["decision"] == "changed"
    return rows
