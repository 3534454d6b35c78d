"""The verb train, which trains a network on the final labels by the configured method.

It reads `load/examples/`, `relabel/labels/` and, for a frozen encoder, `predict/features/`, on which only the
layers after the body are trained. A method that asks queries the annotator between epochs, through the run's
ledger. The verb writes `model/` (the best epoch; a model of Hugging Face, where there is an equal one), `model_last/`,
`metrics.jsonl` (a line per epoch), `epochs/` (the method's columns per example, after each epoch), `dynamics/` (the final
columns, the label trained on and the method's quality of it), `measures.json` (the part of them that the report shows) and
`result.json`.

The best epoch is the most accurate one on the final labels of the development examples that are no unresolved
suspects; where given labels are trained on, or development labels are declared clean, on the given ones of all.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rayclean import progress
from rayclean.annotators import ANNOTATORS, build_annotator
from rayclean.annotators.choices import Measured
from rayclean.annotators.final_labels import EXAMPLE_LABELS
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.measuring import measured_for_methods, remark_on
from rayclean.annotators.query_budget import Budget
from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.measures import Measures
from rayclean.methods import METHODS
from rayclean.methods.base import Method
from rayclean.run import Run
from rayclean.runtime.asking import AskingPlan
from rayclean.runtime.engines import IN_PROCESS, Engines, OnEpoch
from rayclean.runtime.needs import VerbNeeds, is_small_training, network_seconds
from rayclean.runtime.server_checks import validate_server
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec
from rayclean.training.query_annotator import AskAnnotator
from rayclean.verbs.compare_networks import compares_heads

logger = logging.getLogger(__name__)

VERSION = 7


def validate(config: Config, run: Run) -> None:
    """Check that the encoders, the method and, if it asks, the annotator exist, that their options are right,
    that they can do what the task needs, and that what is to be shown of the method exists, too.

    Raises:
        ConfigError: a name or option is unknown or invalid.
    """
    from rayclean.models.loading import check_per_token, encoder_class
    from rayclean.training import views
    from rayclean.training.inputs import reads_features
    from rayclean.training.setup import check_label_form

    check_label_form(config.method, config.task)
    per_token = TASKS.resolve(config.task.name).per_token
    method = METHODS.build(config.method, 2, config.seed)  # the number of classes is not known yet
    kept = {*method.state(), "example_id", "given_label"}
    if missing := sorted(set(method.measures().columns) - kept):
        raise ConfigError(
            f"method {config.method.name}: measures() names the columns {', '.join(missing)}, which state() does not "
            f"keep; it keeps {', '.join(method.state()) or 'none'}"
        )
    for encoder in method.encoders(config.encoder).values():
        encoder_class(encoder)
        if per_token:
            check_per_token(encoder)
        if method.views:
            cached = reads_features(encoder, per_token) and encoder == config.encoder
            views.check_views(method.views, encoder, reads_tokens=not cached)
    if method.expected_queries(method.config) is not None:
        annotator = build_annotator(config, ())
        if not annotator.asks:
            raise ConfigError(
                f"method {config.method.name!r} asks an annotator, and {config.annotator.name!r} answers nothing: set "
                "annotator.name to knn (which needs nothing else), served or openai"
            )
        annotator.check()
        validate_server(annotator)


def needs(config: Config, run: Run) -> VerbNeeds:
    """Require the training workers and, at the same time, the language model of a method that asks."""
    method, options = METHODS.checked(config.method)
    annotator = build_annotator(config, ()) if method.expected_queries(options) is not None else None
    server = None if annotator is None else annotator.server()
    servers = () if server is None else (server,)
    small = is_small_training(config.encoder, config.method, config.task)
    return VerbNeeds(
        trains=True, batch_size=config.train.batch_size, small=small, servers=servers,
        network=not small or config.cluster.use_gpu is True,
        seconds=network_seconds(config, run, cached=compares_heads(config)),
    )  # fmt: skip


def run(
    config: Config,
    run: Run,
    out: Folder,
    engines: Engines = IN_PROCESS,
    on_epoch: OnEpoch = lambda record: None,
) -> dict[str, Any]:
    """Train, and return epochs, best epoch, development figures, speed, and the annotator's cost.

    Args:
        config: config of the run.
        run: the run folder.
        out: folder for the output.
        engines: engines that train the network and run the annotator.
        on_epoch: called once per epoch with its line of `metrics.jsonl`.
    """
    load = run.require("load")
    labels = LabelSet.from_json(load.read_text("labels.json")).described(
        config.dataset.words, config.dataset.definitions
    )
    features = run.require("predict").sub("features")
    final = config.train.labels == "final"
    folder = "labels" if TASKS.build(config.task, labels).units_are_examples else EXAMPLE_LABELS
    data = DataSpec(
        examples=load.url("examples"),
        labels=run.require("relabel").url(folder) if final else None,
        label_column="final_label" if final else "given_label",
        sources=run.require("relabel").url("labels") if final and not config.dataset.dev.clean else None,
        features=features.url() if features.shards() else None,
    )
    job = FitJob(
        "train", data, ExampleSelection("split"), config.seed, out.url(),
        keep_last=True, keep_epochs=True, standalone=True, best_by="dev_accuracy",
    )  # fmt: skip
    method = METHODS.build(config.method, len(labels), config.seed)
    answers_depend_on = _answers_depend_on(config, run, labels, method)
    spec = FitSpec(
        config.encoder, config.method, config.train, tuple(labels.names), answers_depend_on, config.task
    )
    measures = method.measures()
    shown: set[int] = set()
    with (
        progress.progress_bar("train", config.train.epochs, "epochs") as bar,
        _annotator(engines, config, run, out, labels, method) as annotator,
    ):

        def show(record: dict[str, Any]) -> None:
            bar.total = record["epochs"]
            bar.advance(max(0, record["epoch"] - bar.done))  # an epoch may be repeated after a lost worker
            if record["epoch"] not in shown:
                shown.add(record["epoch"])
                on_epoch(record)
                bar.note(epoch_note(record, measures))

        result = engines.fit_jobs([job], spec, out.url("ray"), show, annotator)["train"]
    out.remove("ray")
    chosen_by = result.chosen_by()
    if note := chosen_by.get("note"):
        logger.warning("train: %s", note)
    return {
        "method": config.method.name,
        "labels": config.train.labels,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "selected_by": result.selected_by,
        "dev_loss": result.dev_loss,
        "dev_accuracy": result.dev_accuracy,
        **chosen_by,
        "train_examples": result.train_examples,
        "dev_examples": result.dev_examples,
        "seconds": result.seconds,
        "examples_per_second": result.examples_per_second,
        **(
            {"annotator": _paid(config, run, out)}
            if method.expected_queries(method.config) is not None
            else {}
        ),
    }


def epoch_note(record: dict[str, Any], measures: Measures) -> str:
    """A line for the terminal on an epoch: losses, development accuracy, sizes of subsets, queries, figures.

    Args:
        record: the epoch's line of `metrics.jsonl`.
        measures: measures that the method declares for display.
    """
    parts = [f"epoch {record['epoch']}/{record['epochs']}", f"loss {record['loss']:.4g}"]
    if record["dev_accuracy"] is not None:
        final = record.get("dev_accuracy_final")
        aside = "" if final is None else f" (given labels {record['dev_accuracy']:.3f})"
        parts.append(f"dev {record['dev_accuracy'] if final is None else final:.3f}{aside}")
    names = measures.subsets.values if measures.subsets is not None else ()
    sizes = {name.replace("_", " "): record[f"size_{name}"] for name in names}
    if any(sizes.values()):
        parts.append(", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    if record.get("asked") or record.get("from_ledger"):
        parts.append(f"asked {int(record['asked']):,} (+ {int(record['from_ledger']):,} from the ledger)")
    parts += [
        f"{figure.title} {figure.written(record[name])}"
        for name, figure in measures.figures.items()
        if figure.line and record.get(name) is not None
    ]
    if record.get("annotator_failed"):
        parts.append("THE ANNOTATOR FAILED")
    return " · ".join(parts)


def _answers_depend_on(config: Config, run: Run, labels: LabelSet, method: Method) -> tuple[Any, ...]:
    """Values in the job's key on which the annotator's answers depend, such as its identity and the labels'
    words.
    """
    if method.expected_queries(method.config) is None:
        return ()
    _, options = ANNOTATORS.checked(config.annotator)
    measured = _measured(config, run, labels)
    known = None if measured is None else measured.to_json()
    return (config.annotator.name, options.identity(), config.relabel.calibration, labels.to_json(), known)


def _measured(config: Config, run: Run, labels: LabelSet) -> Measured | None:
    manifest = run.manifest("relabel")
    return measured_for_methods(config, manifest.metrics["judged"] if manifest else (), len(labels))


def _session(out: Folder) -> str:
    """Name of the ledger's session for this training."""
    return f"train {out.name}"


