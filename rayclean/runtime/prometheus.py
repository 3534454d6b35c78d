"""Metrics of runs on a cluster for Prometheus, shown by the dashboard `cluster/grafana/rayclean.json`.

    rayclean_done_total{run, work, unit}       examples predicted, queries answered, epochs trained ...; its rate is rows/s
    rayclean_expected{run, work, unit}         expected total of the same
    rayclean_answers_total{run, outcome}       answers of the annotator by outcome: "ok", or the kind of error
    rayclean_tokens_total{run, kind}           tokens of the annotator: prompt, answer
    rayclean_waiting{run}                      queries not answered yet
    rayclean_verb_seconds{run, verb}           wall time of a finished verb
    rayclean_figure{run, verb, figure}         figures of a finished verb (suspects, changed, ...)

Ray's node agents export them under these names with the prefix `ray_`. An embedded Ray has no agent, so it
exports nothing.
"""

import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from rayclean import progress
from rayclean.annotators.engine import Meter
from rayclean.annotators.query import Annotation
from rayclean.runtime import environment as environment

from ray.util.metrics import Counter, Gauge


def reporting_progress(run: str) -> AbstractContextManager[None]:
    """Count the progress inside the block for this run."""
    return progress.observed(functools.partial(_progressed, run))


def report_finished(run: str, verb: str, seconds: float, figures: Mapping[str, Any]) -> None:
    """Set the gauges of a finished verb."""
    _gauge("rayclean_verb_seconds", "Wall time of a finished verb.", "run", "verb").set(
        seconds, {"run": run, "verb": verb}
    )
    for name, value in figures.items():
        if isinstance(value, int | float):
            _gauge("rayclean_figure", "A figure of a finished verb.", "run", "verb", "figure").set(
                float(value), {"run": run, "verb": verb, "figure": name}
            )


def meter_answers(run: str) -> Meter:
    """A meter of an engine's answers; it counts nothing if `run` is empty."""
    return _Meter(run) if run else Meter()


class _Meter(Meter):
    def __init__(self, run: str):
        self.run = {"run": run}

    def waiting(self, count: int) -> None:
        _gauge("rayclean_waiting", "Queries not answered yet.", "run").set(count, self.run)

    def answered(self, annotation: Annotation) -> None:
        outcome = "ok" if annotation.error is None else annotation.error_kind or "invalid"
        _counter("rayclean_answers", "Questions asked, by outcome.", "run", "outcome").inc(
            1, {**self.run, "outcome": outcome}
        )
        for kind, tokens in (("prompt", annotation.prompt_tokens), ("answer", annotation.answer_tokens)):
            if tokens:
                _counter("rayclean_tokens", "Tokens of the annotator.", "run", "kind").inc(
                    tokens, {**self.run, "kind": kind}
                )


def _progressed(run: str, task: progress.ProgressBar, amount: int) -> None:
    tags = {"run": run, "work": task.title, "unit": task.unit}
    _counter("rayclean_done", "Units of work done.", "run", "work", "unit").inc(amount, tags)
    if task.total:
        _gauge("rayclean_expected", "Units of work there will be.", "run", "work", "unit").set(
            task.total, tags
        )


@functools.lru_cache
def _counter(name: str, text: str, *tags: str) -> Counter:
    return Counter(name, text, tags)


@functools.lru_cache
def _gauge(name: str, text: str, *tags: str) -> Gauge:
    return Gauge(name, text, tags)
