"""Limits in which the robust losses are cross-entropy, trained through the loop."""

from pathlib import Path
from typing import Any

import pytest

from rayclean.config import Plugin, TrainingConfig
from rayclean.training.job import FitResult, FitSpec
from rayclean.training.loop import fit
from tests.training.toys import TOY, job, write_examples


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A function that trains a method on the same toy data with the same seed."""
    examples = write_examples(tmp_path / "examples", 60, dev=20, noise=0.3)

    def train(name: str, **options: Any) -> FitResult:
        spec = FitSpec(
            Plugin(name=TOY),
            Plugin(name=name, **options),
            TrainingConfig(epochs=3, batch_size=8),
            ("a", "b", "c"),
        )
        return fit(job(examples, tmp_path / f"{name}-{len(options)}"), spec)

    return train


def test_without_its_reverse_part_sce_is_cross_entropy(trained: Any) -> None:
    expected = trained("cross_entropy").dev_loss
    assert trained("symmetric_cross_entropy", alpha=1.0, beta=0.0).dev_loss == pytest.approx(
        expected, abs=1e-6
    )
    assert trained("symmetric_cross_entropy").dev_loss != pytest.approx(expected, abs=1e-4)


def test_rce_is_cross_entropy_as_long_as_it_warms_up(trained: Any) -> None:
    expected = trained("cross_entropy").dev_loss
    assert trained("reverse_cross_entropy", warmup_epochs=3).dev_loss == pytest.approx(expected, abs=1e-6)
    assert trained("reverse_cross_entropy").dev_loss != pytest.approx(expected, abs=1e-4)


def test_gce_tends_to_cross_entropy_for_small_q(trained: Any) -> None:
    expected = trained("cross_entropy").dev_loss
    assert trained("generalized_cross_entropy", q=1e-3).dev_loss == pytest.approx(expected, abs=2e-3)
    assert trained("generalized_cross_entropy").dev_loss != pytest.approx(expected, abs=1e-4)
