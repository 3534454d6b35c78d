"""The report: one page that needs no network, and the summary that the command line prints.

Everything that comes from data (texts, labels, answers, config values) is escaped by jinja2, or by
`plots.plain_values` where plotly draws it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rayclean.annotations import DECISIONS
from rayclean.evaluation import metrics as figures
from rayclean.evaluation import plots
from rayclean.evaluation.counts import RunCounts
from rayclean.evaluation.formatting import format_money, format_percent, format_units
from rayclean.evaluation.headlines import NETWORKS, difference_sentence, headlines
from rayclean.evaluation.page import render_page
from rayclean.evaluation.training_history import TrainingHistory
from rayclean.evaluation.training_section import training_section
from rayclean.evaluation.verdict import audit_rows, run_verdict
from rayclean.run import VERBS

SHORT = 260
"""Characters of a text shown at once; the rest is a click away."""
MOST_CLASSES = 30
"""Classes whose figures are shown."""
LONG = 20_000
"""Characters of a text kept in the page at all."""

VERB_DESCRIPTIONS = {
    "load": "read, checked and identified the examples",
    "predict": "trained on the data and predicted the very same examples",
    "detect": "scored every label and chose the suspects",
    "relabel": "decided about the suspects",
    "train": "trained on the final labels",
    "evaluate": "measured, and wrote this page",
}
DECISION_MEANINGS = {
    "changed": "another label is right, by all that is known",
    "kept": "the given label was confirmed",
    "referred": "what is known does not decide: the given label stays, and a person should look",
    "abstained": "the annotator chose none of the candidates, so the given label stays",
    "error": "the query failed, so the given label stays",
    "unasked": "the budget was spent, or there is no answer yet, so the given label stays",
}


@dataclass(frozen=True)
class ReportInputs:
    """What the report shows beside the metrics."""

    name: str
    """Name of the run."""
    config: dict[str, Any]
    """The resolved config, as plain JSON values."""
    labels: list[str]
    """Names of the labels, by index."""
    counts: RunCounts
    """Counts of all examples."""
    verb_metrics: dict[str, dict[str, Any]]
    """Metrics in the manifests of the other verbs."""
    changes: list[dict[str, Any]]
    """The most valuable changes: text, given, final, true, confidence, reason, raw, model, quality,
    example_id, origin (None where it is not known)."""
    harmed: list[dict[str, Any]]
    """Changes that made a right label wrong."""
    disagreements: list[dict[str, Any]]
    """Labels that nobody doubted and the annotator denies (`example_rows.disagreement_rows`)."""
    rejected: list[dict[str, Any]]
    """Rows of `schema.REJECTED`."""
    history: TrainingHistory | None = None
    """The training that wrote `train/`; None where it left nothing to show."""


def render_report(metrics: Mapping[str, Any], inputs: ReportInputs) -> str:
    """The page `report.html`.

    Args:
        metrics: the content of `metrics.json`.
        inputs: everything else that the page shows.
    """
    trained = inputs.verb_metrics["train"]
    training, training_charts = training_section(
        inputs.history, trained.get("method", ""), trained.get("best_epoch")
    )
    values = {
        "m": metrics,
        "inputs": inputs,
        "verdict": run_verdict(metrics, inputs.config),
        "audit_rows": [] if metrics["audit"] is None else audit_rows(metrics["audit"]),
        "classes": _most_changed(metrics["classes"]),
        "difference": difference_sentence(metrics),
        "cards": headlines(metrics),
        "verbs": _verbs(metrics, inputs),
        "heats": _heat_maps(inputs.counts, inputs.labels, metrics),
        "charts": _charts(metrics, inputs.counts) | training_charts,
        "training": training,
        "outcomes": _outcomes(metrics),
        "beyond": next((each for each in metrics["judged"] if each["beyond"] is not None), None),
        "detectors": metrics["detection"]["detectors"] or {},
        "splits": metrics["noise"]["by_split"],
        "rejected": inputs.verb_metrics["load"]["rejected"],
        "networks": NETWORKS,
        "config": json.dumps(inputs.config, indent=1, ensure_ascii=False),
        "short": SHORT,
        "long": LONG,
    }
    return render_page("report.html.jinja", values)


def run_summary(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> Group:
    """The verdict, and a table of the headline figures, for a terminal.

    Args:
        metrics: the content of `metrics.json`.
        config: the resolved config as plain values.
    """
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
    found = run_verdict(metrics, config)
    verdict = Text(" ".join([*found.sentences, found.certificate]), overflow="fold")
    alarms = [Text(f"Look first: {alarm}", style="bold red", overflow="fold") for alarm in metrics["alarms"]]
    return Group("", *alarms, Text(found.title, style="bold cyan"), Padding(verdict, (0, 0, 1, 2)), table)


def _verbs(metrics: Mapping[str, Any], inputs: ReportInputs) -> list[dict[str, Any]]:
    """A row per finished verb: what it did, what came of it, its time."""
    counts, cost, train = metrics["counts"], metrics["cost"], inputs.verb_metrics["train"]
    suspect_share = format_percent(metrics["detection"]["share"])
    epochs, best = train.get("epochs", "?"), train.get("best_epoch", "?")
    outcomes = {
        "load": f"{counts['examples']:,} {metrics['units']}, {counts['test']:,} examples for the test, "
        f"{counts['rejected']:,} rejected",
        "predict": f"{counts['examples']:,} predictions over {counts['classes']:,} classes",
        "detect": f"{format_units(counts['suspects'], 'suspect')} ({suspect_share})",
        "relabel": f"{format_units(counts['changed'], 'label')} changed, {format_units(counts['asked'], 'suspect')} asked",
        "train": f"{train.get('method', '')}, {epochs} epochs, best {best}",
        "evaluate": f"{counts['known']:,} {metrics['units']} of known truth, {counts['tested']:,} test examples",
    }
    paid = f"{cost['prompt_tokens'] + cost['answer_tokens']:,} tokens"
    if cost["amount"] is not None:
        paid += f", {format_money(cost['amount'], cost['currency'])}"
    seconds = metrics["seconds"]
    total = max(seconds["total"], 1e-9)
    return [
        {
            "name": verb,
            "did": VERB_DESCRIPTIONS[verb],
            "outcome": outcomes[verb],
            "seconds": seconds[verb],
            "part": seconds[verb] / total,
            "paid": paid if verb == "relabel" else "",
        }
        for verb in VERBS
        if verb in seconds
    ]


def _most_changed(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The classes with most changes, in the order of the label set."""
    ranked = sorted(classes, key=lambda row: -row["out"] - row["into"])[:MOST_CLASSES]
    return [row for row in classes if row in ranked]


