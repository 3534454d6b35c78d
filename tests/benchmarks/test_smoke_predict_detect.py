import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "predict_detect.py"


@pytest.mark.slow
def test_small_run_writes_a_result_of_both_sides(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    subprocess.run([sys.executable, str(SCRIPT), "--small", "--output", str(output)], check=True, timeout=200)
    result = json.loads(output.read_text())
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    assert {(row["kind"], row["who"]) for row in result["figures"]} == {
        (kind, who) for kind in ("text", "features") for who in ("rayclean", "scikit-learn")
    }
    for row in result["figures"]:
        assert 0 < row["log_loss"] < 2.4  # that of ten classes drawn at random is 2.3
