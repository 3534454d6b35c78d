"""Comparison of networks that are trained in the same way on given, cleaned and true labels, by their test
predictions.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from rayclean import progress
from rayclean.config import Config, Plugin
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.runtime.engines import Engines
from rayclean.runtime.needs import VerbNeeds, is_small_training, network_seconds
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.training.inputs import reads_features
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec

PLAIN = Plugin(name="cross_entropy")
"""Method of all compared networks, which differ only in their labels."""

Answers = dict[int, Any]
"""Predicted label of each test example by its id."""


def compares_heads(config: Config) -> bool:
    """Whether the compared networks are heads on features that `predict` has computed, so that none reads a text again."""
    return reads_features(config.encoder, TASKS.resolve(config.task.name).per_token)


def comparison_needs(config: Config, run: Run) -> VerbNeeds:
    """Resources that `evaluate` holds: training workers if networks are compared."""
    cached = compares_heads(config)
    return VerbNeeds(
        trains=config.evaluate.compare, batch_size=config.train.batch_size,
        small=is_small_training(config.encoder, PLAIN, config.task),
        network=not cached or config.cluster.use_gpu is True, seconds=network_seconds(config, run, cached=cached),
    )  # fmt: skip


def train_and_test(
    engines: Engines,
    config: Config,
    run: Run,
    out: Folder,
    task: Task,
    labels: Mapping[str, tuple[str | None, str]],
) -> dict[str, Answers]:
    """Train the networks to compare (`evaluate.compare`) and predict the test examples.

    The network of `train` is always tested; if it was trained by plain cross-entropy, and its best epoch is also the
    best by the given development labels, by which all networks to compare are chosen, it is also the network on
    cleaned labels.

    Args:
        engines: engines that train and run the networks.
        config: config of the run.
        run: run with finished load, predict and train.
        out: folder for networks and predictions; finished ones of an earlier attempt are kept.
        task: the run's task.
        labels: name of a network -> folder of the labels that it is trained on (None: the given ones) and
            their column.

    Returns:
        Predictions by network name; `trained` is the network of `train`, `last` the same after its last
        epoch.
    """
    from rayclean.models.loading import load_encoder
    from rayclean.runtime.predict import compute_features, predict_heads, predict_shards

    train = run.require("train")
    networks = {"trained": train.url("model")}
    if train.exists("model_last"):
        networks["last"] = train.url("model_last")
    if config.method == PLAIN and config.train.labels == "final" and _chose_as_by_given(config, run):
        networks["cleaned"] = networks["trained"]
    if config.evaluate.compare:
        networks |= _trained(
            engines,
            config,
            run,
            out,
            task.labels.names,
            {k: v for k, v in labels.items() if k not in networks},
        )
    test = run.require("load").sub("test")
    features = run.require("predict").sub("test_features")
    frozen = {name: load_encoder(network).reads_features for name, network in networks.items()}
    if any(frozen.values()) and features.shards() != test.shards():  # predict had no encoder of its own
        features = out.sub("features")
        compute_features(engines, test, features, config.encoder, seed=config.seed, config=config.predict)
    answers: dict[str, Answers] = {}
    for name, network in networks.items():
        if name == "cleaned" and network == networks["trained"]:
            answers[name] = answers["trained"]
            continue
        predictions = out.sub("predictions", name)
        if frozen[name]:
            predict_heads(engines, test, features, predictions, [network], task, folds=None)
        else:
            predict_shards(engines, test, predictions, [network], task, folds=None, config=config.predict)
        answers[name] = _read(predictions, task)
    return answers


def _chose_as_by_given(config: Config, run: Run) -> bool:
    """Whether `train` kept the epoch that the given development labels choose."""
    manifest = run.manifest("train")
    metrics = {} if manifest is None else manifest.metrics
    if metrics.get("dev_labels", "given") == "given":
        return True
    if config.train.patience is not None:  # by other labels it may have ended at another epoch
        return False

    def rank(record: dict[str, Any]) -> tuple[float, float]:
        loss: float = record["dev_loss"]
        return record["dev_accuracy"], -loss if math.isfinite(loss) else -math.inf

    lines = run.require("train").read_text("metrics.jsonl").splitlines()
    best = max(map(json.loads, lines), key=rank)  # the first one of equals, as in training
    return bool(best["epoch"] == metrics["best_epoch"])


def _trained(
    engines: Engines,
    config: Config,
    run: Run,
    out: Folder,
    names: list[str],
    labels: Mapping[str, tuple[str | None, str]],
) -> dict[str, str]:
    cached = run.require("predict").sub("features")
    features = cached.url() if cached.shards() else None
    jobs = [
        FitJob(
            f"compare-{name}",
            DataSpec(run.require("load").url("examples"), folder, column, features),
            ExampleSelection("split"),
            config.seed,
            out.url("networks", name),
            best_by="dev_accuracy",  # as `train` does
        )
        for name, (folder, column) in labels.items()
    ]
    if jobs:
        spec = FitSpec(config.encoder, PLAIN, config.train, tuple(names), task=config.task)
        with progress.progress_bar("evaluate: train", None, "epochs") as task:
            seen: set[tuple[str, int]] = set()

            def show(record: dict[str, Any]) -> None:
                key = (record["job"], record["epoch"])
                task.advance(0 if key in seen else 1)  # lost workers may repeat an epoch
                seen.add(key)

            engines.fit_jobs(jobs, spec, out.url("ray"), show)
    return {name: out.url("networks", name, "model") for name in labels}


def _read(folder: Folder, task: Task) -> Answers:
    found: Answers = {}
    for shard in folder.shards():
        table = folder.read_table(shard, columns=["example_id", "probabilities"])
        predicted = task.predicted_labels(table["probabilities"])
        found.update(zip(table["example_id"].to_pylist(), predicted.to_pylist(), strict=True))
    return found
