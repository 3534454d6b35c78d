"""Answers to the queries of a training method between epochs, by the engine of `relabel`.

While `relabel` processes files of suspects and writes a decision on each, a method asks about a few examples,
needs their labels at once, and continues without them: a failing annotator never stops the training. Both decide by
`functional.decision.decide`: the networks' log-odds take the place of the posterior's.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rayclean.annotators.answers import AnsweredQuery, chosen_label, content_free_scores, label_scores
from rayclean.annotators.calibration_queries import (
    MaybeAnswers,
    answer_for_calibration,
    content_free_queries,
)
from rayclean.annotators.choices import Measured, choices, shared_bias
from rayclean.annotators.engine import Engine
from rayclean.annotators.measuring import answers_to_decide_by
from rayclean.annotators.query import Demonstration, Query
from rayclean.annotators.query_builder import read_texts
from rayclean.errors import AnnotationError
from rayclean.functional.decision import Decision, decide
from rayclean.schema import ABSTAINED, UNANSWERED, LabelSet, MethodQueries

logger = logging.getLogger(__name__)


async def answer_between_epochs(
    engine: Engine,
    asked: MethodQueries,
    *,
    examples: str,
    labels: LabelSet,
    calibration: str,
    measured: Measured | None,
) -> tuple[npt.NDArray[np.int64], dict[str, float]]:
    """Labels [Q] (or `ABSTAINED`, `UNANSWERED`) for the queries of a method, and counts of this call.

    A query gets the label that the networks suggest where `decide` changes the given one, the given one where `decide`
    keeps it, and `ABSTAINED` where it refers the example to a person: among all candidates (`candidates = "all"`) a label
    other than these two decides nothing.

    Args:
        engine: annotator, ledger and budget.
        asked: the queries.
        examples: folder of example shards, which hold the texts.
        labels: all labels.
        calibration: `none`, `controls` (the bias is the measured one) or `content_free`.
        measured: what the control questions of `relabel` say of the annotator. One that is not surely better than chance
            is not asked, and every question counts as abstained from. None: it cannot be measured, and each of its
            answers counts of which it is itself as sure as `asked.accept`, third labels included; the bias is then that
            of the answers of this call.
    """
    if measured is not None and not measured.worth.above_chance:
        # Nobody is paid for answers that do not count.
        nothing = dict.fromkeys(_FIGURES, 0)
        return np.full(len(asked.ids), ABSTAINED), nothing | {
            "abstained": len(asked.ids),
            "annotator_failed": 0.0,
        }
    texts = read_texts(examples, np.union1d(asked.ids, asked.neighbours[asked.neighbours != -1]))
    candidates = [_candidates(asked, row, labels) for row in range(len(asked.ids))]
    queries = [_query(asked, row, texts, labels, candidates[row]) for row in range(len(asked.ids))]
    neutral = content_free_queries(engine.annotator, queries, calibration)
    before = (engine.counts.asked, engine.counts.reused, _tokens_spent(engine))
    failure = None
    try:
        answers, content_free = await answer_for_calibration(engine.answer, queries, neutral)
    except AnnotationError as error:
        failure = str(error)
        logger.warning("the annotator failed, training goes on with the answers that came: %s", failure)
        answers, content_free = await answer_for_calibration(engine.recall, queries, neutral)
    found = _answered(asked, candidates, answers, content_free, labels)
    if measured is None:
        chosen = _at_its_word(asked, found, len(labels), calibration)
    else:
        chosen = _decided(asked, found, measured)
    return chosen, {
        "asked": engine.counts.asked - before[0],
        "from_ledger": engine.counts.reused - before[1],
        "unanswered": int((chosen == UNANSWERED).sum()),
        "abstained": int((chosen == ABSTAINED).sum()),
        "tokens": _tokens_spent(engine) - before[2],
        **_tokens_of([*answers, *content_free]),
        "annotator_failed": float(failure is not None),
    }


def _decided(
    asked: MethodQueries, answers: Sequence[AnsweredQuery | None], measured: Measured
) -> npt.NDArray[np.int64]:
    """The labels [Q] by the networks and the answers together.

    The networks' log-odds decide nothing alone: a network that has learnt a label by heart is sure of it, and the method has
    that opinion already. So a query without an answer stays unanswered, whatever is probable.
    """
    answer, confidence = answers_to_decide_by(answers, measured)
    found = decide(
        asked.log_odds,
        asked.given,
        asked.predicted,
        answer,
        measured.worth,
        asked.accept,
        confidence=confidence,
        alone=False,
    ).decision
    kept = np.where(found == Decision.KEPT, asked.given, ABSTAINED)
    chosen = np.where(found == Decision.CHANGED, asked.predicted, kept)
    return np.where([each is None for each in answers], UNANSWERED, chosen)


def _at_its_word(
    asked: MethodQueries, answers: Sequence[AnsweredQuery | None], num_classes: int, calibration: str
) -> npt.NDArray[np.int64]:
    """The labels [Q] that an annotator chose and is itself sure enough of."""
    known = [answer for answer in answers if answer is not None]
    bias = shared_bias(known, num_classes) if calibration == "controls" else np.zeros(num_classes)
    made = choices(known, bias)
    sure = (made.label >= 0) & (made.confidence >= asked.accept)
    chosen = np.full(len(answers), UNANSWERED, dtype=np.int64)
    chosen[[answer is not None for answer in answers]] = np.where(sure, made.label, ABSTAINED)
    return chosen


_FIGURES = ("asked", "from_ledger", "unanswered", "tokens", "prompt_tokens", "answer_tokens")
"""Counts of a call beside the abstentions."""


def _tokens_of(answers: MaybeAnswers) -> dict[str, int]:
    """Tokens of all answers, including those from the ledger, as in a run with an empty ledger."""
    each = {answer.key: answer for answer in answers if answer is not None}.values()
    return {
        "prompt_tokens": sum(answer.prompt_tokens for answer in each),
        "answer_tokens": sum(answer.answer_tokens for answer in each),
    }


def _tokens_spent(engine: Engine) -> int:
    return engine.ledger.spent.prompt_tokens + engine.ledger.spent.answer_tokens


def _query(
    asked: MethodQueries, row: int, texts: dict[int, str], labels: LabelSet, candidates: Sequence[int]
) -> Query:
    return Query(
        int(asked.ids[row]),
        texts[int(asked.ids[row])],
        tuple(map(labels.candidate, candidates)),
        _demonstrations(asked, row, texts, labels),
        labels.candidate(int(asked.given[row])),
        labels.candidate(int(asked.predicted[row])),
    )


def _candidates(asked: MethodQueries, row: int, labels: LabelSet) -> list[int]:
    """Label indices of the candidates of one query, in its order."""
    pair = {int(asked.given[row]), int(asked.predicted[row])}
    return labels.in_order(range(len(labels)) if asked.candidates == "all" else pair)


def _demonstrations(
    asked: MethodQueries, row: int, texts: dict[int, str], labels: LabelSet
) -> tuple[Demonstration, ...]:
    """Demonstrations of one query, the most similar last."""
    columns = zip(asked.neighbours[row], asked.neighbour_labels[row], asked.similarity[row], strict=True)
    nearest_first = [
        Demonstration(
            texts[int(example)], labels.candidate(int(label)), None if np.isnan(cosine) else float(cosine)
        )
        for example, label, cosine in columns
        if example != -1
    ]
    return tuple(reversed(nearest_first))


def _answered(
    asked: MethodQueries,
    candidates: Sequence[Sequence[int]],
    answers: MaybeAnswers,
    content_free: MaybeAnswers,
    labels: LabelSet,
) -> list[AnsweredQuery | None]:
    """The answer to each query; None if it or the content-free answer for its calibration is missing."""
    found: list[AnsweredQuery | None] = []
    for row, (answer, neutral) in enumerate(zip(answers, content_free or [None] * len(answers), strict=True)):
        if answer is None or answer.error or (content_free and (neutral is None or neutral.error)):
            found.append(None)
            continue
        indices = candidates[row]
        offsets = {} if neutral is None else content_free_scores(neutral, indices, labels)
        choice, scores = chosen_label(answer, indices), label_scores(answer, indices, labels)
        found.append(AnsweredQuery(tuple(indices), int(asked.given[row]), choice, scores, offsets))
    return found
