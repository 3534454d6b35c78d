"""The plots of a sweep's page: those of Optuna, and two of its own that show deviations over seeds.

Titles and hovers that come from data go through `plain_values`: plotly knows some HTML. Text and grid take
their colours from the page.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna.visualization as optuna_plots
import plotly.graph_objects as go

from rayclean.evaluation.plots import BLUE, GREEN, GREY, ORANGE, PlotlyFigure, plain_values
from rayclean.sweeps.dimension import is_condition
from rayclean.sweeps.page.fields import (
    SweptField,
    distinct_values,
    field_list,
    label,
    named_values,
    values_at,
)
from rayclean.sweeps.page.study import at_once, learning_curve, study_of, timeline_study
from rayclean.sweeps.page.wording import WHOLE
from rayclean.sweeps.results import Results, Row

MAX_LINES = 12
"""Lines of one plot; points that differ only in further fields are averaged."""

COLOURS = (BLUE, ORANGE, GREEN, "#D55E00", "#CC79A7", "#56B4E9", GREY)
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")


@dataclass(frozen=True)
class Plot:
    """A figure, its title, and a sentence on how to read it."""

    title: str
    hint: str
    figure: PlotlyFigure


def pareto(results: Results, fields: Sequence[SweptField], other: int) -> list[Plot]:
    """The first objective over another one with the Pareto front, one plot for each condition: easier data
    beat nothing.
    """
    objectives = results.sweep.objectives
    first, second = objectives[0], objectives[other]
    conditions = [field for field in fields if is_condition(field.path) and field.varies]
    whole = [row for row in results.rows if row.is_whole(results.sweep.seeds)] or results.rows
    found = []
    for start in {values_at(row, conditions): row for row in whole}.values():
        rows = [row for row in whole if values_at(row, conditions) == values_at(start, conditions)]
        study = study_of(rows, fields, [o.metric for o in objectives], [o.mode for o in objectives])
        if not study.get_trials(deepcopy=False):
            continue
        figure = optuna_plots.plot_pareto_front(
            study, target_names=[plain_values(each.metric) for each in (second, first)],
            targets=lambda trial: (trial.values[other], trial.values[0]),
        )  # fmt: skip
        beaten, front = figure.data
        beaten.marker = {"color": GREY, "size": 8}
        front.marker = {"color": ORANGE, "size": 12, "symbol": "diamond"}
        front.marker.line = {"color": BLUE, "width": 1.5}
        beaten.name, front.name = "beaten by another point", "Pareto front"
        figure.update_traces(showlegend=True)
        figure.update_xaxes(tickformat=",~f" if second.metric in WHOLE else None)
        at = ", ".join(named_values(start, conditions))
        title = f"{first.metric} against {second.metric}" + (f" at {at}" if at else "")
        found.append(Plot(title, "Each dot is a point; diamonds are on the front.", styled(figure)))
    return found


def learning_curves(results: Results, fields: Sequence[SweptField]) -> Plot | None:
    """Development accuracy over epochs: the best points', or the first ones' where nothing decides; None
    where nothing was trained.
    """
    rows = [row for row in results.rows if learning_curve(row)]
    if not rows:
        return None
    if results.sweep.objectives and results.best is not None:
        first = results.sweep.objectives[0]
        best = {
            id(row): -first.sign * row.figures[first.metric].mean
            for row in rows
            if first.metric in row.figures
        }
        rows.sort(key=lambda row: best.get(id(row), math.inf))
    varying = [field for field in fields if len(distinct_values(results.rows, [field])) > 1]
    figure = optuna_plots.plot_intermediate_values(study_of(rows[:MAX_LINES], fields, ()))
    for place, (trace, row) in enumerate(zip(figure.data, rows, strict=False)):
        trace.update(name=plain_values(label(row, varying) or "the only point", 60), **line_style(place))
        trace.update(marker={"size": 5, "maxdisplayed": 0}, hovertemplate="epoch %{x}: %{y:.4f}")
    longest = max(len(trace.x) for trace in figure.data)
    figure.update_xaxes(title_text="epoch", tickformat="d", dtick=1 if longest <= 15 else None)
    figure.update_yaxes(title_text="dev accuracy")
    hint = f"Lines are named by {field_list(varying)}." if len(varying) > 1 else ""
    if len(rows) > MAX_LINES:
        chosen = "the best" if results.best else "the first"
        hint += f" {len(rows) - MAX_LINES} further points are left out: these are {chosen}."
    return Plot("Dev accuracy over epochs", hint.strip(), styled(figure, wide=True))


def trial_timeline(rows: Sequence[Row], fields: Sequence[SweptField]) -> Plot | None:
    """A bar for each trial, by the time at which it ran; None for fewer than two trials."""
    study = timeline_study(rows, fields)
    if len(study.trials) < 2:
        return None
    figure = optuna_plots.plot_timeline(study)
    for trace in figure.data:
        whole = trace.name == "COMPLETE"
        trace.update(
            name="ran to its end" if whole else "stopped early", marker_color=BLUE if whole else ORANGE
        )
    figure.update_xaxes(title_text="time")
    figure.update_yaxes(autorange="reversed", tickformat="d")
    hint = f"{len(study.trials)} trials by their beginning, {at_once(study):.1f} at once on average."
    return Plot(
        "Trials over time", hint, styled(figure, height=min(640, 140 + 14 * len(study.trials)), wide=True)
    )


def styled(figure: go.Figure, height: int = 320, wide: bool = False) -> PlotlyFigure:
    """A figure as JSON for the page: no template, no title, and the names of several lines above the plot.
    Axes need not begin at 0: it is differences that matter.
    """
    named = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    legend = len(named) > 1
    rows = (
        math.ceil(len(named) / max(1, (140 if wide else 62) // (max(map(len, named)) + 7))) if legend else 0
    )
    figure.update_layout(
        template="none", title=None, height=height + 19 * rows, showlegend=legend, hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "title": None},
        margin={"l": 52, "r": 14, "t": 14, "b": 44}, font={"family": "system-ui, sans-serif", "size": 12},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", colorway=COLOURS,
    )  # fmt: skip
    axis = {"zeroline": False, "fixedrange": True, "automargin": True, "gridcolor": "rgba(128,128,128,0.2)"}
    figure.update_xaxes(**axis, showgrid=False, exponentformat="e")
    figure.update_yaxes(**axis, exponentformat="e", title_standoff=12)
    found: PlotlyFigure = json.loads(figure.to_json())
    return found


def line_style(place: int) -> dict[str, Any]:
    """One line of several, told apart by colour, dashes and marks."""
    colour = COLOURS[place % len(COLOURS)]
    return {
        "line": {"color": colour, "width": 2, "dash": DASHES[place // len(COLOURS) % len(DASHES)]},
        "marker": {"color": colour, "size": 8, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        "hovertemplate": "%{text}<extra></extra>",
    }
