"""A worker of a training: its networks, data, device and collectives, and the forward passes of its
networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayclean.methods.batch import Output
from rayclean.models.precision import Autocast
from rayclean.tasks.base import IGNORED
from rayclean.training.collectives import Collectives
from rayclean.training.inputs import Rows
from rayclean.training.job_data import JobData, Part

EVALUATION_ROWS = 256
"""Number of rows per batch in evaluation mode."""

Inputs = dict[str, Tensor]
"""The inputs of one network, as tensors [B, ...] by name."""


@dataclass(frozen=True)
class Worker:
    """The objects that all training steps of one worker share."""

    networks: nn.ModuleDict
    data: JobData
    collectives: Collectives
    device: torch.device
    autocast: Autocast
    """Factory of the context of every forward pass: reduced precision, or none."""

    def inputs(self, part: Part, chosen: Rows) -> dict[str, Inputs]:
        """Inputs of some rows of a part, on the device, by network."""
        return self.to_device(self.data.batch(part, chosen))

    def inputs_of(self, name: str, part: Part, chosen: Rows) -> Inputs:
        """Inputs of some rows of a part, on the device, for one network."""
        return self.to_device({name: self.data.inputs[name].batch(part.rows[name][chosen])})[name]

    def targets(self, part: Part, chosen: Rows, inputs: Mapping[str, Inputs]) -> Tensor:
        """What networks learn of some rows of a part, on the device; without the words that one of the networks
        does not read.
        """
        targets = torch.from_numpy(part.targets(chosen)).to(self.device)
        for batch in inputs.values():
            if "first_tokens" in batch:
                targets = targets.masked_fill(batch["first_tokens"] < 0, IGNORED)
        return targets

    def to_device(self, inputs: Mapping[str, Inputs]) -> dict[str, Inputs]:
        """Move inputs to the device of the networks; inputs that several networks share are moved once."""
        moved: dict[int, Inputs] = {}
        for batch in inputs.values():
            if id(batch) not in moved:
                moved[id(batch)] = {name: value.to(self.device) for name, value in batch.items()}
        return {name: moved[id(batch)] for name, batch in inputs.items()}

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

    def again(self, name: str, inputs: Inputs, mask: Tensor) -> Output:
        """Run one network again on the rows of `mask` [B]; an empty batch is not run, as some networks fail
        on it.
        """
        if not mask.any():
            head: nn.Linear = self.networks[name].head  # type: ignore[assignment]
            return Output(
                head.weight.new_zeros(0, head.in_features), head.weight.new_zeros(0, head.out_features)
            )
        chosen = {key: values[: len(mask)][mask] for key, values in inputs.items()}
        if "attention_mask" in chosen:  # shorter rows need less padding
            longest = int(chosen["attention_mask"].sum(1).max())
            chosen = {key: values[:, :longest] for key, values in chosen.items()}
        return self.forward(name, chosen)


def _at_least_single(logits: Tensor) -> Tensor:
    """Logits in float32, regardless of autocast, or in float64 if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
