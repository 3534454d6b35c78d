"""The report: one page that needs no network, and the table that the command line prints.

Everything that comes from data (texts, labels, answers, config values) is escaped by jinja2, or by `plots.plain`
where plotly draws it.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from rich import box
from rich.markup import escape
from rich.table import Table

from rayclean.annotations import DECISIONS
from rayclean.evaluation import metrics as figures
from rayclean.evaluation import plots
from rayclean.evaluation.counts import RunCounts
from rayclean.evaluation.formatting import (
    format_count,
    format_figure,
    format_money,
    format_percent,
    format_seconds,
)
from rayclean.evaluation.headlines import NETWORKS, headlines
from rayclean.evaluation.subsets import SUBSETS
from rayclean.evaluation.training_history import MEASURES, TrainingHistory
from rayclean.run import VERBS

SHORT = 260
"""Characters of a text shown at once; the rest is a click away."""
LONG = 20_000
"""Characters of a text kept in the page at all."""
MAX_EPOCHS = 20
"""Rows of the table of epochs; of longer trainings it shows as many, evenly spread, and the best one."""
DRAWN_EPOCHS = 3
"""Epochs whose histograms are drawn: the first, the middle and the last."""

DID = {
    "load": "read, checked and identified the examples",
    "predict": "trained on the data and predicted the very same examples",
    "detect": "scored every label and chose the suspects",
    "relabel": "asked the annotator about the suspects",
    "train": "trained on the final labels",
    "evaluate": "measured, and wrote this page",
}
MEANS = {
    "changed": "another label was chosen with enough confidence",
    "kept": "the given label was confirmed",
    "abstained": "no choice was sure enough, so the given label stays",
    "error": "the query failed, so the given label stays",
    "unasked": "the budget was spent, so the given label stays",
}


@dataclass(frozen=True)
class ReportInputs:
    """What the report shows beside the metrics."""

    name: str
    config: dict[str, Any]
    labels: list[str]
    tally: RunCounts
    said: dict[str, dict[str, Any]]
    """Metrics of the verbs before."""
    changes: list[dict[str, Any]]
    """The most valuable changes: text, given, final, true, confidence, reason, raw, model, quality, example_id."""
    harmed: list[dict[str, Any]]
    """Changes that made a right label wrong."""
    rejected: list[dict[str, Any]]
    """Rows of `schema.REJECTED`."""
    dynamics: TrainingHistory | None = None
    """Of the training that wrote `train/`."""


def render_report(metrics: Mapping[str, Any], material: ReportInputs) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("rayclean.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": format_percent,
        "number": format_count,
        "span": format_seconds,
        "money": format_money,
        "share": format_figure,
    }
    tally = material.tally
    training, training_charts = _training(material)
    return environment.get_template("report.html.jinja").render(
        m=metrics,
        material=material,
        cards=headlines(metrics),
        verbs=_verbs(metrics, material),
        heats=_heats(tally, material.labels, metrics),
        charts=_charts(metrics, tally) | training_charts,
        training=training,
        outcomes=_outcomes(metrics),
        detectors=metrics["detection"]["detectors"] or {},
        splits=metrics["noise"]["by_split"],
        rejected=material.said["load"]["rejected"],
        networks=NETWORKS,
        config=json.dumps(material.config, indent=1, ensure_ascii=False),
        short=SHORT,
        long=LONG,
        plotlyjs=get_plotlyjs(),
        nonce=secrets.token_urlsafe(16),
    )


def run_table(metrics: Mapping[str, Any]) -> Table:
    """The headline figures for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title="What came of it", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for card in headlines(metrics):
        table.add_row(escape(card.title), escape(card.value), escape(card.brief))
    for name, text in metrics["measured_on"].items():
        table.add_row(f"{name} measured on", "", escape(text))
    for note in metrics["notes"]:
        table.add_row("note", "", escape(note), style="yellow")
    return table


