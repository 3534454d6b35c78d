"""SIGKILL at random moments, the same command again, and nothing is lost, doubled or paid twice.

A run of all six verbs against a deterministic annotator is killed again and again (the driver, or one of Ray's
workers under it), each time followed by the same command. The end must equal a run that nobody touched.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from rayclean.run import Run
from tests import toy
from tests.annotators.hostile import serve_in_process

KILLS = 20
NOT_WORKERS = ("IDLE", "Agent")
"""Idle workers hold nothing; the agents share the fate of the node, which has a test of its own."""
CONCURRENCY = 4


def start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        command = [sys.executable, "-m", "rayclean", "clean", str(config)]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def kill_one(run: subprocess.Popen[bytes], choose: random.Random) -> str | None:
    """SIGKILL the driver or one of its Ray workers; None if there is nothing to kill any more."""
    try:
        driver = psutil.Process(run.pid)
        children = driver.children(recursive=True)
        workers = [p for p in children if p.name().startswith("ray::") and not p.name().endswith(NOT_WORKERS)]
        victim = choose.choice(workers) if workers and choose.random() < 0.5 else driver
        name = victim.name()
        victim.kill()
    except psutil.NoSuchProcess:
        return None
    return "driver" if victim.pid == run.pid else name


def rows(run: Run, *parts: str) -> dict[int, dict]:
    found: dict[int, dict] = {}
    for shard in run.shards(*parts):
        for row in run.read_table(*parts, shard).to_pylist():
            assert row["example_id"] not in found, f"{row['example_id']} appears twice in {parts}"
            found[row["example_id"]] = row
    return found


def labels(run: Run) -> dict[int, tuple]:
    return {key: (row["final_label"], row["source"]) for key, row in rows(run, "relabel", "labels").items()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ray", [True, False])
def test_twenty_kills(tmp_path: Path, ray: bool) -> None:
    """On Ray the driver or a worker is killed; small data runs in the driver alone, and faster."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    choose = random.Random(seed)
    toy.write(tmp_path / "data", rows=400)
    for path in (tmp_path / "data").iterdir():  # the annotator knows a label by the asterisk before its word
        table = pq.read_table(path)
        texts = [f"{row['text']} *{row['truth']}" for row in table.to_pylist()]
        pq.write_table(table.set_column(table.column_names.index("text"), "text", [texts]), path)
    with serve_in_process(latency=0.15) as server:
        values = toy.config(tmp_path / "data", tmp_path / "runs")
        values["annotator"] = {
            "name": "openai",
            "base_url": server.url,
            "model": server.model,
            "form": "choice",
            "concurrency": CONCURRENCY,
        }
        values["cluster"] = {"ray": ray}
        values["relabel"] = {"demonstrations": 2, "calibration": "none", "controls": 40}
        config = tmp_path / "config.json"

        def prepare(name: str) -> Run:
            config.write_text(json.dumps({**values, "name": name}))
            return Run(str(tmp_path / "runs" / name))

        calm = prepare("calm")
        assert start(config, tmp_path / "log").wait(timeout=600) == 0, (tmp_path / "log").read_text()
        expected, calls_once = labels(calm), sum(server.calls().values())
        assert calls_once > 20
        assert Counter(source for _, source in expected.values())["changed"] > 0

        victims: Counter[str] = Counter()
        runs, given_up = [prepare("killed-0")], 0
        before = server.calls()
        process = start(config, tmp_path / "log")
        while victims.total() < KILLS:
            time.sleep(choose.uniform(0.5, 25 if ray else 12))
            if process.poll() is None:
                victim = kill_one(process, choose)
                victims.update([victim] if victim else [])
                if victim != "driver":
                    continue  # Ray replaces a worker: the run itself goes on
                process.wait()
            elif process.returncode == 0:  # finished between two kills: on with a new run
                runs.append(prepare(f"killed-{len(runs)}"))
            else:  # a lost worker that could not be replaced: the same command again
                given_up += 1
            process = start(config, tmp_path / "log")
        while process.wait(timeout=900) != 0:
            given_up += 1
            assert given_up < 4, (tmp_path / "log").read_text()[-4000:]
            process = start(config, tmp_path / "log")
        kills = victims.total()
        print(dict(victims), f"{len(runs)} runs, {given_up} commands ended by a lost worker")

        for run in runs:
            examples = rows(run, "load", "examples")
            for parts in (("predict", "predictions"), ("detect", "findings"), ("relabel", "labels")):
                assert rows(run, *parts).keys() == examples.keys(), parts
            assert labels(run) == expected
            annotated = rows(run, "relabel", "annotations")
            for key, row in rows(run, "relabel", "labels").items():
                if row["source"] == "changed":
                    assert annotated[key]["suggested_label"] == row["final_label"]
        paid = sum(server.calls().values()) - sum(before.values())
        again = paid - calls_once * len(runs)
        print(f"{paid} requests for {len(runs)} runs of {calls_once}: {again} paid twice, {kills} kills")
        assert 0 <= again <= kills * CONCURRENCY * 2 * 2  # in flight or not recorded, two orders per question
    left = [
        p.info["cmdline"] for p in psutil.process_iter(["cmdline"])
    ]  # None where a process is just ending
    assert not [command for command in left if str(tmp_path) in " ".join(command or [])], (
        "left-over processes"
    )
    os.sync()
