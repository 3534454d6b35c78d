"""Spans of BIO tags: by hand, round trips, and scores against counts by hand."""

from hypothesis import given
from hypothesis import strategies as st

from rayclean.functional.spans import Span, span_scores, spans_of, tags_of


@given(st.lists(st.integers(0, 6), max_size=12))
def test_spans_are_stable(tags: list[int]) -> None:
    """Repaired once, a sequence stays: every I- follows a tag of its class."""
    spans = spans_of(tags)
    again = tags_of(spans, len(tags))
    assert spans_of(again) == spans
    for place, tag in enumerate(again):
        if tag > 0 and tag % 2 == 0:
            assert again[place - 1] in (tag - 1, tag)
    assert [tag > 0 for tag in again] == [tag > 0 for tag in tags]


def test_scores_by_hand() -> None:
    found = [[Span(0, 2, 0), Span(3, 4, 1)], [Span(1, 2, 0)]]
    true = [[Span(0, 2, 0), Span(3, 5, 1)], []]
    scores = span_scores(found, true, 3)  # one of three found and of two true spans is right
    assert scores["f1_span"] == 2 * 1 / 5
    assert scores["f1_macro"] == (2 * 1 / 3 + 0) / 2  # the third class does not occur
    assert scores["f1_weighted"] == (2 / 3 + 0) / 2
    assert span_scores([], [], 2) == {"f1_span": 0.0, "f1_macro": 0.0, "f1_weighted": 0.0}
