"""Steps of the loop: making a batch, development loss, the review after an epoch, and the rules that end a
training.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.errors import DisagreementError
from rayclean.fingerprints import fingerprint
from rayclean.methods.base import Method
from rayclean.methods.batch import StepBatch
from rayclean.models.base import Inputs
from rayclean.models.read_ahead import ahead
from rayclean.training.batches import AHEAD, HostBatch, read_batch
from rayclean.training.checkpoint import TrainingProgress
from rayclean.training.collectives import Collectives
from rayclean.training.job import FitJob
from rayclean.training.job_data import Part
from rayclean.training.state import ExampleState, StateRows
from rayclean.training.transfer import Incoming
from rayclean.training.worker import EVALUATION_ROWS, Worker


@dataclass(frozen=True)
class Moment:
    """The moment of a training at which a step is."""

    stage: str = "train"
    turn: tuple[str, ...] = ()
    """Networks that step."""
    progress: float = 0.0
    """Epochs done, with the fraction of the running one."""


def step_batch(
    worker: Worker, host: HostBatch, rows: StateRows, moment: Moment
) -> tuple[StepBatch, dict[str, Inputs]]:
    """What a method is handed of a batch, whose rows have these entries of the columns; and every network's inputs for them
    and their views.
    """
    collectives = worker.collectives
    inputs, (targets, valid) = host.outgoing.arrived()
    batch = StepBatch(
        global_id=host.global_id,
        given_label=targets,
        valid=valid,
        world_size=collectives.world_size,
        global_count=host.count,
        total=collectives.total,
        rank=collectives.rank,
        gather=collectives.gather_rows,
        classify=worker.classify,
        again=lambda name, rows: worker.again(name, inputs[name], rows),
        on_host=rows.on_host,
        loss_of=worker.data.train.task.loss,
        stage=moment.stage,
        turn=moment.turn,
        progress=moment.progress,
    )
    return batch, inputs


@torch.no_grad()
def evaluate_dev(worker: Worker, names: Sequence[str]) -> dict[str, float | None]:
    """Mean loss and accuracy, by the task, of the networks `names`, by the mean of their logits, over all
    workers' shares of dev.

    Returns:
        `dev_loss` and `dev_accuracy` on the given labels of all examples, None without dev. Where the best epoch is
            chosen by final labels, also `dev_loss_final` and `dev_accuracy_final` on these, of the examples that count.
    """
    part, final, collectives = worker.data.dev, worker.data.final_dev, worker.collectives
    if len(part.ids) == 0:
        return {"dev_loss": None, "dev_accuracy": None}
    for name in names:
        worker.networks[name].eval()
    mine = np.arange(collectives.rank, len(part.ids), collectives.world_size)
    lengths = worker.data.inputs[names[0]].lengths(part.rows[names[0]][mine])
    if lengths is not None:
        mine = mine[np.argsort(lengths, kind="stable")]
    sums, final_sums = np.zeros(2), np.zeros(2)
    for start in range(0, len(mine), EVALUATION_ROWS):
        chosen = mine[start : start + EVALUATION_ROWS]
        inputs, targets = worker.read(part, chosen, names, None if final is None else final.part)
        each = [worker.forward(name, inputs[name]).logits for name in names]
        logits = torch.stack(each).mean(0)
        sums += _loss_and_right(part, logits, targets[0]).sum(0)
        if final is not None:
            found = _loss_and_right(final.part, logits, targets[1])
            final_sums += found[final.counts[chosen]].sum(0)
    totals = collectives.sum([*sums, *final_sums])
    means = {"dev_loss": totals[0] / len(part.ids), "dev_accuracy": totals[1] / len(part.ids)}
    if final is not None:
        count = final.counts.sum()
        means |= {"dev_loss_final": totals[2] / count, "dev_accuracy_final": totals[3] / count}
    return {name: float(mean) for name, mean in means.items()}


def _loss_and_right(part: Part, logits: Tensor, targets: Tensor) -> npt.NDArray[np.float64]:
    """Loss and share of what is right [B, 2] of each example."""
    both = torch.stack(
        [part.task.loss(logits, targets).double(), part.task.correct(logits, targets).double()], 1
    )
    return np.asarray(both.cpu())


@torch.no_grad()
def review_examples(
    worker: Worker, method: Method, state: ExampleState, epoch: int, names: Sequence[str]
) -> None:
    """Let the networks `names` read all training examples in evaluation mode, and the method update its
    columns.
    """
    worker.networks.eval()
    train, collectives = worker.data.train, worker.collectives
    order = np.arange(len(state.ids))
    if (lengths := worker.data.lengths(train)) is not None:
        order = np.argsort(lengths, kind="stable")
    size = EVALUATION_ROWS * collectives.world_size
    place = collectives.rank, collectives.world_size

    def read() -> Iterator[HostBatch]:
        for start in range(0, len(order), size):
            yield read_batch(worker.data, {}, order[start : start + size], epoch, *place, worker.device)

    with closing(ahead(read, AHEAD)) as batches:
        for host in batches:
            inputs, (labels, _) = host.outgoing.arrived()
            outputs = {name: worker.forward(name, inputs[name]) for name in names}
            judged = Incoming(method.judged(outputs, labels, state.take(host.own, worker.device)))
            ids, seen = collectives.gather(host.own_id(place[0]), judged.numpy())
            method.review(state.columns, state.rows(ids), seen, epoch)


def not_finite(job: FitJob, epoch: int, step: int, terms: Mapping[str, Tensor]) -> str:
    """Error message for a gradient that is NaN or infinite."""
    values = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in terms.items())
    return (
        f"{job.name}: the gradient is not finite at epoch {epoch}, step {step} (loss terms on this worker: {values}); "
        "lower the learning rate, or set precision = 'float32' in the section that trains"
    )


def is_best(record: Mapping[str, Any], progress: TrainingProgress, job: FitJob) -> bool:
    """Whether an epoch is better than the best one so far, by final labels where the record has figures of these;
    without development examples every epoch counts as better.
    """
    if not progress.best_epoch or record["dev_loss"] is None:
        return True
    best = progress.history[progress.best_epoch - 1]
    return _rank(record, job) > _rank(best, job)


def _rank(record: Mapping[str, Any], job: FitJob) -> tuple[float, float]:
    which = "_final" if "dev_loss_final" in record else ""
    loss: float = record[f"dev_loss{which}"]
    low = -loss if math.isfinite(loss) else -math.inf
    return (record[f"dev_accuracy{which}"] if job.best_by == "dev_accuracy" else low, low)


def out_of_patience(progress: TrainingProgress, patience: int | None) -> bool:
    """Whether `patience` epochs brought no better one; counted from the first epoch that may be chosen."""
    return patience is not None and 0 < progress.best_epoch <= progress.epoch - patience


def agree_on_job(collectives: Collectives, what: str, value: int) -> None:
    """Check that every worker has the same `value`. A collective.

    Every worker reads the job's folder itself, and a network file system may show them different states of
    it.

    Raises:
        DisagreementError: some worker's `value` is not the first one's; on every worker.
    """
    first, disagreeing = _compared(collectives, value)
    if disagreeing:
        raise DisagreementError(
            f"{disagreeing} of {collectives.world_size} workers disagree with the first one "
            f"about {what} (here {value}, "
            f"there {first}): their file systems show different states of the job's folder; start again"
        )


def agree_on_weights(worker: Worker, job: FitJob, epoch: int) -> None:
    """Check that the networks of all workers are replicas to the bit, as every step takes for granted. A collective, which
    reads the weights once.

    Raises:
        DisagreementError: some worker's networks are not the first one's; on every worker.
    """
    collectives = worker.collectives
    if collectives.world_size == 1:
        return
    sums = [_sum_of_bits(parameter.detach()) for parameter in worker.networks.parameters()]
    checksum = int(fingerprint(torch.stack(sums).tolist()), 16) >> 1
    _, disagreeing = _compared(collectives, checksum)
    if disagreeing:
        raise DisagreementError(
            f"{job.name}: after epoch {epoch} the weights of {disagreeing} of {collectives.world_size} workers are not those "
            "of the first one: their processors round differently, or one of them is faulty; train on nodes of one kind, or "
            "with cluster.workers = 1"
        )


def _compared(collectives: Collectives, value: int) -> tuple[int, int]:
    """The first worker's value, and how many workers have another one."""
    first = int(collectives.from_first(np.array([value]))[0])
    return first, int(collectives.sum([float(value != first)])[0])


def _sum_of_bits(values: Tensor) -> Tensor:
    """Sum of the numbers that the bits of the values are as integers."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    return values.contiguous().reshape(-1).view(integers).sum(dtype=torch.int64)
