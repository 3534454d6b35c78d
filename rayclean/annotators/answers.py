"""The tables of `answers/`, which hold the raw answer on every suspect until the end of `relabel`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayclean.annotators.query import Annotation
from rayclean.schema import LabelSet

SCORES = pa.list_(pa.struct([("label", pa.int32()), ("score", pa.float64())]))

QUESTION = pa.schema(
    [
        ("unit_id", pa.int64()),
        ("example_id", pa.int64()),
        ("rank", pa.int64()),  # negative: a control question
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("given_value", pa.string()),
        ("suggested_value", pa.string()),
        ("log_odds", pa.float64()),  # log P(suggested) - log P(given), as detection sees it
        ("candidates", pa.list_(pa.int32())),
    ]
)
"""Columns of `queries/` and `answers/` that say what is asked."""

ANSWERS = pa.schema(
    [
        *QUESTION,
        (
            "state",
            pa.string(),
        ),  # answered, error, unasked (budget), unneeded, or single (one candidate: no query is sent)
        ("choice", pa.int32()),  # label chosen by the annotator; null: none
        ("all_scores", SCORES),  # raw scores of the candidates and of further labels
        ("content_free", SCORES),  # raw scores of the content-free text, with calibration `content_free`
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


@dataclass(frozen=True)
class AnsweredQuery:
    """An answer with its labels as indices into the label set, the input of `choices`."""

    candidates: tuple[int, ...]
    """Label indices of the candidates, by position."""
    given: int
    """Index of the given label."""
    choice: int | None
    """Index of the chosen label; None: the annotator abstained."""
    scores: Mapping[int, float]
    """Raw log-probability by label index, of the candidates and of further labels; {} if the annotator gives
    none."""
    content_free: Mapping[int, float]
    """Scores of the same question about a content-free text; {} unless the calibration is `content_free`."""


def label_scores(answer: Annotation, candidates: Sequence[int], labels: LabelSet) -> dict[int, float]:
    """The scores of an answer by index: candidates by their positions, further labels by their words.

    Args:
        answer: to a query.
        candidates: indices of the query's candidates.
        labels: all answers of the task.
    """
    by_word = {label.word: label.index for label in labels} if answer.further else {}
    found = {by_word[word]: score for word, score in answer.further.items() if word in by_word}
    return found | dict(zip(candidates, answer.scores, strict=False))


def chosen_label(answer: Annotation, candidates: Sequence[int]) -> int | None:
    """Index of the label that the annotator chose; None: it abstained, or failed."""
    return None if answer.choice is None else candidates[answer.choice]


def content_free_scores(answer: Annotation, candidates: Sequence[int], labels: LabelSet) -> dict[int, float]:
    """The scores of the question about a text without content, which may have offered all labels."""
    if len(answer.candidates) == len(candidates):
        return label_scores(answer, candidates, labels)
    by_word = {label.word: label.index for label in labels}
    return {by_word[each.word]: score for each, score in zip(answer.candidates, answer.scores, strict=True)}


def answer_rows(
    table: pa.Table,
    answers: Sequence[Annotation | None],
    content_free: Sequence[Annotation | None],
    session: str,
    labels: LabelSet,
) -> list[dict[str, Any]]:
    """Rows of `ANSWERS` for one chunk of queries.

    Args:
        table: the chunk's rows of `queries/`.
        answers: one answer per row with at least two candidates; None: the budget ended before.
        content_free: answers to the same questions about a content-free text; empty unless the calibration is
            `content_free`.
        session: the ledger's session; answers of other sessions count as reused.
        labels: all labels.
    """
    pending = iter(zip(answers, content_free or [None] * len(answers), strict=True))
    rows = []
    for row in table.select(QUESTION.names).to_pylist():
        row |= {"all_scores": [], "content_free": []}
        if len(row["candidates"]) < 2:
            rows.append({**row, "state": "single"})
            continue
        answer, neutral = next(pending)
        if answer is None or (content_free and neutral is None):
            rows.append({**row, "state": "unasked"})
            continue
        row |= {name: getattr(answer, name) for name in _FROM_ANNOTATION}
        row |= {"reused": answer.session != session, "state": "answered"}
        indices = row["candidates"]
        row |= {"choice": chosen_label(answer, indices)}
        row["all_scores"] = _pairs(label_scores(answer, indices, labels))
        if neutral is not None:
            row["content_free"] = _pairs(content_free_scores(neutral, indices, labels))
            row["error"] = answer.error or neutral.error
        rows.append({**row, "state": "error"} if row["error"] is not None else row)
    return rows


def unneeded_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of `ANSWERS` for a chunk that nobody is asked about, since no answer could change a label."""
    nothing = {"all_scores": [], "content_free": [], "state": "unneeded"}
    return [row | nothing for row in table.select(QUESTION.names).to_pylist()]


def answered_query(row: Mapping[str, Any]) -> AnsweredQuery | None:
    """The answer in a row of `ANSWERS`; None if it has none."""
    if row["state"] != "answered" or not (row["all_scores"] or row["choice"] is not None):
        return None
    scores, content_free = (
        {pair["label"]: pair["score"] for pair in row[column]} for column in ("all_scores", "content_free")
    )
    return AnsweredQuery(tuple(row["candidates"]), row["given_label"], row["choice"], scores, content_free)


def _pairs(scores: Mapping[int, float]) -> list[dict[str, float]]:
    return [{"label": label, "score": score} for label, score in scores.items()]
