"""Plots of a metric over each swept field, with error bars, and of the fields' importance."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.visualization import plot_param_importances

from rayclean.evaluation.formatting import WHOLE, figure_title
from rayclean.evaluation.plots import BLUE, plain_values
from rayclean.evaluation.seed_figures import pooled
from rayclean.sweeps.dimension import show
from rayclean.sweeps.page.fields import (
    FieldValues,
    SweptField,
    field_list,
    label,
    named_values,
    values_at,
)
from rayclean.sweeps.page.plots import MAX_LINES, Plot, hover, line_style, styled
from rayclean.sweeps.results import Row

MAX_TICKS = 10
"""Values that an axis names each; of more it names round numbers."""
ENOUGH = 20
"""Points from which on the importance of fields is worth a plot."""


def metric_plots(
    rows: Sequence[Row], fields: Sequence[SweptField], metric: str, currency: str | None = None
) -> list[Plot]:
    """A metric over each field, and the fields' importance, as far as they can be drawn; `currency`: of costs."""
    rows, fields = [row for row in rows if metric in row.figures], [field for field in fields if field.varies]
    over = (over_field(rows, field, fields, metric, currency) for field in fields)
    found = [*over, importance(rows, fields, metric)]
    return [plot for plot in found if plot is not None]


def over_field(
    rows: Sequence[Row],
    field: SweptField,
    fields: Sequence[SweptField],
    metric: str,
    currency: str | None = None,
) -> Plot | None:
    """A metric over a field with error bars; a line, or a colour, for each combination of as many of the
    other fields as `MAX_LINES` allows, in the order of the file. None where no point has the field.
    """
    joined = field.numeric and not field.dimension.bounds
    rows = sorted((row for row in rows if field.path in row.point), key=field.place)
    others = [each for each in fields if each is not field and len(_lines(rows, [each], field.numeric)) > 1]
    kept: list[SweptField] = []
    for other in others:
        if not other.dimension.bounds and len(_lines(rows, [*kept, other], field.numeric)) <= MAX_LINES:
            kept.append(other)
    figure, found, drawn, averaged = go.Figure(), _lines(rows, kept, field.numeric), 0, False
    for number, (first, members) in enumerate(found):
        at: dict[float, list[Row]] = {}
        for row in members:
            at.setdefault(field.place(row), []).append(row)
        drawn += len(members)
        averaged |= max(map(len, at.values())) > 1
        means, title = (
            [pooled([row.figures[metric] for row in some]) for some in at.values()],
            label(first, kept),
        )
        spread = [mean.sd or 0.0 for mean in means]
        beside = 0 if field.numeric else 0.06 * (number - (len(found) - 1) / 2)
        figure.add_scatter(
            x=[x + beside for x in at], y=[mean.mean for mean in means], name=plain_values(title, 60),
            error_y={"array": spread, "thickness": 1.2, "width": 4} if any(spread) else None,
            mode="lines+markers" if joined else "markers", **line_style(number),
            text=[
                hover(some, [metric], named_values(some[0], [field]), title, currency=currency) for some in at.values()
            ],
        )  # fmt: skip
    if not figure.data:
        return None
    _label_axis(figure.update_xaxes, field)
    figure.update_yaxes(
        title_text=plain_values(figure_title(metric, currency)), tickformat=",~f" if metric in WHOLE else None
    )
    hints = []
    if kept:
        order = ", named in this order" if len(kept) > 1 else ""
        hints.append(f"One {'line' if joined else 'colour'} per {field_list(kept)}{order}.")
    if drawn > len(rows):
        hints.append("A point that lacks one of them is part of all lines that agree in the others.")
    if rest := [other for other in others if other not in kept]:
        barred = any(row.figures[metric].sd for row in rows)
        pooling = "; bars pool the deviations over seeds" if barred else ""
        differ = f"{field_list(rest)} {'differs' if len(rest) == 1 else 'differ'} from dot to dot"
        hints.append(f"Averaged over {field_list(rest)}{pooling}." if averaged else f"{differ}.")
    return Plot(f"{metric} over {field.name}", " ".join(hints), styled(figure))


def importance(rows: Sequence[Row], fields: Sequence[SweptField], metric: str) -> Plot | None:
    """How much of a metric's best values each field explains (PED-ANOVA, Watanabe et al., 2023); None where
    fields are not drawn or points are few.
    """
    differ = len({row.figures[metric].mean for row in rows}) > 1
    if sum(field.dimension.drawn for field in fields) < 2 or len(rows) < ENOUGH or not differ:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for row in rows:
        known = [field for field in fields if field.path in row.point]
        trial = optuna.trial.create_trial(
            value=row.figures[metric].mean,
            params={field.plain: field.place(row) for field in known},
            distributions={field.plain: _space(field) for field in known},
        )
        study.add_trial(trial)
    figure = plot_param_importances(study).update_traces(marker_color=BLUE)
    figure.update_xaxes(title_text="importance").update_yaxes(title_text=None).update_layout(title=None)
    hint = "Share of the difference between the best points and all points that a field explains."
    return Plot(f"Importance of the fields for {metric}", hint, styled(figure))


def _space(field: SweptField) -> BaseDistribution:
    if field.numeric:
        return FloatDistribution(field.values[0], field.values[-1], log=field.log)
    return CategoricalDistribution(range(len(field.values)))


def _lines(rows: Sequence[Row], fields: Sequence[SweptField], joined: bool) -> list[tuple[Row, list[Row]]]:
    """The lines that some fields tell apart, each with its first point. Where points are joined, one that
    lacks a field (no noise has no kind) is part of every line that has the values of its others.
    """
    found: dict[FieldValues, Row] = {}
    for row in rows:
        found.setdefault(values_at(row, fields), row)
    if joined:
        found = {values: row for values, row in found.items() if not any(values < other for other in found)}
    return [
        (first, [row for row in rows if (at := values_at(row, fields)) == values or (joined and at < values)])
        for values, first in found.items()
    ]


def _label_axis(update: Any, field: SweptField) -> None:
    """Ticks of a field: its values, unless they are numbers that are many or stand close together."""
    names = [plain_values(show(value), 22) for value in field.values]
    update(title_text=field.plain, type="log" if field.log else "linear")
    places = [math.log(value) if field.log else value for value in field.values] if field.numeric else []
    crowded = any(b - a < 0.07 * (places[-1] - places[0]) for a, b in itertools.pairwise(places))
    if not field.numeric:
        update(tickvals=list(range(len(names))), ticktext=names, range=[-0.5, len(names) - 0.5])
    elif not field.dimension.bounds and len(names) <= MAX_TICKS and not crowded:
        update(tickvals=field.values, ticktext=names)
