import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def small(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), "--small", *arguments]
    environment = {
        **os.environ,
        "RAYCLEAN_EXPERIMENTS": str(folder / "runs"),
        "RAYCLEAN_CACHE": str(folder / "cache"),
    }
    subprocess.run(command, check=True, timeout=600, cwd=folder, env=environment)
    result: dict[str, Any] = json.loads(
        (BENCHMARKS / "results" / f"{Path(script).stem}.small.json").read_text()
    )
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    return result


@pytest.mark.slow
def test_overhead_of_the_training_loop(tmp_path: Path) -> None:
    result = small("train_overhead.py", tmp_path)
    for name in ("noiseal", "lane"):
        assert result["figures"][name]["ratio"] > 0
        assert 0 < result["figures"][name]["state_share"] < 1
        assert result["figures"][name]["between_epochs"]["partition"]["seconds_per_epoch"] > 0
    between = result["figures"]["noiseal"]["between_epochs"]
    assert 0 < between["review_columns"]["seconds_per_epoch"] < between["review"]["seconds_per_epoch"]
    assert "review" not in result["figures"]["lane"]["between_epochs"]


@pytest.mark.slow
def test_an_experiment_judges_its_claims(tmp_path: Path) -> None:
    result = small("experiments.py", tmp_path, "--only", "E9")
    (claims,) = (experiment["claims"] for experiment in result["figures"].values())
    assert all(one["pairs"] == 1 for one in claims)
    rows, runs = result["figures"]["E9"]["rows"], result["figures"]["E9"]["runs"]
    assert {"weight_right_last", "auc_quality", "accuracy_last", "noise_realised"} <= set(rows[0])
    assert all(run["noise"] == {"kind": "asym", "rate": 0.4} for run in runs)
    assert result["figures"]["E9"]["commit"] == sorted({run["commit"] for run in runs})
