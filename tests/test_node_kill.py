"""A node of a two-node Ray cluster is killed while predict runs, or a training: the output is complete all the same."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from rayclean.folder import Folder
from tests import toy
from tests.training.toys import HALF

CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
worker = cluster.add_node(num_cpus=3, node_ip_address="127.0.0.2")
cluster.wait_for_nodes()
raylet = [p.process.pid for p in worker.all_processes["raylet"]]
print(cluster.address, raylet[0], flush=True)
time.sleep(3600)  # longer than any test
"""


@contextmanager
def two_nodes() -> Iterator[tuple[dict[str, str], int]]:
    """A cluster; the environment that leads to it, and the raylet of its second node."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert cluster.stdout is not None
        address, raylet = cluster.stdout.readline().split()
        yield {**environment, "RAY_ADDRESS": address}, int(raylet)
    finally:
        cluster.kill()


def run_and_kill(
    command: list[str], environment: dict[str, str], raylet: int, ready: Callable[[], bool]
) -> None:
    """Start a command, SIGKILL the second node once it is `ready`, wait for the command."""
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 900
    while not ready():
        assert run.poll() is None, run.stderr.read() if run.stderr else ""
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.05)
    # With all its processes, as a machine goes: workers alone would go on until Ray has missed their raylet for half a minute.
    node = psutil.Process(raylet)
    for process in [node, *node.children(recursive=True)]:
        process.kill()
    _, errors = run.communicate(timeout=900)
    assert run.returncode == 0, errors


@pytest.mark.slow
def test_a_node_killed_during_predict(tmp_path: Path) -> None:
    # One example per shard: many items, so that both nodes have work under way when one of them goes.
    values = toy.config(toy.write(tmp_path / "data", rows=300), tmp_path / "runs")
    values["dataset"]["rows_per_shard"] = 4
    values["predict"]["actors"] = 2
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    partial = tmp_path / "runs" / "toy" / ".partial"
    with two_nodes() as (environment, raylet):
        command = [sys.executable, "-m", "rayclean"]
        subprocess.run([*command, "load", str(path)], check=True, env=environment)
        run_and_kill(
            [*command, "predict", str(path)],
            environment,
            raylet,
            lambda: len(list(partial.glob("predict-*/experts/classifier/part-*.parquet"))) >= 3,
        )
    ids = {key: [] for key in ("load/examples", "predict/predictions")}
    for key, found in ids.items():
        for shard in sorted((tmp_path / "runs" / "toy" / key).glob("part-*.parquet")):
            found += pq.read_table(shard, columns=["example_id"])["example_id"].to_pylist()
    assert len(ids["predict/predictions"]) == len(set(ids["predict/predictions"]))
    assert set(ids["predict/predictions"]) == set(ids["load/examples"])


@pytest.mark.slow
@pytest.mark.timeout(1800)  # eleven commands, on two nodes that share this machine
def test_a_node_killed_in_mid_epoch(tmp_path: Path) -> None:
    """NoiseAL on two elastic workers, one per node: the result of the unkilled run on one, no answer paid twice."""
    data = toy.write(tmp_path / "data", rows=1500, noise=0.3)
    values = toy.config(data, tmp_path / "runs")
    values["encoder"]["dropout"] = 0.0  # drawn per worker: with it, other workers give another model
    # Of one that guesses the method would take no answer, and of one that nobody measured neither.
    values["dataset"]["labels"] = list(toy.TOPICS)
    Folder(str(tmp_path / "known")).write_table(toy.true_labels(data), "part-00000.parquet")
    values["annotator"] = {"name": "simulated", "tokens": 5, "truth_path": str(tmp_path / "known")}
    # Large enough that few epochs last until the node is lost; in many the rounding of other workers decides for an
    # example near a threshold, and all that follows is another training.
    weak = {"name": "bilstm", "hidden": 96, "dropout": 0.0}
    # Of neighbours at nearly the same distance, too, the rounding decides which are shown, so none are.
    values["method"] = {"name": "noiseal", "weak": weak, "lambda_": 0.5, "demonstrations": 0}
    values["predict"]["training"] = {"epochs": 2}
    values["train"] = {"labels": "given", "epochs": 6, "batch_size": 8}
    values["evaluate"] = {"compare": False}
    killed, calm = tmp_path / "killed.json", tmp_path / "calm.json"
    killed.write_text(json.dumps(values))
    calm.write_text(json.dumps({**values, "name": "calm"}))
    elastic = ["cluster.workers=1", "cluster.max_workers=2", "cluster.cpus_per_worker=2"]
    command = [sys.executable, "-m", "rayclean"]
    partial = tmp_path / "runs" / "toy" / ".partial"
    with two_nodes() as (environment, raylet):
        for verb in ("load", "predict", "detect", "relabel"):
            subprocess.run([*command, verb, str(killed)], check=True, env=environment)

        def asked() -> bool:
            files = partial.glob("train-*/metrics.jsonl")
            lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            return sum(line.get("asked", 0) for line in lines) > 0

        run_and_kill([*command, "train", str(killed), *elastic], environment, raylet, asked)
    for verb in ("load", "predict", "detect", "relabel", "train"):
        subprocess.run([*command, verb, str(calm)], check=True)
    found, paid = {}, {}
    for name in ("toy", "calm"):
        folder = tmp_path / "runs" / name
        found[name] = pq.read_table(folder / "train" / "dynamics").to_pandas()
        texts = [file.read_text() for file in (folder / "ledger").rglob("*.jsonl")]
        entries = [json.loads(line) for text in texts for line in text.splitlines()]
        keys = [entry["key"] for entry in entries if "key" in entry]
        assert len(keys) == len(set(keys)) > 0
        paid[name] = set(keys)
    assert paid["toy"] == paid["calm"]  # nor under another key
    lines = (tmp_path / "runs" / "toy" / "train" / "metrics.jsonl").read_text().splitlines()
    workers = [json.loads(line)["workers"] for line in lines]
    assert (workers[0], workers[-1]) == (2, 1), f"the node took no worker with it: {workers}"
    assert (found["toy"]["answer"] >= 0).any()
    # Two workers add gradients in another order than one: after some thousand steps the rounding has grown to 1e-4.
    for column in found["calm"]:
        np.testing.assert_allclose(
            found["toy"][column], found["calm"][column], rtol=0, atol=HALF.get(column, 1e-3), err_msg=column
        )
