"""Bars of trials over time, interruptions cut out."""

import pytest

from rayclean.sweeps.page.timeline import at_once, bars
from rayclean.sweeps.results import Row


def row(**spans: tuple[float, float]) -> Row:
    return Row({}, (0, 1), {}, False, 0, {}, spans={int(seed[1:]): span for seed, span in spans.items()})


def test_bars_stand_by_their_beginning_and_interruptions_are_cut_out() -> None:
    first, second = row(s0=(1000.0, 10.0), s1=(5000.0, 10.0)), row(s0=(1005.0, 10.0), s1=(5004.0, 6.0))
    found = bars([first, second])
    assert [(bar.row is first, bar.seed, bar.begin, bar.end) for bar in found] == [
        (True, 0, 0.0, 10.0), (False, 0, 5.0, 15.0), (True, 1, 15.0, 25.0), (False, 1, 19.0, 25.0),
    ]  # fmt: skip
    assert at_once(found) == pytest.approx(36 / 25)


def test_a_short_wait_is_a_gap() -> None:
    found = bars([row(s0=(0.0, 10.0), s1=(40.0, 10.0))])
    assert [bar.begin for bar in found] == [0.0, 40.0]
    assert at_once(found) == pytest.approx(20 / 50)


def test_results_of_older_versions_say_no_time() -> None:
    assert bars([row()]) == []
    assert at_once([]) == 0.0
