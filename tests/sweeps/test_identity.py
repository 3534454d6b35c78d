"""Which sweep goes on in a folder, which grows there, and which is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import make_plan, sweep_root
from rayclean.sweeps.resume import same_sweep, take_over
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.sweep import report_sweep
from tests.sweeps.bases import base, sweep

BUDGET, ACCEPT = "detect.budget", "relabel.accept"
GRID = {BUDGET: {"grid": [0.1, 0.2]}}
SEARCHED: dict[str, Any] = {"search": "optuna", "objectives": "changed"}


def begin(of: Sweep, *, ended: bool = True) -> Folder:
    """The folder of a sweep that was begun, with the result of a trial."""
    folder = Folder(sweep_root(of))
    same_sweep(of, folder, extend=False)
    if ended:
        folder.write_json({"point": {}, "seed": 0}, "trials", "one", trials.RESULT)
    return folder


def test_a_sweep_goes_on_on_another_cluster(tmp_path: Path) -> None:
    folder = begin(sweep(tmp_path, GRID))
    sizes = {"cluster.workers": 2, "evaluate.top_changes": 3, "name": "other", "predict.actors": 2}
    same_sweep(sweep(tmp_path, GRID, set=sizes), folder, extend=False)
    same_sweep(sweep(tmp_path, GRID), folder, extend=False)
    with pytest.raises(ArtifactError, match=r"whose base differ.*more than the space"):
        same_sweep(sweep(tmp_path, GRID, set={"relabel.candidates": "all"}), folder, extend=True)
    with pytest.raises(ArtifactError, match=r"whose space differ.*--extend"):
        same_sweep(sweep(tmp_path, {BUDGET: {"grid": [0.1]}}), folder, extend=False)


def test_a_base_that_runs_only_with_the_space_is_compared_as_it_is_written(tmp_path: Path) -> None:
    base(tmp_path, annotator={"name": "knn", "max_cost": 1.0, "currency": "USD"})
    prices = {"annotator.price_prompt": {"grid": [1.0, 2.0]}}
    folder = begin(sweep(tmp_path, prices))
    same_sweep(sweep(tmp_path, prices, set={"cluster.workers": 2}), folder, extend=False)
    with pytest.raises(ArtifactError, match=r"whose base differ"):
        same_sweep(sweep(tmp_path, prices, set={ACCEPT: 0.7}), folder, extend=False)


def test_while_no_trial_has_a_result_everything_may_change(tmp_path: Path) -> None:
    of = sweep(tmp_path, {BUDGET: {"uniform": [0.1, 0.2]}}, **SEARCHED)
    folder = begin(of, ended=False)
    folder.write_text("of another space", "optuna.journal")
    same_sweep(of, folder, extend=False)
    assert folder.exists("optuna.journal")
    other = sweep(tmp_path, {BUDGET: {"uniform": [0.1, 0.3]}}, set={ACCEPT: 0.7}, **SEARCHED)
    same_sweep(other, folder, extend=False)
    assert not folder.exists("optuna.journal")


def test_a_search_gets_more_samples_and_nothing_else(tmp_path: Path) -> None:
    space = {BUDGET: {"uniform": [0.1, 0.2]}}
    folder = begin(sweep(tmp_path, space, **SEARCHED))
    same_sweep(sweep(tmp_path, space, **SEARCHED, samples=5), folder, extend=True)
    wider = {BUDGET: {"uniform": [0.1, 0.3]}}
    with pytest.raises(ArtifactError, match="can only get more samples"):
        same_sweep(sweep(tmp_path, wider, **SEARCHED, samples=5), folder, extend=True)


@pytest.mark.parametrize(
    ("space", "more"), [(GRID, {"objectives": "dev_loss"}), (GRID | {"train.epochs": {"grid": [2]}}, {})]
)
def test_trials_that_begin_to_train_are_others(
    tmp_path: Path, space: dict[str, Any], more: dict[str, Any]
) -> None:
    folder = begin(sweep(tmp_path, GRID))
    same_sweep(sweep(tmp_path, GRID, objectives="tokens"), folder, extend=True)
    grown = sweep(tmp_path, space, **more)
    assert not set(make_plan(grown).work) & set(make_plan(sweep(tmp_path, GRID)).work)
    with pytest.raises(ArtifactError, match=r"trains differ.*another name \(.*some train a model"):
        same_sweep(grown, folder, extend=True)


def test_who_was_stopped_by_an_objective_has_it_for_good(tmp_path: Path) -> None:
    stopping: dict[str, Any] = {"scheduler": {"name": "asha"}, "objectives": "dev_loss"}
    folder = begin(sweep(tmp_path, GRID, **stopping))
    same_sweep(sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, **stopping), folder, extend=True)
    other = stopping | {"objectives": "dev_accuracy"}
    with pytest.raises(ArtifactError, match=r"stopped by the objectives that it had"):
        same_sweep(sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, **other), folder, extend=True)
    with pytest.raises(ArtifactError, match=r"objectives, scheduler, space, trains differ"):
        same_sweep(sweep(tmp_path, GRID), folder, extend=True)


def test_trials_from_before_a_field_was_swept_stand_at_their_point(tmp_path: Path) -> None:
    """The base's .6 is one of the field's values: old and new seeds of one setting are one row."""
    old = sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, seeds=(0,))
    folder = begin(old, ended=False)
    (work,) = make_plan(old).work.values()
    trials.write_result(work, {"changed": 1.0}, [], 1.0)
    new = sweep(tmp_path, {BUDGET: {"grid": [0.1]}, ACCEPT: {"grid": [0.6, 0.8]}}, seeds=(0, 1))
    same_sweep(new, folder, extend=True)
    plan = make_plan(new)
    known = take_over(plan)
    assert [each["point"] for _, each in known.values()] == [{BUDGET: 0.1, ACCEPT: 0.6}]
    for name, each in plan.work.items():
        if name not in known:
            trials.write_result(each, {"changed": 2.0}, [], 1.0)
    rows = report_sweep(new).rows
    assert [(row.point, row.seeds) for row in rows] == [
        ({BUDGET: 0.1, ACCEPT: 0.6}, (0, 1)),
        ({BUDGET: 0.1, ACCEPT: 0.8}, (0, 1)),
    ]
    written = json.loads(Path(folder.path("results.json")).read_text())
    assert sorted(result["point"][ACCEPT] for result in written) == [0.6, 0.6, 0.8, 0.8]
