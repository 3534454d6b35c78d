"""The real verbs on a part of the sample, with a clock beside them."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayclean import interrupts, progress
from rayclean.annotators import ANNOTATORS
from rayclean.config import Config, Plugin
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.methods import METHODS
from rayclean.models.loading import build_encoder, encoder_class
from rayclean.pipeline import open_run
from rayclean.run import VERBS, Run
from rayclean.runtime.engines import Engines, OnEpoch
from rayclean.tasks import TASKS
from rayclean.training.job import FitJob, FitResult, FitSpec
from rayclean.training.query_annotator import AskAnnotator
from rayclean.training.setup import plan_stages
from rayclean.training.side_by_side import trains_side_by_side
from rayclean.verb_fingerprints import verb_module

_MARK = "rehearsal"
"""In the place of the fingerprints of finished verbs."""
_FOLDS = 2
"""Folds where a network is trained that takes long; their number is made up for afterwards."""


@dataclass
class VerbTime:
    """What a verb took on a part of the sample."""

    examples: int
    """Examples that `load` accepted."""
    seconds: float = 0.0
    training: float = 0.0
    """Seconds of it in which epochs were trained, without what a training takes before and after them."""
    work: int = 0
    """Examples times epochs of these trainings."""
    metrics: dict[str, Any] = field(default_factory=dict)
    networks: int = 0
    """Networks that were trained."""

    @property
    def rest(self) -> float:
        """Seconds beside epochs."""
        return max(0.0, self.seconds - self.training)


@dataclass(frozen=True)
class RehearsedRun:
    """All verbs on one part of the sample."""

    examples: int
    verbs: dict[str, VerbTime]
    run: Run
    config: Config


@dataclass(frozen=True)
class Shortened:
    """What a rehearsal leaves out of a config, so that it takes seconds, and must be made up for."""

    config: Config
    is_small: bool
    """Whether the networks of `predict` are so small that they are trained as the config says."""
    predict_epochs: float
    """Epochs of the config for each one of the rehearsal, in `predict`."""
    train_epochs: float
    """The same in `train` and in the comparisons of `evaluate`."""
    folds: float
    """Training work of `predict` with all folds, for that of the rehearsal."""


def shortened(config: Config, epochs: int = 1) -> Shortened:
    """The config of a rehearsal: nobody is asked, nothing is waited for, and trainings end after an epoch or two.

    Args:
        config: of the real run.
        epochs: of `train`, and of the comparisons of `evaluate`; more where a method does all that it does only then.
    """
    task = TASKS.resolve(config.task.name)
    small = trains_side_by_side(config.encoder, task.per_token)
    predict, train = config.predict, config.train
    method = METHODS.build(config.method, 2, config.seed)
    network: Any = build_encoder(config.encoder, 2, config.seed, task.per_token)
    own = int(network.default_epochs)
    all_epochs = train.epochs or method.default_epochs or own
    few = min(
        all_epochs, max(epochs, method.first_choice)
    )  # until a method has done all that it does in an epoch
    stages = method.stages()
    train_epochs = plan_stages(stages, all_epochs)[-1].last / plan_stages(stages, few)[-1].last
    train = train.model_copy(update={"epochs": few})
    predict_epochs = folds = 1.0
    if not small:
        predict_epochs = float(predict.training.epochs or own)
        training = predict.training.model_copy(update={"epochs": 1})
        if predict.mode == "out_of_fold":
            folds = (predict.folds - 1) / (_FOLDS - 1)
            predict = predict.model_copy(update={"folds": _FOLDS})
        predict = predict.model_copy(update={"training": training})
    if predict.mode == "given":  # of other ids; whatever else predict does is rehearsed without them
        without = {"mode": "out_of_fold", "path": None, "columns": None, "experts": ()}
        predict = predict.model_copy(update=without)
    annotator = _asks_nobody() if method.expected_queries(method.config) is None else _asks_nobody_else()
    relabel = config.relabel.model_copy(
        update={"annotators": (), "certify": None, "max_harm": None, "beyond": 0}
    )
    budget = config.detect.budget if isinstance(config.detect.budget, float) else 0.1
    detect = config.detect.model_copy(update={"budget": budget})
    sections = {
        "predict": predict,
        "train": train,
        "relabel": relabel,
        "detect": detect,
        "annotator": annotator,
    }
    return Shortened(config.model_copy(update=sections), small, predict_epochs, train_epochs, folds)


def seconds_per_text(config: Config) -> float:
    """What a text costs, roughly, before anything was measured: by it the size of a rehearsal is chosen."""
    cls, options = encoder_class(config.encoder)
    return cls.seconds_per_text(options)


def rehearse(config: Config, verbs: Sequence[str] = VERBS) -> RehearsedRun:
    """Run verbs in this process and time each.

    Args:
        config: of a run on a sample (`sampling.sample_config`), shortened.
        verbs: the first ones of `VERBS`, in their order.

    Raises:
        RaycleanError: the sample cannot be run: what the run itself would say.
    """
    run, found, examples = open_run(config), dict[str, VerbTime](), 0
    engines = _TimedEngines(config.cluster)
    with progress.unseen():
        for verb in verbs:
            interrupts.check()
            engines.results.clear()
            start = time.monotonic()
            out = run.begin(verb, _MARK)
            metrics = verb_module(verb).run(config, run, out, engines)
            run.commit(verb, _MARK, out, time.monotonic() - start, metrics)
            seconds = time.monotonic() - start
            examples = int(metrics["examples"]) if verb == "load" else examples
            found[verb] = VerbTime(
                examples, seconds, *_trained(engines.results), metrics, len(engines.results)
            )
    return RehearsedRun(examples, found, run, config)


@dataclass(frozen=True)
class _TimedEngines(Engines):
    """Engines of this process that keep what trainings took."""

    results: list[FitResult] = field(default_factory=list)

    def fit_jobs(
        self,
        jobs: Sequence[FitJob],
        spec: FitSpec,
        work: str,
        on_epoch: OnEpoch = lambda record: None,
        consult: AskAnnotator | None = None,
    ) -> dict[str, FitResult]:
        found = super().fit_jobs(jobs, spec, work, on_epoch, consult)
        self.results.extend(found.values())
        return found

    def fit_side_by_side(
        self, jobs: Sequence[FitJob], spec: FitSpec, on_epoch: OnEpoch = lambda record: None
    ) -> dict[str, FitResult]:
        found = super().fit_side_by_side(jobs, spec, on_epoch)
        self.results.extend(found.values())
        return found


def _trained(results: Iterable[FitResult]) -> tuple[float, int]:
    """Seconds of all epochs, and examples times epochs."""
    each = list(results)
    return sum(one.seconds for one in each), sum(one.train_examples * one.epochs for one in each)


def time_fit(rehearsed: RehearsedRun, batch_size: int) -> tuple[float, int]:
    """Train the networks of `predict` once more, with batches of another size, on what `predict` has written.

    Returns:
        Seconds, and examples times epochs.
    """
    from rayclean.schema import LabelSet
    from rayclean.verbs.predict_classifier import Classifier

    config, run = rehearsed.config, rehearsed.run
    training = config.predict.training.model_copy(update={"batch_size": batch_size})
    config = config.model_copy(update={"predict": config.predict.model_copy(update={"training": training})})
    load, predict = run.require("load"), run.require("predict")
    task = TASKS.build(config.task, LabelSet.from_json(load.read_text("labels.json")))
    cls, options = encoder_class(config.encoder)
    engines, out = _TimedEngines(config.cluster), Folder(run.url("again"))
    frozen = cls.is_frozen(options) and not task.per_token
    with progress.unseen():
        results = Classifier(
            config, engines, task, load, out, predict.sub("folds"), predict.sub("features"), frozen
        ).fit()
    return _trained(results)


def _asks_nobody() -> Plugin:
    """The annotator of configs that name none: the model alone decides."""
    plugin: Plugin = Config.model_fields["annotator"].default
    return plugin


def _asks_nobody_else() -> Plugin:
    """An annotator that answers a method's questions at once and for free."""
    for name in ANNOTATORS:
        cls = ANNOTATORS.resolve(name)
        if cls.asks and not cls.billable and not cls.independent:
            return Plugin(name=name)
    raise ConfigError("no annotator answers without a language model; install rayclean again")
