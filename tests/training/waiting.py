"""Counts how often the host would wait for a device, on a CPU, where nothing waits.

A tensor is one of the device if it is a parameter, was moved or made there (any call that names a device), or was computed
from one of these. Counted is what asks the device for values: `.item()` and its like, `.cpu()`, `.numpy()`, `.tolist()`,
sizes that depend on values (`nonzero`, boolean masks as indices, `masked_select`, `unique`), `equal`, and copies between
host and device that are not `non_blocking`.
"""

from collections import Counter
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKED_BY_NAME = {"cpu", "numpy", "tolist", "__array__"}
"""Methods that no operator follows where the device is a CPU."""
ASKED_BY_OPERATOR = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "equal", "is_nonzero",
    "repeat_interleave",
}  # fmt: skip
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


def on_device(value: Any) -> bool:
    """Whether a value is a tensor of the device."""
    return isinstance(value, torch.nn.Parameter) or bool(getattr(value, "_on_device", False))


def tensors(values: Any) -> list[Tensor]:
    """All tensors among nested values."""
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def mark(values: Any, device: bool = True) -> None:
    """Note that tensors are of the device, or of the host."""
    for tensor in tensors(values):
        tensor._on_device = device  # type: ignore[attr-defined]


class Waits:
    """While it is entered, `counted` grows by the name of everything for which the host would wait."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._modes = (_Operators(self.counted), _Functions(self.counted))

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)


class _Functions(TorchFunctionMode):
    """Calls of Python."""

    def __init__(self, counted: Counter[str]):
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        known = any(map(on_device, tensors((args, kwargs))))
        if name in ASKED_BY_NAME and on_device(args[0]):
            self.counted[name] += 1
        found = func(*args, **kwargs)
        if name in ("cpu", "numpy"):
            return found.clone() if isinstance(found, Tensor) else found
        device = kwargs.get("device", next((each for each in args if isinstance(each, torch.device)), None))
        if name == "to" and device is not None and not on_device(args[0]):
            self.counted["to"] += not kwargs.get("non_blocking", False)
            found = found.view_as(found)  # on a CPU it is the tensor itself, which is one of the host
        if device is not None:
            mark(found)
        elif name == "_pack_padded_sequence":
            mark(found[0], known)
            mark(found[1], False)
        return found


class _Operators(TorchDispatchMode):
    """What runs below, in the backward pass as well."""

    def __init__(self, counted: Counter[str]):
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        known = [each for each in tensors((args, kwargs)) if on_device(each)]
        if known and name in ASKED_BY_OPERATOR:
            self.counted[name] += 1
        elif known and name in INDEXED and any(each.dtype == torch.bool for each in tensors(args[1])):
            self.counted["boolean index"] += 1
        found = func(*args, **kwargs)
        if known:
            mark(found)
        return found
