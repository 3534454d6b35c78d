"""`rayclean submit` against a real Ray head that asks for a token."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rayclean.run import Run
from tests import toy
from tests.cluster.heads import Head, head

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with head() as running:
        yield running


def rayclean(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayclean", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def write(folder: Path, name: str, rows: int = 120) -> Path:
    values = toy.config(toy.write(folder / "data", rows=rows), folder / "runs", name=name)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(values))
    return path


def test_a_wrong_token_and_none_are_refused_with_the_fix(cluster: Head, tmp_path: Path) -> None:
    config = str(write(tmp_path, "refused"))
    wrong = {**cluster.environment, "RAY_AUTH_TOKEN": "0" * 64}
    done = rayclean(wrong, "submit", config, "--address", cluster.dashboard)
    assert done.returncode == 2
    assert "refuses this token" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr
    assert "Traceback" not in done.stderr
    none = {key: value for key, value in cluster.environment.items() if not key.startswith("RAY_AUTH")}
    none["HOME"] = str(tmp_path)  # no token lies there
    done = rayclean(none, "submit", config, "--address", cluster.dashboard)
    assert done.returncode == 2
    assert "asks for a token, and none was sent" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_nobody_there(tmp_path: Path) -> None:
    done = rayclean(
        dict(os.environ), "submit", str(write(tmp_path, "nobody")), "--address", "http://127.0.0.1:9"
    )
    assert done.returncode == 2
    assert "no Ray job server answers at http://127.0.0.1:9" in done.stderr


def test_submitted_twice_runs_once(cluster: Head, tmp_path: Path) -> None:
    config = str(write(tmp_path, "once"))
    at = ["--address", cluster.dashboard]
    (tmp_path / "token").write_text(cluster.environment["RAY_AUTH_TOKEN"])
    by_file = {key: value for key, value in cluster.environment.items() if not key.startswith("RAY_AUTH")}
    by_file["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")  # as cluster/README.md has it
    first = rayclean(by_file, "submit", config, *at)
    assert first.returncode == 0, first.stderr
    name = re.search(r"submitted (rayclean-once-[0-9a-f]{8}-1) to", first.stdout)
    assert name is not None, first.stdout
    second = rayclean(cluster.environment, "submit", config, *at, "--follow")
    assert f"{name[1]} is " in second.stdout
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"{name[1]}: SUCCEEDED" in second.stdout
    assert "What came of it" in second.stdout
    third = rayclean(cluster.environment, "submit", config, *at)
    assert f"{name[1]} has done this" in third.stdout
    log = rayclean(cluster.environment, "logs", config, *at)
    assert log.stdout.count("What came of it") == 1  # it ran once
    status = rayclean(cluster.environment, "status", config, *at)
    assert f"{name[1]} (attempt 1): SUCCEEDED" in status.stdout
    assert "complete" in status.stdout
    other = rayclean(cluster.environment, "submit", config, "detect.budget=5", *at, "--follow")
    assert other.returncode == 0, other.stderr
    assert "-2 to" in other.stdout
    assert "predict: done before, reused" in other.stdout


def test_a_killed_driver_resubmitted_goes_on(cluster: Head, tmp_path: Path) -> None:
    config = str(write(tmp_path, "killed", rows=400))
    at = ["--address", cluster.dashboard]
    run = Run(str(tmp_path / "runs" / "killed"))
    assert rayclean(cluster.environment, "submit", config, *at).returncode == 0
    clash = rayclean(cluster.environment, "submit", config, "detect.budget=5", *at)
    assert clash.returncode == 2
    assert "with another config" in clash.stderr
    until = time.monotonic() + 300
    while run.manifest("predict") is None:
        assert time.monotonic() < until
        time.sleep(0.2)
    drivers = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if (line := process.info["cmdline"] or []) and "config.json" in line and "clean" in line
        and "runtime_resources" in (process.info["cwd"] or "")
    ]  # fmt: skip
    assert drivers
    for process in drivers:
        process.kill()
    while "FAILED" not in (status := rayclean(cluster.environment, "status", config, *at)).stdout:
        assert time.monotonic() < until, status.stdout + status.stderr
    before = run.manifest("predict")
    again = rayclean(cluster.environment, "submit", config, *at, "--follow")
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"submitted rayclean-killed-[0-9a-f]{8}-2 to", again.stdout)
    assert "predict: done before, reused" in again.stdout
    assert run.manifest("predict") == before
    assert run.exists("report.html")


def test_the_cluster_exports_the_figures_of_runs(cluster: Head, tmp_path: Path) -> None:
    """Every figure that `runtime/prometheus.py` names, under its name in Prometheus.

    Scraped while a job runs: Ray forgets a gauge 20 seconds after its last report, and a process that ended makes none.
    """
    import rayclean.runtime.prometheus as metrics

    wanted = set(re.findall(r"rayclean_\w+", metrics.__doc__ or "")) - {
        "rayclean_tokens_total"
    }  # knn counts none
    config = str(write(tmp_path, "figures"))
    assert rayclean(cluster.environment, "submit", config, "--address", cluster.dashboard).returncode == 0
    until, names = time.monotonic() + 300, set()
    while time.monotonic() < until and not wanted <= names:
        with urllib.request.urlopen(f"http://127.0.0.1:{cluster.metrics}/metrics", timeout=10) as answer:
            names |= set(re.findall(r"^ray_(rayclean_\w+?)\{", answer.read().decode(), re.MULTILINE))
        time.sleep(2)
    assert wanted <= names, f"missing: {wanted - names}"
