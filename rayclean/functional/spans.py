"""Spans of tag sequences in the scheme BIO, and how well predicted spans agree with true ones.

Tag 0 is O; 1 + 2 c is B- and 2 + 2 c is I- of entity class c.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Tokens [start, stop) of an entity class."""

    start: int
    stop: int
    kind: int
    """Index of the entity class."""


def spans_of(tags: Sequence[int]) -> list[Span]:
    """The spans of a sequence, in order. An I- that does not go on with a span of its class begins one.

    >>> spans_of([1, 2, 0, 3, 1, 4])
    [Span(start=0, stop=2, kind=0), Span(start=3, stop=4, kind=1), Span(start=4, stop=5, kind=0), Span(start=5, stop=6, kind=1)]
    """
    found: list[Span] = []
    for place, tag in enumerate(tags):
        kind = (tag - 1) // 2
        goes_on = found and found[-1].stop == place and found[-1].kind == kind
        if tag > 0 and tag % 2 == 0 and goes_on:
            found[-1] = found[-1]._replace(stop=place + 1)
        elif tag > 0:
            found.append(Span(place, place + 1, kind))
    return found


def tags_of(spans: Iterable[Span], length: int) -> list[int]:
    """The tags of spans that do not overlap; the inverse of `spans_of` for sequences without a stray I-.

    >>> tags_of([Span(0, 2, 0), Span(3, 4, 1)], 5)
    [1, 2, 0, 3, 0]
    """
    tags = [0] * length
    for start, stop, kind in spans:
        tags[start:stop] = [1 + 2 * kind, *[2 + 2 * kind] * (stop - start - 1)]
    return tags


def span_scores(
    found: Sequence[Sequence[Span]], true: Sequence[Sequence[Span]], num_classes: int
) -> dict[str, float]:
    """F1 of whole spans: `f1_span` (all spans together), `f1_macro` (mean over the classes that occur) and
    `f1_weighted` (weighted by the true spans); 0 where nothing is found and nothing is true.

    Reference: Tjong Kim Sang & De Meulder, "Introduction to the CoNLL-2003 shared task", 2003, section 3.
    """
    right, wanted, named = ([0] * num_classes for _ in range(3))
    for one, other in zip(found, true, strict=True):
        for span in one:
            named[span.kind] += 1
        for span in other:
            wanted[span.kind] += 1
        for span in set(one) & set(other):
            right[span.kind] += 1

    def f1(hits: int, total: int) -> float:
        return 2 * hits / total if total else 0.0

    each = [f1(r, w + n) for r, w, n in zip(right, wanted, named, strict=True)]
    occurring = [score for score, w, n in zip(each, wanted, named, strict=True) if w + n]
    weights = sum(score * w for score, w in zip(each, wanted, strict=True))
    return {
        "f1_span": f1(sum(right), sum(wanted) + sum(named)),
        "f1_macro": sum(occurring) / len(occurring) if occurring else 0.0,
        "f1_weighted": weights / sum(wanted) if sum(wanted) else 0.0,
    }
