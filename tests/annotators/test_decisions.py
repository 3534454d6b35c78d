"""Decisions: when an answer becomes a label, and when a suspect's label changes."""

import math

import numpy as np
import pytest

from rayclean.annotators.answers import AnsweredQuery
from rayclean.annotators.decisions import LabelBias, decide
from rayclean.schema import ABSTAINED


def answer(scores: dict[int, float], given: int = 0, **more: dict[int, float]) -> AnsweredQuery:
    return AnsweredQuery(tuple(scores), given, None, scores, more.get("content_free", {}))


def test_an_answer_becomes_a_label_from_the_accepted_probability_on() -> None:
    probabilities = [(0.3, 0.7), (0.31, 0.69), (0.6, 0.4), (0.5, 0.5)]
    answers = [answer({label: math.log(p) for label, p in enumerate(pair)}) for pair in probabilities]
    accept = 0.7 - 1e-9  # exp(log(0.7)) is 0.7 but for its last digit
    decided = decide(answers, np.zeros(2), accept)
    assert [each.label for each in decided] == [1, ABSTAINED, ABSTAINED, ABSTAINED]
    # A change must be sure enough; the given label is kept with any probability; a tie changes nothing.
    assert [each.name for each in decided] == ["changed", "abstained", "kept", "abstained"]
    assert [each.chosen for each in decided] == [1, 1, 0, None]
    assert decided[0].probabilities == pytest.approx((0.3, 0.7))


def test_the_bias_of_a_text_without_content_goes_before_that_of_the_batch() -> None:
    """Raw scores prefer label 0 by 1; the first answer's content-free scores prefer it by 2, the batch by 0.5."""
    raw = {0: -1.0, 1: -2.0}
    decided = decide([answer(raw, content_free={0: -1.0, 1: -3.0}), answer(raw)], np.array([-1.0, -1.5]), 0.5)
    assert [each.chosen for each in decided] == [1, 0]
    expected = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.5))]
    np.testing.assert_allclose([each.confidence for each in decided], expected)


def test_an_answer_without_scores_is_certain() -> None:
    """As people give it: it changes or keeps the label at any acceptance; one that abstains decides nothing."""
    answers = [AnsweredQuery((2, 0), given=0, choice=choice, scores={}, content_free={}) for choice in (2, 0)]
    decided = decide(answers, np.array([5.0, 0.0, -5.0]), 1.0)
    assert [(each.name, each.label, each.confidence) for each in decided] == [
        ("changed", 2, 1.0),
        ("kept", 0, 1.0),
    ]


def test_candidates_of_any_number_and_order() -> None:
    """Rows of different lengths do not disturb each other, and the order of the candidates changes nothing."""
    rows = [{3: -0.1, 1: -3.0, 2: -4.0}, {1: -0.1, 0: -2.0}, {2: -4.0, 1: -3.0, 3: -0.1}]
    together = decide([answer(row, given=1) for row in rows], np.zeros(4), 0.5)
    alone = [decide([answer(row, given=1)], np.zeros(4), 0.5)[0] for row in rows]
    assert together == alone
    assert (together[0].label, together[0].confidence) == (
        together[2].label,
        pytest.approx(together[2].confidence),
    )


def test_the_bias_is_the_mean_score_of_a_label_where_it_was_scored() -> None:
    bias = LabelBias(3)
    bias.add([answer({0: -1.0, 1: -2.0})] * 5).add([answer({0: -3.0})] * 5)
    assert bias.mean.tolist() == [-2.0, -2.0, 0.0]
    assert LabelBias(3).add([answer({0: -1.0})]).mean.tolist() == [0.0] * 3  # too few to tell
