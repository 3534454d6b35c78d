"""The parts of the loop that are the same whatever happens around them: building, one batch, evaluating, writing."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayclean.artifacts import Folder
from rayclean.config import Plugin
from rayclean.methods import METHODS
from rayclean.methods.base import Method, Output, StepBatch
from rayclean.models import ENCODERS
from rayclean.models.base import Encoder
from rayclean.plugins import build_options, resolve
from rayclean.training.checkpoint import Progress
from rayclean.training.collectives import Collectives
from rayclean.training.data import JobData
from rayclean.training.job import FitJob, FitResult, FitSpec
from rayclean.training.sampler import share
from rayclean.training.state import ExampleState
from rayclean.training.views import Views

EVALUATION_ROWS = 256
DYNAMICS_ROWS = 65536

Autocast = Callable[[], AbstractContextManager[Any]]


def build_method(job: FitJob, spec: FitSpec) -> Method:
    """The method of the specification, with the job's seed."""
    cls = resolve("method", METHODS, spec.method.name)
    method: Method = cls(build_options("method", cls, spec.method.options), len(spec.labels), job.seed)
    return method


def build_networks(encoders: Mapping[str, Plugin], num_classes: int) -> nn.ModuleDict:
    """One network per name, in one module."""
    networks = {}
    for name, encoder in encoders.items():
        cls = resolve("encoder", ENCODERS, encoder.name)
        networks[name] = cls(build_options("encoder", cls, encoder.options), num_classes)
    return nn.ModuleDict(networks)


def build_views(
    method: Method,
    networks: nn.ModuleDict,
    encoders: Mapping[str, Plugin],
    data: JobData,
    job: FitJob,
) -> dict[str, Views]:
    """By network, the same object where they read the same; {} where the method wants none."""
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

    The configured learning rate is that of the configured encoder; a network of another one has its own default.
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
    return torch.optim.AdamW(groups)


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a 0-based step: linear up over `warmup` of the steps, then linear down to 0.

    >>> [round(schedule(step, 10, 0.2), 3) for step in (0, 1, 2, 5, 9)]
    [0.5, 1.0, 1.0, 0.625, 0.125]
    """
    rising = math.ceil(total * warmup)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(total - rising, 1)


def autocasting(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> Autocast:
    """A context for forward passes. `auto` is bfloat16 on GPUs that compute in it, float32 elsewhere: few CPUs gain."""
    hardware = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" or (precision == "auto" and hardware):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of a worker's generators for an epoch (dropout): resuming at an epoch boundary repeats it exactly."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def step_batch(
    data: JobData,
    views: Mapping[str, Views],
    positions: npt.NDArray[np.int64],
    global_count: int,
    epoch: int,
    networks: nn.ModuleDict,
    collectives: Collectives,
    device: torch.device,
    autocast: Autocast,
) -> tuple[StepBatch, dict[str, dict[str, Tensor]]]:
    """This worker's rows of a global batch, and every network's inputs for them and their views.

    A padding row (-1) carries the inputs of the first training example, so that every network can compute with it
    whatever it does inside; its id is -1 and it is in no mean.
    """
    filled = np.maximum(positions, 0)
    valid = positions >= 0
    ids = np.where(valid, data.train.ids[filled], -1)
    if views:
        rewritten: dict[int, dict[str, Tensor]] = {}
        for name, each in views.items():
            if id(each) not in rewritten:
                rewritten[id(each)] = each.batch(ids, data.train.rows[name][filled], epoch)
        inputs = to_device({name: rewritten[id(each)] for name, each in views.items()}, device)
    else:
        inputs = to_device(data.batch(data.train, filled), device)

    def classify(name: str, features: Tensor) -> Tensor:
        with autocast():
            logits: Tensor = networks[name].classify(features)  # type: ignore[operator]
        return logits.float()

    def again(name: str, mask: Tensor) -> Output:
        return _again(networks[name], inputs[name], mask, autocast)

    batch = StepBatch(
        example_id=torch.from_numpy(ids).to(device),
        given_label=torch.from_numpy(data.train.labels[filled]).to(device),
        valid=torch.from_numpy(valid).to(device),
        world_size=collectives.world_size,
        global_count=global_count,
        total=lambda count: int(collectives.sum([count])[0]) if collectives.world_size > 1 else count,
        rank=collectives.rank,
        gather=collectives.gather_rows,
        classify=classify,
        again=again,
    )
    return batch, inputs


def _again(network: nn.Module, inputs: dict[str, Tensor], mask: Tensor, autocast: Autocast) -> Output:
    """Some of the rows once more; none are not handed to the network, which may not bear an empty batch."""
    if not mask.any():
        head: nn.Linear = network.head  # type: ignore[assignment]
        return Output(head.weight.new_zeros(0, head.in_features), head.weight.new_zeros(0, head.out_features))
    chosen = {name: values[: len(mask)][mask] for name, values in inputs.items()}
    if "attention_mask" in chosen:  # shorter rows need less padding
        longest = int(chosen["attention_mask"].sum(1).max())
        chosen = {name: values[:, :longest] for name, values in chosen.items()}
    with autocast():
        return forward(network, chosen)


def to_device(inputs: Mapping[str, dict[str, Tensor]], device: torch.device) -> dict[str, dict[str, Tensor]]:
    """Every network's inputs where the networks are; what they share is moved once."""
    moved: dict[int, dict[str, Tensor]] = {}
    for batch in inputs.values():
        if id(batch) not in moved:
            moved[id(batch)] = {name: value.to(device) for name, value in batch.items()}
    return {name: moved[id(batch)] for name, batch in inputs.items()}


