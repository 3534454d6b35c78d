"""Plots of a metric over the swept fields: lines with error bars, a heat map, ranks, importance."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna.visualization as optuna_plots
import plotly.graph_objects as go

from rayclean.evaluation.plots import BLUE, PlotlyFigure, plain_values
from rayclean.sweeps.page.fields import (
    FieldValues,
    SweptField,
    distinct_values,
    field_list,
    label,
    values_at,
)
from rayclean.sweeps.page.plots import MAX_LINES, Plot, line_style, styled
from rayclean.sweeps.page.study import plain_name, study_of
from rayclean.sweeps.page.wording import WHOLE, amount
from rayclean.sweeps.results import Row
from rayclean.sweeps.space import show

MAX_CELLS = 20
"""Rows and columns of a heat map; with more values the points are dots."""
MAX_TICKS = 10
"""FieldValues that an axis names each; of more it names round numbers."""
ENOUGH = 20
"""Points from which on the importance of fields is worth a plot."""
SCALE = [[0, "rgba(0,114,178,0.06)"], [1, "rgba(0,114,178,0.6)"]]
"""Colours from low to high, on which the page's text is read in light and in dark."""


@dataclass(frozen=True)
class Mean:
    """A metric over one or several points."""

    value: float
    sd: float | None
    """Deviation over seeds, pooled over the points."""
    rows: list[Row]

    @classmethod
    def of(cls, rows: Sequence[Row], metric: str) -> "Mean | None":
        """The mean over the points that have the metric; None where none has."""
        known = [row for row in rows if metric in row.figures]
        if not known:
            return None
        figures = [row.figures[metric] for row in known]
        squares = [figure.sd**2 for figure in figures if figure.sd is not None]
        sd = math.sqrt(sum(squares) / len(squares)) if squares else None
        return cls(sum(figure.mean for figure in figures) / len(figures), sd, known)


def metric_plots(rows: Sequence[Row], fields: Sequence[SweptField], metric: str) -> list[Plot]:
    """A metric over each numeric field, over two fields, and the fields' importance, as far as they can be
    drawn.
    """
    found = [lines(rows, field, fields, metric) for field in fields if field.numeric and field.varies]
    found += [over_two(rows, fields, metric), importance(rows, fields, metric)]
    return [plot for plot in found if plot is not None]


def lines(rows: Sequence[Row], field: SweptField, fields: Sequence[SweptField], metric: str) -> Plot | None:
    """A metric over a numeric field with error bars; a line for each combination of as many of the other
    fields as `MAX_LINES` allows, in the order of the file. None where no point has the metric.

    A point that lacks a field (no noise has no kind) is part of every line that has the values of its others.
    """
    rows = [row for row in rows if field.path in row.point]
    others = [each for each in fields if each is not field and len(_line_starts(rows, [each])) > 1]
    kept: list[SweptField] = []
    for other in others:
        if not other.dimension.ranged and len(_line_starts(rows, [*kept, other])) <= MAX_LINES:
            kept.append(other)
    figure, drawn, averaged = go.Figure(), list[int](), False
    for first in _line_starts(rows, kept):
        points: dict[float, list[Row]] = {}
        for row in rows:
            if values_at(row, kept) <= values_at(first, kept):
                points.setdefault(row.point[field.path], []).append(row)
        means = {x: mean for x, at in sorted(points.items()) if (mean := Mean.of(at, metric)) is not None}
        if not means:
            continue
        place, title = len(figure.data), label(first, kept)
        spread = [mean.sd or 0.0 for mean in means.values()]
        drawn += [id(row) for mean in means.values() for row in mean.rows]
        averaged |= any(len(mean.rows) > 1 for mean in means.values())
        figure.add_scatter(
            x=list(means), y=[mean.value for mean in means.values()], name=plain_values(title, 60),
            error_y={"array": spread, "thickness": 1.2, "width": 4} if any(spread) else None,
            mode="markers" if field.dimension.ranged else "lines+markers", **line_style(place),
            text=[_hover(metric, mean, f"{field.name} = {show(x)}", title) for x, mean in means.items()],
        )  # fmt: skip
    if not figure.data:
        return None
    _label_axis(figure.update_xaxes, field)
    figure.update_yaxes(title_text=plain_values(metric), tickformat=",~f" if metric in WHOLE else None)
    hints = []
    if kept:
        order = ", named in this order" if len(kept) > 1 else ""
        hints.append(f"One {'colour' if field.dimension.ranged else 'line'} per {field_list(kept)}{order}.")
    if len(set(drawn)) < len(drawn):
        hints.append("A point that lacks one of them is part of all lines that agree in the others.")
    if rest := [other for other in others if other not in kept]:
        barred = any(figure.sd for row in rows for figure in row.figures.values())
        pooled = "; bars pool the deviations over seeds" if barred else ""
        differ = f"{field_list(rest)} {'differs' if len(rest) == 1 else 'differ'} from dot to dot"
        hints.append(f"Averaged over {field_list(rest)}{pooled}." if averaged else f"{differ}.")
    return Plot(f"{metric} over {field.name}", " ".join(hints), styled(figure))