def _heat_maps(counts: RunCounts, labels: list[str], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The confusion of given labels with final ones and, where known, with true ones."""
    pairs = [("What relabelling changed", "final", counts.given_final)]
    if metrics["confusion"]["given_true"] is not None:
        pairs.append(("Where the noise is", "true", counts.given_true))
    return [
        {
            "title": title,
            "rows": "given label",
            "columns": f"{kind} label",
            "matrix": plots.heat_map(pair_counts, labels),
            "top": metrics["confusion"][f"given_{kind}"],
        }
        for title, kind, pair_counts in pairs
    ]


def _charts(metrics: Mapping[str, Any], counts: RunCounts) -> dict[str, plots.PlotlyFigure]:
    charts = {"quality": plots.quality_histogram(counts.histogram, counts.cut)}
    detection = metrics["detection"]
    if detection["roc_auc"] is not None:
        curves = figures.detection_curves(counts.quality(), counts.wrong)
        charts["roc"] = plots.roc_plot(curves)
        budget = (detection["recall_at_budget"], detection["precision_at_budget"])
        charts["precision_recall"] = plots.precision_recall_plot(curves, metrics["noise"]["given"], budget)
    if metrics["counts"]["asked"] > metrics["counts"]["error"]:
        charts["confidence"] = plots.confidence_histogram(counts.suspects)
    if metrics["annotator"]["reliability"]:
        charts["reliability"] = plots.reliability_plot(metrics["annotator"]["reliability"])
    return charts


def _outcomes(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts = metrics["annotator"]["outcomes"]
    total = sum(counts.values())
    return [
        {"name": name, "count": counts[name], "part": counts[name] / total, "means": DECISION_MEANINGS[name]}
        for name in DECISIONS
        if counts[name]
    ]
