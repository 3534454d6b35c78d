import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experts.py"


@pytest.mark.slow
def test_small_run_writes_a_result_that_finds_all_neighbours(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    subprocess.run([sys.executable, str(SCRIPT), "--small", "--output", str(output)], check=True, timeout=200)
    result = json.loads(output.read_text())
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    assert {(row["expert"], row["who"]) for row in result["figures"]} == {
        (expert, who) for expert in ("words", "neighbours") for who in ("rayclean", "scikit-learn")
    }
    shares = [claim["holds"] for claim in result["claims"] if "nearest 20" in claim["claim"]]
    assert shares == [True, True]
