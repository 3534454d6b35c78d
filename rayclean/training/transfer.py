"""Between the host and the device of the networks, so that neither waits for the other more often than it must.

Every copy of pageable memory and every question to the device (`.item()`, `.cpu()`, a boolean mask as an index) lets the
host wait until all work so far is done, and then the device waits for the host. So what a step reads goes over in one
copy from pinned memory, which the host does not wait for, and what the device computed comes back in one, which is
looked at when it is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ALIGNED = 16
"""Bytes between the places where tensors of a buffer may begin."""


@dataclass(frozen=True)
class Packed:
    """Tensors in one buffer of bytes."""

    buffer: Tensor
    """[bytes] uint8."""
    places: tuple[tuple[int, torch.dtype, torch.Size], ...]
    """Where each tensor begins, and what it is."""

    @classmethod
    def of(cls, tensors: Sequence[Tensor], pinned: bool) -> "Packed":
        """Copy tensors into a buffer; `pinned`: into memory from which a GPU copies by itself."""
        places, end = [], 0
        for tensor in tensors:
            places.append((end, tensor.dtype, tensor.shape))
            end += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        packed = cls(torch.empty(end, dtype=torch.uint8, pin_memory=pinned), tuple(places))
        for tensor, view in zip(tensors, packed.tensors(), strict=True):
            view.copy_(tensor)
        return packed

    def tensors(self) -> list[Tensor]:
        """Views of the buffer, in the order in which the tensors were packed."""
        return [
            self.buffer[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            for start, dtype, shape in self.places
        ]

    def on(self, device: torch.device) -> list[Tensor]:
        """The tensors on a device, by one copy that the host does not wait for."""
        return Packed(self.buffer.to(device, non_blocking=True), self.places).tensors()


class Outgoing:
    """Tensors of the host on their way to a device. Made in any thread; on a CPU nothing is copied.

    Args:
        tensors: of the host.
        device: where they go.
    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device):
        self.device = device
        self._here = list(tensors)
        self._packed: Packed | None = None
        if device.type == "cuda":
            with torch.cuda.device(device):  # a thread begins with the first device of the process
                self._packed = Packed.of(self._here, pinned=True)

    def arrived(self) -> list[Tensor]:
        """The tensors on the device."""
        return self._here if self._packed is None else self._packed.on(self.device)


class Incoming:
    """Values of the device on their way to the host, which waits for them no earlier than it asks.

    Args:
        values: tensors of one device, by name.
    """

    def __init__(self, values: Mapping[str, Tensor]):
        self._values = {name: value.detach() for name, value in values.items()}
        self._event: torch.cuda.Event | None = None
        first = next(iter(self._values.values()), None)
        if first is not None and first.is_cuda:
            flat = [value.contiguous().reshape(-1).view(torch.uint8) for value in self._values.values()]
            sent = torch.cat(flat)
            self._buffer = torch.empty(len(sent), dtype=torch.uint8, pin_memory=True)
            self._buffer.copy_(sent, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def numpy(self) -> dict[str, npt.NDArray[Any]]:
        """The values on the host."""
        if self._event is None:
            return {name: value.numpy() for name, value in self._values.items()}
        self._event.synchronize()
        found, start, content = {}, 0, self._buffer.numpy()
        for name, value in self._values.items():
            end = start + value.nbytes
            dtype = np.dtype(str(value.dtype).removeprefix("torch."))
            found[name] = content[start:end].copy().view(dtype).reshape(value.shape)
            start = end
        return found
