"""Labels and queries for the tests of annotators."""

from rayclean.annotators.query import Query
from rayclean.schema import Candidate, Label

LABELS = (Label(0, "BIZ", "b"), Label(1, "SPO", "s", "about games"), Label(2, "HATE", "po"))
CANDIDATES = tuple(map(Candidate.of, LABELS))


def query(number: int, text: str | None = None, candidates: tuple[int, ...] = (0, 1)) -> Query:
    text = f"text {number} *{'bs'[number % 2]}" if text is None else text
    offered = tuple(CANDIDATES[place] for place in candidates)
    return Query(number, text, offered, (), offered[0], offered[1])
