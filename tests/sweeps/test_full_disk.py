"""A disk that is full at any file of a sweep: the trial or the report says so, and the same command goes on."""

import json
from pathlib import Path

import pytest

from rayclean.errors import FaultError
from rayclean.runtime.engines import Workplace
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import make_plan
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.sweep import report_sweep, run_sweep
from rayclean.sweeps.trial_run import TrialRecord
from tests.full_disk import full_from
from tests.sweeps.bases import base, sweep

FULL = "beyond the limit of its size"


@pytest.fixture
def budgets(tmp_path: Path) -> Sweep:
    """Two trials that no Ray is needed for."""
    quick = {"predict": {"mode": "in_sample", "training": {"epochs": 1}}, "annotator": {"name": "posterior"}}
    base(tmp_path, cluster={"ray": False}, **quick)
    return sweep(tmp_path, {"detect.budget": {"grid": [0.1, 0.2]}}, objectives="changed", seeds=(0,))


def test_the_folder_of_a_sweep(budgets: Sweep) -> None:
    root = Path(budgets.output) / budgets.name
    with full_from(0), pytest.raises(FaultError, match=f"cannot write '{root}/sweep.json'.*{FULL}"):
        run_sweep(budgets)


def test_a_trial(budgets: Sweep) -> None:
    plan = make_plan(budgets)
    first, second = sorted(plan.work)

    def run(name: str) -> TrialRecord:
        return trials.run_tune_trial({"name": name}, lambda _: None, Workplace(), plan, None)

    with full_from(None) as written:
        calm = run(first)
    assert "error" not in calm
    assert written[-1].endswith(trials.RESULT)
    for number in (0, len(written) // 2, len(written) - 1):
        with full_from(number) as attempted:
            told = run(second)
        if len(attempted) > number:  # what trials share is there, so that the second one writes less
            assert FULL in told["error"]
            assert str(plan.folder.root) in told["error"]
        assert not list(Path(plan.folder.root).rglob("*.tmp"))
    assert "error" not in run(second)
    assert not plan.work[second].run.exists(trials.ERROR)


def test_the_report(budgets: Sweep) -> None:
    plan = make_plan(budgets)
    for number, work in enumerate(plan.work.values()):
        trials.write_result(work, {"changed": float(number)}, [], 1.0)
    root = Path(plan.folder.root)
    with full_from(None) as written:
        report_sweep(budgets)
    assert [Path(path).name for path in written] == ["results.json", "best.toml", "report.html"]
    calm = {path: Path(path).read_text() for path in written}
    for number, path in enumerate(written):
        for made in written:
            Path(made).unlink()
        with full_from(number), pytest.raises(FaultError, match=f"cannot write '{path}'.*{FULL}"):
            report_sweep(budgets)
        assert sorted(map(str, root.glob("*.*"))) == sorted(written[:number])
        report_sweep(budgets)
        assert json.loads(Path(written[0]).read_text()) == json.loads(calm[written[0]])
        assert Path(written[1]).read_text() == calm[written[1]]
