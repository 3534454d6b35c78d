"""The verb predict, which computes class probabilities of every example by self-prediction.

The modes are `out_of_fold` (K networks, each of which predicts the fold it was not trained on), `in_sample`
(one network, stopped early by the development loss), `given` (probabilities from a file) and `model` (a
classifier from an earlier `train`, without further training). Where a label is one class, further experts predict, too
(`predict_experts.py`), and `predictions/` is their mean. The verb writes `predictions/`, `features/`, `folds/` and
`models/`, in shards named like those of `load/examples/`.

A frozen encoder runs once: it computes `features/` (and `test_features/` of the test examples, for
`evaluate`), on which K heads are trained and run; trials of a sweep that differ only in labels share these
features. If the body is trained, network 0 computes `features/` of every example, including those it was
trained on, because retrieval needs a single space. In mode `given` the untrained encoder computes them, in
mode `model` the classifier, unless the configured encoder is frozen and computes them itself, since `train`
reads them.
"""

import time
from functools import partial
from typing import Any

from rayclean.config import Config
from rayclean.datasets.own_probabilities import check_probability_columns, find_probability_files
from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder
from rayclean.models.loading import check_per_token, describe_encoder, encoder_class
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import VerbNeeds, network_seconds
from rayclean.runtime.shard_figures import agreement
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.training.fold_table import write_folds
from rayclean.training.inputs import reads_features
from rayclean.training.passes import BATCH_SIZE
from rayclean.training.side_by_side import trains_side_by_side
from rayclean.verbs.predict_classifier import Classifier, probability_key
from rayclean.verbs.predict_experts import CLASSIFIER, chosen_experts, mix_experts
from rayclean.verbs.predict_remarks import check_agreement, check_divisible, rare_classes, unread_tags

VERSION = 6


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
    chosen_experts(config)
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
        check_probability_columns(find_probability_files(config.predict.path), probability_key(config))
    if config.predict.model is not None:
        describe_encoder(config.predict.model)


def needs(config: Config, run: Run) -> VerbNeeds:
    """Require the training workers, unless probabilities or a trained classifier are given or the networks are so small
    that this process trains them, and estimate the time to run the network.
    """
    trains = config.predict.mode in ("out_of_fold", "in_sample")
    small = trains_side_by_side(config.encoder, TASKS.resolve(config.task.name).per_token)
    size = config.predict.training.batch_size or BATCH_SIZE
    return VerbNeeds(
        trains=trains and not small, batch_size=size, network=True, seconds=network_seconds(config, run)
    )


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Train, predict, check that every example has a prediction, and return figures on the given labels.

    Raises:
        ConfigError: there are fewer than two classes, or a trained classifier knows others.
        DataError: given probabilities are wrong, or their columns likely in another order; or all texts are equal.
    """
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
    features, predictions, folds = out.sub("features"), out.sub("predictions"), out.sub("folds")
    seconds: dict[str, float] = {}
    embedded: dict[str, Any] = {}

    write_folds(
        examples, folds, engines.map_items, config.seed, settings.folds
    )  # in every mode: it knows the copies
    check_divisible(settings, folds)
    if frozen and not given:
        with _clock(seconds, "features"):
            embedded = _write_features(config, run, out, engines, frozen)
    mixed = task.label_form == "class"  # else the classifier is the only expert
    classifier = Classifier(config, engines, task, load, out, folds, features, frozen)
    with _clock(seconds, "fit"):
        fits = classifier.fit()
    with _clock(seconds, "predict"):
        figures, passed_over = classifier.predict(
            fits, out.sub("experts", CLASSIFIER) if mixed else predictions
        )
    brought = settings.mode in ("given", "model")  # whose faults a mean with other experts would hide
    remarks: dict[str, list[str]] = {}
    if mixed and brought:
        judged = out.sub("experts", CLASSIFIER)
        remarks["alarms"] = check_agreement(settings, judged, engines.map_items, names)
    if given:  # not before its probabilities are accepted, since the encoder takes longest
        with _clock(seconds, "features"):
            embedded = _write_features(config, run, out, engines, frozen)
    mixture: dict[str, Any] = {}
    if mixed:
        with _clock(seconds, "experts"):
            loaded = run.manifest("load")
            labelled = loaded is None or not loaded.metrics.get("without_label", 0)
            mixture, mean = mix_experts(config, engines, examples, out, len(names), labelled)
        figures |= mean
    embedded = embedded or figures
    _check_complete(examples, predictions)
    _check_complete(examples, features)
    if mixed and not brought:
        remarks["alarms"] = check_agreement(settings, predictions, engines.map_items, names)
    if mixed:
        remarks["warnings"] = rare_classes(settings, out, engines.map_items, names)
    max_length = (
        options.max_length
        if settings.model is None
        else describe_encoder(settings.model)["options"]["max_length"]
    )
    if task.per_token and embedded["cut"]:
        remarks["warnings"] = unread_tags(config, task, load, predictions, engines.map_items, max_length)
    out.remove("experts")
    return {
        "mode": settings.mode,
        "examples": figures["rows"],
        "folds": len(fits),
        **agreement(figures),
        **mixture,
        **remarks,
        "truncated": embedded["cut"],
        "truncated_share": embedded["cut"] / embedded["rows"],
        "max_length": max_length,
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


def _write_features(config: Config, run: Run, out: Folder, engines: Engines, frozen: bool) -> dict[str, Any]:
    """Write `features/` by the untrained encoder, and `test_features/` if it stays as it is; returns the figures of
    `compute_features` of the examples.
    """
    from rayclean.runtime.predict import compute_features

    load, kept = run.require("load"), run.kept_features() if frozen else None
    embed = partial(
        compute_features, engines, encoder=config.encoder, seed=config.seed, config=config.predict, kept=kept
    )
    figures: dict[str, Any] = embed(load.sub("examples"), out.sub("features"))
    if frozen and load.shards("test"):
        embed(load.sub("test"), out.sub("test_features"))
    return figures


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
