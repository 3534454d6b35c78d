"""Several sweeps on one command, and a report that needs no overrides; trials are not run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rayclean.cli.main import command_line
from rayclean.errors import ArtifactError, ConfigError, ResourceError
from rayclean.folder import Folder
from rayclean.sweeps import sweep as module
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import make_plan, sweep_root
from rayclean.sweeps.repeat import trial_command
from rayclean.sweeps.results import Results
from rayclean.sweeps.resume import same_sweep
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.sweep_file import load_sweep
from tests.sweeps.bases import base, sweep

BUDGET = "detect.budget"


def write(folder: Path, name: str, **values: Any) -> str:
    """Path of a sweep file."""
    path = folder / f"{name}.json"
    own = {
        "name": name, "base": "base.json", "output": str(folder / "sweeps"), "seeds": [0],
        "space": {BUDGET: {"grid": [0.1]}}, **values,
    }  # fmt: skip
    path.write_text(json.dumps(own))
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command_line, list(arguments))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the sweeps that were run, which end at once; one is called `full`."""
    names: list[str] = []

    def at_once(spec: Sweep, *, extend: bool = False) -> Results:
        names.append(spec.name)
        if spec.name == "full":
            raise ResourceError("the cluster is full\nlower cluster.workers")
        same_sweep(spec, Folder(sweep_root(spec)), extend)
        return module.report_sweep(spec)

    monkeypatch.setattr(module, "run_sweep", at_once)
    return names


def test_of_several_sweeps_those_that_can_run_do(tmp_path: Path, begun: list[str]) -> None:
    base(tmp_path)
    files = [
        write(tmp_path, "unknown", spce={}),
        write(tmp_path, "wrong", space={BUDGET: {"grid": [0.1, 7.5]}}),
        write(tmp_path, "full"),
        write(tmp_path, "down", set={"annotator": {"name": "openai", "model": "m"}}),
        write(tmp_path, "good"),
    ]
    said = run("sweep", *files)
    assert said.exit_code == 1
    assert begun == ["full", "good"]
    assert "Sweep good" in said.output
    whole, summary = said.output.split("4 of 5 sweeps failed:")
    assert whole.index("wrong at detect.budget = 7.5") < whole.index("the cluster is full")
    assert whole.index("annotator.base_url is required") < whole.index("the cluster is full")
    lines = [line.strip() for line in summary.strip().splitlines()]
    assert [line.partition(":")[0] for line in lines] == [files[0], files[1], files[3], files[2]]
    assert lines[-1] == f"{files[2]}: the cluster is full"
    assert run("sweep", files[4]).exit_code == 0


def test_one_sweep_alone_raises_its_error(tmp_path: Path, begun: list[str]) -> None:
    base(tmp_path)
    said = run("sweep", write(tmp_path, "full"))
    assert isinstance(said.exception, ResourceError)
    assert "sweeps failed" not in said.output


def test_a_sweep_whose_trials_failed_is_in_the_summary(
    tmp_path: Path, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base(tmp_path)
    files = [write(tmp_path, "ill"), write(tmp_path, "good")]
    plain: Callable[..., Results] = module.run_sweep

    def ill(spec: Sweep, **more: Any) -> Results:
        results = plain(spec, **more)
        results.failed.update({"a trial": "no label is left"} if spec.name == "ill" else {})
        return results

    monkeypatch.setattr(module, "run_sweep", ill)
    said = run("sweep", *files)
    assert said.exit_code == 1
    assert begun == ["ill", "good"]
    assert f"1 of 2 sweeps failed:\n  {files[0]}: 1 trial failed" in said.output


def test_what_is_finished_is_not_checked_again(tmp_path: Path) -> None:
    """An endpoint without an address is no error of a sweep that asks nobody any more."""
    of = sweep(
        tmp_path, {BUDGET: {"grid": [0.1]}}, seeds=(0,), set={"annotator": {"name": "openai", "model": "m"}}
    )
    with pytest.raises(ConfigError, match="base_url is required"):
        module.check_sweep(of)
    (work,) = make_plan(of).work.values()
    trials.write_result(work, {"changed": 1.0}, [], 1.0)
    module.check_sweep(of)


def test_a_report_needs_no_overrides_again(tmp_path: Path) -> None:
    """It knows from the sweep's folder where the data lay, and repeats it in its commands."""
    base(tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    file = write(tmp_path, "s", set={"relabel.accept": 0.7})
    where = f"dataset.path={tmp_path / 'moved'}"
    ran = load_sweep(file, [where])
    same_sweep(ran, Folder(sweep_root(ran)), extend=False)
    for work in make_plan(ran).work.values():
        trials.write_result(work, {"changed": 3.0}, [], 1.0)
    with_it, without = (module.report_sweep(load_sweep(file, own)) for own in ([where], []))
    assert without.rows == with_it.rows
    (row,) = without.rows
    assert f"{tmp_path}/moved" in trial_command(without.sweep, row.point, 0)
    assert run("sweep-report", file).exit_code == 0
    with pytest.raises(ArtifactError, match="whose base differ"):
        module.report_sweep(load_sweep(file, [f"dataset.path={tmp_path / 'data'}"]))
    with pytest.raises(ArtifactError, match="whose base differ"):
        module.report_sweep(load_sweep(file, ["relabel.accept=0.8"]))
    removed = write(
        tmp_path, "s"
    )  # a line taken out of [set] is another sweep, and no override to be remembered
    with pytest.raises(ArtifactError, match="whose base differ"):
        module.report_sweep(load_sweep(removed))
