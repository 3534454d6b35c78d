"""The page of a sweep, which needs no network.

Everything that comes from data (values of points, errors, names, commands) is escaped: here by jinja2, in
plots by `plain_values`.
"""

import itertools
from collections.abc import Callable, Sequence

from rayclean.evaluation.page import render_page
from rayclean.sweeps.dimension import is_condition
from rayclean.sweeps.page.field_plots import metric_plots
from rayclean.sweeps.page.fields import cells, named_values, swept_fields
from rayclean.sweeps.page.plots import learning_curves, pareto, trial_timeline
from rayclean.sweeps.page.wording import amount, difference, mark, values_of
from rayclean.sweeps.repeat import best_config, trial_command
from rayclean.sweeps.results import PointFigure, Results, Row
from rayclean.sweeps.space import show
from rayclean.sweeps.trial import TRUTH_FIGURES

MAX_METRICS = 12
"""Metrics that plots can be switched between; the table has them all."""
HEADLINES = ("accuracy", "accuracy_last", "noise_final", "annotator_accuracy")
"""Metrics that come right after the objectives; on the page only where points differ in them."""


def render_sweep(results: Results) -> str:
    """The page."""
    functions = {
        each.__name__: each
        for each in (
            amount, mark, difference, show, values_of, cells, named_values, trial_command, is_among,
            best_config,
        )
    }  # fmt: skip
    sweep, rows, fields = results.sweep, results.rows, swept_fields(results)
    plotted = metrics_by_interest(results)[:MAX_METRICS]
    views = {name: metric_plots(rows, fields, name) for name in plotted}
    others = range(1, len(sweep.objectives) if results.front else 0)
    fronts = [plot for other in others for plot in pareto(results, fields, other)]
    curves, timeline = learning_curves(results, fields), trial_timeline(rows, fields)
    drawn = [*fronts, *itertools.chain(*views.values()), curves, timeline]
    names = {id(plot): f"plot-{place}" for place, plot in enumerate(drawn) if plot is not None}
    figures = all_figures(results)
    values = dict(
        sweep=sweep,
        results=results,
        fields=fields,
        stopped=sum(row.stopped + row.converged for row in rows),
        unfinished=sum(len(row.seeds) < len(sweep.seeds) for row in rows),
        compared=any(figure.p is not None for figure in figures),
        referenced=any(row.is_reference for row in rows),
        barred=any(figure.sd is not None for figure in figures),
        missing=any(figure.seeds < len(row.seeds) for row in rows for figure in row.figures.values()),
        conditions=[field.name for field in fields if is_condition(field.path) and field.varies],
        front=sorted(results.front, key=_by_first_objective(results)),
        fronts=fronts,
        views=views,
        unplotted=[name for name in results.metrics if name not in plotted],
        curves=curves,
        timeline=timeline,
        free=[name for name in results.metrics if name not in TRUTH_FIGURES],
        truth=[name for name in results.metrics if name in TRUTH_FIGURES],
        name_of=lambda plot: names[id(plot)],
        charts={names[id(plot)]: plot.figure for plot in drawn if plot is not None},
    )
    return render_page("sweep.html.jinja", values, package="rayclean.sweeps.page", functions=functions)


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


def _by_first_objective(results: Results) -> Callable[[Row], float]:
    """Sorts the best row first."""
    first = results.sweep.objectives[0] if results.sweep.objectives else None
    return lambda row: -first.sign * row.figures[first.metric].mean if first is not None else 0.0
