import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sweep_overhead.py"


@pytest.mark.slow
def test_overhead_of_a_sweep_from_cached_predictions(tmp_path: Path) -> None:
    """Two budgets x two thresholds under one seed: two detects are shared, and run within the time."""
    output = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--small", "--output", str(output)],
        check=True, timeout=600, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    result = json.loads(output.read_text())
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    figures = result["figures"]
    assert f"4 trials in {figures['sweep_seconds']:.1f} s" in done.stdout
    assert figures["trials"] == len(figures["seconds_of_each_trial"]) == 4
    assert figures["shared"] == ["detect", "detect"]
    assert figures["shared_seconds"] > 0
    assert figures["work_seconds"] == figures["shared_seconds"] + figures["trials_seconds"]
    assert 0 < figures["seconds_until_the_first_trial"] < figures["sweep_seconds"]
    # Nothing of the work is outside of the time.
    assert 0 < figures["share_of_the_cores_at_work"] <= 1
    assert figures["trials_per_minute"] == pytest.approx(240 / figures["sweep_seconds"])
    assert {claim["claim"] for claim in result["claims"]} == {
        "hundreds of cached trials in minutes: trials per minute",
        "wall time of the sweep / its work shared by the cores",
    }
