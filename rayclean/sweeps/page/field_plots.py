"""Plots of a metric over the swept fields: lines with error bars, heat maps or dots, importance."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.visualization import plot_param_importances

from rayclean.evaluation.formatting import WHOLE, format_measured
from rayclean.evaluation.plots import BLUE, plain_values
from rayclean.sweeps.dimension import show
from rayclean.sweeps.page.fields import (
    FieldValues,
    SweptField,
    field_list,
    label,
    named_values,
    pooled,
    values_at,
    varying,
)
from rayclean.sweeps.page.plots import MAX_LINES, ONLY_TEXT, Plot, hover, line_style, styled
from rayclean.sweeps.results import Row

MAX_CELLS = 20
"""Rows and columns of a heat map; with more values the points are dots."""
MAX_TICKS = 10
"""Values that an axis names each; of more it names round numbers."""
ENOUGH = 20
"""Points from which on the importance of fields is worth a plot."""
SCALE = [[0, "rgba(0,114,178,0.06)"], [1, "rgba(0,114,178,0.6)"]]
"""Colours from low to high, on which the page's text is read in light and in dark."""
DOTS = [[0, "#FFFFFF"], [1, BLUE]]
"""Colours of dots from low to high."""


def metric_plots(rows: Sequence[Row], fields: Sequence[SweptField], metric: str) -> list[Plot]:
    """A metric over each numeric field, over two fields, and the fields' importance, as far as they can be
    drawn.
    """
    rows = [row for row in rows if metric in row.figures]
    found = [lines(rows, field, fields, metric) for field in fields if field.numeric and field.varies]
    found += [over_two(rows, fields, metric), importance(rows, fields, metric)]
    return [plot for plot in found if plot is not None]


def lines(rows: Sequence[Row], field: SweptField, fields: Sequence[SweptField], metric: str) -> Plot | None:
    """A metric over a numeric field with error bars; a line for each combination of as many of the other
    fields as `MAX_LINES` allows, in the order of the file. None where no point has the field.

    A point that lacks a field (no noise has no kind) is part of every line that has the values of its others.
    """
    rows = [row for row in rows if field.path in row.point]
    others = [each for each in fields if each is not field and len(_line_starts(rows, [each])) > 1]
    kept: list[SweptField] = []
    for other in others:
        if not other.dimension.bounds and len(_line_starts(rows, [*kept, other])) <= MAX_LINES:
            kept.append(other)
    figure, drawn, averaged = go.Figure(), 0, False
    for first in _line_starts(rows, kept):
        at: dict[float, list[Row]] = {}
        for row in sorted(rows, key=lambda row: float(row.point[field.path])):
            if values_at(row, kept) <= values_at(first, kept):
                at.setdefault(row.point[field.path], []).append(row)
        drawn += sum(map(len, at.values()))
        averaged |= max(map(len, at.values())) > 1
        means, title = [pooled(members, metric) for members in at.values()], label(first, kept)
        spread = [mean.sd or 0.0 for mean in means]
        figure.add_scatter(
            x=list(at), y=[mean.mean for mean in means], name=plain_values(title, 60),
            error_y={"array": spread, "thickness": 1.2, "width": 4} if any(spread) else None,
            mode="markers" if field.dimension.bounds else "lines+markers", **line_style(len(figure.data)),
            text=[hover(some, [metric], f"{field.name} = {show(x)}", title) for x, some in at.items()],
        )  # fmt: skip
    if not figure.data:
        return None
    _label_axis(figure.update_xaxes, field)
    figure.update_yaxes(title_text=plain_values(metric), tickformat=",~f" if metric in WHOLE else None)
    hints = []
    if kept:
        order = ", named in this order" if len(kept) > 1 else ""
        hints.append(f"One {'colour' if field.dimension.bounds else 'line'} per {field_list(kept)}{order}.")
    if drawn > len(rows):
        hints.append("A point that lacks one of them is part of all lines that agree in the others.")
    if rest := [other for other in others if other not in kept]:
        barred = any(row.figures[metric].sd for row in rows)
        pooling = "; bars pool the deviations over seeds" if barred else ""
        differ = f"{field_list(rest)} {'differs' if len(rest) == 1 else 'differ'} from dot to dot"
        hints.append(f"Averaged over {field_list(rest)}{pooling}." if averaged else f"{differ}.")
    return Plot(f"{metric} over {field.name}", " ".join(hints), styled(figure))


