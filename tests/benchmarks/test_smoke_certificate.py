import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "certificate_coverage.py"


@pytest.mark.slow
def test_a_small_run_keeps_its_promises(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    subprocess.run([sys.executable, str(SCRIPT), "--small", "--output", str(output)], check=True, timeout=400)
    result = json.loads(output.read_text())
    assert result["small"]
    assert {"machine", "versions", "commit", "config", "seed", "figures"} <= set(result)
    assert [claim["claim"] for claim in result["claims"] if not claim["holds"]] == []
    assert len(result["figures"]["certificates"]) == 2 * 5
