"""What docs/evidence.md shows of data sets with real noise is what the committed result says."""

import json
from pathlib import Path

from benchmarks.readme_table import RESULT, rankings_table, readme_table

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"


def test_the_tables_are_those_of_the_result() -> None:
    figures, text = json.loads(RESULT.read_text())["figures"], PAGE.read_text()
    assert readme_table(figures) in text
    assert rankings_table(figures) in text
