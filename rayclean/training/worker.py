"""A worker of a training: its networks, data and device, its place among all workers, and how it runs a
network.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayclean.methods.batch import Output
from rayclean.models.precision import Autocast
from rayclean.training.collectives import Collectives
from rayclean.training.inputs import Rows
from rayclean.training.job_data import JobData, Part

EVALUATION_ROWS = 256
"""Rows per batch where nothing is learnt."""

Inputs = dict[str, Tensor]
"""Tensors [B, ...] by name that one network reads."""


@dataclass(frozen=True)
class Worker:
    """Everything that the steps of one worker share."""

    networks: nn.ModuleDict
    data: JobData
    collectives: Collectives
    device: torch.device
    autocast: Autocast
    """Opens the context of every forward pass: reduced precision, or nothing."""

    def inputs(self, part: Part, chosen: Rows) -> dict[str, Inputs]:
        """Inputs of some rows of a part on the device, by network."""
        return self.to_device(self.data.batch(part, chosen))

    def inputs_of(self, name: str, part: Part, chosen: Rows) -> Inputs:
        """Inputs of some rows of a part on the device, for one network."""
        return self.to_device({name: self.data.inputs[name].batch(part.rows[name][chosen])})[name]

    def to_device(self, inputs: Mapping[str, Inputs]) -> dict[str, Inputs]:
        """Inputs moved to the device of the networks; those that several networks share are moved once."""
        moved: dict[int, Inputs] = {}
        for batch in inputs.values():
            if id(batch) not in moved:
                moved[id(batch)] = {name: value.to(self.device) for name, value in batch.items()}
        return {name: moved[id(batch)] for name, batch in inputs.items()}

    def forward(self, name: str, inputs: Inputs) -> Output:
        """Features and logits of one network, logits in float32 (float64 where the network is); without
        gradient where it is in evaluation mode.
        """
        with self.autocast(), self._gradient(name):
            features, logits = self.networks[name](inputs)
            return Output(features, _at_least_single(logits))

    def classify(self, name: str, features: Tensor) -> Tensor:
        """Logits [M, K], in float32 or float64, that one network gives refined features [M, D]."""
        with self.autocast(), self._gradient(name):
            logits: Tensor = self.networks[name].classify(features)  # type: ignore[operator]
        return _at_least_single(logits)

    def _gradient(self, name: str) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.networks[name].training)

    def again(self, name: str, inputs: Inputs, mask: Tensor) -> Output:
        """Run one network once more, on the rows of `mask` [B]. An empty batch is not handed to it, since not
        every network can compute with one.
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
    """Logits in float32, whatever autocast chose, or in double precision where the network is."""
    return logits if logits.dtype == torch.float64 else logits.float()
