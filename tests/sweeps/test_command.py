"""Commands over several sweep files."""

import json
from pathlib import Path

from typer.testing import CliRunner

from rayclean.cli.main import command_line
from rayclean.folder import Folder
from rayclean.sweeps.plan import sweep_root
from rayclean.sweeps.resume import same_sweep
from rayclean.sweeps.sweep_file import load_sweep
from rayclean.sweeps.trial import ERROR
from tests.sweeps.bases import base


def test_a_sweep_that_failed_does_not_hide_the_next_one(tmp_path: Path) -> None:
    base(tmp_path)
    files = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.json"
        space = {"detect.budget": {"grid": [0.1]}}
        values = {"name": name, "base": "base.json", "output": str(tmp_path / "sweeps"), "space": space}
        path.write_text(json.dumps(values))
        files.append(str(path))
        same_sweep(load_sweep(path), Folder(sweep_root(load_sweep(path))), extend=False)
    folder = Folder(sweep_root(load_sweep(files[0])))
    folder.write_json({"title": "a trial", "error": "no label is left"}, "trials", "one", ERROR)
    both = CliRunner().invoke(command_line, ["sweep-report", *files, "--json"])
    found = json.loads(both.stdout)
    assert both.exit_code == 1
    assert [each["name"] for each in found["sweeps"]] == ["first", "second"]
    assert found["sweeps"][0]["failed"] == {"a trial": "no label is left"}
    assert found["errors"] == {files[0]: "1 trial failed"}
    said = CliRunner().invoke(command_line, ["sweep-report", *files])
    assert said.exit_code == 1
    assert "a trial: no label is left" in said.output
    assert "Sweep second" in said.output
    assert CliRunner().invoke(command_line, ["sweep-report", files[1]]).exit_code == 0
