"""AdamW of few rows at a time is AdamW of the whole table."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rayclean.training.row_adam import RowAdamW

Reads = list[set[int]]


@settings(max_examples=60, deadline=None)
@given(
    reads=st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=6), min_size=1, max_size=40),
    decay=st.sampled_from([0.0, 0.01, 0.3]),
    seed=st.integers(0, 1000),
)
def test_rows_move_as_by_adamw_of_the_whole_table(reads: Reads, decay: float, seed: int) -> None:
    """A row that is read moves on while it is not read, by momentum and decay, as in PyTorch's optimiser."""
    torch.manual_seed(seed)
    start, goal = torch.randn(12, 3), torch.randn(12, 3)
    dense = nn.Parameter(start.clone())
    dense.grad = torch.zeros_like(dense)
    optimizer = torch.optim.AdamW([dense], lr=1.0, weight_decay=decay)
    rows_alone = RowAdamW(start, len(reads), decay)
    for step, numbers in enumerate(reads):
        rate, rows = 0.05 * (1 - step / len(reads)), torch.tensor(sorted(numbers))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(((dense[rows] - goal[rows]) ** 2).sum())
        optimizer.step()
        leaf = rows_alone.take(rows)
        torch.autograd.backward(((leaf - goal[rows]) ** 2).sum())
        rows_alone.step(rate)
        torch.testing.assert_close(rows_alone.whole()[rows], dense[rows].detach(), rtol=1e-4, atol=1e-5)
    read = sorted(set().union(*reads))
    torch.testing.assert_close(rows_alone.whole()[read], dense[read].detach(), rtol=1e-4, atol=1e-5)
    never = [row for row in range(12) if row not in read]
    assert torch.equal(rows_alone.whole()[never], start[never])


def test_golden_steps() -> None:
    """Gradient 1 in the first of two steps at rate .1: -.1, then by momentum .1 c r m / sqrt(v) further."""
    optimizer = RowAdamW(torch.zeros(2, 1), 2, 0.0)
    for row in (0, 1):
        leaf = optimizer.take(torch.tensor([row]))
        leaf.grad = torch.ones(1, 1)
        optimizer.step(0.1)
    second = 0.1 * (0.09 / (1 - 0.81)) / (0.000999 / (1 - 0.998001)) ** 0.5
    assert optimizer.whole()[0, 0].item() == pytest.approx(-0.1 - second, rel=1e-5)
