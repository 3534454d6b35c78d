"""Two runs that hold a model while they wait for workers, and an elastic training beside a model: on a cluster of stubs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=2, num_gpus=1, node_ip_address="127.0.0.2")
cluster.wait_for_nodes()
print(cluster.address, flush=True)
time.sleep(3600)  # longer than any test
"""
ASKING = """
import contextlib, json, sys, time
import rayclean.runtime.environment
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from rayclean.runtime import lease
ray.init(address="auto", log_to_driver=False)
got = []
with lease.leased(sys.argv[1]) if sys.argv[2] == "leased" else contextlib.nullcontext():
    model = placement_group([{"GPU": 1}])
    got.append(model.wait(40))
    time.sleep(8)  # the other run has begun, too
    workers = placement_group([{"GPU": 1}])
    got.append(workers.wait(40 if sys.argv[2] == "leased" else 10))
    lease.give_back()
    time.sleep(2)
    remove_placement_group(workers)
    remove_placement_group(model)
print(json.dumps(got))
"""
ELASTIC = """
import json, sys, time
import rayclean.runtime.environment
import ray
from pathlib import Path
from rayclean.config import ClusterConfig
from rayclean.runtime.engines import Engines
from rayclean.runtime.served_resources import counted_as_taken
from tests.training.toys import job, spec, write_examples
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=1)
class Model:
    def up(self):
        return True
model = Model.remote()
ray.get(model.up.remote())
folder = Path(sys.argv[1])
one = job(write_examples(folder / "examples", 40), folder / "out")
engines = Engines(ClusterConfig(workers=1, max_workers=4, use_gpu=False), on_ray=True)
begun = time.monotonic()
with counted_as_taken("stub", [{"CPU": 1.0}]):
    time.sleep(2)
    result = engines.fit_jobs([one], spec(epochs=1), str(folder / "work"))["toy"]
print(json.dumps({"epochs": result.epochs, "seconds": time.monotonic() - begun}))
"""


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Two nodes of two CPUs and a GPU that only Ray believes in; the environment that leads there."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = {
        **plain,
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PYTHONPATH": str(Path.cwd()),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        yield {**environment, "RAY_ADDRESS": process.stdout.readline().strip()}
    finally:
        process.kill()


@pytest.mark.parametrize("how", ["leased", "without"])
def test_two_runs_that_ask_while_they_train_both_end(how: str) -> None:
    """Each holds a GPU for its model, and then wants the other for its workers."""
    with cluster() as environment:
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", ASKING, name, how], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for name in ("first", "second")
        ]  # fmt: skip
        ends = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ends
    got = [json.loads(out) for out, _ in ends]
    if how == "leased":
        assert got == [[True, True], [True, True]]
        assert sum("one run at a time does" in errors for _, errors in ends) == 1
    else:
        assert got == [[True, False], [True, False]]  # what the lease is for


def test_elastic_training_leaves_a_served_model_its_place(tmp_path: Path) -> None:
    """Four workers would fit if the model's CPU were free."""
    with cluster() as environment:
        done = subprocess.run(
            [sys.executable, "-c", ELASTIC, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["epochs"] == 1
    assert found["seconds"] < 60, "it waited for workers that cannot be"
