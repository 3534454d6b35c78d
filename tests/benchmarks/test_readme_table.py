"""What docs/evidence.md shows of data sets with real noise is what the committed result says."""

import json
from pathlib import Path

from benchmarks.quickstart import readme_paragraph
from benchmarks.readme_table import RESULT, rankings_table, readme_table

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"


def test_the_tables_are_those_of_the_result() -> None:
    figures, text = json.loads(RESULT.read_text())["figures"], PAGE.read_text()
    assert readme_table(figures) in text
    assert rankings_table(figures) in text


def test_readme_says_what_the_worst_cell_is() -> None:
    (worst,) = (each for each in json.loads(RESULT.read_text())["claims"] if "the worst of" in each["claim"])
    cells = worst["claim"].partition("the worst of ")[2].split()[0]
    readme = " ".join((PAGE.parents[1] / "README.md").read_text().split())
    assert (
        f"in no cell of {cells} did labels get worse by more than {worst['measured']:.4f}".replace(
            " 0.", " ."
        )
        in readme
    )


def test_readme_says_what_the_quickstart_did() -> None:
    figures = json.loads((RESULT.parent / "quickstart.json").read_text())["figures"]
    assert readme_paragraph(figures) in " ".join((PAGE.parents[1] / "README.md").read_text().split())
