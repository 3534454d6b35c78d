"""What README shows of data sets with real noise is what the committed result says."""

import json
from pathlib import Path

from benchmarks.readme_table import RESULT, readme_table

README = Path(__file__).parents[2] / "README.md"


def test_the_table_is_that_of_the_result() -> None:
    assert readme_table(json.loads(RESULT.read_text())["figures"]) in README.read_text()
