"""Alarms about findings that can hardly be true."""

import pytest

from rayclean.detectors.remarks import implausible

TEXTS = {"distinct": 300, "conflicting": 40, "least_wrong": 60}


def metrics(rate: float | None, votes: int = 0, examples: int = 1000) -> dict:
    return {"examples": examples, "estimated_noise_rate": rate, "votes": {"posterior": votes}}


def test_more_than_half_of_the_labels() -> None:
    (alarm,) = implausible(metrics(0.96), {})
    assert alarm.startswith("96% of the labels would be wrong")
    assert "predict.columns" in alarm
    (same,) = implausible(metrics(0.58), {"distinct": 1})
    assert "all texts are equal" in same
    assert implausible(metrics(0.4), {}) == []
    assert implausible(metrics(None), {}) == []


@pytest.mark.parametrize(
    ("rate", "votes", "said"),
    [(0.0, 0, True), (0.02, 10, True), (None, 0, True), (0.05, 0, False), (0.0, 30, False)],
)
def test_copies_that_contradict_each_other(rate: float | None, votes: int, said: bool) -> None:
    """At least 60 labels are wrong; half of them, found or estimated, are enough not to be alarmed."""
    found = implausible(metrics(rate, votes), TEXTS)
    assert bool(found) == said
    if said:
        assert "40 texts have copies with different labels, so at least 60 labels are wrong" in found[0]
        assert "conflicting_copies" in found[0]


def test_few_contradictions_may_be_missed() -> None:
    assert implausible(metrics(0.0), TEXTS | {"least_wrong": 4}) == []