def _verbs(metrics: Mapping[str, Any], material: ReportInputs) -> list[dict[str, Any]]:
    counts, cost = metrics["counts"], metrics["cost"]
    train = material.said["train"]
    outcome: dict[str, Callable[[], str]] = {
        "load": lambda: (
            f"{counts['examples']:,} examples, {counts['test']:,} for the test, {counts['rejected']:,} rejected"
        ),
        "predict": lambda: f"{counts['examples']:,} predictions over {counts['classes']:,} classes",
        "detect": lambda: (
            f"{counts['suspects']:,} suspects ({format_percent(metrics['detection']['share'])})"
        ),
        "relabel": lambda: f"{counts['changed']:,} labels changed, {counts['asked']:,} suspects asked",
        "train": lambda: (
            f"{train.get('method', '')}, {train.get('epochs', '?')} epochs, best {train.get('best_epoch', '?')}"
        ),
        "evaluate": lambda: (
            f"{counts['known']:,} examples of known truth, {counts['tested']:,} test examples"
        ),
    }
    paid = f"{cost['prompt_tokens'] + cost['answer_tokens']:,} tokens"
    if cost["amount"] is not None:
        paid += f", {format_money(cost['amount'])}"
    total = max(metrics["seconds"]["total"], 1e-9)
    return [
        {"name": verb, "did": DID[verb], "outcome": outcome[verb](), "seconds": metrics["seconds"][verb],
         "part": metrics["seconds"][verb] / total, "paid": paid if verb == "relabel" else ""}
        for verb in VERBS if verb in metrics["seconds"]
    ]  # fmt: skip


