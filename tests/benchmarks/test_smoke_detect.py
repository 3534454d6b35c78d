import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "detect_vs_cleanlab.py"


@pytest.mark.slow
def test_small_run_writes_a_result_whose_masks_are_cleanlabs(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--small", "--output", str(output), "--folder", str(tmp_path)]
    subprocess.run(command, check=True, timeout=400)
    result = json.loads(output.read_text())
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    holds = {claim["claim"]: claim["holds"] for claim in result["claims"]}
    assert holds["the mask is cleanlab's, for every rule and size"]
    assert holds["the mask is the same for every shard size, order and number of tasks"]
