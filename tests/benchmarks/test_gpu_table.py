"""The tables of docs/gpus.md are those of the results of a GPU, or say in every row that there is none."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_table
from benchmarks.gpu import BATCHES, CONCURRENCIES, SHAPES, Reading, reading_rates
from benchmarks.random_networks import write_network
from tests.gpu.device import CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "gpus.md"


def test_the_page_has_the_tables_of_the_results() -> None:
    text = PAGE.read_text()
    rates, checks = gpu_table.read(gpu_table.RATES), gpu_table.read(gpu_table.CHECKS)
    assert gpu_table.rates_table(rates) in text
    assert gpu_table.checks_table(checks) in text
    for result in (rates, checks):
        if result is not None:  # nobody's small run on a CPU
            assert not result["small"]
            assert result["machine"]["gpus"]


def test_without_a_result_every_row_says_so() -> None:
    rates, checks = (
        gpu_table.rates_table(None).splitlines()[2:],
        gpu_table.checks_table(None).splitlines()[2:],
    )
    assert len(rates) == 2 * len(BATCHES) + 6 * len(SHAPES) + len(CONCURRENCIES)
    assert all(row.endswith("| not yet measured |") for row in rates)
    assert len(checks) == len(CHECKS)
    assert all(row.endswith("| not yet run |") for row in checks)


def test_a_result_fills_the_rows_that_it_has() -> None:
    about: dict[str, Any] = {
        "machine": {"gpus": ["NVIDIA X"]},
        "versions": {"torch": "2.13.0"},
        "date": "2027-01-01",
    }
    step = {"examples_per_second": 1234.6, "ratio": 1.031, "profile": {"utilisation": 0.5}}
    figures = {
        "train": {"lane": {"256": step}},
        "features": {"minilm": {"network": 98765.4}},
        "questions": {"32": 210.4},
    }
    rates = gpu_table.rates_table({**about, "figures": figures})
    assert "| NVIDIA X, torch 2.13.0, 2027-01-01 |" in rates
    assert (
        "| lane, BERT-base, batch 256 | 1,235 examples/s, 1.03 of a plain loop's time, kernels run 50 % of it |"
        in rates
    )
    assert "| features, minilm: network | 98,765 rows/s |" in rates
    assert "| SmolLM2-135M, 32 questions under way | 210 questions/s |" in rates
    assert rates.count("not yet measured") == 2 * len(BATCHES) + 6 * len(SHAPES) + len(CONCURRENCIES) - 3
    ends = {"A1": {"outcome": "passed"}, "A2": {"outcome": "skipped", "reason": "no time"}}
    checks = gpu_table.checks_table({**about, "checks": ends})
    assert checks.count("| passed |") == 1
    assert checks.count("| skipped: no time |") == 1
    assert checks.count("not yet run") == len(CHECKS) - 2


@pytest.mark.slow
def test_processes_that_read_together_are_measured_together(tmp_path: Path) -> None:
    network = write_network(tmp_path, "tiny")
    work = Reading(network, "tiny", "cpu", 64, 0, 1, ("tokenizer", "together"))
    rates = reading_rates(work, 2)
    assert rates.keys() == {"tokenizer", "together"}
    assert all(rate > 0 for rate in rates.values())
    with pytest.raises(RuntimeError, match="a process that read ended"):
        reading_rates(Reading(str(tmp_path / "nothing"), "tiny", "cpu", 64, 0, 1, ("together",)), 2)
