"""The page of a sweep, which needs no network.

Everything that comes from data (values of points, errors, names, commands) is escaped: here by jinja2, in plots by
`plain_values`.
"""

from collections.abc import Sequence
from typing import Any

from rayclean.evaluation.page import render_page
from rayclean.sweeps.page.field_plots import metric_plots
from rayclean.sweeps.page.fields import SweptField, cells, named_values, swept_fields
from rayclean.sweeps.page.plots import learning_curves, pareto, timeline
from rayclean.sweeps.page.study import at_once, timeline_study
from rayclean.sweeps.page.wording import amount, difference, mark, values_of
from rayclean.sweeps.repeat import best_config, trial_command
from rayclean.sweeps.results import PointFigure, Results, Row
from rayclean.sweeps.space import show
from rayclean.sweeps.spec import is_condition
from rayclean.sweeps.trial import TRUTH_FIGURES

MAX_METRICS = 12
"""Metrics that plots can be switched between; the table has them all."""
HEADLINES = ("accuracy", "accuracy_last", "noise_final", "annotator_accuracy")
"""Metrics that are shown right after the objectives, where they are known; on the page only if they differ."""


def render_sweep(results: Results) -> str:
    """The page."""
    sweep, rows, fields = results.sweep, results.rows, swept_fields(results)
    plotted = metrics_by_interest(results)[:MAX_METRICS]
    curves = learning_curves(results, fields)
    ran = timeline_study(rows, fields)
    figures = all_figures(results)
    views = [(name, name in TRUTH_FIGURES, metric_plots(rows, fields, name)) for name in plotted]
    fronts = [
        plot
        for other in range(1, len(sweep.objectives) if results.front else 0)
        for plot in pareto(results, fields, other)
    ]
    times = timeline(rows, fields) if len(ran.trials) > 1 else None
    drawn = [*fronts, *(plot for _, _, plots in views for plot in plots)]
    drawn += [plot for plot in (curves and curves[0], times) if plot is not None]
    names = {id(plot): f"plot-{place}" for place, plot in enumerate(drawn)}
    values = dict(
        sweep=sweep,
        results=results,
        fields=fields,
        space={field.name: {"path": field.path, "values": values_of(field.dimension)} for field in fields},
        stopped=sum(row.stopped + row.converged for row in rows),
        unfinished=sum(len(row.seeds) < len(sweep.seeds) for row in rows),
        compared=any(figure.p is not None for figure in figures),
        referenced=any(row.is_reference for row in rows),
        barred=any(figure.sd is not None for figure in figures),
        best=_best(results, fields),
        conditions=[field.name for field in fields if is_condition(field.path) and field.varies],
        front=_front(results, fields),
        fronts=fronts,
        views=views,
        unplotted=[name for name in results.metrics if name not in plotted],
        curves=curves,
        times=times,
        at_once=f"{at_once(ran):.1f}",
        trials=len(ran.trials),
        table=_table(results, fields),
        name_of=lambda plot: names[id(plot)],
        charts={names[id(plot)]: plot.figure for plot in drawn},
    )
    return render_page("sweep.html.jinja", values, package="rayclean.sweeps.page", filters={"show": show})


def metrics_by_interest(results: Results) -> list[str]:
    """All metrics: objectives first, then those that differ between points, headlines before others."""
    objectives = [objective.metric for objective in results.sweep.objectives]

    def rank(name: str) -> tuple[int, bool, bool]:
        values = {row.figures[name].mean for row in results.rows if name in row.figures}
        place = objectives.index(name) if name in objectives else len(objectives)
        return place, len(values) < 2, name not in HEADLINES

    return sorted(results.metrics, key=rank)


def all_figures(results: Results) -> list[PointFigure]:
    """Every figure of every point."""
    return [figure for row in results.rows for figure in row.figures.values()]


def is_among(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a row is one of some rows, by identity: equality would compare every epoch."""
    return any(row is each for each in rows)


def _best(results: Results, fields: Sequence[SweptField]) -> dict[str, Any] | None:
    if results.best is None:
        return None
    objective, row = results.sweep.objectives[0], results.best
    figure = row.figures[objective.metric]
    return {
        "title": ", ".join(named_values(row, fields)),
        "metric": objective.metric,
        "highest": objective.mode == "max",
        "value": amount(objective.metric, figure.mean, figure.sd),
        "seeds": figure.seeds,
        "mark": mark(figure),
        "is_reference": row.is_reference,
        "toml": best_config(results),
    }


def _front(results: Results, fields: Sequence[SweptField]) -> list[dict[str, Any]]:
    """The rows of the table of the Pareto front, the best by the first objective first."""
    if not results.front:
        return []
    objectives = results.sweep.objectives
    sign = -1 if objectives[0].mode == "max" else 1
    front = sorted(results.front, key=lambda row: sign * row.figures[objectives[0].metric].mean)
    return [
        {
            "values": cells(row, fields),
            "figures": [amount(o.metric, row.figures[o.metric].mean, row.figures[o.metric].sd) for o in objectives],
            "is_best": row is results.best,
        }
        for row in front
    ]  # fmt: skip


def _table(results: Results, fields: Sequence[SweptField]) -> dict[str, Any]:
    free = [name for name in results.metrics if name not in TRUTH_FIGURES]
    truth = [name for name in results.metrics if name in TRUTH_FIGURES]
    sweep, rows = results.sweep, results.rows
    return {
        "free": free,
        "on_truth": truth,
        "missing": any(figure.seeds < len(row.seeds) for row in rows for figure in row.figures.values()),
        "rows": [
            {
                "title": ", ".join(named_values(row, fields)),
                "values": cells(row, fields),
                "seeds": len(row.seeds),
                "cells": [_cell(row, name) for name in (*free, *truth)],
                "is_best": row is results.best,
                "is_front": is_among(row, results.front),
                "is_reference": row.is_reference,
                "stopped": row.stopped,
                "converged": row.converged,
                "commands": [trial_command(sweep, row.point, seed) for seed in row.seeds],
            }
            for row in rows
        ],
    }


def _cell(row: Row, name: str) -> dict[str, Any]:
    figure = row.figures.get(name)
    if figure is None:
        return {"value": "–", "mark": None, "difference": None, "missing": False}
    return {
        "value": amount(name, figure.mean, figure.sd),
        "mark": mark(figure),
        "difference": difference(name, figure),
        "missing": figure.seeds < len(row.seeds),
    }
