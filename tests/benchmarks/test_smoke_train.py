import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def small(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    output = folder / "result.json"
    command = [sys.executable, str(BENCHMARKS / script), "--small", "--output", str(output), *arguments]
    environment = {
        **os.environ,
        "RAYCLEAN_EXPERIMENTS": str(folder / "runs"),
        "RAYCLEAN_CACHE": str(folder / "cache"),
    }
    subprocess.run(command, check=True, timeout=600, cwd=folder, env=environment)
    result: dict[str, Any] = json.loads(output.read_text())
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    return result


@pytest.mark.slow
def test_overhead_of_the_training_loop(tmp_path: Path) -> None:
    result = small("train_overhead.py", tmp_path)
    for name in ("noiseal", "lane"):
        found = result["figures"][name]
        assert len(found["ratios"]) == result["config"]["blocks"] == 2
        low, high = found["ratio_quartiles"]
        assert 0 < low <= found["ratio"] <= high
        assert 0 < found["state_share"] < 1
        assert found["between_epochs"]["partition"]["seconds_per_epoch"] > 0
        shares = [one["share"] for one in found["profile"]["operators"]]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1.001
    between = result["figures"]["noiseal"]["between_epochs"]
    assert 0 < between["review_columns"]["seconds_per_epoch"] < between["review"]["seconds_per_epoch"]
    assert "review" not in result["figures"]["lane"]["between_epochs"]


@pytest.mark.slow
def test_an_experiment_judges_its_claims(tmp_path: Path) -> None:
    result = small("experiments.py", tmp_path, "--only", "E9")
    (claims,) = (experiment["claims"] for experiment in result["figures"].values())
    assert all(one["pairs"] == 1 for one in claims)
    rows, runs = result["figures"]["E9"]["rows"], result["figures"]["E9"]["runs"]
    assert {"weight_right_last", "auc_quality", "accuracy_last", "noise_realised", "weight_mass_last"} <= set(
        rows[0]
    )
    assert runs[0]["best_epoch"] in (1, 2, 3)
    assert all(len(runs[0][f"{name}_epochs"]) == 3 for name in ("weight_right", "auc_margin"))
    drawn = runs[0]["histograms"]
    examples = sum(sum(drawn["weight"][kind]) for kind in ("right", "wrong"))
    assert examples == sum(sum(drawn["mean_weight"][kind]) for kind in ("right", "wrong"))
    assert 0 < sum(drawn["weight_below_one"]["wrong"]) <= sum(drawn["weight"]["wrong"]) < examples
    assert result["config"]["seeds"] == {"E9": [0]}
    assert all(run["noise"] == {"kind": "asym", "rate": 0.4} for run in runs)
    assert result["figures"]["E9"]["commit"] == sorted({run["commit"] for run in runs})
