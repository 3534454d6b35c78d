"""A built-in language model on a node that is not the driver's: the converted model lies in that node's own cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVE = """
import os, ray, sys
from ray.cluster_utils import Cluster
from rayclean.annotators.served import ServerOptions

elsewhere = sys.argv[1]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=4, node_ip_address="127.0.0.2", env_vars={"RAYCLEAN_CACHE": elsewhere})
cluster.wait_for_nodes()
ray.init(address=cluster.address)
from rayclean.runtime.serve import served_llm, serve_state

with served_llm("smollm2-135m", None, ServerOptions(attempts=1, gpu=False)) as endpoint:
    print("lists", *serve_state.listed(endpoint.url))
    print("tokenizer", endpoint.tokenizer)
"""


@pytest.mark.slow
@pytest.mark.llm
def test_a_replica_converts_the_model_into_the_cache_of_its_own_node(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    driver, replica = tmp_path / "driver", tmp_path / "replica"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0",
        "RAYCLEAN_CACHE": str(driver), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", SERVE, str(replica)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "lists smollm2-135m@" in done.stdout
    assert f"tokenizer {driver}/models/SmolLM2" in done.stdout
    (converted,) = (replica / "models").iterdir()
    assert (converted / "model.safetensors").is_file()
    # The replica's engine had nothing else to load: no converted folder but these two is known to anybody.
    assert [folder.name for folder in (driver / "models").iterdir()] == [converted.name]
