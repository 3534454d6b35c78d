"""The training loop: one job, any method, any number of workers. Read it top to bottom.

Every worker runs the same lines. Weights, optimiser and per-example state are replicas that stay equal,
because each step applies the same averaged gradient and the same gathered observations everywhere. So any
number of workers gives the same model, dropout aside: every worker draws the masks of its own rows. Gradients
are averaged by hand after `backward` rather than by DDP: a method may then call several networks, halves of
them, or one of them twice in a step, and no parameter has to take part in every loss.

The loop knows neither Ray nor true labels nor which method it runs.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from rayclean.errors import RaycleanError
from rayclean.folder import Folder
from rayclean.models.base import Encoder
from rayclean.models.precision import training_autocast
from rayclean.training import checkpoint, job_outputs, setup, steps
from rayclean.training.collectives import Collectives
from rayclean.training.job import FitJob, FitResult, FitSpec, job_key
from rayclean.training.job_data import open_job
from rayclean.training.query_annotator import AskAnnotator, ask_annotator
from rayclean.training.sampler import global_batches, own_share
from rayclean.training.state import ExampleState
from rayclean.training.worker import Worker

CHECKPOINT_SHARE = 0.1
"""Largest share of the time that goes into checkpoints. Every epoch of a large network has a checkpoint, but
not every epoch of a head on cached features, which takes less time than writing one."""

DEMONSTRATIONS = "shown"
"""Folder of the demonstrations that a method's questions show, by the key of the training."""

_OnEpoch = Callable[[dict[str, Any]], None]


def finished_result(job: FitJob, key: str) -> FitResult | None:
    """The result of a job that already ran with exactly this key."""
    output = Folder(job.output)
    if not output.exists("result.json"):
        return None
    result = FitResult(**output.read_json("result.json"))
    return result if result.key == key else None