def over_two(rows: Sequence[Row], fields: Sequence[SweptField], metric: str) -> Plot | None:
    """A metric over two fields: a heat map, or dots where values are drawn from a range.

    The two fields are those that most points have both of; of several such pairs, that with the most values.
    """
    rows = [row for row in rows if metric in row.figures]

    def shared(pair: tuple[SweptField, SweptField]) -> tuple[int, int]:
        both = sum(all(field.path in row.point for field in pair) for row in rows)
        return both, sum(len(field.values) for field in pair)

    pair = max(itertools.combinations([f for f in fields if f.varies], 2), key=shared, default=None)
    if pair is None or not shared(pair)[0]:
        return None
    # The field of more values, or of numbers, goes from left to right.
    down, across = sorted(pair, key=lambda field: (field.numeric, len(field.values)))
    rows = [row for row in rows if down.path in row.point and across.path in row.point]
    rest = [field for field in fields if field not in pair and len(distinct_values(rows, [field])) > 1]
    title = f"{metric} over {across.name} and {down.name}"
    if any(field.dimension.ranged or len(field.values) > MAX_CELLS for field in pair):
        study = study_of(rows, fields, [metric])
        figure = optuna_plots.plot_rank(
            study, [plain_name(across), plain_name(down)], target_name=plain_values(metric)
        )
        hint = f"Coloured by rank.{f' {field_list(rest)} may differ from dot to dot.' if rest else ''}"
        return Plot(title, hint, styled(figure, height=380))
    hint = f"The bluer, the higher.{f' Averaged over {field_list(rest)}.' if rest else ''}"
    return Plot(title, hint, _heat_map(rows, down, across, metric))


def importance(rows: Sequence[Row], fields: Sequence[SweptField], metric: str) -> Plot | None:
    """How much of a metric's best values each field explains (PED-ANOVA, Watanabe et al., 2023); None where
    fields are not drawn or points are few.
    """
    study = study_of(rows, [field for field in fields if field.varies], [metric])
    known = study.get_trials(deepcopy=False)
    drawn = sum(field.dimension.drawn and field.varies for field in fields)
    if drawn < 2 or len(known) < ENOUGH or len({trial.value for trial in known}) < 2:
        return None
    figure = optuna_plots.plot_param_importances(study, target_name=plain_values(metric))
    figure.update_traces(marker_color=BLUE)
    figure.update_xaxes(title_text="importance").update_yaxes(title_text=None)
    hint = "Share of the difference between the best points and all points that a field explains."
    return Plot(f"Importance of the fields for {metric}", hint, styled(figure))


def _line_starts(rows: Sequence[Row], fields: Sequence[SweptField]) -> list[Row]:
    """The first point of every line that some fields tell apart; it has all values of its line."""
    found: dict[FieldValues, Row] = {}
    for row in rows:
        found.setdefault(values_at(row, fields), row)
    return [row for values, row in found.items() if not any(values < other for other in found)]


def _heat_map(rows: Sequence[Row], down: SweptField, across: SweptField, metric: str) -> PlotlyFigure:
    def text(mean: Mean | None) -> str:
        if mean is None:
            return ""
        reference = "<br>reference" if len(mean.rows) == 1 and mean.rows[0].is_reference else ""
        return amount(metric, mean.value, mean.sd) + reference

    means = [
        [
            Mean.of(
                [row for row in rows if row.point[down.path] == a and row.point[across.path] == b], metric
            )
            for b in across.values
        ]
        for a in down.values
    ]
    x, y = ([plain_values(show(value), 22) for value in field.values] for field in (across, down))
    figure = go.Figure(
        go.Heatmap(
            x=list(range(len(x))), y=list(range(len(y))),
            z=[[mean and mean.value for mean in row] for row in means],
            text=[[text(mean) for mean in row] for row in means], texttemplate="%{text}", hoverinfo="skip",
            colorscale=SCALE, showscale=False, xgap=2, ygap=2, hoverongaps=False,
        )
    )  # fmt: skip
    figure.update_xaxes(title_text=plain_name(across), tickvals=list(range(len(x))), ticktext=x)
    figure.update_yaxes(
        title_text=plain_name(down), tickvals=list(range(len(y))), ticktext=y, autorange="reversed"
    )
    figure.update_yaxes(showgrid=False)
    return styled(figure, height=90 + 56 * len(y))


def _hover(metric: str, mean: Mean, *parts: str) -> str:
    """The text beside a mark."""
    several = f"mean of {len(mean.rows)} points" if len(mean.rows) > 1 else ""
    reference = "reference" if all(row.is_reference for row in mean.rows) else ""
    every = (*parts, f"{metric} {amount(metric, mean.value, mean.sd)}", several, reference)
    return "<br>".join(plain_values(part, 90) for part in every if part)


def _label_axis(update: Any, field: SweptField) -> None:
    """Ticks of a numeric field: its values, where they are few and stand apart."""
    places = [math.log(value) if field.log else value for value in field.values]
    gaps = [b - a for a, b in itertools.pairwise(places)]
    crowded = bool(gaps) and min(gaps) < 0.07 * (places[-1] - places[0])
    update(title_text=plain_name(field), type="log" if field.log else "linear")
    if not field.dimension.ranged and len(field.values) <= MAX_TICKS and not crowded:
        update(tickvals=field.values, ticktext=[plain_values(show(value), 20) for value in field.values])
