"""A worker of a training: its networks, data, device and collectives, and the forward passes of its
networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayclean.methods.batch import Output
from rayclean.models.base import Inputs
from rayclean.models.precision import Autocast
from rayclean.training.batches import OutgoingInputs, targets_of
from rayclean.training.collectives import Collectives
from rayclean.training.inputs import Rows
from rayclean.training.job_data import JobData, Part

EVALUATION_ROWS = 256
"""Number of rows per batch in evaluation mode."""


@dataclass(frozen=True)
class Worker:
    """The objects that all training steps of one worker share."""

    networks: nn.ModuleDict
    data: JobData
    collectives: Collectives
    device: torch.device
    autocast: Autocast
    """Factory of the context of every forward pass: reduced precision, or none."""

    def read(
        self, part: Part, chosen: Rows, names: Sequence[str] | None = None, other: Part | None = None
    ) -> tuple[dict[str, Inputs], list[Tensor]]:
        """What networks (all, or those of some names) read of some rows of a part, and what they learn of them, on the
        device.

        Args:
            part: training or development examples.
            chosen: [B] the rows.
            names: of networks.
            other: the same examples with other labels, which then follow.
        """
        inputs = self.data.batch(part, chosen, names)
        targets = [targets_of(each, chosen, inputs) for each in (part, other) if each is not None]
        return OutgoingInputs(inputs, targets, self.device).arrived()

    def step(self) -> torch.autocast:
        """The context of the forward passes of one step: weights that autocast has cast for one of them are kept for the
        others. Nothing else runs in reduced precision in it.
        """
        return torch.autocast(self.device.type, enabled=False)

    def forward(self, name: str, inputs: Inputs) -> Output:
        """Features and logits of one network; logits are in float32 (float64 if the network is). No gradient is
        computed in evaluation mode.
        """
        with self.autocast(), self._gradient(name):
            features, logits = self.networks[name](inputs)
            return Output(features, _at_least_single(logits))

    def classify(self, name: str, features: Tensor) -> Tensor:
        """Logits [M, K] of refined features [M, D] by one network, in float32 or float64."""
        with self.autocast(), self._gradient(name):
            logits: Tensor = self.networks[name].classify(features)  # type: ignore[operator]
        return _at_least_single(logits)

    def _gradient(self, name: str) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.networks[name].training)

    def again(self, name: str, inputs: Inputs, rows: Rows) -> Output:
        """Run one network again on some rows [M] of its inputs; an empty batch is not run, as some networks fail on it."""
        if not len(rows):
            head: nn.Linear = self.networks[name].head  # type: ignore[assignment]
            return Output(
                head.weight.new_zeros(0, head.in_features), head.weight.new_zeros(0, head.out_features)
            )
        places = torch.from_numpy(rows).to(self.device, non_blocking=True)
        chosen = Inputs({key: values.index_select(0, places) for key, values in inputs.items()})
        if inputs.lengths is not None:  # shorter rows need less padding
            chosen.lengths = inputs.lengths[rows]
            longest = int(chosen.lengths.max())
            chosen.update({key: values[:, :longest] for key, values in chosen.items()})
        return self.forward(name, chosen)


def _at_least_single(logits: Tensor) -> Tensor:
    """Logits in float32, regardless of autocast, or in float64 if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
