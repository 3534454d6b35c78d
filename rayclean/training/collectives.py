"""Collective operations among the workers of a training, for a single process and by `torch.distributed`
(gloo, nccl).

Rows are gathered with their ids and sorted by id, so every worker sees the same rows in the same order,
whatever the number of workers, and applies the same update to its replica of the per-example state.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

_Columns = dict[str, npt.NDArray[Any]]

BUCKET_ELEMENTS = 2**24
"""Number of gradient elements that are averaged in one message: few messages, without a second copy of all
gradients of a large network."""


class Collectives:
    """Collective operations of a single process; also the base class of `Distributed`."""

    rank: int = 0
    world_size: int = 1

    def gather(self, ids: npt.NDArray[np.int64], columns: _Columns) -> tuple[npt.NDArray[np.int64], _Columns]:
        """Gather the rows of all workers, sorted by id, without padding.

        Args:
            ids: [B] example ids of this worker, -1 = padding; B is the same on every worker.
            columns: [B, ...] each, any dtype; the same names, dtypes and trailing shapes on every worker.

        Returns:
            Ids [G] and columns [G, ...].
        """
        valid = ids != -1  # other negative numbers are ordinary ids
        order = np.argsort(ids[valid], kind="stable")
        return ids[valid][order], {name: column[valid][order] for name, column in columns.items()}

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Gather `rows` [R, ...] of every worker to [W x R, ...], by rank; the same shape and dtype on every
        worker. Rows in half precision become float32, so that their gradients are summed over workers in it.

        The operation is differentiable: the gradient of a row, on its worker, is the sum over the losses of
        all workers.
        """
        return rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows

    def from_first(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Broadcast the first worker's `values`; shape and dtype are the same on every worker."""
        return values

    def sum(self, values: Sequence[float]) -> npt.NDArray[np.float64]:
        """Sum over workers, element by element, in float64."""
        return np.asarray(values, dtype=np.float64)

    def total(self, count: Tensor) -> Tensor:
        """Sum of a count [] int64 over workers, on its device, for which the host does not wait."""
        return count

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over workers. A missing gradient becomes zero, with a single
        worker too, so that the optimiser behaves the same for any number of workers.
        """
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def barrier(self) -> None:
        """Wait for all workers."""


class Distributed(Collectives):
    """Collective operations over the initialised process group of `torch.distributed`."""

    def __init__(self, device: torch.device | str = "cpu"):
        """Join the group.

        Args:
            device: device of the backend's tensors (a GPU for nccl).
        """
        self.device = torch.device(device)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def gather(self, ids: npt.NDArray[np.int64], columns: _Columns) -> tuple[npt.NDArray[np.int64], _Columns]:
        """Gather ids and columns in one message of bytes, which preserves every dtype; the host waits for the device once."""
        rows = len(ids)
        packed = {"": ids, **columns}
        data = np.concatenate(
            [np.ascontiguousarray(column).reshape(-1).view(np.uint8) for column in packed.values()]
        )
        sent = torch.from_numpy(data).to(self.device, non_blocking=True)
        received = sent.new_empty(self.world_size, len(sent))
        dist.all_gather(list(received.unbind()), sent)
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in packed}
        for content in received.cpu().numpy():
            start = 0
            for name, column in packed.items():
                part = content[start : start + column.nbytes].copy().view(column.dtype)
                parts[name].append(part.reshape(rows, *column.shape[1:]))
                start += column.nbytes
        gathered = {name: np.concatenate(part) for name, part in parts.items()}
        return super().gather(gathered.pop(""), gathered)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Gather by an all-gather whose backward pass sums each row's gradient over the workers."""
        rows = super().gather_rows(rows)
        gathered: Tensor = _GatherRows.apply(rows.contiguous(), self.rank)  # type: ignore[no-untyped-call]
        return gathered

    def from_first(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Broadcast the values as bytes."""
        packed = torch.from_numpy(np.ascontiguousarray(values).reshape(-1).view(np.uint8).copy())
        packed = packed.to(self.device)
        dist.broadcast(packed, 0)
        return packed.cpu().numpy().view(values.dtype).reshape(values.shape)

    def sum(self, values: Sequence[float]) -> npt.NDArray[np.float64]:
        """Sum by an all-reduce."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return np.asarray(total.cpu().numpy())

    def total(self, count: Tensor) -> Tensor:
        """Sum by an all-reduce."""
        total = count.clone()
        dist.all_reduce(total)
        return total

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average bucket by bucket, in the order of the parameters."""
        bucket: list[Tensor] = []
        for parameter in parameters:
            super().average_gradients([parameter])
            assert parameter.grad is not None
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= BUCKET_ELEMENTS:
                self._average(bucket)
                bucket = []
        if bucket:
            self._average(bucket)

    def barrier(self) -> None:
        """Wait by an all-reduce that every worker must join."""
        self.sum([0.0])

    def _average(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


class _GatherRows(torch.autograd.Function):
    """All-gather whose backward pass sums the gradient of every row over the workers and returns each
    worker's rows.

    PyTorch's `torch.distributed.nn.functional.all_gather` is deprecated, and its successor needs a
    reduce-scatter, which some backends lack.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int) -> Tensor:
        """Gather the rows [W x R, ...] of all workers."""
        ctx.rank, ctx.rows = rank, len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Compute the gradient [R, ...] of this worker's rows."""
        (gradient,) = gradients
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None
