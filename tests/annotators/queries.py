"""Labels and queries for the tests of annotators."""

from rayclean.annotators.base import Query
from rayclean.schema import Label

LABELS = (Label(0, "BIZ", "b"), Label(1, "SPO", "s", "about games"), Label(2, "HATE", "po"))


def query(number: int, text: str | None = None, candidates: tuple[int, ...] = (0, 1)) -> Query:
    text = f"text {number} *{'bs'[number % 2]}" if text is None else text
    return Query(number, text, tuple(LABELS[i] for i in candidates), (), candidates[0], candidates[1])
