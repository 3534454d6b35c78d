"""Per-example scalars of a method, keyed by `example_id`, replicated on every worker and part of the
checkpoint.

There are no [N, K] or [N, T] arrays: LANE's 20 bytes per example are 200 MB for 10^7 examples.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.functional.lookup import lookup
from rayclean.schema import TRAINED_LABEL

_RESERVED = ("example_id", "given_label", TRAINED_LABEL)
"""Names that no method's column may have. The first two are read-only columns that a method finds beside its own
(`given_label` where a label is one class); the last one is written beside them."""


class ExampleState:
    """A table of columns [N], with rows in the order of the sorted ids."""

    def __init__(
        self,
        ids: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64] | None,
        columns: Mapping[str, tuple[str, float]],
    ):
        """Create the columns with their initial values.

        Args:
            ids: [N] sorted and unique.
            labels: [N] the classes trained on; None where a label is no single class.
            columns: name -> (NumPy dtype, initial value), as `Method.state()` returns.
        """
        assert (np.diff(ids) > 0).all(), "ids must be sorted and unique"
        assert not set(_RESERVED) & set(columns), f"{_RESERVED} are reserved"
        self.initial = {name: np.dtype(dtype).type(value) for name, (dtype, value) in columns.items()}
        self.own = {name: np.full(len(ids), value) for name, value in self.initial.items()}
        read_only = {"example_id": ids.view()} | ({} if labels is None else {"given_label": labels.view()})
        for column in read_only.values():
            column.flags.writeable = False
        self.ids = read_only["example_id"]
        self.columns: dict[str, npt.NDArray[Any]] = {**read_only, **self.own}

    def rows(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Positions of `ids` [B] in the columns.

        Raises:
            KeyError: an id is not in the table.
        """
        rows, found = lookup(self.ids, ids)
        if not found.all():
            raise KeyError(
                f"{int((~found).sum())} ids are not in the training set, among them {ids[~found][:3].tolist()}"
            )
        return rows

    def take(self, positions: npt.NDArray[np.int64], device: torch.device | str = "cpu") -> "StateRows":
        """Entries of the method's columns at `positions` [B]; the initial value for position -1 (padding)."""
        return StateRows(self, positions, torch.device(device))

    def take_over(self, from_first: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
        """Replace every worker's columns by those of the first (`Collectives.from_first`): the rounding of
        another processor could change the outcome of iterative fits, such as a mixture.
        """
        for column in self.own.values():
            column[:] = from_first(column)

    def load(self, ids: npt.NDArray[np.int64], columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Load the columns of a checkpoint.

        Raises:
            ValueError: the checkpoint has other examples or columns.
        """
        if not np.array_equal(ids, self.ids) or set(columns) != set(self.own):
            raise ValueError(
                "the checkpoint holds other examples or other columns than this training set and method"
            )
        for name, values in columns.items():
            self.own[name][:] = values


class StateRows(Mapping[str, Tensor]):
    """Entries [B] of columns on a device; each is read, and copied there, when it is first asked for."""

    def __init__(self, state: ExampleState, positions: npt.NDArray[np.int64], device: torch.device):
        self._state, self._positions, self._device = state, positions, device
        self._read: dict[str, npt.NDArray[Any]] = {}
        self._copied: dict[str, Tensor] = {}

    def on_host(self, name: str) -> npt.NDArray[Any]:
        """The entries of one column on the host."""
        if name not in self._read:
            values = self._state.own[name][self._positions]
            values[self._positions < 0] = self._state.initial[name]
            self._read[name] = values
        return self._read[name]

    def forget(self) -> None:
        """The columns have changed: read them anew."""
        self._read, self._copied = {}, {}

    def __getitem__(self, name: str) -> Tensor:
        """The entries of one column on the device."""
        if name not in self._copied:
            self._copied[name] = torch.from_numpy(self.on_host(name)).to(self._device, non_blocking=True)
        return self._copied[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the columns."""
        return iter(self._state.own)

    def __len__(self) -> int:
        """Number of columns."""
        return len(self._state.own)