def over_two(rows: Sequence[Row], fields: Sequence[SweptField], metric: str) -> Plot | None:
    """A metric over two fields: a heat map, or dots where values are drawn from a range.

    The two fields are those that most points have both of; of several such pairs, that with the most values.
    """

    def having(pair: tuple[SweptField, ...]) -> list[Row]:
        return [row for row in rows if all(field.path in row.point for field in pair)]

    pairs = itertools.combinations([field for field in fields if field.varies], 2)
    pair = max(pairs, key=lambda pair: (len(having(pair)), sum(len(f.values) for f in pair)), default=())
    if not pair or not (both := having(pair)):
        return None
    # The field of more values, or of numbers, goes from left to right.
    down, across = sorted(pair, key=lambda field: (field.numeric, len(field.values)))
    dots = any(field.dimension.bounds or len(field.values) > MAX_CELLS for field in pair)
    cells: dict[tuple[float, float], list[Row]] = {}
    for row in both:
        at = (across.place(row, numbers=dots), down.place(row, numbers=dots))
        cells.setdefault(at, []).append(row)
    x, y = ([at[axis] for at in cells] for axis in (0, 1))
    means, figure = [pooled(members, metric) for members in cells.values()], go.Figure()
    if dots:  # coloured by ranks: a few far values would leave all others alike
        order = sorted(mean.mean for mean in means)
        colours = {"color": [order.index(mean.mean) for mean in means], "colorscale": DOTS}
        texts = [hover(members, [metric], named_values(members[0], fields)) for members in cells.values()]
        marker = {**colours, "size": 11, "line": {"color": BLUE, "width": 1}}
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, text=texts, hovertemplate=ONLY_TEXT)
    else:
        single = [len(members) == 1 and members[0].is_reference for members in cells.values()]
        amounts = (format_measured(metric, mean.mean, mean.sd) for mean in means)
        figure.add_heatmap(
            x=x, y=y, z=[mean.mean for mean in means], hoverinfo="skip", hoverongaps=False, texttemplate="%{text}",
            text=[text + "<br>reference" * is_it for text, is_it in zip(amounts, single, strict=True)],
            colorscale=SCALE, showscale=False, xgap=2, ygap=2,
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed", showgrid=False)
    _label_axis(figure.update_xaxes, across, numbers=dots)
    _label_axis(figure.update_yaxes, down, numbers=dots)
    rest = [field for field in varying(both, fields) if field not in pair]
    differ = "May differ from dot to dot:" if dots else "Averaged over"
    hint = f"The bluer, the higher.{f' {differ} {field_list(rest)}.' if rest else ''}"
    height = 380 if dots else 90 + 56 * len(down.values)
    return Plot(f"{metric} over {across.name} and {down.name}", hint, styled(figure, height))


def importance(rows: Sequence[Row], fields: Sequence[SweptField], metric: str) -> Plot | None:
    """How much of a metric's best values each field explains (PED-ANOVA, Watanabe et al., 2023); None where
    fields are not drawn or points are few.
    """
    fields = [field for field in fields if field.varies]
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


def _line_starts(rows: Sequence[Row], fields: Sequence[SweptField]) -> list[Row]:
    """The first point of every line that some fields tell apart; it has all values of its line."""
    found: dict[FieldValues, Row] = {}
    for row in rows:
        found.setdefault(values_at(row, fields), row)
    return [row for values, row in found.items() if not any(values < other for other in found)]


def _label_axis(update: Any, field: SweptField, numbers: bool = True) -> None:
    """Ticks of a field: its values, where they are drawn by their places, or are few numbers that stand
    apart.
    """
    update(title_text=field.plain)
    named = [plain_values(show(value), 22) for value in field.values]
    if not (numbers and field.numeric):
        update(tickvals=list(range(len(named))), ticktext=named)
        return
    places = [math.log(value) if field.log else value for value in field.values]
    gaps = [b - a for a, b in itertools.pairwise(places)]
    crowded = bool(gaps) and min(gaps) < 0.07 * (places[-1] - places[0])
    update(type="log" if field.log else "linear")
    if not field.dimension.bounds and len(named) <= MAX_TICKS and not crowded:
        update(tickvals=field.values, ticktext=named)
