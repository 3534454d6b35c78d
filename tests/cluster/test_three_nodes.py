"""Three Ray nodes on one machine: the result of one node, and neither a lost node nor a lost driver costs anything."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import toy

NODES = """
import time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
workers = [cluster.add_node(num_cpus=2, node_ip_address=f"127.0.0.{number}") for number in (2, 3)]
cluster.wait_for_nodes()
print(cluster.address, *[worker.all_processes["raylet"][0].process.pid for worker in workers], flush=True)
time.sleep(1800)
"""


@contextmanager
def three_nodes() -> Iterator[tuple[dict[str, str], list[int]]]:
    """The environment that leads to them, and the raylets of the two that are not the head."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", NODES], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert cluster.stdout is not None
        address, *raylets = cluster.stdout.readline().split()
        yield {**environment, "RAY_ADDRESS": address}, [int(pid) for pid in raylets]
    finally:
        cluster.kill()


@pytest.mark.slow
def test_noiseal_with_a_node_and_then_the_driver_killed(tmp_path: Path) -> None:
    values = toy.config(toy.write(tmp_path / "data", rows=400, noise=0.3), tmp_path / "runs", name="three")
    values["dataset"]["rows_per_shard"] = 8
    # Dropout is drawn per worker: with it, in either network, two workers give another model than one.
    values["encoder"]["dropout"] = 0.0
    values["method"] = {"name": "noiseal", "weak": {"name": "bilstm", "hidden": 16, "dropout": 0.0}}
    values["train"] = {"labels": "given", "epochs": 6, "batch_size": 8}
    values["evaluate"] = {"compare": False}
    three, one = tmp_path / "three.json", tmp_path / "one.json"
    three.write_text(json.dumps(values))
    one.write_text(json.dumps({**values, "name": "one"}))
    command = [sys.executable, "-m", "rayclean", "clean"]
    elastic = ["cluster.workers=1", "cluster.max_workers=2"]
    partial = tmp_path / "runs" / "three" / ".partial"

    def shards() -> bool:
        return len(list(partial.glob("predict-*/experts/classifier/part-*.parquet"))) >= 3

    def asked() -> bool:
        lines = [
            json.loads(line)
            for file in partial.glob("train-*/metrics.jsonl")
            for line in file.read_text().splitlines()
        ]
        return sum(line.get("asked", 0) for line in lines) > 0

    def wait(ready: object, process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + 600
        while not ready():  # type: ignore[operator]
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)

    with three_nodes() as (environment, raylets):
        run = [*command, str(three), *elastic]
        process = subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, text=True)
        wait(shards, process)
        os.kill(raylets[0], 9)  # a worker node, in the middle of predict
        wait(asked, process)
        process.kill()  # the driver, in the middle of training
        process.wait()
        again = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=900)
        assert again.returncode == 0, again.stderr
        assert "predict: done before, reused" in again.stderr
    subprocess.run([*command, str(one)], check=True, capture_output=True)
    found = {}
    for name in ("three", "one"):
        folder = tmp_path / "runs" / name
        found[name] = {
            table: pq.read_table(folder / table).to_pandas().sort_values("example_id").reset_index(drop=True)
            for table in ("detect/findings", "relabel/labels", "train/dynamics")
        }
        entries = [
            json.loads(line)
            for file in (folder / "ledger").rglob("*.jsonl")
            for line in file.read_text().splitlines()
        ]
        keys = [entry["key"] for entry in entries if "key" in entry]
        assert len(keys) == len(set(keys)) > 0  # nothing was paid for twice
    assert list(found["three"]["relabel/labels"]["final_label"]) == list(
        found["one"]["relabel/labels"]["final_label"]
    )
    assert list(found["three"]["detect/findings"]["suspect"]) == list(
        found["one"]["detect/findings"]["suspect"]
    )
    for column in found["one"]["train/dynamics"]:
        np.testing.assert_allclose(
            found["three"]["train/dynamics"][column],
            found["one"]["train/dynamics"][column],
            rtol=0,
            atol=1e-4,
            err_msg=column,
        )


@pytest.mark.slow
@pytest.mark.llm
@pytest.mark.timeout(5400)
def test_the_quickstart_gives_the_result_of_one_node(tmp_path: Path) -> None:
    """MiniLM, its head and the language model on vLLM are real; only the number of questions is smaller.

    The engine computes in float32: in bfloat16 a score depends on what else is in its batch, and that on who asks when.
    """
    pytest.importorskip("vllm")
    quickstart = str(Path(__file__).parents[2] / "configs" / "quickstart.toml")
    sizes = [
        f"output={tmp_path}/runs",
        "detect.budget=120",
        "annotator.server.dtype=float32",
        "evaluate.compare=false",
    ]

    def clean(name: str, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "rayclean", "clean", quickstart, *sizes, f"name={name}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2400)
        assert done.returncode == 0, done.stderr

    with three_nodes() as (environment, _):
        clean("three", environment)
    clean("one", {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"})
    decided = {
        "detect/findings": ["example_id", "given_label", "suggested_label", "suspect"],
        "relabel/annotations": ["example_id", "chosen_label", "decision", "accepted"],
        "relabel/labels": ["example_id", "given_label", "final_label", "source", "split"],
    }
    for table, columns in decided.items():
        three, one = (
            pq.read_table(tmp_path / "runs" / name / table, columns=columns).sort_by("example_id").to_pydict()
            for name in ("three", "one")
        )
        for column in columns:
            assert three[column] == one[column], f"{table}: {column}"
    assert one["source"].count("changed") > 0  # the model has decided something