def _heats(tally: RunCounts, labels: list[str], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    heats = [{
        "title": "What relabelling changed", "rows": "given label", "columns": "final label",
        "matrix": plots.heat_map(tally.given_final, labels), "top": metrics["confusion"]["given_final"],
    }]  # fmt: skip
    if metrics["confusion"]["given_true"] is not None:
        heats.append({
            "title": "Where the noise is", "rows": "given label", "columns": "true label",
            "matrix": plots.heat_map(tally.given_true, labels), "top": metrics["confusion"]["given_true"],
        })  # fmt: skip
    return heats


def _charts(metrics: Mapping[str, Any], tally: RunCounts) -> dict[str, plots.PlotlyFigure]:
    charts = {"quality": plots.quality_histogram(tally.histogram, tally.cut)}
    detection = metrics["detection"]
    if detection["roc_auc"] is not None:
        curve = figures.curve(tally.quality(), tally.wrong)
        charts["roc"] = plots.roc_plot(curve)
        at = (detection["recall_at_budget"], detection["precision_at_budget"])
        charts["precision_recall"] = plots.precision_recall_plot(curve, metrics["noise"]["given"], at)
    if metrics["counts"]["asked"] > metrics["counts"]["error"]:
        charts["confidence"] = plots.confidence_histogram(tally.suspects)
    if metrics["annotator"]["reliability"]:
        charts["reliability"] = plots.reliability_plot(metrics["annotator"]["reliability"])
    return charts


def _outcomes(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts = metrics["annotator"]["outcomes"]
    total = sum(counts.values())
    return [
        {"name": name, "count": counts[name], "part": counts[name] / total, "means": MEANS[name]}
        for name in DECISIONS if counts[name]
    ]  # fmt: skip


def _training(material: ReportInputs) -> tuple[dict[str, Any] | None, dict[str, plots.PlotlyFigure]]:
    """What the section on the training shows, and its charts."""
    if material.dynamics is None:
        return None, {}
    rows, best = material.dynamics.epochs, material.said["train"].get("best_epoch")
    places = set(_spread(len(rows), MAX_EPOCHS))
    shown = [row for place, row in enumerate(rows) if place in places or row["epoch"] == best]
    drawn = _spread(len(rows), DRAWN_EPOCHS)
    measures, charts = _multiples(material.dynamics, drawn)
    each = [counts[drawn].sum(axis=(0, 2)) for counts in material.dynamics.histograms.values()]
    counted = np.sum(each, axis=0) if each else np.zeros(len(plots.KINDS), dtype=np.int64)
    return {
        "method": material.said["train"].get("method", ""),
        "best": best,
        "epochs": len(rows),
        "table": _epoch_table(shown),
        "left_out": len(rows) - len(shown),
        "kinds": [kind for kind, count in zip(plots.KINDS, counted, strict=True) if count],
        "measures": measures,
    }, charts


def _multiples(
    dynamics: TrainingHistory, drawn: list[int]
) -> tuple[list[dict[str, Any]], dict[str, plots.PlotlyFigure]]:
    """A row of small charts per measure: histograms of some of the epochs."""
    measures: list[dict[str, Any]] = []
    charts: dict[str, plots.PlotlyFigure] = {}
    for key, histograms in dynamics.histograms.items():
        measure, chosen = MEASURES[key], histograms[drawn]
        epochs = [dynamics.epochs[place]["epoch"] for place in drawn]
        names = [f"training-{key}-{epoch}" for epoch in epochs]
        drawings = plots.epoch_histograms(chosen, measure.axis, measure.top, measure.bounded)
        charts |= dict(zip(names, drawings, strict=True))
        counts = chosen.sum(axis=(1, 2)).tolist()
        small = [{"name": name, "epoch": epoch, "count": count}
                 for name, epoch, count in zip(names, epochs, counts, strict=True)]  # fmt: skip
        measures.append({"title": measure.title, "means": measure.means, "charts": small})
    return measures, charts


def _spread(count: int, limit: int) -> list[int]:
    """At most `limit` of the first `count` numbers, evenly spread, the first and the last among them.

    >>> _spread(6, 3), _spread(2, 3)
    ([0, 2, 5], [0, 1])
    """
    if count <= limit:
        return list(range(count))
    return [place * (count - 1) // (limit - 1) for place in range(limit)]


def _epoch_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The columns that any epoch has, each cell a value and, in small letters, an aside."""

    def wrong(row: dict[str, Any], name: str) -> str:
        if row[f"{name}_wrong"] is None:
            return ""
        after = (
            f" → {format_percent(row['purified_after_wrong'])}"
            if name == "purified" and row["answered"]
            else ""
        )
        return f"{format_percent(row[f'{name}_wrong'])}{after} wrong"

    def reused(row: dict[str, Any]) -> str:
        return f"+ {format_count(row['from_ledger'])} reused" if row["from_ledger"] else ""

    def answers(row: dict[str, Any]) -> str:
        if row["answers_wrong"] is None:
            return ""
        return f"{format_percent(row['answered_wrong'])} → {format_percent(row['answers_wrong'])} wrong"

    nothing: Callable[[dict[str, Any]], str] = lambda row: ""  # noqa: E731
    columns: list[tuple[str, str, Callable[[Any], str], Callable[[dict[str, Any]], str]]] = [
        ("loss", "loss", lambda value: f"{value:.4g}", nothing),
        ("dev accuracy", "dev_accuracy", format_percent, nothing),
        *((name, name, format_count, lambda row, name=name: wrong(row, name)) for name in SUBSETS),
        ("asked", "asked", format_count, reused),
        ("answers so far", "answered", format_count, answers),
        ("negative margins", "negative_margins", format_count, nothing),
        ("mean weight", "mean_weight", format_figure, nothing),
    ]
    there = [column for column in columns if any(row[column[1]] is not None for row in rows)]
    return {
        "head": [title for title, *_ in there],
        "rows": [
            {"epoch": row["epoch"], "cells": [
                {"value": "–", "aside": ""} if row[key] is None else {"value": show(row[key]), "aside": aside(row)}
                for _, key, show, aside in there
            ]}
            for row in rows
        ],
    }  # fmt: skip
