"""How many labels are wrong, by how often an annotator denies them."""

import numpy as np
import pytest

from rayclean.functional.denied_labels import denied_labels
from rayclean.functional.worth import Worth


def test_by_hand() -> None:
    """An annotator of accuracy .9 denies .1 of right labels and .9 of wrong ones: .26 denied are .2 wrong."""
    found = denied_labels(np.arange(10_000) < 2600, Worth(8998, 9996))  # (8998 + 2) / 10,000 = .9
    assert (found.asked, found.denied) == (10_000, 2600)
    assert found.wrong.value == pytest.approx(0.2)
    assert 0.17 < found.wrong.low < 0.2 < found.wrong.high < 0.23


def test_an_annotator_that_errs_too_often_says_nothing() -> None:
    assert denied_labels(np.ones(50, bool), Worth(90, 150)).wrong is None
    assert denied_labels(np.ones(50, bool), Worth(0, 0)).wrong is None
    assert denied_labels(np.zeros(0, bool), Worth(150, 150)).wrong is None


def test_shares_stay_in_their_range() -> None:
    none, every = (denied_labels(np.full(100, denied), Worth(150, 150)).wrong for denied in (False, True))
    assert (none.value, none.low) == (0, 0)
    assert (every.value, every.high) == (1, 1)


@pytest.mark.parametrize(("accuracy", "noise"), [(0.75, 0.05), (0.85, 0.3), (0.95, 0.0), (0.9, 0.5)])
def test_intervals_cover(accuracy: float, noise: float) -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        wrong = rng.random(200) < noise
        denied = np.where(rng.random(200) < accuracy, wrong, ~wrong)
        found = denied_labels(denied, Worth(int(rng.binomial(150, accuracy)), 150)).wrong
        hits += found is None or found.low <= noise <= found.high
    assert hits >= 0.95 * 300
