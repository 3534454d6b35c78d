"""One worker at work: its networks, its data, its place among all workers, and how it runs a network."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayclean.methods.base import Output
from rayclean.models.precision import Autocast
from rayclean.training.collectives import Collectives
from rayclean.training.inputs import Rows
from rayclean.training.job_data import JobData, Part

EVALUATION_ROWS = 256
"""Rows per batch where nothing is learnt."""

Inputs = dict[str, Tensor]
"""What one network reads of some examples, [B, ...] each."""


@dataclass(frozen=True)
class Worker:
    """What every step of this worker has at hand."""

    networks: nn.ModuleDict
    data: JobData
    collectives: Collectives
    device: torch.device
    autocast: Autocast
    """Opens the context of every forward pass: reduced precision, or nothing."""

    def inputs(self, part: Part, chosen: Rows) -> dict[str, Inputs]:
        """By network: its inputs of some rows of a part, on the device."""
        return self.to_device(self.data.batch(part, chosen))

    def inputs_of(self, name: str, part: Part, chosen: Rows) -> Inputs:
        """Like `inputs`, of one network."""
        return self.to_device({name: self.data.inputs[name].batch(part.rows[name][chosen])})[name]

    def to_device(self, inputs: Mapping[str, Inputs]) -> dict[str, Inputs]:
        """The same inputs where the networks are; what several networks share is moved once."""
        moved: dict[int, Inputs] = {}
        for batch in inputs.values():
            if id(batch) not in moved:
                moved[id(batch)] = {name: value.to(self.device) for name, value in batch.items()}
        return {name: moved[id(batch)] for name, batch in inputs.items()}

    def forward(self, name: str, inputs: Inputs) -> Output:
        """Features and logits of one network, logits in float32 (float64 where the network is)."""
        with self.autocast():
            features, logits = self.networks[name](inputs)
            return Output(features, _at_least_single(logits))

    def classify(self, name: str, features: Tensor) -> Tensor:
        """Logits [M, K], likewise, that one network gives features [M, D]."""
        with self.autocast():
            logits: Tensor = self.networks[name].classify(features)  # type: ignore[operator]
        return _at_least_single(logits)

    def again(self, name: str, inputs: Inputs, mask: Tensor) -> Output:
        """One network once more, on those of the rows that `mask` [B] names. None are not handed to it: it may not
        bear an empty batch.
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
    """Losses are computed in float32, whatever autocast chose, or in the network's own double precision."""
    return logits if logits.dtype == torch.float64 else logits.float()
