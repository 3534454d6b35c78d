"""Decisions: when an answer becomes a label, and when a suspect's label changes."""

import math

import numpy as np

from rayclean.annotators.decisions import accepted_labels, choose_candidates, decisions
from rayclean.schema import ABSTAINED


def test_an_answer_becomes_a_label_from_the_accepted_probability_on() -> None:
    probabilities = [{0: 0.3, 1: 0.7}, {0: 0.31, 1: 0.69}, {0: 0.6, 1: 0.4}, {0: 0.5, 1: 0.5}, {}]
    scores = [{label: math.log(p) for label, p in row.items()} for row in probabilities]
    choices = choose_candidates([list(row) for row in scores], scores, [{}] * 5, np.zeros(2))
    accept = 0.7 - 1e-9  # exp(log(0.7)) is 0.7 but for its last digit
    assert accepted_labels(choices, accept).tolist() == [1, ABSTAINED, ABSTAINED, ABSTAINED, ABSTAINED]
    # A change must be sure enough; the given label is kept with any probability; a tie and no answer change nothing.
    given = np.zeros(5, dtype=np.int64)
    assert decisions(choices, given, accept) == ["changed", "abstained", "kept", "abstained", "abstained"]


def test_the_bias_of_a_text_without_content_goes_before_that_of_the_batch() -> None:
    """Raw scores prefer label 0 by 1; the first answer's content-free scores prefer it by 2, the batch by 0.5."""
    scores = [{0: -1.0, 1: -2.0}] * 2
    choices = choose_candidates([[0, 1]] * 2, scores, [{0: -1.0, 1: -3.0}, {}], np.array([-1.0, -1.5]))
    assert choices.chosen.tolist() == [1, 0]
    expected = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.5))]
    np.testing.assert_allclose(choices.confidence, expected)
