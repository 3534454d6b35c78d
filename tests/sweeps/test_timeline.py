"""Trials over time, interruptions left out."""

from rayclean.evaluation.plots import BLUE, ORANGE
from rayclean.sweeps.page.plots import trial_timeline
from rayclean.sweeps.results import Row


def row(stopped: int = 0, **spans: tuple[float, float]) -> Row:
    return Row({}, (0, 1), {}, False, stopped, spans={int(seed[1:]): span for seed, span in spans.items()})


def bars(*rows: Row) -> tuple[list[tuple[float, float, str]], str]:
    """Beginning and end of every trial in seconds, its text; and the hint."""
    plot = trial_timeline(rows, ())
    assert plot is not None
    (trace,) = plot.figure["data"]
    ends = [begin + seconds for begin, seconds in zip(trace["base"], trace["x"], strict=True)]
    return list(zip(trace["base"], ends, trace["text"], strict=True)), plot.hint


def test_trials_are_sorted_by_their_beginning_and_interruptions_are_left_out() -> None:
    rows = row(s0=(1000.0, 10.0), s1=(5000.0, 10.0)), row(s0=(1005.0, 10.0), s1=(5004.0, 6.0))
    found, hint = bars(*rows)
    assert [each[:2] for each in found] == [(0.0, 10.0), (5.0, 15.0), (15.0, 25.0), (19.0, 25.0)]
    assert [text for *_, text in found] == [
        "seed = 0: 10.0 s", "seed = 0: 10.0 s", "seed = 1: 10.0 s", "seed = 1: 6.0 s",
    ]  # fmt: skip
    assert hint == f"4 trials by their beginning, {36 / 25:.1f} at once on average."


def test_a_short_wait_is_a_gap() -> None:
    found, hint = bars(row(s0=(0.0, 10.0), s1=(40.0, 10.0)))
    assert [begin for begin, *_ in found] == [0.0, 40.0]
    assert f"{20 / 50:.1f} at once" in hint


def test_trials_that_were_stopped_are_told_apart() -> None:
    plot = trial_timeline([row(s0=(0.0, 1.0)), row(stopped=1, s0=(2.0, 1.0))], ())
    assert plot is not None
    assert plot.figure["data"][0]["marker"]["color"] == [BLUE, ORANGE]
    assert "Orange ones were stopped early." in plot.hint


def test_results_without_times_give_no_bars() -> None:
    assert trial_timeline([row()], ()) is None
