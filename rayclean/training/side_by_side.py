"""Small networks of several jobs, trained side by side in one process: those of the folds of self-prediction.

A step of a head on cached features, or of a bag of words, takes less time than making its batch and going through the
loop for any method and any number of workers (`training/loop.py`). Here the networks of all jobs read the same
batches, which are made once; each learns from the rows that its job selects. Batches grow with the data, so that an
epoch has at most `BATCHES` of them: a head that has taken so many steps gains little by more. Of a table of embeddings
a step writes only the rows that its batch reads (`training/row_adam.py`).

Everything else is as there: cross-entropy, AdamW, the schedule of the learning rate, the best epoch by development loss,
the folders. The order of rows is a function of (seed, epoch) and of the texts (of the ids, without folds), so shards do not
matter, and there are no other workers. Training takes seconds for what others take hours for, so an epoch has no checkpoint: what
a crash leaves is trained again.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rayclean.config import Plugin
from rayclean.errors import RaycleanError
from rayclean.folder import Folder
from rayclean.models.bag_of_words import BagOfWordsEncoder, pool
from rayclean.models.base import Encoder, Inputs
from rayclean.models.hashed_words import PAD
from rayclean.models.loading import encoder_class
from rayclean.models.precision import training_autocast
from rayclean.training import checkpoint, job_outputs, setup, steps
from rayclean.training.collectives import Collectives
from rayclean.training.job import FitJob, FitResult, FitSpec, job_key
from rayclean.training.job_data import JobData
from rayclean.training.loop import finished_result
from rayclean.training.passes import BATCH_SIZE
from rayclean.training.row_adam import RowAdamW
from rayclean.training.sampler import global_batches
from rayclean.training.shared_data import open_shared
from rayclean.training.worker import Worker

BATCHES = 256
"""Most batches of an epoch, where the config names no batch size; with little data they have `BATCH_SIZE` rows."""
PRODUCTS_PER_THREAD = 1 << 23
"""Products of a batch and a network that keep a thread busy; with fewer, threads wait for one another."""


def trains_side_by_side(encoder: Plugin, per_token: bool) -> bool:
    """Whether the networks of an encoder are so small that those of all folds train side by side."""
    cls, options = encoder_class(encoder)
    return cls.is_small(options) and not per_token


def fit_side_by_side(
    jobs: Sequence[FitJob],
    spec: FitSpec,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
    threads: int = 1,
) -> dict[str, FitResult]:
    """Train all jobs and write their folders; if all are finished, they are only read.

    Args:
        jobs: of the same data and seed.
        spec: how to train, by cross-entropy.
        on_epoch: called after every epoch with each job's line of `metrics.jsonl`.
        threads: most threads of this process; fewer are used where there is little to do for each.

    Returns:
        Result by job name.

    Raises:
        DataError: nothing to train on, or labels and examples do not fit together.
        ConfigError: the encoder cannot be built.
        RaycleanError: the loss or a gradient is no longer finite.
    """
    keys = {job.name: job_key(job, spec) for job in jobs}
    results = {job.name: finished_result(job, keys[job.name]) for job in jobs}
    if any(result is None for result in results.values()):
        training = _Training(jobs, spec)
        torch.set_num_threads(min(threads, training.busy_threads))
        training.run(on_epoch)
        torch.set_num_threads(threads)
        results = {each.job.name: each.finish(spec, keys[each.job.name]) for each in training.members}
    return {name: result for name, result in results.items() if result is not None}


def default_epochs(network: Encoder, steps: int) -> int:
    """Epochs of so many steps each, where the config names none."""
    if network.default_steps is None:
        return network.default_epochs
    return min(network.default_epochs, max(3, network.default_steps // steps))


def used_rows(token_ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The sorted rows [R] of a table of `size` rows that token ids of any shape need, padding first; and the place among
    them of each id.
    """
    found = torch.zeros(size, dtype=torch.bool)
    found[PAD] = True
    found[token_ids.flatten()] = True
    rows = found.nonzero().squeeze(1)
    places = torch.empty(size, dtype=torch.int64)
    places[rows] = torch.arange(len(rows))
    return rows, places[token_ids]


