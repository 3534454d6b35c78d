"""Set-up of a job and of its stages: method, networks, views, optimisers, learning rates, seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rayclean.config import Plugin
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.methods import METHODS
from rayclean.methods.base import Method, Stage
from rayclean.models.base import Encoder
from rayclean.models.ensemble import Ensemble
from rayclean.models.loading import new_network
from rayclean.schema import Label, LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.training.inputs import TokenInputs
from rayclean.training.job import FitJob, FitSpec
from rayclean.training.job_data import JobData, features_read, open_each
from rayclean.training.token_shards import TokenShards
from rayclean.training.views import Views


def build_task(spec: FitSpec) -> Task:
    """The task of the specification, with its classes."""
    labels = LabelSet(Label(index, name, name) for index, name in enumerate(spec.labels))
    return TASKS.build(spec.task, labels)


def build_method(job: FitJob, spec: FitSpec) -> Method:
    """The method of the specification, with the job's seed.

    Raises:
        ConfigError: it cannot learn from the labels of the task.
    """
    check_label_form(spec.method, spec.task)
    return METHODS.build(spec.method, len(spec.labels), job.seed)


def token_shards(jobs: Sequence[FitJob], spec: FitSpec) -> list[TokenShards]:
    """The tokens that the networks of jobs read; none of those that read features."""
    found: list[TokenShards] = []
    task = build_task(spec)
    for job in {job.data: job for job in jobs}.values():
        for encoder in build_method(job, spec).encoders(spec.encoder).values():
            shards = TokenShards(job.data.examples, encoder, task.per_token)
            if features_read(job, encoder, task, spec.encoder) is None and shards not in found:
                found.append(shards)
    return found


def prepare_inputs(job: FitJob, spec: FitSpec) -> None:
    """Put what the networks of a job read into the cache of this node, where it is not there: features, or tokens, of which only
    those are made here that nobody has made before.
    """
    if not Folder(job.data.examples).shards():  # `fit` says so in words
        return
    encoders = build_method(job, spec).encoders(spec.encoder)
    open_each(job, encoders, build_task(spec), spec.encoder)


def check_label_form(method: Plugin, task: Plugin) -> None:
    """Whether a method learns from labels of the form that a task has.

    Raises:
        ConfigError: it does not.
    """
    form = TASKS.resolve(task.name).label_form
    if form not in METHODS.resolve(method.name).label_forms:
        able = sorted(name for name in METHODS if form in METHODS.resolve(name).label_forms)
        raise ConfigError(
            f"method {method.name!r} cannot learn from the labels of the task {task.name!r}; choose "
            f"{' or '.join(able)}"
        )


def build_networks(
    encoders: Mapping[str, Plugin], outputs: int, seed: int, stage: int = 0, per_token: bool = False
) -> nn.ModuleDict:
    """One network per name, in one module, with the initial weights of a stage (its place among all)."""
    torch.manual_seed(seed if stage == 0 else _derived(seed, 0, stage))  # no epoch has the number 0
    return nn.ModuleDict(
        {name: new_network(encoder, outputs, per_token) for name, encoder in encoders.items()}
    )


def predictor(networks: nn.ModuleDict, method: Method, encoders: Mapping[str, Plugin]) -> Encoder:
    """The network that predicts, or the ensemble of those that predict together.

    Raises:
        ConfigError: they are of different encoders.
    """
    names = method.predictors
    if len({repr(encoders[name]) for name in names}) > 1:
        raise ConfigError(
            f"method: the networks {', '.join(names)} predict together, so they must be of one encoder; "
            "give them the same options"
        )
    members: list[Encoder] = [networks[name] for name in names]  # type: ignore[misc]
    return members[0] if len(members) == 1 else Ensemble.of(members, encoders[names[0]].name)


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
                method.views, inputs, network, encoders[name], job.data.examples, job.seed,
                keeps_originals=method.keeps_originals,
            )  # fmt: skip
    return {name: made[id(data.inputs[name])] for name in method.networks} if made else {}


def build_optimizers(
    networks: nn.ModuleDict, encoders: Mapping[str, Plugin], spec: FitSpec
) -> dict[str, torch.optim.AdamW]:
    """AdamW (Loshchilov, Hutter, 2019) for every network; biases and LayerNorm do not decay.

    The configured learning rate is that of the configured encoder; a network of another one has its own
    default.
    """
    optimizers = {}
    for name, network in networks.items():
        rate: float = network.default_learning_rate  # type: ignore[assignment]
        if spec.training.learning_rate is not None and encoders[name] == spec.encoder:
            rate = spec.training.learning_rate
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = []
        for decays in (True, False):
            chosen = [parameter for parameter in trained if (parameter.ndim > 1) == decays]
            decay = spec.training.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak_lr": rate, "weight_decay": decay})
        # Fused: one pass over each tensor instead of ten, on a CPU five to eight times as fast for a large
        # embedding table.
        optimizers[name] = torch.optim.AdamW(groups, fused=True)
    return optimizers


@dataclass(frozen=True)
class StagePlan:
    """A stage and its place in the whole training."""

    stage: Stage
    number: int
    """Its place among all stages, from 0."""
    first: int
    """Its first epoch, from 1."""
    epochs: int
    schedule_first: int
    """First epoch of the schedule that it belongs to: its own, or that of the stage whose networks it carries on."""
    schedule_epochs: int
    """Epochs of that schedule, all stages that carry on included."""
    total: int
    """Epochs of all stages."""

    @property
    def last(self) -> int:
        """Its last epoch."""
        return self.first + self.epochs - 1

    def rate(self, epoch: int, step: int, steps: int, warmup: float) -> float:
        """Share of the peak learning rate at a 0-based step of an epoch's `steps`."""
        if self.stage.constant_rate:
            return 1.0
        done = (epoch - self.schedule_first) * steps + step
        return schedule(done, self.schedule_epochs * steps, warmup)


def plan_stages(stages: Sequence[Stage], default_epochs: int) -> list[StagePlan]:
    """Epochs of every stage, counted through all of them.

    >>> plans = plan_stages([Stage("a", 2), Stage("b", fresh=False), Stage("c", 1)], 3)
    >>> [(plan.first, plan.last, plan.schedule_first, plan.schedule_epochs) for plan in plans]
    [(1, 2, 1, 5), (3, 5, 1, 5), (6, 6, 6, 1)]

    Args:
        stages: of a method.
        default_epochs: of a stage that names none.

    Raises:
        ValueError: a name occurs twice, or carried networks would need other outputs.
    """
    if len({stage.name for stage in stages}) < len(stages):
        raise ValueError(f"stages must have different names, got {[stage.name for stage in stages]}")
    counts = [stage.epochs or default_epochs for stage in stages]
    begins = [number for number, stage in enumerate(stages) if stage.fresh or number == 0]
    plans = []
    for number, stage in enumerate(stages):
        begin = max(place for place in begins if place <= number)
        end = min((place for place in begins if place > number), default=len(stages))
        if stage.outputs != stages[begin].outputs:
            raise ValueError(f"stage {stage.name} carries on networks of {stages[begin].outputs} outputs")
        plans.append(
            StagePlan(
                stage, number, sum(counts[:number]) + 1, counts[number], sum(counts[:begin]) + 1,
                sum(counts[begin:end]), sum(counts),
            )
        )  # fmt: skip
    return plans


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
    return _derived(seed, epoch, rank)


def _derived(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
