"""The verb predict, which computes class probabilities of every example by self-prediction.

The modes are `out_of_fold` (K networks, each of which predicts the fold it was not trained on), `in_sample`
(one network, stopped early by the development loss), `given` (probabilities from a file) and `model` (a
classifier from an earlier `train`, without further training). The verb writes `predictions/`, `features/` and
`models/`, in shards named like those of `load/examples/`.

A frozen encoder runs once: it computes `features/` (and `test_features/` of the test examples, for
`evaluate`), on which K heads are trained and run; trials of a sweep that differ only in labels share these
features. If the body is trained, network 0 computes `features/` of every example, including those it was
trained on, because retrieval needs a single space. In mode `given` the untrained encoder computes them, in
mode `model` the classifier, unless the configured encoder is frozen and computes them itself, since `train`
reads them.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rayclean.config import Config, Plugin
from rayclean.datasets.own_probabilities import (
    check_probability_columns,
    find_probability_files,
    gather_probabilities,
)
from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder
from rayclean.models.loading import check_per_token, describe_encoder, encoder_class
from rayclean.progress import progress_bar
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import VerbNeeds, network_seconds
from rayclean.runtime.shard_figures import agreement
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitResult, FitSpec
from rayclean.training.job_data import reads_features

VERSION = 1


def validate(config: Config, run: Run) -> None:
    """The encoder can be found, answers what the task asks and reads as many tokens as asked; given
    probabilities have their columns.

    Raises:
        ConfigError: an unknown encoder, option or model, one that cannot answer for words, or given probabilities
            of labels that are not one class.
        ArtifactError: `predict.model` is no trained classifier.
        DataError: given probabilities cannot be read.
    """
    cls, options = encoder_class(config.encoder)
    cls.tokenizer(options)
    task = TASKS.resolve(config.task.name)
    if task.per_token and config.predict.mode in ("out_of_fold", "in_sample"):
        check_per_token(config.encoder)
    if config.predict.mode == "given" and task.label_form != "class":
        raise ConfigError(
            f"predict.mode 'given' reads the probability of each class of one label; for the task {config.task.name!r} "
            "use out_of_fold, in_sample or model"
        )
    if config.predict.mode == "given":
        assert config.predict.path is not None
        check_probability_columns(find_probability_files(config.predict.path), _key(config))
    if config.predict.model is not None:
        describe_encoder(config.predict.model)


def needs(config: Config, run: Run) -> VerbNeeds:
    """Require the training workers, unless probabilities or a trained classifier are given, and estimate the
    time to run the network.
    """
    trains = config.predict.mode in ("out_of_fold", "in_sample")
    return VerbNeeds(trains=trains, network=True, seconds=network_seconds(config, run))


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Train, predict, check that every example has a prediction, and return figures on the given labels."""
    from rayclean.runtime.predict import compute_features, predict_heads, predict_shards

    load = run.require("load")
    examples = load.sub("examples")
    if not examples.shards():
        raise ArtifactError(f"{examples.url()} holds no shards: run `rayclean load` again")
    labels = LabelSet.from_json(load.read_text("labels.json"))
    task, names = TASKS.build(config.task, labels), labels.names
    if len(names) < 2 and task.label_form == "class":
        raise ConfigError(f"predict needs at least two classes, load found {names}; check dataset.label")
    _, options = encoder_class(config.encoder)
    settings, given = config.predict, config.predict.mode == "given"
    frozen = reads_features(config.encoder, task.per_token)
    features, predictions = out.sub("features"), out.sub("predictions")
    seconds: dict[str, float] = {}
    fits: list[FitResult] = []
    embedded: dict[str, Any] = {}
    passed_over = 0

    if frozen or given:
        with _clock(seconds, "features"):
            kept = run.kept_features() if frozen else None
            embed = partial(
                compute_features,
                engines,
                encoder=config.encoder,
                seed=config.seed,
                config=settings,
                kept=kept,
            )
            embedded = embed(examples, features)
            if frozen and load.shards("test"):
                embed(load.sub("test"), out.sub("test_features"))
    if given:
        with _clock(seconds, "predict"):
            figures, passed_over = _take_given(config, load, predictions, len(names))
    elif settings.model is not None:
        _check_classes(settings.model, task)
        with _clock(seconds, "predict"):
            figures = predict_shards(
                engines, examples, predictions, [settings.model], task, seed=config.seed, config=settings,
                features=None if frozen else features,
            )  # fmt: skip
    else:
        with _clock(seconds, "fit"):
            fits = _fit(engines, config, examples, names, features if frozen else None, out)
        networks = [out.url("models", fit.name, "model") for fit in fits]
        with _clock(seconds, "predict"):
            if frozen:
                figures = predict_heads(
                    engines, examples, features, predictions, networks, task, seed=config.seed
                )
            else:
                figures = predict_shards(
                    engines,
                    examples,
                    predictions,
                    networks,
                    task,
                    seed=config.seed,
                    config=settings,
                    features=features,
                )
    embedded = embedded or figures
    _check_complete(examples, predictions)
    _check_complete(examples, features)
    return {
        "mode": settings.mode,
        "examples": figures["rows"],
        "folds": len(fits),
        **agreement(figures),
        "truncated": embedded["cut"],
        "truncated_share": embedded["cut"] / embedded["rows"],
        "max_length": options.max_length if settings.model is None else describe_encoder(settings.model)["options"]["max_length"],
        "examples_per_second": _rate(embedded, seconds["features" if frozen or given else "predict"]),
        **{f"seconds_{name}": round(value, 3) for name, value in seconds.items()},
        **({"ignored_rows": passed_over} if given else {}),
        "fits": {
            fit.name: {
                "epochs": fit.epochs, "best_epoch": fit.best_epoch, "dev_loss": fit.dev_loss,
                "dev_accuracy": fit.dev_accuracy, "train_examples": fit.train_examples, "seconds": fit.seconds,
            }
            for fit in fits
        },
    }  # fmt: skip


