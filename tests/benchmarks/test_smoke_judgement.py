import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "judgement.py"


@pytest.mark.slow
def test_simulated_annotators(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--small", "--output", str(output)]
    done = subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True)
    result = json.loads(output.read_text())
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    assert len(result["figures"]["cells"]) == 48
    assert all(row["added"]["judge"]["mean"] <= 0.03 for row in result["figures"]["cells"])
    assert done.stdout.count("accuracy  right  before") == 2
