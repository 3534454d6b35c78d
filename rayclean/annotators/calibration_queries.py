"""The scores that calibration needs beside those of the candidates, asked together with the queries."""

from collections.abc import Awaitable, Callable, Sequence

from rayclean.annotators.base import MAX_SCORED, Annotation, Annotator, Query
from rayclean.schema import Candidate, LabelSet

MaybeAnswers = list[Annotation | None]
"""MaybeAnswers to a list of queries; None where the budget ended before, or the ledger holds none."""


def labels_to_score(answers: LabelSet, further: Sequence[int], calibration: str) -> tuple[Candidate, ...]:
    """Answers beside the candidates whose scores batch calibration needs, for up to `MAX_SCORED` of them.

    Args:
        answers: all answers.
        further: indices of the answers that the query's unit has beside its candidates.
        calibration: how scores become probabilities.
    """
    if calibration != "batch" or len(answers) > MAX_SCORED:
        return ()
    return tuple(map(answers.candidate, further))


def content_free_queries(annotator: Annotator, queries: Sequence[Query], calibration: str) -> list[Query]:
    """The content-free query of each query; empty unless the calibration is `content_free`."""
    return [annotator.content_free(query) for query in queries] if calibration == "content_free" else []


async def answer_for_calibration(
    answer: Callable[[Sequence[Query]], Awaitable[MaybeAnswers]],
    queries: Sequence[Query],
    content_free: Sequence[Query],
) -> tuple[MaybeAnswers, MaybeAnswers]:
    """Answers to the queries and to their content-free queries, of which equal ones are asked once.

    Args:
        answer: `Engine.answer` or `Engine.recall`.
        queries: Q queries.
        content_free: Q content-free queries, or none.
    """
    unique = list(dict.fromkeys(content_free))
    answers = await answer([*unique, *queries])
    answer_to = dict(zip(unique, answers, strict=False))
    return answers[len(unique) :], [answer_to[query] for query in content_free]