def forward(network: nn.Module, inputs: dict[str, Tensor]) -> Output:
    """Features and logits, logits in float32."""
    features, logits = network(inputs)
    return Output(features, logits.float())


@torch.no_grad()
def evaluate(
    name: str,
    networks: nn.ModuleDict,
    data: JobData,
    collectives: Collectives,
    device: torch.device,
    autocast: Autocast,
) -> tuple[float | None, float | None]:
    """Mean cross-entropy and accuracy of the network `name` over all workers' shares of dev; None without dev."""
    part, inputs, rows = data.dev, data.inputs[name], data.dev.rows[name]
    if len(part.ids) == 0:
        return None, None
    network = networks[name].eval()
    mine = np.arange(collectives.rank, len(part.ids), collectives.world_size)
    lengths = inputs.lengths(rows[mine])
    if lengths is not None:
        mine = mine[np.argsort(lengths, kind="stable")]
    loss, right = 0.0, 0
    for start in range(0, len(mine), EVALUATION_ROWS):
        chosen = mine[start : start + EVALUATION_ROWS]
        labels = torch.from_numpy(part.labels[chosen]).to(device)
        with autocast():
            logits = forward(network, to_device({name: inputs.batch(rows[chosen])}, device)[name]).logits
        loss += float(F.cross_entropy(logits, labels, reduction="none").double().sum())
        right += int((logits.argmax(-1) == labels).sum())
    total_loss, total_right = collectives.sum([loss, right])
    return float(total_loss / len(part.ids)), float(total_right / len(part.ids))


