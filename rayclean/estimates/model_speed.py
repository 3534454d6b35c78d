"""How fast an annotator answers: measured now, or known from an earlier run."""

import time
from dataclasses import dataclass

from rayclean import progress
from rayclean.annotators import build_annotator, relabel_annotators
from rayclean.config import Config, Plugin
from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.runtime.engines import Workplace
from rayclean.runtime.session import Session
from rayclean.verb_fingerprints import verb_module

QUESTIONS = 64
"""Questions by which a model's speed is measured."""
_MOST_RUNS = 200
"""Most earlier runs that are looked at."""


@dataclass(frozen=True)
class AnswerSpeed:
    """How fast an annotator answers."""

    seconds_per_question: float
    start: float
    """Seconds until it answers."""
    basis: str
    """Where that comes from, in words."""


def earlier_speed(config: Config, plugin: Plugin) -> AnswerSpeed | None:
    """The speed at which a model answered in an earlier run of the same output folder; None where it never did.

    Args:
        config: of the run.
        plugin: the annotator.
    """
    annotator = build_annotator(config, (), plugin)
    model = getattr(annotator, "model_name", None)
    output = Folder(config.output)
    if model is None or not output.exists():
        return None
    for name in sorted(output.names())[:_MOST_RUNS]:
        try:
            manifest = Run(output.url(name)).manifest("relabel")
        except ArtifactError:  # of another rayclean
            continue
        figures = {} if manifest is None else manifest.metrics
        if figures.get("queries_per_second") and (figures.get("annotator") or {}).get("model") == model:
            return AnswerSpeed(
                1 / figures["queries_per_second"], 0.0, f"as in the earlier run {name}, its start included"
            )
    return None


def measure_speed(config: Config, run: Run, plugin: Plugin) -> AnswerSpeed:
    """Start the model of an annotator, and ask it some questions about a sample.

    Args:
        config: of a rehearsal whose `detect` is done.
        run: its folder.
        plugin: the annotator of the real run.

    Raises:
        RaycleanError: the model cannot be served here.
    """
    options = {**plugin.options, "max_queries": QUESTIONS}
    relabel = config.relabel.model_copy(update={"annotators": (), "controls": QUESTIONS, "ask_all": True})
    config = config.model_copy(update={"annotator": Plugin(name=plugin.name, **options), "relabel": relabel})
    moments: list[tuple[float, int]] = []

    def seen(bar: progress.ProgressBar, amount: int) -> None:
        if bar.title == "relabel: answers":
            moments.append((time.monotonic(), amount))

    start = time.monotonic()
    needs = [verb_module("relabel").needs(config, run)]
    with (
        progress.observed(seen),
        progress.unseen(),
        Session(config.cluster, run.name, Workplace()) as session,
    ):
        session.prepare(needs)
        figures = verb_module("relabel").run(
            config, run, run.begin("relabel", "speed"), session.engines(needs)
        )
    # The bar moves for questions beyond the budget, too, which nobody is asked.
    answered = int(figures["asked"]) - (moments[0][1] if moments else 0)
    if len(moments) < 2 or answered < 1:  # one answer says nothing of the speed
        return AnswerSpeed(
            (time.monotonic() - start) / QUESTIONS, 0.0, f"measured on {QUESTIONS} questions, with its start"
        )
    seconds = (moments[-1][0] - moments[0][0]) / answered
    return AnswerSpeed(seconds, moments[0][0] - start, f"measured on {answered} questions of a sample")


def asking_plugins(config: Config) -> list[Plugin]:
    """The annotators of `relabel` that are asked."""
    return [plugin for plugin in relabel_annotators(config) if build_annotator(config, (), plugin).asks]
