"""The parts of the loop that are the same whatever happens around them: building, one batch, evaluating, writing."""

import json
import math
import tempfile
from collections.abc import Callable
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
from rayclean.methods import METHODS
from rayclean.methods.base import Method, Output, StepBatch
from rayclean.models import ENCODERS
from rayclean.models.base import Encoder
from rayclean.plugins import build_options, resolve
from rayclean.training.checkpoint import Progress
from rayclean.training.collectives import Collectives
from rayclean.training.data import JobData, Part
from rayclean.training.inputs import Inputs
from rayclean.training.job import FitJob, FitResult, FitSpec
from rayclean.training.state import ExampleState

EVALUATION_ROWS = 256
DYNAMICS_ROWS = 65536

Autocast = Callable[[], AbstractContextManager[Any]]


def build_method(job: FitJob, spec: FitSpec) -> Method:
    """The method of the specification, with the job's seed."""
    cls = resolve("method", METHODS, spec.method.name)
    method: Method = cls(build_options("method", cls, spec.method.options), len(spec.labels), job.seed)
    return method


def build_networks(spec: FitSpec, method: Method) -> nn.ModuleDict:
    """One network per name that the method declares, in one module."""
    cls = resolve("encoder", ENCODERS, spec.encoder.name)
    options = build_options("encoder", cls, spec.encoder.options)
    return nn.ModuleDict({name: cls(options, len(spec.labels)) for name in method.networks})


def build_optimizer(networks: nn.ModuleDict, spec: FitSpec) -> torch.optim.AdamW:
    """AdamW (Loshchilov, Hutter, 2019) with each network's own learning rate; biases and LayerNorm do not decay."""
    groups = []
    for network in networks.values():
        rate = spec.training.learning_rate or network.default_learning_rate
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
    positions: npt.NDArray[np.int64],
    global_count: int,
    collectives: Collectives,
    device: torch.device,
) -> tuple[StepBatch, dict[str, Tensor]]:
    """This worker's rows of a global batch, and the networks' inputs for them.

    A padding row (-1) carries the inputs of the first training example, so that every network can compute with it
    whatever it does inside; its id is -1 and it is in no mean.
    """
    filled = np.maximum(positions, 0)
    valid = positions >= 0
    batch = StepBatch(
        example_id=torch.from_numpy(np.where(valid, data.train.ids[filled], -1)).to(device),
        given_label=torch.from_numpy(data.train.labels[filled]).to(device),
        valid=torch.from_numpy(valid).to(device),
        world_size=collectives.world_size,
        global_count=global_count,
        total=lambda count: int(collectives.sum([count])[0]) if collectives.world_size > 1 else count,
    )
    return batch, to_device(data.inputs.batch(data.train.rows[filled]), device)


def to_device(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch of inputs where the networks are."""
    return {name: value.to(device) for name, value in inputs.items()}


def forward(network: nn.Module, inputs: dict[str, Tensor]) -> Output:
    """Features and logits, logits in float32."""
    features, logits = network(inputs)
    return Output(features, logits.float())


@torch.no_grad()
def evaluate(
    network: nn.Module,
    inputs: Inputs,
    part: Part,
    collectives: Collectives,
    device: torch.device,
    autocast: Autocast,
) -> tuple[float | None, float | None]:
    """Mean cross-entropy and accuracy over all workers' shares of `part`; None where it is empty."""
    if len(part.ids) == 0:
        return None, None
    network.eval()
    mine = np.arange(collectives.rank, len(part.ids), collectives.world_size)
    lengths = inputs.lengths(part.rows[mine])
    if lengths is not None:
        mine = mine[np.argsort(lengths, kind="stable")]
    loss, right = 0.0, 0
    for start in range(0, len(mine), EVALUATION_ROWS):
        chosen = mine[start : start + EVALUATION_ROWS]
        labels = torch.from_numpy(part.labels[chosen]).to(device)
        with autocast():
            logits = forward(network, to_device(inputs.batch(part.rows[chosen]), device)).logits
        loss += float(F.cross_entropy(logits, labels, reduction="none").double().sum())
        right += int((logits.argmax(-1) == labels).sum())
    total_loss, total_right = collectives.sum([loss, right])
    return float(total_loss / len(part.ids)), float(total_right / len(part.ids))


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
        truncated=data.inputs.truncated,
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


def write_dynamics(output: Folder, state: ExampleState, method: Method) -> None:
    """`dynamics/part-*.parquet`: example_id, the method's columns, and quality (lower = more likely wrong)."""
    output.remove("dynamics")
    quality = method.quality(state.columns)
    table = pa.table({"example_id": state.ids, **state.own, "quality": quality})
    for number, start in enumerate(range(0, len(state.ids), DYNAMICS_ROWS)):
        output.write_table(table.slice(start, DYNAMICS_ROWS), "dynamics", f"part-{number:05d}.parquet")