@torch.no_grad()
def review(
    method: Method,
    state: ExampleState,
    networks: nn.ModuleDict,
    data: JobData,
    epoch: int,
    collectives: Collectives,
    device: torch.device,
    autocast: Autocast,
) -> None:
    """Let every network read all training examples in evaluation mode, and the method take note."""
    networks.eval()
    order = np.arange(len(state.ids))
    if (lengths := data.lengths(data.train)) is not None:
        order = np.argsort(lengths, kind="stable")
    size = EVALUATION_ROWS * collectives.world_size
    for start in range(0, len(order), size):
        mine = share(order[start : start + size], collectives.rank, collectives.world_size)
        filled = np.maximum(mine, 0)
        inputs = to_device(data.batch(data.train, filled), device)
        with autocast():
            outputs = {name: forward(network, inputs[name]) for name, network in networks.items()}
        labels = torch.from_numpy(data.train.labels[filled]).to(device)
        seen = {name: value.cpu().numpy() for name, value in method.judged(outputs, labels).items()}
        ids, seen = collectives.gather(np.where(mine >= 0, state.ids[filled], -1), seen)
        method.review(state.columns, state.rows(ids), seen, epoch)


def not_finite(job: FitJob, epoch: int, step: int, terms: dict[str, Tensor]) -> str:
    """What to say when a gradient is NaN or infinite."""
    values = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in terms.items())
    return (
        f"{job.name}: the gradient is not finite at epoch {epoch}, step {step} (loss terms on this worker: {values}); "
        "lower the learning rate, or set precision = 'float32' in the section that trains"
    )


def out_of_patience(progress: Progress, patience: int | None) -> bool:
    """Whether so many epochs brought no better development loss."""
    return patience is not None and progress.epoch - progress.best_epoch >= patience


def summarise(job: FitJob, key: str, progress: Progress, data: JobData, workers: int) -> FitResult:
    """What `result.json` says."""
    best, last = progress.history[progress.best_epoch - 1], progress.history[-1]
    training = [len(data.train.ids) / record["examples_per_second"] for record in progress.history]
    return FitResult(
        name=job.name,
        key=key,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        selected_by="dev_loss" if len(data.dev.ids) else "last",
        loss=last["loss"],
        dev_loss=best["dev_loss"],
        dev_accuracy=best["dev_accuracy"],
        train_examples=len(data.train.ids),
        dev_examples=len(data.dev.ids),
        truncated=max(inputs.truncated for inputs in data.inputs.values()),
        seconds=round(sum(record["seconds"] for record in progress.history), 3),
        examples_per_second=round(len(data.train.ids) * progress.epoch / sum(training), 1),
        workers=workers,
    )


def save_network(
    network: Encoder, output: Folder, name: str, labels: tuple[str, ...], standalone: bool = False
) -> None:
    """Write a network to a sub-folder, wherever that is; `standalone`: a frozen body, too."""
    body = True if standalone else None
    output.remove(name)
    if output.is_local:
        network.save(Path(output.path(name)), labels, body=body)
        return
    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / name, labels, body=body)
        output.fs.put(str(Path(folder) / name), output.path(name), recursive=True)


def write_history(output: Folder, progress: Progress) -> None:
    """Write `metrics.jsonl`, whole, so that an epoch repeated after a crash has one line."""
    output.write_text("".join(json.dumps(record) + "\n" for record in progress.history), "metrics.jsonl")


def write_epoch(output: Folder, state: ExampleState, epoch: int) -> None:
    """`epochs/epoch-003/part-*.parquet`: the label trained on and the method's columns as they are after an epoch."""
    labels = state.columns["given_label"].astype(np.int32)
    _write_columns(output.sub("epochs", f"epoch-{epoch:03d}"), state, {"given_label": labels})


def write_dynamics(output: Folder, state: ExampleState, method: Method) -> None:
    """`dynamics/part-*.parquet`: example_id, the method's columns, and quality (lower = more likely wrong)."""
    _write_columns(output.sub("dynamics"), state, {"quality": method.quality(state.columns)})


def _write_columns(folder: Folder, state: ExampleState, further: dict[str, npt.NDArray[Any]]) -> None:
    folder.remove()
    table = pa.table({"example_id": state.ids, **state.own, **further})
    for number, start in enumerate(range(0, len(state.ids), DYNAMICS_ROWS)):
        folder.write_table(table.slice(start, DYNAMICS_ROWS), f"part-{number:05d}.parquet")
