"""The page of a sweep, which needs no network, and the table that the command line prints.

Everything that comes from data (values of points, errors, names, commands) is escaped: here by jinja2, in `charts.py` and
`parallel.py` by `plots.plain`.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from rich import box
from rich.markup import escape
from rich.table import Table

from rayclean.evaluation import plots
from rayclean.sweeps.page import charts
from rayclean.sweeps.page.axes import Axis, among, axes, cells, parts
from rayclean.sweeps.page.parallel import parallel
from rayclean.sweeps.page.pareto import trade
from rayclean.sweeps.page.timeline import timeline
from rayclean.sweeps.page.wording import SIGNIFICANT, amount, digits, is_significant, mark, sign, values_of
from rayclean.sweeps.results import PointFigure, Results, Row, best_config
from rayclean.sweeps.space import show
from rayclean.sweeps.spec import is_condition
from rayclean.sweeps.trial import TRUTH

MAX_METRICS = 12
"""Metrics that plots can be switched between; the table has them all."""
TERMINAL_METRICS = 6
"""Columns of figures that fit into a terminal."""
HEADLINES = ("accuracy", "accuracy_last", "noise_final", "annotator_accuracy")
"""What is shown after the objectives, where it is there; on the page only if it differs."""


def render_sweep(results: Results) -> str:
    """The page."""
    environment = Environment(
        # The style is that of the report of a run.
        loader=ChoiceLoader([PackageLoader("rayclean.sweeps.page"), PackageLoader("rayclean.evaluation")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": show}
    sweep, fields = results.sweep, axes(results)
    views, view_charts = _views(results, fields)
    front, front_charts = _front(results, fields)
    curves, curve_charts = charts.curves(results, fields)
    times, time_chart = timeline(results, fields)
    return environment.get_template("sweep.html.jinja").render(
        sweep=sweep,
        results=results,
        fields=fields,
        space={axis.name: {"path": axis.path, "says": values_of(axis.dimension)} for axis in fields},
        trials=results.finished,
        stopped=sum(row.stopped + row.converged for row in results.rows),
        unfinished=sum(len(row.seeds) < len(sweep.seeds) for row in results.rows),
        compared=any(figure.p is not None for figure in _all_figures(results)),
        referenced=any(row.is_reference for row in results.rows),
        best=_best(results, fields),
        conditions=[axis.name for axis in fields if is_condition(axis.path) and axis.varies],
        front=front,
        views=views,
        barred=any(figure.sd is not None for figure in _all_figures(results)),
        unplotted=[name for name in results.metrics if name not in _plotted(results)],
        curves=curves,
        times=times,
        table=_table(results, fields),
        charts={**view_charts, **front_charts, **curve_charts, **time_chart},
        plotlyjs=get_plotlyjs(),
        nonce=secrets.token_urlsafe(16),
    )


def sweep_table(results: Results) -> Table:
    """Points with their most important figures for a terminal: the best in bold, those of the front with a star."""
    fields, metrics = axes(results), _headlines(results)
    table = Table(box=box.SIMPLE_HEAD, title=f"Sweep {escape(results.sweep.name)}", title_justify="left")
    if results.front:
        table.add_column("")
    for axis in fields:
        table.add_column(escape(axis.name))
    table.add_column("seeds", justify="right")
    for metric in metrics:
        table.add_column(escape(metric), justify="right")
    for row in results.rows:
        star = ["*" if among(row, results.front) else ""] if results.front else []
        seeds = str(len(row.seeds)) + (" ref" if row.is_reference else "")
        figures = [_terminal_cell(row.figures.get(metric), metric) for metric in metrics]
        style = "bold" if row is results.best else None
        table.add_row(*star, *map(escape, cells(row, fields)), seeds, *figures, style=style)
    table.caption, table.caption_justify = _caption(results), "left"
    return table


def _headlines(results: Results) -> list[str]:
    wanted = [*(objective.metric for objective in results.sweep.objectives), *HEADLINES, *results.metrics]
    return [name for name in dict.fromkeys(wanted) if name in results.metrics][:TERMINAL_METRICS]


def _terminal_cell(figure: PointFigure | None, metric: str) -> str:
    if figure is None:
        return "–"
    return amount(metric, figure.mean, figure.sd, 3) + (f" {sign(figure)}" if is_significant(figure) else "")


def _caption(results: Results) -> str:
    said = ["mean ± standard deviation over seeds"]
    if results.best is not None:
        said.append(f"bold: best {results.sweep.objectives[0].metric}")
    if results.front:
        said.append("*: on the Pareto front")
    if any(row.is_reference for row in results.rows):
        said.append("ref: reference")
    if any(is_significant(figure) for figure in _all_figures(results)):
        said.append(f"▲▼: above or below the reference, p < {SIGNIFICANT:g}")
    if results.provisional:
        said.append("chosen for now: no setting is finished under every seed and condition")
    if results.failed:
        said.append(f"failed trials: {len(results.failed)}")
    return escape("; ".join(said))


def _all_figures(results: Results) -> list[PointFigure]:
    return [figure for row in results.rows for figure in row.figures.values()]


def _title(row: Row, fields: Sequence[Axis]) -> str:
    return ", ".join(parts(row, fields))


def _best(results: Results, fields: Sequence[Axis]) -> dict[str, Any] | None:
    if results.best is None:
        return None
    objective, row = results.sweep.objectives[0], results.best
    figure = row.figures[objective.metric]
    return {
        "title": _title(row, fields),
        "metric": objective.metric,
        "highest": objective.mode == "max",
        "value": amount(objective.metric, figure.mean, figure.sd),
        "seeds": figure.seeds,
        "mark": mark(figure),
        "is_reference": row.is_reference,
        "toml": best_config(results),
    }


def _front(
    results: Results, fields: Sequence[Axis]
) -> tuple[dict[str, Any] | None, dict[str, plots.PlotlyFigure]]:
    """The table of the Pareto front, and a chart of the first objective over each other one."""
    objectives = results.sweep.objectives
    if len(objectives) < 2 or not results.front:
        return None, {}
    first = objectives[0]
    drawn = {
        f"front-{place}": trade(results, fields, first, other) for place, other in enumerate(objectives[1:])
    }
    chosen = sorted(
        results.front, key=lambda row: row.figures[first.metric].mean, reverse=first.mode == "max"
    )
    return {
        "objectives": [{"metric": each.metric, "highest": each.mode == "max"} for each in objectives],
        "charts": list(drawn),
        "rows": [
            {
                "values": cells(row, fields),
                "figures": [
                    amount(o.metric, row.figures[o.metric].mean, row.figures[o.metric].sd) for o in objectives
                ],
                "is_best": row is results.best,
            }
            for row in chosen
        ],
    }, drawn


def _views(
    results: Results, fields: Sequence[Axis]
) -> tuple[list[dict[str, Any]], dict[str, plots.PlotlyFigure]]:
    """What is drawn of each metric, one of which is seen at a time, and its charts by name."""
    views: list[dict[str, Any]] = []
    drawn: dict[str, plots.PlotlyFigure] = {}

    def draw(name: str, chart: plots.PlotlyFigure | None) -> str | None:
        if chart is None:
            return None
        drawn[name] = chart
        return name

    bundles = [
        (axis, charts.Bundle.of(results.rows, axis, fields))
        for axis in fields
        if axis.numeric and axis.varies
    ]
    for number, metric in enumerate(_plotted(results)):
        lines = [
            {"name": name, "title": f"{metric} over {axis.name}", "hint": bundle.hint}
            for place, (axis, bundle) in enumerate(bundles)
            if (name := draw(f"lines-{number}-{place}", charts.lines(axis, bundle, metric)))
        ]
        table, dots = charts.over_two(results.rows, fields, metric)
        if table is not None:
            table["name"] = draw(f"map-{number}", dots)
        views.append({
            "metric": metric, "on_truth": metric in TRUTH, "lines": lines, "map": table,
            "parallel": draw(f"parallel-{number}", parallel(results, fields, metric)),
        })  # fmt: skip
    return views, drawn


def _plotted(results: Results) -> list[str]:
    """At most `MAX_METRICS`, the first of which is seen first: what decides, then what differs, headlines before others."""
    objectives = [objective.metric for objective in results.sweep.objectives]

    def rank(name: str) -> tuple[int, bool, bool]:
        values = {row.figures[name].mean for row in results.rows if name in row.figures}
        decides = objectives.index(name) if name in objectives else len(objectives)
        return decides, len(values) < 2, name not in HEADLINES

    return sorted(results.metrics, key=rank)[:MAX_METRICS]


def _table(results: Results, fields: Sequence[Axis]) -> dict[str, Any]:
    free = [name for name in results.metrics if name not in TRUTH]
    truth = [name for name in results.metrics if name in TRUTH]
    return {
        "free": free,
        "on_truth": truth,
        "missing": any(
            figure.seeds < len(row.seeds) for row in results.rows for figure in row.figures.values()
        ),
        "rows": [
            {
                "title": _title(row, fields),
                "values": cells(row, fields),
                "seeds": len(row.seeds),
                "cells": [_cell(row, name) for name in (*free, *truth)],
                "is_best": row is results.best,
                "is_front": among(row, results.front),
                "is_reference": row.is_reference,
                "stopped": row.stopped,
                "converged": row.converged,
                "commands": row.commands,
            }
            for row in results.rows
        ],
    }


def _cell(row: Row, name: str) -> dict[str, Any]:
    figure = row.figures.get(name)
    if figure is None:
        return {"value": "–", "mark": None, "difference": None, "missing": False}
    difference = figure.difference if figure.p is not None else None
    return {
        "value": amount(name, figure.mean, figure.sd),
        "mark": mark(figure),
        "difference": None if difference is None else f"{difference:+,.{digits(name, figure.mean)}f}",
        "missing": figure.seeds < len(row.seeds),
    }
