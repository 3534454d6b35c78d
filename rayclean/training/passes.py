"""One pass over the batches of an epoch, in which the networks of one turn step. Read it top to bottom.

Gradients are averaged by hand after `backward` rather than by DDP: a method may then call several networks,
halves of them, or one of them twice in a step, and no parameter has to take part in every loss. A network
that is not in turn runs in evaluation mode without gradient, and its optimiser does not step.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rayclean.errors import DataError, RaycleanError
from rayclean.methods.base import Method
from rayclean.models.read_ahead import ahead
from rayclean.training import steps
from rayclean.training.batches import AHEAD, HostBatch, read_batch
from rayclean.training.job import FitJob, FitSpec
from rayclean.training.sampler import global_batches
from rayclean.training.setup import StagePlan
from rayclean.training.state import ExampleState
from rayclean.training.transfer import Incoming
from rayclean.training.views import Views
from rayclean.training.worker import Worker

BATCH_SIZE = 32
"""Rows of a global batch where the config names none."""


@dataclass(frozen=True)
class StageTraining:
    """What the passes of a stage have in common."""

    job: FitJob
    spec: FitSpec
    method: Method
    plan: StagePlan
    worker: Worker
    views: Mapping[str, Views]
    optimizers: Mapping[str, torch.optim.AdamW]
    state: ExampleState
    kept: npt.NDArray[np.bool_] | None
    """[N] which examples train; None: all."""

    @property
    def examples(self) -> int:
        """How many examples train."""
        return len(self.state.ids) if self.kept is None else int(self.kept.sum())

    @property
    def steps(self) -> int:
        """Batches of a pass."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def batch_size(self) -> int:
        """Rows of a global batch."""
        return self.spec.training.batch_size or BATCH_SIZE

    def batches(self, epoch: int, turn: int) -> list[npt.NDArray[np.int64]]:
        """Positions in the columns of every global batch."""
        lengths, size = self.worker.data.lengths(self.worker.data.train), self.batch_size
        if self.kept is None:
            return global_batches(len(self.state.ids), size, self.job.seed, epoch, lengths, turn)
        chosen = np.flatnonzero(self.kept)
        lengths = None if lengths is None else lengths[chosen]
        return [
            chosen[batch] for batch in global_batches(len(chosen), size, self.job.seed, epoch, lengths, turn)
        ]


def kept_examples(
    method: Method, state: ExampleState, worker: Worker, plan: StagePlan
) -> npt.NDArray[np.bool_] | None:
    """Which examples [N] train in a stage that begins, by the first worker's word; None: all.

    Raises:
        DataError: none does.
    """
    found = method.kept(state.columns, plan.stage.name)
    state.take_over(worker.collectives.from_first)
    kept = worker.collectives.from_first(np.ones(len(state.ids), bool) if found is None else found)
    if not kept.any():
        raise DataError(f"stage {plan.stage.name!r} keeps no example: loosen what the method removes them by")
    return None if kept.all() else kept


class _Afterwards:
    """What the host learns of a step, looked at while the device computes the next one, before the weights move again."""

    def __init__(self, training: StageTraining, epoch: int):
        self.training, self.epoch = training, epoch
        self.seen: tuple[npt.NDArray[np.int64], Incoming] | None = None
        self.norms: tuple[int, Incoming, dict[str, Tensor]] | None = None

    def observe(self, own_id: npt.NDArray[np.int64], seen: Incoming) -> None:
        """Let the method note in its columns what it has seen of the rows of these ids, on all workers."""
        training = self.training
        ids, found = training.worker.collectives.gather(own_id, seen.numpy())
        state = training.state
        training.method.observe(state.columns, state.rows(ids), found, self.epoch)

    def look(self) -> None:
        """Look at what is left of the step before.

        Raises:
            RaycleanError: its gradient was not finite. After averaging every worker sees that and stops; no checkpoint is
                written before it is known.
        """
        if self.norms is not None:
            step, norms, terms = self.norms
            self.norms = None
            if not np.isfinite(norms.numpy()["norms"]).all():
                raise RaycleanError(steps.not_finite(self.training.job, self.epoch, step, terms))
        if self.seen is not None:
            seen, self.seen = self.seen, None
            self.observe(*seen)


def train_pass(training: StageTraining, epoch: int, turn: int) -> dict[str, Tensor]:
    """Step the networks of a turn (its place among the method's turns) through all batches, and return the
    sums of this worker's loss terms.
    """
    method, worker, state, options = (
        training.method, training.worker, training.state, training.spec.training
    )  # fmt: skip
    networks, collectives, device = worker.networks, worker.collectives, worker.device
    place = collectives.rank, collectives.world_size
    names = method.turns[turn]
    for name, network in networks.items():
        network.train(name in names)
    optimizers = [training.optimizers[name] for name in names]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    sums: dict[str, Tensor] = {}
    afterwards = _Afterwards(training, epoch)

    def read() -> Iterator[HostBatch]:
        for positions in training.batches(epoch, turn):
            yield read_batch(worker.data, training.views, positions, epoch, *place, device)

    with closing(ahead(read, AHEAD)) as batches:
        for step, host in enumerate(batches):
            # -- this worker's rows of the global batch, which a thread has read -----------------------------
            moment = steps.Moment(training.plan.stage.name, names, epoch - 1 + step / training.steps)
            rows = state.take(host.own, device)
            batch, inputs = steps.step_batch(worker, host, rows, moment)

            with worker.step():
                # -- forward ---------------------------------------------------------------------------------
                outputs = {name: worker.forward(name, inputs[name]) for name in networks}

                # -- the method's columns, updated from the whole global batch, before the loss if it reads them -
                with torch.no_grad():
                    seen = Incoming(method.seen(outputs, batch, rows))
                if not method.observes_late:
                    afterwards.look()
                    afterwards.observe(batch.example_id, seen)
                    rows.forget()

                # -- loss ------------------------------------------------------------------------------------
                terms = method.loss(outputs, batch, rows, epoch)

            # -- gradient; after `accumulate` batches one step of the optimisers, the last group may be smaller --
            group = min(options.accumulate, training.steps - step // options.accumulate * options.accumulate)
            torch.autograd.backward(torch.stack(list(terms.values())).sum() / group)
            afterwards.look()
            if method.observes_late:
                afterwards.seen = batch.example_id, seen
            noted = {name: term.detach() for name, term in terms.items()}
            if step % options.accumulate == group - 1:
                collectives.average_gradients(parameters)
                norms = [
                    nn.utils.clip_grad_norm_(networks[name].parameters(), options.clip) for name in names
                ]
                afterwards.norms = step + 1, Incoming({"norms": torch.stack(norms)}), noted
                updates = math.ceil(training.steps / options.accumulate)
                rate = training.plan.rate(epoch, step // options.accumulate, updates, options.warmup)
                for parameter_group in groups:
                    parameter_group["lr"] = parameter_group["peak_lr"] * rate
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            for name, term in noted.items():
                sums[name] = sums[name] + term.double() if name in sums else term.double()
    afterwards.look()
    return sums
