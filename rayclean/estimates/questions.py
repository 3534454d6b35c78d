"""The questions of a run: how many at most, and what one of them costs by real prompts of the sample."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rayclean.annotators import build_annotator
from rayclean.annotators.demonstrations import DemonstrationSources
from rayclean.annotators.estimate import LoadedTexts, QuestionEstimate, estimate_relabel, measure_queries
from rayclean.annotators.query import Query
from rayclean.config import Config, Plugin
from rayclean.estimates.model_speed import AnswerSpeed, asking_plugins, earlier_speed, measure_speed
from rayclean.estimates.rehearsal import RehearsedRun
from rayclean.forecast import estimate_training
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.verbs.relabel_stage import AnnotatorStage

_QUERIES = 200
"""Most real prompts that are made."""
_ROWS_PER_CHUNK = 1 << 20


@dataclass(frozen=True)
class QuestionCosts:
    """What an asker asks an annotator in a run, at most."""

    asker: str
    """`relabel`, or the name of a method."""
    annotator: str
    questions: int | None
    """At most; None: unlimited."""
    tokens: int
    """Of prompts and answers, within the budget."""
    cost: float
    """By the prices of the config, within the budget."""
    currency: str | None
    seconds: float | None
    """Until all are answered; None: not known."""
    basis: str
    """Where tokens come from, in words."""
    speed_basis: str
    """Where seconds come from, in words."""
    billable: bool


def estimate_costs(
    config: Config, rehearsed: RehearsedRun, data: LoadedTexts, *, measure: bool
) -> list[QuestionCosts]:
    """What the questions of `relabel`, and of a method that asks, will be.

    Args:
        config: of the real run.
        rehearsed: a rehearsal whose `detect` is done.
        data: of the real run, or of the rehearsal as far as that is not loaded.
        measure: whether the language model is started and asked, to learn its speed.

    Raises:
        RaycleanError: the model cannot be served here, or the prompts cannot be made.
    """
    estimates = estimate_relabel(config, data) + estimate_training(config, data)
    plugins: list[Plugin] = [*asking_plugins(config), config.annotator]
    return [
        _costs(
            config, rehearsed, found, next(each for each in plugins if each.name == found.annotator), measure
        )
        for found in estimates
        if found.most != 0
    ]


def _costs(
    config: Config, rehearsed: RehearsedRun, found: QuestionEstimate, plugin: Plugin, measure: bool
) -> QuestionCosts:
    queries, basis = _real_queries(config, rehearsed, plugin), "free"
    if found.billable and queries:
        annotator = build_annotator(config, tuple(_task_answers(rehearsed)), plugin)
        each, basis = measure_queries(annotator, queries)
        found = replace(found, each=each)
    tokens, cost = found.worth(found.most or 0) if found.billable else (0, 0.0)
    speed = _speed(config, rehearsed, plugin, measure) if found.billable else None
    seconds = (
        None if speed is None or found.most is None else speed.start + speed.seconds_per_question * found.most
    )
    unknown = (
        "not known: --measure-model measures it" if found.billable else "as much as the rest of the verb"
    )
    return QuestionCosts(
        found.asker, found.annotator, found.most, tokens, cost, found.budget.currency,
        seconds if found.billable else 0.0, basis, speed.basis if speed else unknown, found.billable,
    )  # fmt: skip


def _speed(config: Config, rehearsed: RehearsedRun, plugin: Plugin, measure: bool) -> AnswerSpeed | None:
    """The speed of an annotator; only a model that is served here is asked to measure it: others would be paid."""
    served = build_annotator(config, (), plugin).server() is not None
    if measure and served:
        return measure_speed(rehearsed.config, rehearsed.run, plugin)
    return earlier_speed(config, plugin)


def _task_answers(rehearsed: RehearsedRun) -> LabelSet:
    labels = LabelSet.from_json(rehearsed.run.read_text("load", "labels.json"))
    return TASKS.build(rehearsed.config.task, labels).answers


def _real_queries(config: Config, rehearsed: RehearsedRun, plugin: Plugin) -> Sequence[Query]:
    """Questions about suspects of the sample, as `relabel` makes them."""
    run = rehearsed.run
    labels = LabelSet.from_json(run.read_text("load", "labels.json"))
    task = TASKS.build(config.task, labels)
    annotator = build_annotator(config, tuple(task.answers), plugin, task)
    folders = [run.require(verb) for verb in ("load", "predict", "detect")]
    sources = DemonstrationSources(folders[0].url(), folders[1].url(), folders[2].url(), task)
    stage = AnnotatorStage(
        rehearsed.config, 0, annotator, task, sources, run, run.sub("questions", plugin.name)
    )
    builder = stage.query_builder(stage.out.sub("queries", "annotator-00"), _ROWS_PER_CHUNK, None, None)
    builder.build(folders[0].shards("examples"))
    _, queries = stage.chunk_work.read(0)
    return queries[:_QUERIES]
