"""The plots of a whole sweep: Pareto fronts, learning curves, trials over time; and their common style.

Titles and hovers that come from data go through `plain_values`: plotly knows some HTML. Text and grid take
their colours from the page.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from rayclean.evaluation.formatting import WHOLE, figure_title, format_measured, format_seconds
from rayclean.evaluation.plots import BLUE, GREEN, GREY, ORANGE, PlotlyFigure, in_style, plain_values
from rayclean.evaluation.seed_figures import pooled
from rayclean.sweeps.dimension import is_condition
from rayclean.sweeps.page.fields import (
    SweptField,
    field_list,
    label,
    named_values,
    values_at,
    varying,
)
from rayclean.sweeps.results import Results, Row

MAX_LINES = 12
"""Lines of one plot; points that differ only in further fields are averaged."""
PAUSE = 60.0
"""Seconds in which no trial ran: the sweep was interrupted, and the timeline leaves the time out."""

COLOURS = (BLUE, ORANGE, GREEN, "#D55E00", "#CC79A7", "#56B4E9", GREY)
DASHES = ("solid", "dash", "dot")
ONLY_TEXT = "%{text}<extra></extra>"
"""What a hover shows: a mark's text without the name of its line."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")


@dataclass(frozen=True)
class Plot:
    """A figure, its title, which no other one has, and a sentence on how to read it."""

    title: str
    hint: str
    figure: PlotlyFigure


def pareto(results: Results, fields: Sequence[SweptField], other: int) -> list[Plot]:
    """The first objective over another one with the Pareto front, one plot for each condition: easier data beat nothing."""
    objectives = results.sweep.objectives
    first, second = objectives[0].metric, objectives[other].metric
    over, across = results.title(first), results.title(second)
    conditions = [field for field in fields if is_condition(field.path) and field.varies]
    known = [row for row in results.rows if all(each.metric in row.figures for each in objectives)]
    known = [row for row in known if row.is_whole(results.sweep.seeds)] or known
    found = []
    for at, start in {values_at(row, conditions): row for row in known}.items():
        rows = [row for row in known if values_at(row, conditions) == at]
        figure = go.Figure()
        for name, colour, size, symbol, front in (
            ("beaten by another point", GREY, 8, "circle", False),
            ("Pareto front", ORANGE, 12, "diamond", True),
        ):
            members = [row for row in rows if row.is_among(results.front) is front]
            x, y = ([row.figures[metric].mean for row in members] for metric in (second, first))
            figure.add_scatter(
                name=name, mode="markers", hovertemplate=ONLY_TEXT, x=x, y=y,
                text=[
                    hover([row], (first, second), named_values(row, fields), currency=results.currency) for row in members
                ],
                marker={"color": colour, "size": size, "symbol": symbol},
                marker_line={"color": BLUE, "width": 1.5 * front},
            )  # fmt: skip
        figure.update_xaxes(title_text=across, tickformat=",~f" if second in WHOLE else None)
        figure.update_yaxes(title_text=over)
        title = f"{first} against {second}" + (f" at {named_values(start, conditions)}" if conditions else "")
        found.append(Plot(title, "Each dot is a point; diamonds are on the front.", styled(figure)))
    return found


def learning_curves(results: Results, fields: Sequence[SweptField]) -> Plot | None:
    """Development accuracy over epochs: the best points', or the first ones' where nothing decides; None
    where nothing was trained.
    """
    curves = [(row, curve) for row in results.rows if (curve := _learning_curve(row))]
    if not curves:
        return None
    if results.best is not None:
        curves.sort(key=lambda each: -each[0].score(results.sweep.objectives[0]))
    names, figure = varying(results.rows, fields), go.Figure()
    for row, curve in curves[:MAX_LINES]:
        style = line_style(len(figure.data)) | {"hovertemplate": "epoch %{x}: %{y:.4f}"}
        style["marker"] |= {"size": 5}
        name = plain_values(label(row, names) or "the only point", 60)
        figure.add_scatter(x=list(curve), y=list(curve.values()), mode="lines+markers", name=name, **style)
    longest = max(len(trace.x) for trace in figure.data)
    figure.update_xaxes(title_text="epoch", tickformat="d", dtick=1 if longest <= 15 else None)
    figure.update_yaxes(title_text="dev accuracy")
    hint = f"Lines are named by {field_list(names)}." if len(names) > 1 else ""
    if (more := len(curves) - MAX_LINES) > 0:
        chosen = "the best" if results.best else "the first"
        hint += f" {more} further points are left out: these are {chosen}."
    return Plot("Dev accuracy over epochs", hint.strip(), styled(figure, wide=True))


