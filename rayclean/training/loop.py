"""The training loop: one job, any method, any number of workers. Read it top to bottom.

Every worker runs the same lines. Weights, optimiser and per-example state are replicas that stay equal,
because each step applies the same averaged gradient and the same gathered observations everywhere. So any
number of workers gives the same model, dropout aside: every worker draws the masks of its own rows. Gradients
are averaged by hand after `backward` rather than by DDP: a method may then call several networks, halves of
them, or one of them twice in a step, and no parameter has to take part in every loss.

The loop knows neither Ray nor true labels nor which method it runs.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from rayclean.folder import Folder
from rayclean.models.precision import training_autocast
from rayclean.training import checkpoint, job_outputs, passes, setup, steps
from rayclean.training.collectives import Collectives
from rayclean.training.job import FitJob, FitResult, FitSpec, job_key
from rayclean.training.job_data import open_job
from rayclean.training.query_annotator import AskAnnotator, ask_annotator
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
        DisagreementError: the workers see different states of the job's folder or data, or their weights have drifted apart.
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

    # -- where an earlier attempt stopped; data, networks, state: the same on every worker, all from the seed --
    saved = checkpoint.read_checkpoint(output, key)
    progress = saved.progress if saved is not None else checkpoint.TrainingProgress()
    steps.agree_on_job(collectives, "the last finished epoch", progress.epoch)
    task, method = setup.build_task(spec), setup.build_method(job, spec)
    stages, encoders = method.stages(), method.encoders(spec.encoder)

    def build(stage: int) -> Any:
        outputs = stages[stage].outputs or task.outputs
        return setup.build_networks(encoders, outputs, job.seed, stage, task.per_token).to(device)

    networks = build(progress.stage)
    predictor = setup.predictor(networks, method, encoders)
    data = open_job(job, encoders, task, spec.encoder)
    views = setup.build_views(method, networks, encoders, data, job)
    default_epochs = (
        spec.training.epochs or method.default_epochs or networks[method.networks[0]].default_epochs
    )
    plans = setup.plan_stages(stages, default_epochs)
    labels = data.train.targets() if task.label_form == "class" else None
    state = ExampleState(data.train.ids, labels, method.state())
    if first:
        job_outputs.forget_epochs(output, after=progress.epoch)
        for record in progress.history:
            on_epoch(record)
    last_write, write_seconds = time.monotonic(), 0.0

    for plan in plans[progress.stage :]:
        # -- a stage: its networks and optimisers, the examples that it keeps --------------------------------
        if plan.number > progress.stage and plan.stage.fresh:
            networks = build(plan.number)
            predictor = setup.predictor(networks, method, encoders)
        if plan.number == progress.stage or plan.stage.fresh:
            setup.keep_used_tokens(networks, data, views)
            optimizers = setup.build_optimizers(networks, encoders, spec)
            autocast = training_autocast(spec.training.precision, device)
            worker = Worker(networks, data, collectives, device, autocast)
        if saved is not None:
            kept, saved = saved.restore(networks, optimizers, state), None
        else:
            kept = passes.kept_examples(method, state, worker, plan)
        progress.stage = plan.number
        training = passes.StageTraining(job, spec, method, plan, worker, views, optimizers, state, kept)
        is_last = plan is plans[-1]
        first_choice = plan.first + (method.first_choice - 1 if method.first_choice <= plan.epochs else 0)

        for epoch in range(progress.epoch + 1, plan.last + 1):
            if steps.out_of_patience(progress, spec.training.patience):
                break
            start = time.monotonic()
            torch.manual_seed(setup.epoch_seed(job.seed, epoch, collectives.rank))
            asked: dict[str, float] = {}
            sums: dict[str, Tensor] = {}
            seconds = 0.0
            for turn, names in enumerate(method.turns):
                method.partition(state.columns, epoch, turn)
                state.take_over(collectives.from_first)

                # -- the annotator is asked, if the method wants to ------------------------------------------
                if turn == 0 and consult is not None and (found := method.queries(state.columns, epoch)):
                    shown = output.sub(DEMONSTRATIONS, key)
                    asked = ask_annotator(worker, method, state, found, consult, job.seed, epoch, shown)

                # -- the turn's networks step; then they read everything once more, if the method reviews ----
                begun = time.monotonic()
                for name, total in passes.train_pass(training, epoch, turn).items():
                    sums[name] = sums[name] + total if name in sums else total
                if method.reviews:
                    steps.review_examples(worker, method, state, epoch, names)
                seconds += time.monotonic() - begun

            steps.agree_on_weights(worker, job, epoch)

            # -- the epoch's line: training loss, development loss -------------------------------------------
            totals = collectives.sum([float(total) for total in sums.values()])
            means = totals / collectives.world_size / training.steps
            dev = steps.evaluate_dev(worker, method.predictors)
            of_stage = {"stage": plan.stage.name, "examples": training.examples}
            record = {
                "job": job.name,
                "epoch": epoch,
                "epochs": plan.total,
                **(of_stage if len(plans) > 1 or kept is not None else {}),
                "loss": float(means.sum()),
                **{f"loss_{name}": float(mean) for name, mean in zip(sums, means, strict=True)},
                **job_outputs.subset_sizes(state, method.measures()),
                **method.summary(state.columns),
                **asked,
                **dev,
                "learning_rate": optimizers[method.networks[0]].param_groups[0]["lr"],
                "workers": collectives.world_size,
                "examples_per_second": float(f"{training.examples / max(seconds, 1e-9):.6g}"),  # never 0
                "seconds": round(time.monotonic() - start, 3),
            }
            progress.epoch = epoch
            progress.history.append(record)
            if is_last and epoch >= first_choice and steps.is_best(record, progress, job):
                progress.best_epoch = epoch
                progress.best_weights = checkpoint.checkpoint_weights(networks) if first else {}

            # -- once in a while: a checkpoint ---------------------------------------------------------------
            if first:
                job_outputs.write_history(output, progress)
                if job.keep_epochs:
                    job_outputs.write_epoch(output, state, epoch)
                # The next questions depend on this very epoch: an attempt that resumed before it could ask
                # others, and pay for both.
                now = time.monotonic()
                if consult is not None or now - last_write >= write_seconds / checkpoint_share:
                    checkpoint.write_checkpoint(output, key, networks, optimizers, state, kept, progress)
                    last_write = time.monotonic()
                    write_seconds = last_write - now
                on_epoch(record)

    # -- results, `result.json` last: a job with a result is whole -------------------------------------------
    result = job_outputs.summarise(job, key, progress, data, collectives.world_size)
    if first:
        if job.keep_last:
            job_outputs.save_network(predictor, output, "model_last", spec.labels, task)
        networks.load_state_dict(progress.best_weights)
        job_outputs.save_network(predictor, output, "model", spec.labels, task, job.standalone)
        job_outputs.write_dynamics(output, state, method, data.train.labels.cast(task.label_type))
        output.write_json(asdict(result), "result.json")
        output.remove(checkpoint.FILE)
        output.remove(DEMONSTRATIONS)
    collectives.barrier()
    return result
