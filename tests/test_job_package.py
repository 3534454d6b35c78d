"""What is sent to a cluster: resolved, checked, the same for the same work, and nothing that lies here alone."""

import json
import shlex
from pathlib import Path

import pytest

from rayclean.errors import ConfigError
from rayclean.job_package import pack
from rayclean.sweeps.plan import make_plan
from rayclean.sweeps.repeat import trial_command
from rayclean.sweeps.sweep_file import load_sweep
from tests import toy


@pytest.fixture
def config(tmp_path: Path) -> Path:
    values = toy.config(toy.write(tmp_path / "data", rows=60), tmp_path / "runs")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return path


def test_the_config_travels_resolved_and_without_an_address(config: Path, tmp_path: Path) -> None:
    parcel = pack("clean", str(config), ["cluster.address=10.0.0.1:6379", "detect.budget=7"])
    assert (parcel.name, parcel.run) == ("toy", str(tmp_path / "runs" / "toy"))
    assert shlex.split(parcel.command) == ["rayclean", "clean", "config.json"]
    sent = json.loads(parcel.files["config.json"])
    assert sent["detect"]["budget"] == 7
    assert "address" not in sent["cluster"]


def test_the_same_work_has_the_same_fingerprint(config: Path) -> None:
    first = pack("clean", str(config))
    assert pack("clean", str(config)).fingerprint == first.fingerprint
    assert pack("clean", str(config), ["detect.budget=7"]).fingerprint != first.fingerprint
    assert pack("predict", str(config)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output=runs", r"output = 'runs' is relative to this folder.*give a URL"),
        ("annotator.name=knnn", r"knnn.*did you mean knn"),
        ("detect.bugdet=1", "bugdet"),
    ],
)
def test_what_cannot_work_there_is_refused_here(config: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pack("clean", str(config), [override])


def test_a_path_that_exists_here_alone_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    with pytest.raises(ConfigError, match=r"dataset.path = 'data' is relative"):
        pack("clean", str(config), ["dataset.path=data"])
    pack(
        "clean", str(config), ["dataset.path=bbc_news", "dataset.format=builtin", "dataset.id=key"]
    )  # a built-in name


@pytest.mark.parametrize("path", ["data/*.csv", "~/x.csv", "~me/data/*.csv"])
def test_a_path_that_another_machine_reads_otherwise_is_refused(config: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"dataset.path = .* is relative to .*give a URL"):
        pack("clean", str(config), [f"dataset.path={path}"])
    pack("clean", str(config), [f"dataset.path={config.parent}/data/*.parquet"])


@pytest.mark.parametrize(
    "override",
    [
        "dataset.path=not-there.parquet", "dataset.test={path='not-there.parquet'}",
        "dataset.path=['/all/have/it.parquet', 'not-there.parquet']",
    ],
)  # fmt: skip
def test_a_relative_file_is_refused_though_it_is_not_here(config: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"'not-there.parquet' is relative to this folder"):
        pack("clean", str(config), [override])


def test_paths_inside_lists_of_tables_are_seen(config: Path) -> None:
    dynamics = "detect.detectors=['self_confidence', {{name='dynamics', path='{}'}}]"
    with pytest.raises(ConfigError, match=r"detect.detectors.path = 'runs/a/train/dynamics' is relative"):
        pack("clean", str(config), [dynamics.format("runs/a/train/dynamics")])
    pack("clean", str(config), [dynamics.format("/all/have/runs/a/train/dynamics")])


def test_an_unknown_verb(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown verb 'cleanse': expected one of clean, load"):
        pack("cleanse", str(config))


def test_extending_is_for_sweeps(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"--extend is for a sweep"):
        pack("clean", str(config), extend=True)


def test_a_sweep_travels_with_its_base(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        'name = "budgets"\nbase = "config.json"\nseeds = [0, 1]\n'
        f'output = "{tmp_path}/sweeps"\n[set]\n"cluster.address" = "here:1"\n"detect.budget" = 5\n'
        '[space]\n"relabel.accept" = { grid = [0.5, 0.7] }\n'
    )
    parcel = pack("sweep", str(sweep))
    assert (parcel.name, parcel.run) == ("budgets", f"{tmp_path}/sweeps/budgets")
    grown = pack("sweep", str(sweep), extend=True)
    assert shlex.split(grown.command) == [*shlex.split(parcel.command), "--extend"]
    assert grown.fingerprint != parcel.fingerprint
    there = tmp_path / "there"
    there.mkdir()
    for name, text in {**parcel.files, **parcel.notes}.items():
        (there / name).write_text(text)
    monkeypatch.chdir(there)
    *_, own, shown = shlex.split(parcel.command)
    sent = load_sweep(own, [shown])
    assert sent.set == {"detect.budget": 5}
    here = make_plan(load_sweep(sweep, ["set={'detect.budget' = 5}"]))
    assert set(make_plan(sent).work) == set(here.work)  # the same trials under the same names
    # Commands that repeat a trial name the file that lies where the sweep was submitted, and it is the same work from
    # whichever folder.
    assert trial_command(sent, {}, 0).startswith(f"rayclean clean {config} ")
    monkeypatch.chdir(tmp_path)
    again = pack("sweep", sweep.name)
    assert again.fingerprint == parcel.fingerprint
    assert again.notes != parcel.notes