def _check_classes(model: str, task: Task) -> None:
    """A classifier of other classes, of the same ones in another order, or of labels of another form would mean
    something else.
    """
    described, names = describe_encoder(model), task.labels.names
    known = list(described["labels"])
    if described.get("label_form", "class") != task.label_form:
        raise ConfigError(
            f"predict.model: {model} was trained on labels of another form ({described.get('label_form', 'class')}) than "
            f"the task has ({task.label_form}); train one on this data set"
        )
    if known != names:
        raise ConfigError(
            f"predict.model: {model} knows the classes {known}, the data set has {names}; set dataset.labels to the "
            "classifier's, in its order, or train one on this data set"
        )


def _fit(
    engines: Engines, config: Config, examples: Folder, names: list[str], features: Folder | None, out: Folder
) -> list[FitResult]:
    """Train the network of every fold, or the single network of in-sample prediction."""
    data = DataSpec(examples.url(), features=features.url() if features is not None else None)
    if config.predict.mode == "in_sample":
        selections = {"all": ExampleSelection("split")}
    else:
        count = config.predict.folds
        selections = {f"fold-{fold}": ExampleSelection("fold", fold, count) for fold in range(count)}
    jobs = [
        FitJob(name, data, selection, config.seed, out.url("models", name))
        for name, selection in selections.items()
    ]
    spec = FitSpec(
        config.encoder, Plugin(name="cross_entropy"), config.predict.training, tuple(names), task=config.task
    )
    with progress_bar("fit", None, "epochs") as progress:
        seen: set[tuple[Any, ...]] = set()

        def show(record: dict[str, Any]) -> None:
            progress.total = record["epochs"] * len(jobs)
            key = (record.get("job"), record["epoch"])
            progress.advance(0 if key in seen else 1)  # lost workers may repeat an epoch
            seen.add(key)

        results = engines.fit_jobs(jobs, spec, out.url("ray"), show)
    out.remove("ray")
    return [results[job.name] for job in jobs]


def _take_given(config: Config, load: Folder, output: Folder, num_classes: int) -> tuple[dict[str, Any], int]:
    """Write `predictions/` from the user's probabilities."""
    from rayclean.runtime.shard_figures import label_figures
    from rayclean.tasks.probabilities import FOLD_NONE, prediction_table

    assert config.predict.path is not None
    ids = {
        name: [
            load.read_table(name, shard, columns=["example_id"])["example_id"].to_numpy()
            for shard in load.shards(name)
        ]
        for name in ("examples", "test")
    }
    rejected = sum(load.read_table("rejected", shard).num_rows for shard in load.shards("rejected"))
    total: dict[str, Any] = {"rows": 0}
    with tempfile.TemporaryDirectory(prefix="rayclean-given-") as folder:
        values, passed_over = gather_probabilities(
            find_probability_files(config.predict.path), _key(config), np.concatenate(ids["examples"]), num_classes,
            Path(folder) / "values.bin",
            not_needed=np.concatenate([np.empty(0, np.int64), *ids["test"]]), rejected=rejected,
        )  # fmt: skip
        with progress_bar("predict", len(values), "examples") as progress:
            for shard, shard_ids in zip(load.shards("examples"), ids["examples"], strict=True):
                labels = load.read_table("examples", shard, columns=["given_label"])["given_label"]
                rows = np.array(values[total["rows"] : total["rows"] + len(shard_ids)])
                fold = np.full(len(shard_ids), FOLD_NONE, dtype=np.int16)
                table = prediction_table(shard_ids, labels, rows, fold)
                output.write_table(table, shard)
                for name, value in {"rows": len(shard_ids), **label_figures(table)}.items():
                    total[name] = total.get(name, 0) + value
                progress.advance(len(shard_ids))
    return total, passed_over


def _key(config: Config) -> str:
    return config.dataset.id or "example_id"


def _check_complete(examples: Folder, output: Folder) -> None:
    """Check that the same shards hold the same ids in the same order, so that none is missing, duplicate or
    extra.

    Raises:
        ArtifactError: shards or ids differ.
    """
    if examples.shards() != output.shards():
        raise ArtifactError(
            f"{output.url()} holds {len(output.shards())} shards, expected the {len(examples.shards())} of "
            f"{examples.url()}: remove the folder and run `rayclean predict` again"
        )
    for shard in examples.shards():
        ids, found = (f.read_table(shard, columns=["example_id"])["example_id"] for f in (examples, output))
        if not ids.equals(found):
            raise ArtifactError(
                f"{output.url(shard)} holds other examples than {examples.url(shard)} ({len(found)} "
                f"and {len(ids)} rows): "
                "remove it and run `rayclean predict` again"
            )


def _rate(figures: dict[str, Any], seconds: float) -> float | None:
    """Examples per second of this attempt, including start-up of the pool; None if nothing remained to do."""
    fresh = figures["rows"] - figures["resumed"]
    return round(fresh / seconds, 1) if fresh else None


class _clock:
    """Context manager that adds the duration of a block, in seconds, under a name."""

    def __init__(self, seconds: dict[str, float], name: str):
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self.seconds[self.name] = time.monotonic() - self.start