def fit(
    job: FitJob,
    spec: FitSpec,
    collectives: Collectives | None = None,
    device: torch.device | str = "cpu",
    on_epoch: _OnEpoch = lambda record: None,
    checkpoint_share: float = CHECKPOINT_SHARE,
    consult: AskAnnotator | None = None,
) -> FitResult:
    """Train one job and write its folder; a finished job is only read, an unfinished one goes on at its last
    epoch.

    Args:
        job: what to train on, and where results go.
        spec: how to train.
        collectives: this worker's place among all; alone by default.
        device: where the networks are.
        on_epoch: called on the first worker after every epoch with that epoch's line of `metrics.jsonl`;
            where an earlier attempt trained some epochs, first with their lines.
        checkpoint_share: largest share of the time that goes into checkpoints; infinite: one after every
            epoch, as always where a method asks.
        consult: brings a method's questions to the annotator; None: methods train without answers.

    Raises:
        DataError: nothing to train on, or labels and examples do not fit together.
        ConfigError: the encoder or the method cannot be built.
        RaycleanError: the loss or a gradient is no longer finite.
        DisagreementError: the workers see different states of the job's folder or data.
    """
    collectives = collectives or Collectives()
    key = job_key(job, spec)
    result = finished_result(job, key)
    steps.agree_on_job(collectives, "what is to be trained", int(key, 16) >> 1)
    steps.agree_on_job(collectives, "whether the job is finished", int(result is not None))
    if result is not None:
        return result
    device = torch.device(device)
    output = Folder(job.output)
    first = collectives.rank == 0

    # -- data, networks, optimiser, state: the same on every worker, since all are made from the seed --------
    method = setup.build_method(job, spec)
    encoders = method.encoders(spec.encoder)
    torch.manual_seed(job.seed)
    networks = setup.build_networks(encoders, len(spec.labels)).to(device)
    data = open_job(job, encoders, len(spec.labels), spec.encoder)
    main: Encoder = networks[method.networks[0]]  # type: ignore[assignment]
    views = setup.build_views(method, networks, encoders, data, job)
    setup.keep_used_tokens(networks, data, views)
    epochs = spec.training.epochs or method.default_epochs or main.default_epochs
    first_choice = method.first_choice if method.first_choice <= epochs else 1
    batch_size, accumulate = spec.training.batch_size, spec.training.accumulate
    lengths = data.lengths(data.train)
    steps_per_epoch = math.ceil(len(data.train.ids) / batch_size)
    updates = math.ceil(steps_per_epoch / accumulate)
    optimizer = setup.build_optimizer(networks, encoders, spec)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = ExampleState(data.train.ids, data.train.labels, method.state())
    worker = Worker(networks, data, collectives, device, training_autocast(spec.training.precision, device))

    # -- go on where an earlier attempt stopped --------------------------------------------------------------
    progress = checkpoint.read_checkpoint(output, key, networks, optimizer, state)
    steps.agree_on_job(collectives, "the last finished epoch", progress.epoch)
    if first:
        job_outputs.forget_epochs(output, after=progress.epoch)
        for record in progress.history:
            on_epoch(record)
    last_write, write_seconds = time.monotonic(), 0.0

    for epoch in range(progress.epoch + 1, epochs + 1):
        if steps.out_of_patience(progress, spec.training.patience):
            break
        start = time.monotonic()
        torch.manual_seed(setup.epoch_seed(job.seed, epoch, collectives.rank))
        method.partition(state.columns, epoch)
        state.take_over(collectives.from_first)

        # -- the annotator is asked, if the method wants to --------------------------------------------------
        asked: dict[str, float] = {}
        if consult is not None and (questions := method.queries(state.columns, epoch)) is not None:
            asked = ask_annotator(
                worker, method, state, questions, consult, job.seed, epoch, output.sub(DEMONSTRATIONS, key)
            )
        begun = time.monotonic()
        networks.train()
        sums: dict[str, Tensor] = {}

        for step, positions in enumerate(
            global_batches(len(state.ids), batch_size, job.seed, epoch, lengths)
        ):
            # -- this worker's rows of the global batch ------------------------------------------------------
            mine = own_share(positions, collectives.rank, collectives.world_size)
            batch, inputs = steps.step_batch(worker, views, mine, len(positions), epoch)

            # -- forward -------------------------------------------------------------------------------------
            outputs = {name: worker.forward(name, inputs[name]) for name in networks}

            # -- the method's columns, updated from the whole global batch before the loss -------------------
            with torch.no_grad():
                seen = {name: value.cpu().numpy() for name, value in method.seen(outputs, batch).items()}
            ids, seen = collectives.gather(batch.example_id.cpu().numpy(), seen)
            method.observe(state.columns, state.rows(ids), seen, epoch)

            # -- loss and gradient; after `accumulate` batches one optimiser step ----------------------------
            terms = method.loss(outputs, batch, state.take(mine, device), epoch)
            group = min(
                accumulate, steps_per_epoch - step // accumulate * accumulate
            )  # the last may be smaller
            torch.autograd.backward(torch.stack(list(terms.values())).sum() / group)
            if step % accumulate == group - 1:
                collectives.average_gradients(parameters)
                norms = [
                    float(nn.utils.clip_grad_norm_(network.parameters(), spec.training.clip))
                    for network in networks.values()
                ]
                if not all(map(math.isfinite, norms)):  # after averaging: every worker sees it and stops
                    raise RaycleanError(steps.not_finite(job, epoch, step + 1, terms))
                rate = setup.schedule(
                    (epoch - 1) * updates + step // accumulate, epochs * updates, spec.training.warmup
                )
                for parameter_group in optimizer.param_groups:
                    parameter_group["lr"] = parameter_group["peak_lr"] * rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            for name, term in terms.items():
                sums[name] = sums[name] + term.detach().double() if name in sums else term.detach().double()

        # -- the networks read everything once more in evaluation mode, if the method reviews ----------------
        if method.reviews:
            steps.review_examples(worker, method, state, epoch)

        # -- the epoch's line: training loss, development loss -----------------------------------------------
        seconds = time.monotonic() - begun
        totals = collectives.sum([float(total) for total in sums.values()])
        means = totals / collectives.world_size / steps_per_epoch
        dev_loss, dev_accuracy = steps.evaluate_dev(worker, method.networks[0])
        record = {
            "job": job.name,
            "epoch": epoch,
            "epochs": epochs,
            "loss": float(means.sum()),
            **{f"loss_{name}": float(mean) for name, mean in zip(sums, means, strict=True)},
            **job_outputs.subset_sizes(state, method.measures()),
            **method.summary(state.columns),
            **asked,
            "dev_loss": dev_loss,
            "dev_accuracy": dev_accuracy,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "workers": collectives.world_size,
            "examples_per_second": float(f"{len(state.ids) / max(seconds, 1e-9):.6g}"),  # never 0
            "seconds": round(time.monotonic() - start, 3),
        }
        progress.epoch = epoch
        progress.history.append(record)
        if epoch >= first_choice and steps.is_best(record, progress, job):
            progress.best_epoch = epoch
            progress.best_weights = checkpoint.checkpoint_weights(networks) if first else {}

        # -- once in a while: a checkpoint -------------------------------------------------------------------
        if first:
            job_outputs.write_history(output, progress)
            if job.keep_epochs:
                job_outputs.write_epoch(output, state, epoch)
            # The next questions depend on this very epoch: an attempt that resumed before it could ask
            # others, and pay for both.
            now = time.monotonic()
            if consult is not None or now - last_write >= write_seconds / checkpoint_share:
                checkpoint.write_checkpoint(output, key, networks, optimizer, state, progress)
                last_write = time.monotonic()
                write_seconds = last_write - now
            on_epoch(record)

    # -- results, `result.json` last: a job with a result is whole -------------------------------------------
    result = job_outputs.summarise(job, key, progress, data, collectives.world_size)
    if first:
        if job.keep_last:
            job_outputs.save_network(main, output, "model_last", spec.labels)
        networks.load_state_dict(progress.best_weights)
        job_outputs.save_network(main, output, "model", spec.labels, job.standalone)
        job_outputs.write_dynamics(output, state, method)
        output.write_json(asdict(result), "result.json")
        output.remove(checkpoint.FILE)
        output.remove(DEMONSTRATIONS)
    collectives.barrier()
    return result
