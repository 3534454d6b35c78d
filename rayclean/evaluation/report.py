"""The report: one page that needs no network, and the table that the command line prints.

Everything that comes from data (texts, labels, answers, config values) is escaped by jinja2, or by `plots.plain`
where plotly draws it.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from rich import box
from rich.markup import escape
from rich.table import Table

from rayclean.artifacts import VERBS
from rayclean.evaluation import metrics as figures
from rayclean.evaluation import plots
from rayclean.evaluation.cards import NETWORKS, cards
from rayclean.evaluation.tally import DECISIONS, Tally
from rayclean.evaluation.wording import money, number, percent, share, span

SHORT = 260
"""Characters of a text shown at once; the rest is a click away."""
LONG = 20_000
"""Characters of a text kept in the page at all."""

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
class Material:
    """What the report shows beside the metrics."""

    name: str
    config: dict[str, Any]
    labels: list[str]
    tally: Tally
    said: dict[str, dict[str, Any]]
    """Metrics of the verbs before."""
    changes: list[dict[str, Any]]
    """The most valuable changes: text, given, final, true, confidence, reason, raw, model, quality, example_id."""
    harmed: list[dict[str, Any]]
    """Changes that made a right label wrong."""
    rejected: list[dict[str, Any]]
    """Rows of `schema.REJECTED`."""


def render(metrics: Mapping[str, Any], material: Material) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("rayclean.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "span": span,
        "money": money,
        "share": share,
    }
    tally = material.tally
    return environment.get_template("report.html.jinja").render(
        m=metrics,
        material=material,
        cards=cards(metrics),
        verbs=_verbs(metrics, material),
        heats=_heats(tally, material.labels, metrics),
        charts=_charts(metrics, tally),
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


def terminal_table(metrics: Mapping[str, Any]) -> Table:
    """The headline figures for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title="What came of it", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for card in cards(metrics):
        table.add_row(escape(card.title), escape(card.value), escape(card.brief))
    for name, text in metrics["measured_on"].items():
        table.add_row(f"{name} measured on", "", escape(text))
    for note in metrics["notes"]:
        table.add_row("note", "", escape(note), style="yellow")
    return table


def _verbs(metrics: Mapping[str, Any], material: Material) -> list[dict[str, Any]]:
    counts, cost = metrics["counts"], metrics["cost"]
    train = material.said["train"]
    outcome: dict[str, Callable[[], str]] = {
        "load": lambda: (
            f"{counts['examples']:,} examples, {counts['test']:,} for the test, {counts['rejected']:,} rejected"
        ),
        "predict": lambda: f"{counts['examples']:,} predictions over {counts['classes']:,} classes",
        "detect": lambda: f"{counts['suspects']:,} suspects ({percent(metrics['detection']['share'])})",
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
        paid += f", {money(cost['amount'])}"
    total = max(metrics["seconds"]["total"], 1e-9)
    return [
        {"name": verb, "did": DID[verb], "outcome": outcome[verb](), "seconds": metrics["seconds"][verb],
         "part": metrics["seconds"][verb] / total, "paid": paid if verb == "relabel" else ""}
        for verb in VERBS if verb in metrics["seconds"]
    ]  # fmt: skip


def _heats(tally: Tally, labels: list[str], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    heats = [{
        "title": "What relabelling changed", "rows": "given label", "columns": "final label",
        "matrix": plots.heat(tally.given_final, labels), "top": metrics["confusion"]["given_final"],
    }]  # fmt: skip
    if metrics["confusion"]["given_true"] is not None:
        heats.append({
            "title": "Where the noise is", "rows": "given label", "columns": "true label",
            "matrix": plots.heat(tally.given_true, labels), "top": metrics["confusion"]["given_true"],
        })  # fmt: skip
    return heats


def _charts(metrics: Mapping[str, Any], tally: Tally) -> dict[str, plots.Figure]:
    charts = {"quality": plots.quality_histogram(tally.histogram, tally.cut)}
    detection = metrics["detection"]
    if detection["roc_auc"] is not None:
        curve = figures.curve(tally.quality(), tally.wrong)
        charts["roc"] = plots.roc(curve)
        at = (detection["recall_at_budget"], detection["precision_at_budget"])
        charts["precision_recall"] = plots.precision_recall(curve, metrics["noise"]["given"], at)
    if metrics["counts"]["asked"] > metrics["counts"]["error"]:
        charts["confidence"] = plots.confidence_histogram(tally.suspects)
    if metrics["annotator"]["reliability"]:
        charts["reliability"] = plots.reliability(metrics["annotator"]["reliability"])
    return charts


def _outcomes(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts = metrics["annotator"]["outcomes"]
    total = sum(counts.values())
    return [
        {"name": name, "count": counts[name], "part": counts[name] / total, "means": MEANS[name]}
        for name in DECISIONS if counts[name]
    ]  # fmt: skip
