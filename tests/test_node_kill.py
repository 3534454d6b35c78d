"""A node of a two-node Ray cluster is killed while predict runs: the output is complete all the same."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import toy

CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
worker = cluster.add_node(num_cpus=3)
cluster.wait_for_nodes()
raylet = [p.process.pid for p in worker.all_processes["raylet"]]
print(cluster.address, raylet[0], flush=True)
time.sleep(600)
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
    """Start a command, SIGKILL the second node once `ready`, wait for the command."""
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 900
    while not ready():
        assert run.poll() is None, run.stderr.read() if run.stderr else ""
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.05)
    os.kill(raylet, 9)
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
            lambda: len(list(partial.glob("predict-*/predictions/part-*.parquet"))) >= 3,
        )
    ids = {key: [] for key in ("load/examples", "predict/predictions")}
    for key, found in ids.items():
        for shard in sorted((tmp_path / "runs" / "toy" / key).glob("part-*.parquet")):
            found += pq.read_table(shard, columns=["example_id"])["example_id"].to_pylist()
    assert len(ids["predict/predictions"]) == len(set(ids["predict/predictions"]))
    assert set(ids["predict/predictions"]) == set(ids["load/examples"])
