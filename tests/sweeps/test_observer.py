"""Who is stopped before the end, and what the driver makes of the news."""

from pathlib import Path
from typing import Any, Literal

import pytest

from rayclean.folder import Folder
from rayclean.runtime import tune_rules
from rayclean.runtime.tune_rules import EarlyStopping
from rayclean.sweeps import trial as trials
from rayclean.sweeps.observer import SweepObserver
from rayclean.sweeps.plan import SweepPlan, base_values, make_plan, sweep_root
from rayclean.sweeps.resume import draws_done, same_sweep
from rayclean.sweeps.spec import Objective, Sweep, Tracking
from rayclean.sweeps.sweep import optuna_search, report_sweep
from rayclean.sweeps.tracking import Tracker
from tests.sweeps.bases import sweep

BUDGET = "detect.budget"


def watch(of: Sweep) -> SweepObserver:
    return SweepObserver(make_plan(of), Tracker(Tracking(wandb="off"), "s", Folder(sweep_root(of))), 9)


def line(epoch: int, epochs: int = 3, **more: float) -> dict[str, Any]:
    return {"epoch": epoch, "epochs": epochs, "dev_accuracy": 0.5, "seconds": 1.0, **more}


# Rules


class Trial:
    def __init__(self, name: str):
        self.trial_id = name


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_nobody_is_stopped_after_the_last_epoch(rule: Literal["asha", "median"]) -> None:
    """Five good trials, then two bad ones: the one that has trained to its end goes on to its result."""
    judge = tune_rules.scheduler(EarlyStopping(rule, grace=2, reduction=2), ("dev_accuracy", "max"))
    assert judge is not None

    def told(name: str, accuracy: float, epochs: int) -> str:
        trial: Any = Trial(name)
        judge.on_trial_add(None, trial)  # type: ignore[arg-type]
        judge.on_trial_result(None, trial, line(1, epochs, dev_accuracy=accuracy))  # type: ignore[arg-type]
        return judge.on_trial_result(None, trial, line(2, epochs, dev_accuracy=accuracy))  # type: ignore[arg-type]

    for number in range(5):
        told(f"good {number}", 0.9, 3)
    assert told("has one more", 0.1, 3) == "STOP"
    assert told("is through", 0.1, 2) == "CONTINUE"


def test_a_plateau_ends_only_what_would_go_on() -> None:
    rule = tune_rules.plateau(EarlyStopping(plateau=2), ("dev_accuracy", "max"))
    records = [line(1), line(2), line(3)]
    assert [rule("a", record) for record in records] == [False, True, False]
    assert ["plateau" in record for record in records] == [False, True, False]
    assert not rule("a", {"dev_accuracy": 0.5, "result": {}})  # what it came to, as good as its epochs


# News


@pytest.mark.parametrize(("said", "stopped"), [(None, True), ({"plateau": True}, "plateau")])
def test_a_stopped_trial_has_its_last_line(
    tmp_path: Path, said: dict[str, Any] | None, stopped: trials.Stopped
) -> None:
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, seeds=(0,), objectives="dev_accuracy")
    news = watch(of)
    (name,) = news.plan.work
    news.started({"name": name})
    for number in (1, 2):
        news.epoch_ended({"name": name}, line(number, dev_accuracy=0.25 * number))
    news.ended({"name": name}, said)
    result = trials.trial_files(news.plan.folder, trials.RESULT)[name]
    assert result["stopped"] == stopped
    assert result["figures"] == {"dev_accuracy": 0.5}
    assert [each["epoch"] for each in trials.trial_epochs(news.plan.folder, name)] == [1, 2]


def test_what_has_trained_to_its_end_is_not_stopped(tmp_path: Path) -> None:
    """It lacks what follows: the same command goes on with it."""
    news = watch(sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, seeds=(0,), objectives="dev_accuracy"))
    (name,) = news.plan.work
    for number in (1, 2, 3):
        news.epoch_ended({"name": name}, line(number))
    news.ended({"name": name}, None)
    assert trials.trial_files(news.plan.folder, trials.RESULT) == {}


def searched(tmp_path: Path, **more: Any) -> Sweep:
    space = {BUDGET: {"uniform": [0.1, 0.2]}}
    return sweep(tmp_path, space, search="optuna", objectives="changed", **more)


def come_to(of: Sweep, point: dict[str, Any], *seeds: int) -> dict[str, Any]:
    """What a worker says of a point that it has run."""
    works = [SweepPlan(of, base_values(of)).work_at(point, seed) for seed in seeds]
    results = [trials.write_result(work, {"changed": 1.0}, [], 1.0) for work in works]
    return {"figures": {"changed": 1.0}, "point": point, "trials": results}


def test_a_drawn_point_that_crashes_fails_under_every_seed_without_a_result(tmp_path: Path) -> None:
    """Its process was lost, or it has said why under one seed: either way the report names it."""
    of = searched(tmp_path, seeds=(0, 1, 2), samples=2)
    news = watch(of)
    same_sweep(of, news.plan.folder, extend=False)
    lost, told = {BUDGET: 0.125}, {BUDGET: 0.15}
    come_to(of, lost, 0)
    news.ended(lost, {"error": "first line\nits process was lost"})
    name = SweepPlan(of, base_values(of)).work_at(told, 1).name
    news.ended(told, {"trial": name, "error": "no label is left", "figures": {}})
    assert report_sweep(of).failed == {
        "detect.budget=0.125 seed=1": "first line\nits process was lost",
        "detect.budget=0.125 seed=2": "first line\nits process was lost",
        "detect.budget=0.15 seed=1": "no label is left",
    }
    assert draws_done(of, trials.trial_files(news.plan.folder, trials.RESULT)) == 0


def test_a_draw_counts_though_its_point_was_drawn_before(tmp_path: Path) -> None:
    of = searched(tmp_path, seeds=(0, 1), samples=4)
    news, twice = watch(of), {BUDGET: 0.125}
    result = come_to(of, twice, 0, 1)
    for _ in range(2):
        news.ended(twice, result)
    come_to(of, {BUDGET: 0.15}, 0, 1)  # killed before it was counted
    come_to(of, {BUDGET: 0.175}, 0)  # under one seed only
    known = trials.trial_files(news.plan.folder, trials.RESULT)
    assert draws_done(of, known) == 3
    assert draws_done(of, {}) == 0  # of other data: all are drawn again


def test_a_stopped_draw_counts(tmp_path: Path) -> None:
    of = searched(tmp_path, seeds=(0,)).model_copy(
        update={"objectives": (Objective(metric="dev_loss", mode="min"),)}
    )
    news, point = watch(of), {BUDGET: 0.125}
    news.epoch_ended(point, line(1))
    news.ended(point, None)
    assert draws_done(of, trials.trial_files(news.plan.folder, trials.RESULT)) == 1
    assert [result["draws"] for result in trials.trial_files(news.plan.folder, trials.RESULT).values()] == [1]


@pytest.mark.parametrize("url", ["memory://store", "{tmp_path}"])
def test_what_is_missing_is_not_drawn_as_what_is_known(tmp_path: Path, url: str) -> None:
    of, folder = searched(tmp_path, samples=5, draw_seed=7), Folder(url.format(tmp_path=tmp_path))
    first, later = optuna_search(of, folder, 5), optuna_search(of, folder, 3)
    assert (first.seed, first.samples) == (7, 5)
    assert (later.seed, later.samples) == (9, 3)
    assert (later.study is None) == (not folder.is_local)
