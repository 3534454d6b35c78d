"""How the command line ends, and what it says of a cluster that it cannot reach."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

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
    return {**{key: value for key, value in os.environ.items() if not key.startswith("RAY_")}, **extra}


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
    assert "stopped by SIGTERM; finished work is kept" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "cleared").exists()


@pytest.fixture
def config(tmp_path: Path) -> str:
    values = toy.config(toy.write(tmp_path / "data", rows=60), tmp_path / "runs")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return str(path)


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


def test_a_cluster_that_asks_for_a_token_is_an_error_with_the_fix(config: str, tmp_path: Path) -> None:
    """Ray notices before it connects that token mode is on and no token is there."""
    environment = plain(RAY_AUTH_MODE="token", RAY_ADDRESS="127.0.0.1:6379", HOME=str(tmp_path))
    command = [sys.executable, "-m", "rayclean", "load", config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "asks for a token, and none was sent" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr
    assert "Traceback" not in done.stderr
