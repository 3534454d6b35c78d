"""What becomes of the answers: calibrated probabilities, the choice, whether it is accepted."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotators.base import Annotation
from rayclean.annotators.final_labels import ANNOTATIONS
from rayclean.folder import Folder
from rayclean.functional.calibration import accepted, choose, label_sums, probabilities, steady_bias

SCORES = pa.list_(pa.struct([("label", pa.int32()), ("score", pa.float64())]))

ANSWERS = pa.schema(
    [
        ("example_id", pa.int64()),
        ("rank", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("candidates", pa.list_(pa.int32())),
        ("state", pa.string()),  # answered, error, unasked, single (one candidate only: nothing to ask)
        ("all_scores", SCORES),  # raw, of candidates and further labels
        ("bias", SCORES),  # of the text without content; empty unless that calibration is chosen
        ("error", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("seconds", pa.float32()),
        ("reused", pa.bool_()),
        ("key", pa.string()),
        ("prompt_hash", pa.string()),
        ("model", pa.string()),
        ("raw", pa.string()),
        ("written", pa.float64()),
    ]
)
"""`answers/`: what the annotator said of each suspect, before calibration."""

_COPIED = (
    "error",
    "prompt_tokens",
    "answer_tokens",
    "seconds",
    "key",
    "prompt_hash",
    "model",
    "raw",
    "written",
)


def answer_rows(
    table: pa.Table, answers: Sequence[Annotation | None], blanks: Sequence[Annotation | None], session: str
) -> list[dict[str, Any]]:
    """Rows of `ANSWERS`.

    Args:
        table: the chunk's queries.
        answers: one per query with at least two candidates, None: unasked.
        blanks: the answers about the text without content, beside `answers`; [] without that calibration.
        session: whose answers are new.
    """
    pending = iter(zip(answers, blanks or [None] * len(answers), strict=True))
    columns = ["example_id", "rank", "given_label", "suggested_label", "candidates"]
    rows = []
    for row in table.select(columns).to_pylist():
        row |= {"all_scores": [], "bias": []}
        if len(row["candidates"]) < 2:
            rows.append({**row, "state": "single"})
            continue
        answer, blank = next(pending)
        if answer is None or (blanks and blank is None):
            rows.append({**row, "state": "unasked"})
            continue
        row |= {name: getattr(answer, name) for name in _COPIED}
        row |= {"reused": answer.session != session, "state": "answered", "all_scores": _pairs(answer.scores)}
        if blank is not None:
            row["bias"] = _pairs(blank.scores)
            row["error"] = answer.error or blank.error
        rows.append({**row, "state": "error"} if row["error"] is not None else row)
    return rows


def decide(out: Folder, num_classes: int, calibration: str, threshold: float) -> dict[str, Any]:
    """Write `annotations/` from `answers/`, one part in memory at a time.

    Args:
        out: folder of the verb.
        num_classes: K.
        calibration: `none`, `batch` (over all answers) or `content_free`.
        threshold: least probability for a change.

    Returns:
        Counts: answered, reused, changed, kept, abstained, error, unasked, errors by kind; the models that answered.
    """
    bias = np.zeros(num_classes)
    if calibration == "batch":
        bias = _batch(out, num_classes)
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    models: set[str] = set()
    for name in out.shards("answers"):
        table = out.read_table("answers", name)
        rows = _decisions(table.to_pylist(), bias, threshold)
        out.write_table(pa.Table.from_pylist(rows, schema=ANNOTATIONS), "annotations", name)
        counts.update(row["decision"] for row in rows)
        counts["reused"] += sum(bool(row["reused"]) for row in rows)
        kinds.update(row["error"].partition(":")[0] for row in rows if row["decision"] == "error")
        models |= {row["model"] for row in rows if row["model"]}
    decisions = ("changed", "kept", "abstained", "error", "unasked")
    return {
        "answered": sum(counts[name] for name in decisions[:3]),
        "from_ledger": counts["reused"],
        **{name: counts[name] for name in decisions},
        "errors": dict(sorted(kinds.items())),
        "model": ", ".join(sorted(models)) or None,
    }


def _batch(out: Folder, num_classes: int) -> npt.NDArray[np.float64]:
    sums, counts = np.zeros(num_classes), np.zeros(num_classes, dtype=np.int64)
    for name in out.shards("answers"):
        table = out.read_table("answers", name, columns=["state", "all_scores"])
        scores = table.filter(pa.array([state == "answered" for state in table["state"].to_pylist()]))[
            "all_scores"
        ]
        flat = scores.combine_chunks().flatten()
        more = label_sums(flat.field("label").to_numpy(), flat.field("score").to_numpy(), num_classes)
        sums, counts = sums + more[0], counts + more[1]
    return steady_bias(sums, counts)


def _decisions(
    rows: list[dict[str, Any]], bias: npt.NDArray[np.float64], threshold: float
) -> list[dict[str, Any]]:
    width = max((len(row["candidates"]) for row in rows), default=1)
    candidates = np.full((len(rows), width), -1, dtype=np.int64)
    scores, offsets = np.zeros((len(rows), width)), np.zeros((len(rows), width))
    for position, row in enumerate(rows):
        if row["state"] == "answered" and row["all_scores"]:
            size = len(row["candidates"])
            own = {pair["label"]: pair["score"] for pair in row["all_scores"]}
            blank = {pair["label"]: pair["score"] for pair in row["bias"]}
            candidates[position, :size] = row["candidates"]
            scores[position, :size] = [own[label] for label in row["candidates"]]
            offsets[position, :size] = [blank.get(label, bias[label]) for label in row["candidates"]]
    shares = probabilities(scores, offsets, candidates)
    chosen, confidence = choose(shares, candidates)
    change = accepted(
        chosen, np.array([row["given_label"] for row in rows], dtype=np.int64), confidence, threshold
    )
    for position, row in enumerate(rows):
        size = int((candidates[position] >= 0).sum())
        row["scores"] = scores[position, :size].tolist()
        row["probabilities"] = shares[position, :size].tolist()
        row["chosen_label"] = int(chosen[position]) if chosen[position] >= 0 else None
        row["confidence"] = float(confidence[position]) if size else None
        row["accepted"] = bool(change[position])
        row["decision"] = _decision(row, bool(change[position]))
    return rows


def _decision(row: dict[str, Any], change: bool) -> str:
    if row["state"] in ("error", "unasked"):
        return str(row["state"])
    if change:
        return "changed"
    return "kept" if row["chosen_label"] == row["given_label"] else "abstained"


def _pairs(scores: dict[int, float]) -> list[dict[str, float]]:
    return [{"label": label, "score": score} for label, score in scores.items()]