def clip_each(gradients: Sequence[Sequence[Tensor]], most: float) -> list[float]:
    """Scale the gradients of each network down to a norm of `most` where it is greater; returns the norms before."""
    every = [gradient for own in gradients for gradient in own]
    squares = torch.stack(torch._foreach_norm(every)).square()
    owner = torch.tensor([place for place, own in enumerate(gradients) for _ in own])
    norms = squares.new_zeros(len(gradients)).index_add_(0, owner, squares).sqrt()
    factors = (most / (norms + 1e-6)).clamp(max=1.0)  # as in `clip_grad_norm_`
    torch._foreach_mul_(every, list(factors[owner]))
    return [float(norm) for norm in norms]


@dataclass
class _Member:
    """The training of one job."""

    place: int
    """Among all members."""
    job: FitJob
    network: Any
    """Its `Encoder`."""
    data: JobData
    worker: Worker
    """For its development examples."""
    progress: checkpoint.TrainingProgress = field(default_factory=checkpoint.TrainingProgress)
    loss: float = 0.0
    """Sum over the batches of the epoch."""

    def finish(self, spec: FitSpec, key: str) -> FitResult:
        """Write the network of the best epoch, and `result.json` last."""
        output, task = Folder(self.job.output), self.data.train.task
        self.network.load_state_dict(self.progress.best_weights)
        job_outputs.save_network(self.network, output, "model", spec.labels, task, self.job.standalone)
        result = job_outputs.summarise(self.job, key, self.progress, self.data, workers=1)
        output.write_json(asdict(result), "result.json")
        return result


