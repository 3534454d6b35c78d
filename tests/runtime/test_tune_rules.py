"""The rules by which trials end early, on the lines that they report; no trial runs."""

from types import SimpleNamespace
from typing import Any

import pytest

from rayclean.runtime import tune_rules as rules
from rayclean.runtime.tune_rules import EarlyStopping

from ray.tune.schedulers import TrialScheduler

ACCURACY: rules.ObjectiveDirection = ("dev_accuracy", "max")
CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class Lines:
    """Reports epochs of trials to a rule."""

    def __init__(self, early: EarlyStopping):
        self.rule: Any = rules.scheduler(early, ACCURACY)
        self.trials: dict[int, Any] = {}

    def report(self, x: float, epoch: int, epochs: int = 8) -> str:
        """One epoch of trial x, which is the better the larger x is."""
        trial = self.trials.get(x)
        if trial is None:
            trial = self.trials[x] = _Trial(str(x))
            self.rule.on_trial_add(None, trial)
        record = {"epoch": epoch, "epochs": epochs, "dev_accuracy": x + epoch / 100}
        return str(self.rule.on_trial_result(None, trial, record))


class _Trial(SimpleNamespace):
    __hash__ = object.__hash__

    def __init__(self, name: str):
        super().__init__(trial_id=name)


@pytest.mark.parametrize("name", ["asha", "median"])
def test_the_worst_trial_is_stopped_after_its_grace_and_the_best_never(name: Any) -> None:
    lines = Lines(EarlyStopping(name, grace=2, reduction=2))
    for x in (9, 8, 7, 6):
        for epoch in range(1, 9):
            action = lines.report(x, epoch)
            assert x != 9 or action == CONTINUE
            if action == STOP:
                break
    assert lines.report(1, 1) == CONTINUE
    assert lines.report(1, 2) == STOP


def test_the_median_rule_compares_with_trials_that_are_at_their_end() -> None:
    lines = Lines(EarlyStopping("median", grace=2))
    for x in (9, 8, 7):
        actions = [lines.report(x, epoch) for epoch in range(1, 9)]
        assert actions == [CONTINUE] * 8  # never paused, which would begin a training again
        lines.rule.on_trial_complete(None, lines.trials[x], {"dev_accuracy": float(x)})
    assert [lines.report(1, epoch) for epoch in (1, 2)] == [CONTINUE, STOP]


@pytest.mark.parametrize("name", ["asha", "median"])
def test_nobody_is_stopped_after_the_last_epoch(name: Any) -> None:
    """It would save nothing, and lose what follows the training."""
    lines = Lines(EarlyStopping(name, grace=2, reduction=2))
    for x in (9, 8, 7, 6):
        for epoch in (1, 2):
            lines.report(x, epoch, epochs=2)
    assert lines.report(1, 2, epochs=2) == CONTINUE
    assert lines.report(0.5, 2, epochs=3) == STOP


def test_a_plateau_ends_a_trial_at_the_line_that_says_so() -> None:
    rule = rules.plateau(EarlyStopping(plateau=3), ACCURACY)

    def report(name: str, epoch: int, accuracy: float, epochs: int = 30) -> dict[str, Any] | None:
        """The line, if the trial ends there."""
        record = {"epoch": epoch, "epochs": epochs, "dev_accuracy": accuracy}
        return record if rule(name, record) else None

    ends = [report("flat", epoch, 0.5) for epoch in (1, 2, 3)]
    assert ends[:2] == [None, None]
    assert ends[2] is not None
    assert ends[2][rules.PLATEAU] is True
    assert [report("moving", epoch, epoch / 10) for epoch in range(1, 9)] == [None] * 8
    assert [report("short", epoch, 0.5, epochs=3) for epoch in (1, 2, 3)] == [
        None
    ] * 3  # the last epoch is its end
    for _ in range(3):
        assert not rule("result", {"dev_accuracy": 0.5})  # no epoch: the result of a trial


def test_without_a_rule_or_a_figure_nothing_is_compared() -> None:
    assert rules.scheduler(EarlyStopping(), ACCURACY) is None
    assert rules.scheduler(EarlyStopping("asha"), None) is None
    assert rules.plateau(EarlyStopping("asha"), ACCURACY) is None
    assert rules.plateau(EarlyStopping(plateau=3), None) is None


@pytest.mark.parametrize("objectives", [["cost"], ["cost", "asked"]])
def test_optuna_learns_nothing_from_a_trial_without_figures(objectives: list[str]) -> None:
    def suggest(trial: Any) -> None:
        trial.suggest_int("x", trial.number, trial.number)

    search = rules.searcher(rules.Optuna(suggest, 4, 0, None), [(name, "min") for name in objectives])
    for number in range(4):
        name = str(number)
        assert search.suggest(name) == {"x": number}
        search.on_trial_result(name, {"epoch": 1, "dev_accuracy": 0.5, "training_iteration": 1})
        figures = {} if number % 2 else {"cost": 1.0, "asked": 2.0}
        search.on_trial_complete(name, {**figures, "training_iteration": 2})
