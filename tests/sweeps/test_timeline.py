"""Trials over time, interruptions left out."""

from datetime import datetime

import pytest
from optuna.trial import TrialState

from rayclean.sweeps.page.study import at_once, timeline_study
from rayclean.sweeps.results import Row


def row(stopped: int = 0, **spans: tuple[float, float]) -> Row:
    return Row({}, (0, 1), {}, False, stopped, spans={int(seed[1:]): span for seed, span in spans.items()})


def bars(*rows: Row) -> list[tuple[int, float, float]]:
    """Seed, beginning and end of every trial, in seconds since the first one began."""
    trials = timeline_study(rows, ()).trials
    zero = min(trial.datetime_start for trial in trials)

    def since(moment: datetime) -> float:
        return (moment - zero).total_seconds()

    return [(t.user_attrs["seed"], since(t.datetime_start), since(t.datetime_complete)) for t in trials]


def test_trials_are_sorted_by_their_beginning_and_interruptions_are_left_out() -> None:
    rows = row(s0=(1000.0, 10.0), s1=(5000.0, 10.0)), row(s0=(1005.0, 10.0), s1=(5004.0, 6.0))
    assert bars(*rows) == [(0, 0.0, 10.0), (0, 5.0, 15.0), (1, 15.0, 25.0), (1, 19.0, 25.0)]
    assert at_once(timeline_study(rows, ())) == pytest.approx(36 / 25)


def test_a_short_wait_is_a_gap() -> None:
    rows = [row(s0=(0.0, 10.0), s1=(40.0, 10.0))]
    assert [begin for _, begin, _ in bars(*rows)] == [0.0, 40.0]
    assert at_once(timeline_study(rows, ())) == pytest.approx(20 / 50)


def test_trials_that_were_stopped_are_told_apart() -> None:
    study = timeline_study([row(s0=(0.0, 1.0)), row(stopped=1, s0=(2.0, 1.0))], ())
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_results_without_times_give_no_bars() -> None:
    study = timeline_study([row()], ())
    assert study.trials == []
    assert at_once(study) == 0.0
