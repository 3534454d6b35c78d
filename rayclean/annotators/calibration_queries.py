"""Further queries that calibration needs, asked together with the queries."""

from collections.abc import Awaitable, Callable, Sequence

from rayclean.annotators.base import Annotator
from rayclean.annotators.query import Annotation, Query

MaybeAnswers = list[Annotation | None]
"""Answers to a list of queries; None for a query beyond the budget, or without an answer in the ledger."""


def content_free_queries(annotator: Annotator, queries: Sequence[Query], calibration: str) -> list[Query]:
    """The content-free query of each query; empty unless the calibration is `content_free`."""
    return [annotator.content_free(query) for query in queries] if calibration == "content_free" else []


async def answer_for_calibration(
    answer: Callable[[Sequence[Query]], Awaitable[MaybeAnswers]],
    queries: Sequence[Query],
    content_free: Sequence[Query],
) -> tuple[MaybeAnswers, MaybeAnswers]:
    """Answer the queries and their content-free queries, asking equal ones once.

    Args:
        answer: `Engine.answer` or `Engine.recall`.
        queries: Q queries.
        content_free: Q content-free queries, or none.
    """
    unique = list(dict.fromkeys(content_free))
    answers = await answer([*unique, *queries])
    answer_to = dict(zip(unique, answers, strict=False))
    return answers[len(unique) :], [answer_to[query] for query in content_free]