class _Training:
    """All members, and what they share."""

    def __init__(self, jobs: Sequence[FitJob], spec: FitSpec):
        self.options, self.seed = spec.training, jobs[0].seed
        assert all(job.seed == self.seed for job in jobs)
        task = setup.build_task(spec)
        self.data = open_shared(jobs, spec.encoder, task)
        self.pool: npt.NDArray[np.int64] = self.data.pool
        built = {
            job.name: setup.build_networks({job.name: spec.encoder}, task.outputs, job.seed)[job.name]
            for job in jobs
        }
        self.networks, device = nn.ModuleDict(built), torch.device("cpu")
        first: Any = built[jobs[0].name]
        self.patience: int = self.options.patience or first.default_patience
        self.rate: float = self.options.learning_rate or first.default_learning_rate
        learnt = self.data.learnt  # a batch has so many rows for each network
        size = self.options.batch_size or max(BATCH_SIZE, math.ceil(learnt / BATCHES))
        size *= self.options.accumulate  # the mean of the gradients of several batches is that of their rows
        self.batch_size = math.ceil(size * len(self.pool) / learnt)
        self.steps = math.ceil(len(self.pool) / self.batch_size)
        self.epochs: int = self.options.epochs or default_epochs(first, self.steps)
        autocast = training_autocast(self.options.precision, device)

        def worker(data: JobData) -> Worker:
            return Worker(self.networks, data, Collectives(), device, autocast)

        inputs = {job.name: self.data.inputs for job in jobs}
        self.worker = worker(JobData(inputs, self.data.part, self.data.part, self.data.examples))
        self.members = []
        for place, job in enumerate(jobs):
            own = self.data.of_job(place, job.name)
            self.members.append(_Member(place, job, built[job.name], own, worker(own)))
        self.selected = torch.from_numpy(self.data.train)
        self.tables: RowAdamW | None = None
        """The embeddings of bags of words, [V, members * D]: side by side, so that a word is looked up once."""
        if isinstance(first, BagOfWordsEncoder):
            weights = [each.network.embedding.weight for each in self.members]
            self.tables = RowAdamW(torch.cat(weights, 1), self.epochs * self.steps, self.options.weight_decay)
        self.optimizer = self._optimizer()

    @property
    def busy_threads(self) -> int:
        """Threads for which there is enough to do."""
        weights: int = sum(each.numel() for group in self.optimizer.param_groups for each in group["params"])
        return max(1, self.batch_size * weights // len(self.members) // PRODUCTS_PER_THREAD)

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW of all networks, but for their tables; as in `setup.build_optimizers` biases do not decay."""
        tables = {id(each.network.embedding.weight) for each in self.members if self.tables is not None}
        trained = [
            each for each in self.networks.parameters() if each.requires_grad and id(each) not in tables
        ]
        groups = []
        for decays in (True, False):
            chosen = [parameter for parameter in trained if (parameter.ndim > 1) == decays]
            groups.append({"params": chosen, "weight_decay": self.options.weight_decay if decays else 0.0})
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self.rate, fused=True)

    def run(self, on_epoch: Callable[[dict[str, Any]], None]) -> None:
        """All epochs; a member that has run out of patience takes no more steps."""
        part = self.data.part
        lengths = self.data.inputs.lengths(part.rows[self.members[0].job.name][self.pool])
        for epoch in range(1, self.epochs + 1):
            active = [
                each for each in self.members if not steps.out_of_patience(each.progress, self.patience)
            ]
            if not active:
                return
            start = time.monotonic()
            torch.manual_seed(setup.epoch_seed(self.seed, epoch, 0))
            self.networks.train()
            for each in active:
                each.loss = 0.0
            batches = global_batches(len(self.pool), self.batch_size, self.seed, epoch, lengths)
            for step, batch in enumerate(batches):
                self._step(active, self.pool[batch], epoch, step)
            if self.tables is not None:
                tables = self.tables.whole().chunk(len(self.members), dim=1)
                with torch.no_grad():
                    for each in active:
                        each.network.embedding.weight.copy_(tables[each.place])
            seconds = time.monotonic() - start
            for each in active:
                self._end_of_epoch(each, epoch, seconds / len(active))
                on_epoch(each.progress.history[-1])

    def _step(
        self, active: Sequence[_Member], positions: npt.NDArray[np.int64], epoch: int, step: int
    ) -> None:
        """One batch: every active member learns from its rows."""
        part, worker = self.data.part, self.worker
        inputs, (targets,) = worker.read(part, positions)
        read = inputs[active[0].job.name]
        reads, leaf = [read] * len(self.members), None
        if self.tables is not None:
            rows, places = used_rows(read["input_ids"], len(self.tables.values))
            leaf = self.tables.take(rows)
            reads = [Inputs({"pooled": part}) for part in pool(places, leaf).chunk(len(self.members), dim=1)]
        logits = torch.stack([worker.forward(each.job.name, reads[each.place]).logits for each in active])
        repeated = targets.repeat(len(active), *[1] * (targets.ndim - 1))
        losses = part.task.loss(logits.flatten(0, 1), repeated).view(len(active), -1)
        mine = self.selected[:, torch.from_numpy(positions)][[each.place for each in active]].to(losses.dtype)
        means = (losses * mine).sum(1) / mine.sum(1).clamp(min=1)
        torch.autograd.backward(means.sum())
        gradients = [
            [each.grad for each in member.network.parameters() if each.grad is not None] for member in active
        ]
        if leaf is not None and leaf.grad is not None:
            parts = leaf.grad.chunk(len(self.members), dim=1)
            gradients = [[*own, parts[each.place]] for each, own in zip(active, gradients, strict=True)]
        norms = clip_each(gradients, self.options.clip)
        for each, norm, mean in zip(active, norms, means.detach().tolist(), strict=True):
            if not math.isfinite(norm):
                terms = {"cross_entropy": torch.tensor(mean)}
                raise RaycleanError(steps.not_finite(each.job, epoch, step + 1, terms))
            each.loss += mean
        done = (epoch - 1) * self.steps + step
        rate = self.rate * setup.schedule(done, self.epochs * self.steps, self.options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.tables is not None:
            self.tables.step(rate)

    def _end_of_epoch(self, each: _Member, epoch: int, seconds: float) -> None:
        """Development loss, the epoch's line, and the weights if it is the best so far."""
        start = time.monotonic()
        dev = steps.evaluate_dev(each.worker, [each.job.name])
        examples, progress = len(each.data.train.ids), each.progress
        record = {
            "job": each.job.name,
            "epoch": epoch,
            "epochs": self.epochs,
            "loss": each.loss / self.steps,
            **dev,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "workers": 1,
            "examples_per_second": float(f"{examples / max(seconds, 1e-9):.6g}"),
            "seconds": round(seconds + time.monotonic() - start, 3),
        }
        progress.epoch = epoch
        progress.history.append(record)
        if steps.is_best(record, progress, each.job):
            progress.best_epoch = epoch
            progress.best_weights = checkpoint.checkpoint_weights(each.network)
        job_outputs.write_history(Folder(each.job.output), progress)