def trial_timeline(rows: Sequence[Row], fields: Sequence[SweptField]) -> Plot | None:
    """A bar for each trial, by the time at which it ran, without interruptions; None for fewer than two trials."""
    spans = sorted(
        (*span, f"{named_values(row, fields)} seed = {seed}".lstrip(), bool(row.stopped or row.converged))
        for row in rows
        for seed, span in row.spans.items()
    )
    if len(spans) < 2:
        return None
    zero = busy_until = spans[0][0]
    begins = []
    for begin, seconds, *_ in spans:
        zero += begin - busy_until if begin - busy_until > PAUSE else 0.0
        busy_until = max(busy_until, begin + seconds)
        begins.append(begin - zero)
    whole = busy_until - zero
    unit, size = ("hours", 3600) if whole > 10_000 else ("minutes", 60) if whole > 200 else ("seconds", 1)
    figure = go.Figure(go.Bar(
        base=[begin / size for begin in begins], x=[seconds / size for _, seconds, *_ in spans],
        y=list(range(1, len(spans) + 1)), orientation="h", hovertemplate=ONLY_TEXT, textposition="none",
        marker_color=[ORANGE if early else BLUE for *_, early in spans],
        text=[plain_values(f"{name}: {format_seconds(seconds)}", 120) for _, seconds, name, _ in spans],
    ))  # fmt: skip
    figure.update_xaxes(title_text=f"{unit} since the first trial began")
    figure.update_yaxes(autorange="reversed", tickformat="d", title_text="trial")
    at_once = sum(seconds for _, seconds, *_ in spans) / whole if whole else 0.0
    hint = f"{len(spans)} trials by their beginning, {at_once:.1f} at once on average."
    hint += " Orange ones were stopped early." if any(early for *_, early in spans) else ""
    height = min(640, 140 + 14 * len(spans))
    return Plot("Trials over time", hint, styled(figure, height=height, wide=True))


def hover(rows: Sequence[Row], metrics: Sequence[str], *parts: str, currency: str | None = None) -> str:
    """The text beside a mark that stands for some points; `currency`: of costs."""
    figures = {metric: pooled([row.figures[metric] for row in rows]) for metric in metrics}
    values = (
        f"{figure_title(name, currency)} {format_measured(name, each.mean, each.sd)}"
        for name, each in figures.items()
    )
    several = f"mean of {len(rows)} points" if len(rows) > 1 else ""
    reference = "reference" if all(row.is_reference for row in rows) else ""
    return "<br>".join(plain_values(part, 90) for part in (*parts, *values, several, reference) if part)


def styled(figure: go.Figure, height: int = 320, wide: bool = False) -> PlotlyFigure:
    """A figure as JSON for the page, the names of several lines above the plot. Axes need not begin at 0: it
    is differences that matter.
    """
    named = [trace.name for trace in figure.data if trace.name]
    legend = len(named) > 1
    across = max(1, (140 if wide else 62) // (max(map(len, named)) + 7)) if legend else 1
    height += 19 * math.ceil(len(named) / across) * legend
    in_style(figure).update_layout(height=height, showlegend=legend, margin={"l": 52, "t": 14, "b": 44})
    figure.update_xaxes(exponentformat="e").update_yaxes(exponentformat="e", title_standoff=12)
    found: PlotlyFigure = json.loads(figure.to_json())
    return found


def line_style(place: int) -> dict[str, Any]:
    """One line of several, told apart by colour, dashes and marks."""
    colour = COLOURS[place % len(COLOURS)]
    return {
        "line": {"color": colour, "width": 2, "dash": DASHES[place // len(COLOURS) % len(DASHES)]},
        "marker": {"color": colour, "size": 8, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        "hovertemplate": ONLY_TEXT,
    }


def _learning_curve(row: Row) -> dict[int, float]:
    """Epoch -> the mean development accuracy of the seeds that reached it."""
    found: dict[int, list[float]] = {}
    for record in (record for records in row.epochs.values() for record in records):
        if record.get("dev_accuracy") is not None and record.get("epoch") is not None:
            found.setdefault(int(record["epoch"]), []).append(float(record["dev_accuracy"]))
    return {epoch: fmean(values) for epoch, values in sorted(found.items())}
