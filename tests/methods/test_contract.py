"""What every method must do, whatever its paper says: it runs, is finite, gives a quality, and never sees the truth."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rayclean.config import Plugin, TrainingConfig
from rayclean.folder import Folder
from rayclean.methods import METHODS
from rayclean.methods.base import Method
from rayclean.methods.batch import StepBatch
from rayclean.training.job import FitSpec
from rayclean.training.loop import fit
from tests.contracts import check_method
from tests.models.tiny import write
from tests.training.toys import ACCUMULATING, TOY, job, write_examples

ALL = [*METHODS, ACCUMULATING]
OPTIONS = {
    "aum": {"margin_epochs": 1},
    "dividemix": {"warmup_epochs": 1},
    "lane_literal": {"views": ["swap", "switch_out"]},  # its own views need pre-trained embeddings
    # Split after one epoch; a low threshold, so that the annotator is asked.
    "noiseal": {
        "weak": {"name": TOY}, "warmup_epochs": 1, "threshold": "fixed", "fixed_threshold": 0.35,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_contract(name: str, tmp_path: Path) -> None:
    check_method(Plugin(name=name, **OPTIONS.get(name, {})), tmp_path)


def batch(
    labels: list[int], valid: list[bool], world_size: int = 1, global_count: int | None = None
) -> StepBatch:
    mask = torch.tensor(valid)
    return StepBatch(
        global_id=np.arange(len(labels)), given_label=torch.tensor(labels), valid=mask, world_size=world_size,
        global_count=int(mask.sum()) if global_count is None else global_count, total=lambda count: count,
    )  # fmt: skip


def test_losses_are_scaled_by_global_counts() -> None:
    """METHODS 15.2.5: losses 1..5 over two workers as 3 + 2; the mean of local means is 3.25, the mean is 3."""
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    first = batch([0] * 3, [True] * 3, 2, 5).mean(values[:3])  # 2 x 6 / 5 = 2.4
    second = batch([0] * 3, [True, True, False], 2, 5).mean(
        torch.tensor([4.0, 5.0, float("nan")])
    )  # 2 x 9 / 5 = 3.6
    assert float(first) == pytest.approx(2.4)
    assert float(second) == pytest.approx(3.6)  # a padding row adds nothing, not even NaN
    assert float(first + second) / 2 == pytest.approx(3.0)


def test_a_mean_keeps_the_axes_behind_the_rows() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 6.0], [float("nan"), 0.0]])
    one = batch([0] * 3, [True, True, False])
    assert one.mean(rows).tolist() == [2, 4]
    assert one.mean(torch.cat([rows, rows + 1])).tolist() == [2.5, 4.5]  # with views
    assert one.mean_of_all(rows).tolist() == [2, 4]


def test_an_empty_subset_is_zero_with_a_zero_gradient() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = batch([0, 1], [True, True]).mean_over(values, torch.tensor([False, False]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0]


def test_base_is_cross_entropy() -> None:
    from rayclean.methods.batch import Output

    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    method = Method(Method.Config(), 2)
    outputs = {"main": Output(torch.zeros(2, 1), logits)}
    rows = batch([0, 1], [True, True])
    terms = method.loss(outputs, rows, {}, 1)
    # -log 1/2 and -log 1/4: mean of log 2 and 2 log 2
    assert float(terms["cross_entropy"]) == pytest.approx(1.5 * math.log(2))
    assert method.seen(outputs, rows, {})["loss"].tolist() == pytest.approx([math.log(2), 2 * math.log(2)])


def test_a_transformer_and_the_same_one_with_another_dropout(tmp_path: Path) -> None:
    """NoiseAL's other pair of networks: trained whole, from the same pre-trained weights."""
    model = write(tmp_path / "bert")
    strong = Plugin(name="transformer", model=model, max_length=16)
    weak = {"name": "transformer", "model": model, "max_length": 16, "dropout": 0.5}
    examples = write_examples(tmp_path / "examples", 40, dev=10, noise=0.3)
    how = FitSpec(
        strong,
        Plugin(name="noiseal", weak=weak, warmup_epochs=1),
        TrainingConfig(epochs=2, batch_size=8),
        ("a", "b", "c"),
    )
    result = fit(job(examples, tmp_path / "out"), how)
    assert math.isfinite(result.loss)
    assert result.best_epoch == 2  # the first one is the warm-up
    table = Folder(str(tmp_path / "out")).read_table("dynamics", "part-00000.parquet").to_pandas()
    assert np.isfinite(table["quality"]).all()
    assert (table["label_probability_strong"] != table["label_probability_weak"]).any()
