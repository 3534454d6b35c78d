"""The page of a sweep, which needs no network.

Everything that comes from data (values of points, errors, names, commands) is escaped: here by jinja2, in
plots by `plain_values`.
"""

from rayclean.evaluation.formatting import format_measured
from rayclean.evaluation.page import render_page
from rayclean.evaluation.run_figures import TRUTH_FIGURES
from rayclean.overrides import put_over
from rayclean.sweeps.dimension import is_condition, show
from rayclean.sweeps.page.field_plots import metric_plots
from rayclean.sweeps.page.fields import cells, named_values, swept_fields
from rayclean.sweeps.page.plots import learning_curves, pareto, trial_timeline
from rayclean.sweeps.plan import TRAINED, base_values
from rayclean.sweeps.repeat import best_config, trial_command
from rayclean.sweeps.results import Results

MAX_METRICS = 12
"""Metrics that plots can be switched between; the table has them all."""
HEADLINES = ("accuracy", "accuracy_last", "noise_final", "annotator_accuracy")
"""Metrics that come right after the objectives, where points differ in them."""


def render_sweep(results: Results) -> str:
    """The page."""
    functions = (format_measured, show, cells, named_values, trial_command, best_config, results.title)
    sweep, rows, fields = results.sweep, results.rows, swept_fields(results)
    plotted = metrics_by_interest(results)[:MAX_METRICS]
    views = {name: metric_plots(rows, fields, name, results.currency) for name in plotted}
    others = range(1, len(sweep.objectives) if results.front else 0)
    fronts = [plot for other in others for plot in pareto(results, fields, other)]
    curves, timeline = learning_curves(results, fields), trial_timeline(rows, fields)
    drawn = [*fronts, *(plot for plots in views.values() for plot in plots), curves, timeline]
    figures = [figure for row in rows for figure in row.figures.values()]
    values = dict(
        sweep=sweep,
        results=results,
        fields=fields,
        stopped=sum(row.stopped + row.converged for row in rows),
        unfinished=sum(len(row.seeds) < len(sweep.seeds) for row in rows),
        compared=any(figure.mark for figure in figures),
        referenced=any(row.is_reference for row in rows),
        barred=any(figure.sd is not None for figure in figures),
        missing=any(figure.seeds < len(row.seeds) for row in rows for figure in row.figures.values()),
        conditions=[field.name for field in fields if is_condition(field.path) and field.varies],
        front=sorted(results.front, key=lambda row: -row.score(sweep.objectives[0])),
        fronts=fronts,
        views=views,
        unplotted=[name for name in results.metrics if name not in plotted],
        curves=curves,
        timeline=timeline,
        dev_is_clean=dev_is_clean(results),
        has_dev=any(name in TRAINED for name in results.metrics),
        free=[name for name in results.metrics if name not in TRUTH_FIGURES],
        truth=[name for name in results.metrics if name in TRUTH_FIGURES],
        charts={plot.title: plot.figure for plot in drawn if plot is not None},
    )
    named = {each.__name__: each for each in functions}
    return render_page("sweep.html.jinja", values, package="rayclean.sweeps.page", functions=named)


def dev_is_clean(results: Results) -> bool:
    """Whether every trial's development labels are declared clean."""
    points = [row.point for row in results.rows] or [{}]
    trials = (put_over(base_values(results.sweep), point) for point in points)
    found = (trial.get("dataset", {}).get("dev", {}) for trial in trials)
    return all(isinstance(dev, dict) and dev.get("clean", False) for dev in found)


def metrics_by_interest(results: Results) -> list[str]:
    """All metrics: objectives first, then those that differ between points, headlines before others."""
    objectives = [objective.metric for objective in results.sweep.objectives]

    def rank(name: str) -> tuple[int, bool, bool]:
        values = {row.figures[name].mean for row in results.rows if name in row.figures}
        place = objectives.index(name) if name in objectives else len(objectives)
        return place, len(values) < 2, name not in HEADLINES

    return sorted(results.metrics, key=rank)
