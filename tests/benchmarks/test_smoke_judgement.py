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
    added = result["figures"]["cells"]["mean_added"]["judge"]
    assert len(added) == 48
    assert max(added) <= 0.03
    assert done.stdout.count("accuracy  right  before") == 2
