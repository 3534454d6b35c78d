"""`answers/`: the annotator's raw answer to every suspect, which `relabel` removes when it ends."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rayclean.annotators.base import Annotation

SCORES = pa.list_(pa.struct([("label", pa.int32()), ("score", pa.float64())]))

ANSWERS = pa.schema(
    [
        ("example_id", pa.int64()),
        ("rank", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("candidates", pa.list_(pa.int32())),
        (
            "state",
            pa.string(),
        ),  # answered, error, unasked, or single (only one candidate, so no query is sent)
        ("all_scores", SCORES),  # raw scores of the candidates and of further labels
        ("bias", SCORES),  # raw scores of the text without content; empty unless that calibration is chosen
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
"""Columns of `answers/`."""

_FROM_ANNOTATION = "error prompt_tokens answer_tokens seconds key prompt_hash model raw written".split()
_FROM_QUERY = ["example_id", "rank", "given_label", "suggested_label", "candidates"]


def answer_rows(
    table: pa.Table,
    answers: Sequence[Annotation | None],
    content_free: Sequence[Annotation | None],
    session: str,
) -> list[dict[str, Any]]:
    """Rows of `ANSWERS` for one chunk of queries.

    Args:
        table: the chunk's rows of `queries/`.
        answers: one answer per row with at least two candidates; None: the budget ended before.
        content_free: answers to the same questions about a text without content; empty without that
            calibration.
        session: the ledger's session; answers of another one are reused.
    """
    pending = iter(zip(answers, content_free or [None] * len(answers), strict=True))
    rows = []
    for row in table.select(_FROM_QUERY).to_pylist():
        row |= {"all_scores": [], "bias": []}
        if len(row["candidates"]) < 2:
            rows.append({**row, "state": "single"})
            continue
        answer, neutral = next(pending)
        if answer is None or (content_free and neutral is None):
            rows.append({**row, "state": "unasked"})
            continue
        row |= {name: getattr(answer, name) for name in _FROM_ANNOTATION}
        row |= {"reused": answer.session != session, "state": "answered", "all_scores": _pairs(answer.scores)}
        if neutral is not None:
            row["bias"] = _pairs(neutral.scores)
            row["error"] = answer.error or neutral.error
        rows.append({**row, "state": "error"} if row["error"] is not None else row)
    return rows


def _pairs(scores: dict[int, float]) -> list[dict[str, float]]:
    return [{"label": label, "score": score} for label, score in scores.items()]