def _paid(config: Config, run: Run, out: Folder) -> dict[str, Any]:
    """Queries, tokens and cost of this training, including failed queries, and the number of answers from the
    ledger.
    """
    spent = Ledger(run.sub("ledger"), _session(out)).spent
    budget, used = Budget.of(build_annotator(config, ())), _used(out)
    return {
        **budget.paid(spent),
        "from_ledger": sum(int(line.get("from_ledger", 0)) for line in _epochs(out)),
        # The tokens of all answers, including those paid for by other trainings.
        "worth": {
            "queries": used.queries,
            "tokens": used.prompt_tokens + used.answer_tokens,
            "cost": budget.cost(used.prompt_tokens, used.answer_tokens),
        },
    }


def _epochs(out: Folder) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`."""
    if not out.exists("metrics.jsonl"):
        return []
    return [json.loads(line) for line in out.read_text("metrics.jsonl").splitlines()]


def _used(out: Folder) -> Spent:
    """Queries and tokens of the finished epochs, including answers from the ledger."""
    lines = _epochs(out)

    def total(*keys: str) -> int:
        return sum(int(line.get(key, 0)) for line in lines for key in keys)

    return Spent(
        total("asked", "from_ledger"),
        prompt_tokens=total("prompt_tokens"),
        answer_tokens=total("answer_tokens"),
    )


@contextmanager
def _annotator(
    engines: Engines, config: Config, run: Run, out: Folder, labels: LabelSet, method: Method
) -> Iterator[AskAnnotator | None]:
    """The annotator and its server, available inside the block; None for a method that does not ask."""
    if method.expected_queries(method.config) is None:
        yield None
        return
    annotator, relabel = build_annotator(config, tuple(labels)), config.relabel
    calibration = annotator.calibration(relabel.calibration, len(labels))
    budget = replace(Budget.of(annotator), max_queries=None)  # a method counts its queries itself
    measured = _measured(config, run, labels)
    if remark := remark_on(config.annotator.name, measured):
        logger.warning("train: %s", remark)
    if measured is not None and not measured.worth.above_chance:
        yield None  # its model is not started, and nothing is prepared for questions
        return
    annotator.check()
    with engines.hosted(annotator, run.url(), trains=True) as ready:
        used = _used(out) if run.shares_ledger else None
        asking = AskingPlan(ready, run.url("ledger"), _session(out), budget, relabel.max_error_rate, used)
        with engines.consulting(
            asking,
            examples=run.require("load").url("examples"),
            labels=labels,
            calibration=calibration,
            measured=measured,
        ) as asker:
            yield asker
