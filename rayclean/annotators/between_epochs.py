"""Answers for a training method that queries the annotator between epochs, by the engine of `relabel`.

`relabel` works on files of suspects and writes a decision on each. A method asks about a few examples, needs
their labels at once, and goes on in any case: an annotator that is down costs answers, never the training.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotators.base import Annotation, Demonstration, Query
from rayclean.annotators.calibration_queries import (
    MaybeAnswers,
    answer_for_calibration,
    content_free_queries,
    labels_to_score,
)
from rayclean.annotators.decisions import accepted_labels, choose_candidates
from rayclean.annotators.engine import Engine
from rayclean.errors import AnnotationError
from rayclean.folder import Folder
from rayclean.functional.calibration import label_sums, steady_bias
from rayclean.schema import ABSTAINED, UNANSWERED, LabelSet, MethodQueries

logger = logging.getLogger(__name__)


async def answer_between_epochs(
    engine: Engine, asked: MethodQueries, *, examples: str, labels: LabelSet, calibration: str
) -> tuple[npt.NDArray[np.int64], dict[str, float]]:
    """Labels [Q] (or `ABSTAINED`, `UNANSWERED`) for the queries of a method, and counts of this call.

    Args:
        engine: annotator, ledger and budget.
        asked: the queries.
        examples: folder of example shards, which hold the texts.
        labels: all labels.
        calibration: `none`, `batch` (over the answers of this call) or `content_free`.
    """
    texts = _texts(examples, np.union1d(asked.ids, asked.neighbours[asked.neighbours != -1]))
    queries = [_query(asked, row, texts, labels, calibration) for row in range(len(asked.ids))]
    neutral = content_free_queries(engine.annotator, queries, calibration)
    before = (engine.counts.asked, engine.counts.reused, _tokens_spent(engine))
    failure = None
    try:
        answers, content_free = await answer_for_calibration(engine.answer, queries, neutral)
    except AnnotationError as error:
        failure = str(error)
        logger.warning("the annotator failed, training goes on with the answers that came: %s", failure)
        answers, content_free = await answer_for_calibration(engine.recall, queries, neutral)
    chosen = _choose_labels(queries, answers, content_free, len(labels), calibration, asked.accept)
    return chosen, {
        "asked": engine.counts.asked - before[0],
        "from_ledger": engine.counts.reused - before[1],
        "unanswered": int((chosen == UNANSWERED).sum()),
        "abstained": int((chosen == ABSTAINED).sum()),
        "tokens": _tokens_spent(engine) - before[2],
        **_tokens_of([*answers, *content_free]),
        "annotator_failed": float(failure is not None),
    }


def _tokens_of(answers: MaybeAnswers) -> dict[str, int]:
    """Tokens of all answers, those from the ledger included: their price in a run with an empty ledger."""
    each = {answer.key: answer for answer in answers if answer is not None}.values()
    return {
        "prompt_tokens": sum(answer.prompt_tokens for answer in each),
        "answer_tokens": sum(answer.answer_tokens for answer in each),
    }


def _tokens_spent(engine: Engine) -> int:
    return engine.ledger.spent.prompt_tokens + engine.ledger.spent.answer_tokens


def _query(
    asked: MethodQueries, row: int, texts: dict[int, str], labels: LabelSet, calibration: str
) -> Query:
    given, suggested = int(asked.given[row]), int(asked.predicted[row])
    wanted = range(len(labels)) if asked.candidates == "all" else sorted({given, suggested})
    candidates = tuple(labels[index] for index in wanted)
    return Query(
        int(asked.ids[row]),
        texts[int(asked.ids[row])],
        candidates,
        _demonstrations(asked, row, texts),
        given,
        suggested,
        labels_to_score(labels, candidates, calibration),
    )


def _demonstrations(asked: MethodQueries, row: int, texts: dict[int, str]) -> tuple[Demonstration, ...]:
    """Demonstrations of one query, the most similar last."""
    columns = zip(asked.neighbours[row], asked.neighbour_labels[row], asked.similarity[row], strict=True)
    nearest_first = [
        Demonstration(texts[int(example)], int(label), None if np.isnan(cosine) else float(cosine))
        for example, label, cosine in columns
        if example != -1
    ]
    return tuple(reversed(nearest_first))


def _texts(examples: str, ids: npt.NDArray[np.int64]) -> dict[int, str]:
    """Texts by id, with one shard in memory at a time."""
    folder = Folder(examples)
    texts: dict[int, str] = {}
    for shard in folder.shards():
        table = folder.read_table(shard, columns=["example_id", "text"])
        table = table.filter(pa.array(np.isin(table["example_id"].to_numpy(), ids)))
        texts.update(zip(table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


def _choose_labels(
    queries: Sequence[Query],
    answers: MaybeAnswers,
    content_free: MaybeAnswers,
    num_classes: int,
    calibration: str,
    accept: float,
) -> npt.NDArray[np.int64]:
    """The label of each query [Q]; `UNANSWERED` where its answer, or the content-free one, is missing."""
    scores = [_scores_of(answer) for answer in answers]
    neutral = [_scores_of(answer) for answer in content_free] or [{}] * len(answers)
    answered = [
        bool(found) and (bool(bias) or not content_free) for found, bias in zip(scores, neutral, strict=True)
    ]
    candidates = [
        [label.index for label in query.candidates] if known else []
        for query, known in zip(queries, answered, strict=True)
    ]
    bias = np.zeros(num_classes)
    if calibration == "batch" and any(answered):
        pairs = [pair for found in scores for pair in found.items()]
        indices, values = (np.array(column) for column in zip(*pairs, strict=True))
        bias = steady_bias(*label_sums(indices, values, num_classes))
    choices = choose_candidates(candidates, scores, neutral, bias)
    return np.where(answered, accepted_labels(choices, accept), UNANSWERED)


def _scores_of(answer: Annotation | None) -> dict[int, float]:
    """Scores of an answer; none without an answer or where it failed."""
    return answer.scores if answer is not None and answer.error is None else {}
