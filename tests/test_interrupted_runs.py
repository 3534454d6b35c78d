"""Ctrl-C and SIGTERM while a whole run works: it ends in time, pays for no further question, and the same command goes on.

The annotator is a paid endpoint of its own process. What a run that was stopped ends with must equal what a calm run did.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.run import Run
from tests import toy
from tests.annotators.hostile import Hostile, serve_in_process
from tests.command import Ended, run_command

CONCURRENCY = 4
SECONDS = 10
"""Most seconds from a signal to the end of the process."""
MOMENTS = 30


class Paid:
    """A data set, an endpoint that is paid for answers, and configs of runs on both.

    The texts tell the endpoint the right label by an asterisk before its word.
    """

    def __init__(self, folder: Path, server: Hostile, rows: int, ray: bool):
        self.folder, self.server = folder, server
        for path in toy.write(folder / "data", rows=rows).iterdir():
            table = pq.read_table(path)
            texts = [f"{row['text']} *{row['truth']}" for row in table.to_pylist()]
            pq.write_table(table.set_column(table.column_names.index("text"), "text", [texts]), path)
        self.values: dict[str, Any] = toy.config(folder / "data", folder / "runs")
        self.values["annotator"] = {
            "name": "openai",
            "base_url": server.url,
            "model": server.model,
            "form": "choice",
            "concurrency": CONCURRENCY,
        }
        self.values["cluster"] = {"ray": ray}
        self.values["relabel"] = {"demonstrations": 2, "calibration": "none", "controls": 30}
        self.values["evaluate"] = {"compare": False}

    def config(self, name: str) -> str:
        """Path of the config of a run."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({**self.values, "name": name}))
        return str(path)

    def run(self, name: str) -> Run:
        return Run(str(self.folder / "runs" / name))

    def labels(self, name: str) -> dict[int, tuple[int, str]]:
        """Final label and who decided it, by example."""
        run = self.run(name)
        tables = [run.read_table("relabel", "labels", shard) for shard in run.shards("relabel", "labels")]
        rows = [row for table in tables for row in table.to_pylist()]
        return {row["example_id"]: (row["final_label"], row["source"]) for row in rows}

    def questions(self) -> int:
        """Number of requests that the endpoint has got."""
        return sum(self.server.calls().values())


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    return lambda *arguments: run_command(*arguments, capsys=capsys, monkeypatch=monkeypatch)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Paid, int]]:
    """A finished run that nobody disturbed, and the number of its requests."""
    with serve_in_process(latency=0.05) as server:
        paid = Paid(tmp_path_factory.mktemp("paid"), server, rows=80, ray=False)
        rayclean.clean(rayclean.load_config(paid.config("calm")))
        yield paid, paid.questions()


@pytest.mark.parametrize(
    ("moment", "number"),
    [("predict", signal.SIGINT), ("questions", signal.SIGTERM), ("train", signal.SIGINT)],
)
def test_a_signal_in_a_verb(
    moment: str,
    number: int,
    calm: tuple[Paid, int],
    command: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # This process is to see a late end, and answers that are on their way on a busy machine.
    monkeypatch.setattr("rayclean.interrupts.GRACE_SECONDS", 300)
    monkeypatch.setattr("rayclean.runtime.asking.IN_FLIGHT_SECONDS", 60)
    (paid, once), name = calm, f"stopped-{moment}"
    file, run, before, sent = paid.config(name), paid.run(name), paid.questions(), [0.0, 0]

    def reached() -> bool:
        if moment == "questions":
            return paid.questions() >= before + 5
        return any(each.startswith(f"{moment}-") for each in run.names(".partial"))

    def stop() -> None:
        while not reached():
            time.sleep(0.01)
        sent[:] = time.monotonic(), paid.questions()
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    ended = command("clean", file)
    seconds, questions = time.monotonic() - sent[0], paid.questions() - sent[1]
    assert ended.code == 128 + number, ended.stderr
    assert seconds < SECONDS
    assert questions <= 2 * CONCURRENCY  # a query asks both orders of its candidates
    assert f"go on with: rayclean clean {file}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert command("clean", file).code == 0
    assert paid.labels(name) == paid.labels("calm")
    assert paid.questions() - before == once, "an answer was paid for twice"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ray", [True, False])
def test_thirty_signals(tmp_path: Path, ray: bool) -> None:
    """At random moments of a process of its own, on Ray to its whole group, too."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    choose, log = random.Random(seed), tmp_path / "log"
    with serve_in_process(latency=0.1) as server:
        paid = Paid(tmp_path, server, rows=300, ray=ray)
        start = time.monotonic()
        assert launch(paid.config("calm"), log).wait(timeout=900) == 0, log.read_text()
        calm, once, runs = time.monotonic() - start, paid.questions(), 1
        size, process = log.stat().st_size, launch(paid.config("stopped-1"), log)
        moments: list[tuple[str, str, float, int]] = []
        while len(moments) < MOMENTS:
            time.sleep(choose.uniform(0.3, calm))
            number = choose.choice([signal.SIGINT, signal.SIGTERM])
            group = choose.random() < 0.3
            sent, before = time.monotonic(), paid.questions()
            if process.poll() is None:
                (os.killpg if group else os.kill)(process.pid, number)
                code = process.wait(timeout=120)
                seconds, after = time.monotonic() - sent, paid.questions() - before
                too_early = code == -number and log.stat().st_size == size  # the interpreter was not up yet
                if code != 0 and not too_early:  # nor had it just ended
                    assert code == 128 + number, (code, log.read_text()[-4000:])
                    assert seconds < SECONDS, log.read_text()[-4000:]
                    assert after <= 2 * CONCURRENCY
                    moments.append((number.name, "group" if group else "process", seconds, after))
            else:
                assert process.returncode == 0, log.read_text()[-4000:]
                runs += 1
            size, process = log.stat().st_size, launch(paid.config(f"stopped-{runs}"), log)
        assert process.wait(timeout=900) == 0, log.read_text()[-4000:]
        print(*moments, sep="\n")
        print(f"{runs} runs; {paid.questions() - once * (runs + 1)} requests paid twice")
        for run in range(1, runs + 1):
            assert paid.labels(f"stopped-{run}") == paid.labels("calm")
    assert "Traceback" not in log.read_text()
    time.sleep(SECONDS / 2)
    left = [each.info["cmdline"] for each in psutil.process_iter(["cmdline"])]
    assert not [each for each in left if str(tmp_path) in " ".join(each or [])], "left-over processes"


def launch(config: str, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as file:
        line = [sys.executable, "-m", "rayclean", "clean", config]
        return subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
