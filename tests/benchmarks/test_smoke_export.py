import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "export_rows.py"


@pytest.mark.slow
def test_a_small_run_exports_every_format(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    subprocess.run([sys.executable, str(SCRIPT), "--small", "--output", str(output)], check=True, timeout=300)
    result = json.loads(output.read_text())
    assert result["small"]
    exports = {(row["rows"], row["format"]) for row in result["figures"]["exports"]}
    assert exports == {(rows, format) for rows in (2_000, 6_000) for format in ("parquet", "csv", "jsonl")}
