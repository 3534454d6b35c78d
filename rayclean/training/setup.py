"""Set-up of a job before its first step: method, networks, views, optimiser, learning rates, seeds."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from rayclean.config import Plugin
from rayclean.methods import METHODS
from rayclean.methods.base import Method
from rayclean.models import ENCODERS
from rayclean.models.base import Encoder
from rayclean.training.inputs import TokenInputs
from rayclean.training.job import FitJob, FitSpec
from rayclean.training.job_data import JobData
from rayclean.training.views import Views


def build_method(job: FitJob, spec: FitSpec) -> Method:
    """The method of the specification, with the job's seed."""
    return METHODS.build(spec.method, len(spec.labels), job.seed)


def build_networks(encoders: Mapping[str, Plugin], num_classes: int) -> nn.ModuleDict:
    """One network per name, in one module."""
    networks = {}
    for name, encoder in encoders.items():
        networks[name] = ENCODERS.build(encoder, num_classes)
    return nn.ModuleDict(networks)


def keep_used_tokens(networks: nn.ModuleDict, data: JobData, views: Mapping[str, Views]) -> None:
    """Tell every network which token ids occur in the job's examples, unless views may bring others."""
    for name, network in networks.items():
        inputs = data.inputs[name]
        if isinstance(inputs, TokenInputs) and not (name in views and views[name].adds_tokens):
            assert isinstance(network, Encoder)
            rows = np.concatenate([data.train.rows[name], data.dev.rows[name]])
            network.keep_tokens(inputs.used(rows))


def build_views(
    method: Method,
    networks: nn.ModuleDict,
    encoders: Mapping[str, Plugin],
    data: JobData,
    job: FitJob,
) -> dict[str, Views]:
    """Views by network, one object for networks that read the same inputs; {} where the method
    has no views.
    """
    made: dict[int, Views] = {}
    for name in method.networks if method.views else ():
        inputs, network = data.inputs[name], networks[name]
        assert isinstance(network, Encoder)
        if id(inputs) not in made:
            made[id(inputs)] = Views(
                method.views, inputs, network, encoders[name], job.data.examples, job.seed
            )
    return {name: made[id(data.inputs[name])] for name in method.networks} if made else {}


def build_optimizer(
    networks: nn.ModuleDict, encoders: Mapping[str, Plugin], spec: FitSpec
) -> torch.optim.AdamW:
    """AdamW (Loshchilov, Hutter, 2019); biases and LayerNorm do not decay.

    The configured learning rate is that of the configured encoder; a network of another one has its own
    default.
    """
    groups = []
    for name, network in networks.items():
        rate: float = network.default_learning_rate  # type: ignore[assignment]
        if spec.training.learning_rate is not None and encoders[name] == spec.encoder:
            rate = spec.training.learning_rate
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        for decays in (True, False):
            chosen = [parameter for parameter in trained if (parameter.ndim > 1) == decays]
            decay = spec.training.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak_lr": rate, "weight_decay": decay})
    # Fused: one pass over each tensor instead of ten, on a CPU five to eight times as fast for a large
    # embedding table.
    return torch.optim.AdamW(groups, fused=True)


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a 0-based step: linear up over `warmup` of the steps, then linear
    down to 0.

    >>> [round(schedule(step, 10, 0.2), 3) for step in (0, 1, 2, 5, 9)]
    [0.5, 1.0, 1.0, 0.625, 0.125]
    """
    rising = math.ceil(total * warmup)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(total - rising, 1)


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of a worker's generators for an epoch (dropout), so that resuming at an epoch boundary repeats it
    exactly.
    """
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
