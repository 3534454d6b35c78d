"""Steps of the loop: making a batch, development loss, the review after an epoch, and the rules that end a
training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.errors import DisagreementError
from rayclean.methods.base import Method
from rayclean.methods.batch import StepBatch
from rayclean.training.checkpoint import TrainingProgress
from rayclean.training.collectives import Collectives
from rayclean.training.job import FitJob
from rayclean.training.job_data import Part
from rayclean.training.sampler import own_share
from rayclean.training.state import ExampleState
from rayclean.training.views import Views
from rayclean.training.worker import EVALUATION_ROWS, Inputs, Worker


@dataclass(frozen=True)
class Moment:
    """The moment of a training at which a step is."""

    stage: str = "train"
    turn: tuple[str, ...] = ()
    """Networks that step."""
    progress: float = 0.0
    """Epochs done, with the fraction of the running one."""


def step_batch(
    worker: Worker,
    views: Mapping[str, Views],
    positions: npt.NDArray[np.int64],
    global_count: int,
    epoch: int,
    moment: Moment,
) -> tuple[StepBatch, dict[str, Inputs]]:
    """This worker's rows of a global batch, and every network's inputs for them and their views.

    A padding row (-1) carries the inputs of the first training example, so that every network can compute
    with it whatever it does inside; its id is -1 and it is in no mean.
    """
    train, collectives, device = worker.data.train, worker.collectives, worker.device
    filled = np.maximum(positions, 0)
    valid = positions >= 0
    ids = np.where(valid, train.ids[filled], -1)
    if views:
        rewritten: dict[int, Inputs] = {}
        for name, each in views.items():
            if id(each) not in rewritten:
                rewritten[id(each)] = each.batch(ids, train.rows[name][filled], epoch)
        inputs = worker.to_device({name: rewritten[id(each)] for name, each in views.items()})
    else:
        inputs = worker.inputs(train, filled)
    batch = StepBatch(
        example_id=torch.from_numpy(ids).to(device),
        given_label=worker.targets(train, filled, inputs),
        valid=torch.from_numpy(valid).to(device),
        world_size=collectives.world_size,
        global_count=global_count,
        total=lambda count: int(collectives.sum([count])[0]) if collectives.world_size > 1 else count,
        rank=collectives.rank,
        gather=collectives.gather_rows,
        classify=worker.classify,
        again=lambda name, mask: worker.again(name, inputs[name], mask),
        loss_of=train.task.loss,
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
        inputs = {name: worker.inputs_of(name, part, chosen) for name in names}
        each = [worker.forward(name, inputs[name]).logits for name in names]
        logits = torch.stack(each).mean(0)
        sums += _loss_and_right(part, logits, worker.targets(part, chosen, inputs)).sum(0)
        if final is not None:
            found = _loss_and_right(final.part, logits, worker.targets(final.part, chosen, inputs))
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
    for start in range(0, len(order), size):
        mine = own_share(order[start : start + size], collectives.rank, collectives.world_size)
        filled = np.maximum(mine, 0)
        inputs = worker.inputs(train, filled)
        outputs = {name: worker.forward(name, inputs[name]) for name in names}
        labels = worker.targets(train, filled, inputs)
        judged = method.judged(outputs, labels, state.take(mine, worker.device))
        seen = {name: value.cpu().numpy() for name, value in judged.items()}
        ids, seen = collectives.gather(np.where(mine >= 0, state.ids[filled], -1), seen)
        method.review(state.columns, state.rows(ids), seen, epoch)


def not_finite(job: FitJob, epoch: int, step: int, terms: dict[str, Tensor]) -> str:
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
    first = int(collectives.from_first(np.array([value]))[0])
    disagreeing = collectives.sum([float(value != first)])[0]
    if disagreeing:
        raise DisagreementError(
            f"{int(disagreeing)} of {collectives.world_size} workers disagree with the first one "
            f"about {what} (here {value}, "
            f"there {first}): their file systems show different states of the job's folder; start again"
        )
