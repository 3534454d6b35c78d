"""An annotator for a method that asks between epochs: the same engine and ledger as `relabel`, labels back at once.

`relabel` asks files of suspects and writes a decision on each; a method asks about a few examples, needs their labels now
and goes on whatever happens: an annotator that is down costs answers, never the training.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotators.base import MAX_SCORED, Annotation, Demonstration, Query
from rayclean.annotators.engine import Engine
from rayclean.errors import AnnotationError
from rayclean.folder import Folder
from rayclean.functional.calibration import choose, label_sums, probabilities, steady_bias
from rayclean.schema import ABSTAINED, UNANSWERED, LabelSet, MethodQueries

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]


async def answer_between_epochs(
    engine: Engine, asked: MethodQueries, *, examples: str, labels: LabelSet, calibration: str
) -> tuple[Ints, dict[str, float]]:
    """Labels [Q] and figures.

    Args:
        engine: whom to ask, over which ledger, with what budget.
        asked: the questions.
        examples: folder of example shards, for the texts.
        labels: all labels.
        calibration: `none`, `batch` (over the answers of this call) or `content_free`.
    """
    texts = _texts(examples, np.union1d(asked.ids, asked.neighbours[asked.neighbours != -1]))
    queries = [_query(asked, row, texts, labels, calibration) for row in range(len(asked.ids))]
    blanks = (
        [engine.annotator.content_free(query) for query in queries] if calibration == "content_free" else []
    )
    unique = list(dict.fromkeys(blanks))
    before = (engine.tally.asked, engine.tally.reused, _tokens(engine))
    failure = None
    try:
        answers = await engine.answer([*unique, *queries])
    except AnnotationError as error:
        failure = str(error)
        logger.warning("the annotator failed, training goes on with the answers that came: %s", failure)
        answers = await engine.recall([*unique, *queries])
    bias_of = dict(zip(unique, answers, strict=False))
    decided = _decide(
        queries,
        answers[len(unique) :],
        [bias_of[blank] for blank in blanks],
        len(labels),
        calibration,
        asked.accept,
    )
    figures = {
        "asked": engine.tally.asked - before[0],
        "from_ledger": engine.tally.reused - before[1],
        "unanswered": int((decided == UNANSWERED).sum()),
        "abstained": int((decided == ABSTAINED).sum()),
        "tokens": _tokens(engine) - before[2],
        **_worth(answers),
        "annotator_failed": float(failure is not None),
    }
    return decided, figures


def _worth(answers: Sequence[Annotation | None]) -> dict[str, int]:
    """Tokens of the answers, whoever paid them and when: what they cost a run that begins with an empty ledger."""
    each = {answer.key: answer for answer in answers if answer is not None}.values()
    return {
        "prompt_tokens": sum(answer.prompt_tokens for answer in each),
        "answer_tokens": sum(answer.answer_tokens for answer in each),
    }


def _tokens(engine: Engine) -> int:
    return engine.ledger.spent.prompt_tokens + engine.ledger.spent.answer_tokens


def _query(
    asked: MethodQueries, row: int, texts: dict[int, str], labels: LabelSet, calibration: str
) -> Query:
    given, predicted = int(asked.given[row]), int(asked.predicted[row])
    everyone = tuple(labels)
    if asked.candidates == "all":
        candidates = everyone
    else:
        candidates = tuple(labels[index] for index in sorted({given, predicted}))
    scores_all = (
        calibration == "batch" and len(everyone) <= MAX_SCORED
    )  # as relabel: equal questions, equal keys
    scored = tuple(label for label in everyone if label not in candidates) if scores_all else ()
    return Query(
        int(asked.ids[row]),
        texts[int(asked.ids[row])],
        candidates,
        _shown(asked, row, texts),
        given,
        predicted,
        scored,
    )


def _shown(asked: MethodQueries, row: int, texts: dict[int, str]) -> tuple[Demonstration, ...]:
    """The most similar last."""
    shown = [
        Demonstration(texts[int(other)], int(label), None if np.isnan(cosine) else float(cosine))
        for other, label, cosine in zip(
            asked.neighbours[row], asked.neighbour_labels[row], asked.similarity[row], strict=True
        )
        if other != -1
    ]
    return tuple(reversed(shown))


def _texts(examples: str, ids: Ints) -> dict[int, str]:
    """Texts by id, a shard in memory at a time."""
    folder = Folder(examples)
    texts: dict[int, str] = {}
    for shard in folder.shards():
        table = folder.read_table(shard, columns=["example_id", "text"])
        table = table.filter(pa.array(np.isin(table["example_id"].to_numpy(), ids)))
        texts.update(zip(table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


def _decide(
    queries: Sequence[Query],
    answers: Sequence[Annotation | None],
    blanks: Sequence[Annotation | None],
    num_classes: int,
    calibration: str,
    accept: float,
) -> Ints:
    """Calibrated choice per answer."""
    good = {
        row: (query, answer, blank)
        for row, (query, answer, blank) in enumerate(
            zip(queries, answers, blanks or [None] * len(answers), strict=True)
        )
        if _is_good(answer) and (not blanks or _is_good(blank))
    }
    decided = np.full(len(queries), UNANSWERED, dtype=np.int64)
    if not good:
        return decided
    bias = np.zeros(num_classes)
    if calibration == "batch":
        every = [pair for _, answer, _ in good.values() if answer for pair in answer.scores.items()]
        indices, scores = (np.array(column) for column in zip(*every, strict=True))
        bias = steady_bias(*label_sums(indices, scores, num_classes))
    width = max(len(query.candidates) for query in queries)
    candidates = np.full((len(good), width), -1, dtype=np.int64)
    scored, offsets = np.zeros(candidates.shape), np.zeros(candidates.shape)
    for place, (query, answer, blank) in enumerate(good.values()):
        assert answer is not None
        for column, label in enumerate(query.candidates):
            candidates[place, column] = label.index
            scored[place, column] = answer.scores[label.index]
            offsets[place, column] = blank.scores[label.index] if blank is not None else bias[label.index]
    chosen, confidence = choose(probabilities(scored, offsets, candidates), candidates)
    decided[list(good)] = np.where((chosen < 0) | (confidence < accept), ABSTAINED, chosen)
    return decided


def _is_good(answer: Annotation | None) -> bool:
    return answer is not None and answer.error is None and bool(answer.scores)
