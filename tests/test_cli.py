"""How the command line ends, and what it says of a cluster that it cannot reach."""

import json
import logging
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from rayclean.cli.jobs import ADDRESSES
from tests import toy
from tests.command import run_command

WAITS = """
import sys, time
from pathlib import Path
from rayclean.cli import main as cli

@cli.command_line.command()
def waits(folder: str) -> None:
    from rayclean.config import ClusterConfig
    from rayclean.runtime.cluster import connected
    with connected(ClusterConfig(cpus=1)):
        try:
            print("up", flush=True)
            while True:  # in short naps: Python loses sight of a signal between its last check and a system call
                time.sleep(0.1)
        finally:
            time.sleep(0.5)
            Path(folder, "cleared").touch()

cli.main()
"""


def plain(**extra: str) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_") or "nice" in key},
        **extra,
    }


@pytest.mark.ray
def test_sigterm_ends_a_command_in_order(tmp_path: Path) -> None:
    """`ray job stop` sends it; Ray has a handler of its own, which must not win."""
    command = [sys.executable, "-c", WAITS, "waits", str(tmp_path)]
    with subprocess.Popen(
        command, env=plain(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "stopped by SIGTERM; finished work is kept; go on with: rayclean waits " in errors
    assert "Traceback" not in errors
    assert (tmp_path / "cleared").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_ray_that_is_killed_ends_the_command_with_a_fault(victim: str, tmp_path: Path) -> None:
    """Calls into Ray may wait for ever for a part of it that is gone."""
    command = [sys.executable, "-c", WAITS, "waits", str(tmp_path)]
    with subprocess.Popen(
        command, env=plain(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (killed,) = [each for each in psutil.Process(process.pid).children() if each.name() == victim]
        killed.kill()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1, errors
    assert f"fault error: Ray's {victim} on this machine has ended or was killed" in errors
    assert "go on with: rayclean waits" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "command",
    [
        ["export", "tickets.csv", "--to", "cleaned.csv"], ["log", "tickets.csv", "--id", "3"],
        ["revert", "tickets.csv", "--all"], ["push", "tickets.csv", "me/tickets"], ["diff", "tickets.csv", "runs/tickets"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_a_command_for_a_run_says_where_that_of_a_data_file_is(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_command(*command, capsys=capsys, monkeypatch=monkeypatch)
    assert ended.code == 2
    assert "'tickets.csv' is a data file; expected the folder of a run, such as runs/tickets" in ended.stderr


@pytest.fixture
def config(tmp_path: Path) -> str:
    values = toy.config(toy.write(tmp_path / "data", rows=60), tmp_path / "runs")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return str(path)


@pytest.mark.parametrize("folder", ["proj [v2] [/old]", "proj [red] x", "[/]", ":smile: [link=http://x]y"])
def test_paths_are_printed_as_they_are(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Square brackets are the terminal library's markup, but not rayclean's."""
    data, output = tmp_path / folder / "data", tmp_path / folder / "runs"
    toy.write(data, rows=60)
    values = toy.config(tmp_path, output)
    values["dataset"]["path"] = [str(path) for path in data.iterdir()]
    values["cluster"] = {"ray": False}
    config = tmp_path / folder / "my config.json"
    config.write_text(json.dumps(values))
    run = partial(run_command, capsys=capsys, monkeypatch=monkeypatch)
    done = run("load", str(config))
    assert done.code == 0, done.stderr
    assert f"load: {output}/toy/load (" in done.stdout
    shown = run("status", str(config))
    assert shown.code == 0, shown.stderr
    assert f"{output}/toy\n" in shown.stdout
    missing = run("load", str(config), f'dataset.path="{tmp_path}/{folder}/none.parquet"')
    assert missing.code == 2
    assert f"{folder}/none.parquet" in missing.stderr
    assert run("load", f"{output}/none").code == 2


def test_the_end_of_clean_says_what_to_do_next(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [
        "cluster.ray=false",
        "annotator.name=posterior",
        "evaluate.compare=false",
        "detect.budget=0.4",
    ]
    done = run_command("clean", config, *overrides, capsys=capsys, monkeypatch=monkeypatch)
    assert done.code == 0, done.stderr
    run = tmp_path / "runs" / "toy"
    referred = json.loads((run / "metrics.json").read_text())["counts"]["referred"]
    assert referred > 0
    assert f"rayclean export {run} --to cleaned.parquet" in done.stdout
    waiting = "1 doubtful label waits" if referred == 1 else f"{referred} doubtful labels wait"
    assert f"{waiting} for a person: rayclean audit {run}\n" in done.stdout


def test_a_data_file_in_the_place_of_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People who have only a table begin with it."""
    lines = [f"{number},ship {number} sails,{'sea' if number % 2 else 'land'}" for number in range(20)]
    data = tmp_path / "my tickets.csv"
    data.write_text("\n".join(["number,body,topic", *lines]))
    monkeypatch.chdir(tmp_path)
    run = partial(run_command, capsys=capsys, monkeypatch=monkeypatch)
    refused = run("clean", str(data))
    assert refused.code == 2
    assert (
        f"{str(data)!r} is a data file, and the columns of its text and label are not named" in refused.stderr
    )
    assert f"rayclean clean '{data}' --text body --label topic" in refused.stderr
    assert os.listdir(tmp_path) == [data.name]
    named = run(
        "load", str(data), "--text", "body", "--label", "topic", "cluster.ray=false", "output=options"
    )
    assert named.code == 0, named.stderr
    assert "examples: 20" in named.stdout
    shown = run("status", str(data), "--text", "body", "--label", "topic", "output=options")
    again = """'dataset.text="body"' 'dataset.label="topic"' output=options"""
    assert f"go on with: rayclean clean '{data}' {again}" in shown.stdout
    named = run(
        "load", str(data), "dataset.text=body", "dataset.label=topic", "cluster.ray=false", "output=runs"
    )
    assert named.code == 0, named.stderr
    assert "examples: 20" in named.stdout


def test_columns_are_named_for_a_data_file_only(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run_command("load", config, "--text", "body", capsys=capsys, monkeypatch=monkeypatch)
    assert refused.code == 2
    assert "config.json is none; a config names its own columns" in refused.stderr
    assert 'dataset.text="body"' in refused.stderr


def test_columns_that_are_not_clear_are_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"a ship sails to port {n},the crane lifts cargo {n},{n % 2},{n % 3}" for n in range(40)]
    data = tmp_path / "two.csv"
    data.write_text("\n".join(["a,b,c,d", *lines]))
    refused = run_command("clean", str(data), capsys=capsys, monkeypatch=monkeypatch)
    assert refused.code == 2
    assert "is not clear from its first rows" in refused.stderr
    assert f"rayclean init {data}" in refused.stderr


def test_verbose_shows_what_is_done(
    config: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is reused, what is not and why, where it runs and what is read of which columns; nothing of it otherwise."""
    package = logging.getLogger("rayclean")
    run = partial(run_command, capsys=capsys, monkeypatch=monkeypatch)
    before = package.level
    try:
        assert run("load", config, "cluster.ray=false").code == 0
        assert caplog.messages == []
        assert run("load", config, "cluster.ray=false", "--verbose").code == 0
        assert any(each.startswith("load is reused: ") for each in caplog.messages)
        assert run("-v", "load", config, "cluster.ray=false", "seed=1").code == 0
        told = "\n".join(caplog.messages)
        assert "changed since the last command: seed 0 -> 1" in told
        assert "runs in this process: cluster.ray is false" in told
        assert "000.parquet: text 'text', label 'label', truth 'truth', id 'key'\n" in told
    finally:
        package.setLevel(before)


def test_status_asks_the_job_server_that_the_environment_names(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    run = partial(run_command, "status", config, capsys=capsys, monkeypatch=monkeypatch)
    assert "127.0.0.1" not in run().stderr
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    done = run()
    assert done.code == 0, done.stderr
    assert "no Ray job server answers at http://127.0.0.1:9" in done.stderr
    assert "next: load" in done.stdout  # what is known all the same
    assert run("--address", "http://127.0.0.1:9").code == 2


def test_status_as_json(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    run = partial(run_command, capsys=capsys, monkeypatch=monkeypatch)
    begun = json.loads(run("status", config, "--json").stdout)
    assert begun["next"] == "load"
    assert begun["go_on_with"] == f"rayclean clean {config}"
    assert [each["state"] for each in begun["verbs"]] == ["missing"] * 6
    assert run("load", config, "cluster.ray=false").code == 0
    done = run("status", config, "detect.budget=0.3", "--json")
    assert (done.code, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert {*found} == {"run", "verbs", "next", "go_on_with", "report", "job"}
    assert found["verbs"][0]["state"] == "done"
    assert found["verbs"][0]["seconds"] > 0
    assert (found["next"], found["report"], found["job"]) == ("predict", None, None)
    assert found["go_on_with"] == f"rayclean clean {config} detect.budget=0.3"
    assert Path(found["run"]).samefile(json.loads(Path(config).read_text())["output"] + "/toy")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    unreachable = run("status", config, "--json")
    assert json.loads(unreachable.stdout)["job"] is None  # what is wrong with the server is on stderr
    assert "no Ray job server answers" in unreachable.stderr
    plain_config, with_option = run("config", config, "name=a"), run("config", config, "name=a", "--json")
    assert (with_option.code, with_option.stderr) == (0, "")
    assert json.loads(with_option.stdout) == json.loads(plain_config.stdout)
    assert json.loads(with_option.stdout)["name"] == "a"


def test_a_cluster_that_asks_for_a_token_is_an_error_with_the_fix(config: str, tmp_path: Path) -> None:
    """Ray notices before it connects that token mode is on and no token is there."""
    environment = plain(RAY_AUTH_MODE="token", RAY_ADDRESS="127.0.0.1:6379", HOME=str(tmp_path))
    command = [sys.executable, "-m", "rayclean", "load", config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "asks for a token, and none was sent" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr
    assert "Traceback" not in done.stderr
