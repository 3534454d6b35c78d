"""No language model outlives its run: the real engine, with its command or its whole process group signalled."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rayclean.annotators.model_source import model_source
from rayclean.errors import ConfigError
from rayclean.run import Run
from tests import toy

pytestmark = [pytest.mark.slow, pytest.mark.llm, pytest.mark.timeout(1800)]

MARK = "RAYCLEAN_TEST_ENGINE"
"""Environment variable by which the processes of the command are found."""
SECONDS = 15
"""Time after which nothing of the command may be left."""


def marked(mark: str) -> Iterator[psutil.Process]:
    """Processes that the command started, wherever they hang in the tree of processes."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda pid: os.killpg(pid, signal.SIGTERM), 143),
        (lambda pid: os.kill(pid, signal.SIGKILL), -signal.SIGKILL),
    ],
    ids=["SIGTERM to the group", "SIGKILL of the driver"],
)
def test_nothing_is_left_of_an_engine(end: Callable[[int], None], code: int, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    try:
        model_source("smollm2-135m")
    except ConfigError as error:
        pytest.skip(error.message)
    values, mark = toy.config(toy.write(tmp_path / "data", rows=2000), tmp_path / "runs"), uuid.uuid4().hex
    server = {"dtype": "float32", "engine_kwargs": {"enforce_eager": True}, "kv_cache_gib": 1}
    values["annotator"] = {"name": "served", "concurrency": 8, "server": server}
    values["relabel"] = {"demonstrations": 2, "controls": 200}
    values["cluster"] = {"ray": True}
    config, run = tmp_path / "config.json", Run(str(tmp_path / "runs" / "toy"))
    config.write_text(json.dumps(values))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY")} | {
        MARK: mark
    }
    command = [sys.executable, "-m", "rayclean", "clean", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    while not any(
        name.startswith("segment-") for name in run.names("ledger")
    ):  # until it has answered something
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
    names = [each.name() for each in marked(mark)]
    assert any("VLLM" in name for name in names), names
    start = time.monotonic()
    end(process.pid)
    assert process.wait(timeout=60) == code, (tmp_path / "log").read_text()
    assert time.monotonic() - start < 10
    time.sleep(max(0.0, start + SECONDS - time.monotonic()))
    assert [(each.pid, each.cmdline()) for each in marked(mark)] == []
    printed = (tmp_path / "log").read_text()
    assert "Traceback" not in printed
    assert f"go on with: rayclean clean {config}" in printed
