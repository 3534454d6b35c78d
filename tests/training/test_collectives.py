"""What workers exchange, by one worker alone; several of them are in `test_exactness.py`."""

import pytest
import torch

from rayclean.training.collectives import Collectives


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_in_half_precision_are_gathered_in_single(dtype: torch.dtype) -> None:
    """So that gradients are summed over workers in it, and one worker computes as several do."""
    rows = torch.tensor([[1.0, 2.0]], dtype=dtype, requires_grad=True)
    gathered = Collectives().gather_rows(rows)
    assert gathered.dtype == torch.float32
    gathered.sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_rows_stay_as_they_are(dtype: torch.dtype) -> None:
    rows = torch.ones(2, 3, dtype=dtype)
    assert Collectives().gather_rows(rows) is rows
