"""Charts of a sweep as plain plotly figures, and the heat map that is drawn with CSS: a metric over one field and over
two, learning curves.

Titles and hovers that come from data go through `plots.plain`: plotly knows some HTML. Text and grid take their colours
from the page.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.evaluation import plots
from rayclean.sweeps.page.axes import Axis, Level, label, level, levels, named_point, parts, point_key
from rayclean.sweeps.page.wording import COUNTS, amount, digits
from rayclean.sweeps.results import Results, Row
from rayclean.sweeps.space import show

MAX_LINES = 12
"""Lines of one plot; what more fields would tell apart is averaged over."""
MAX_LEVELS = 20
"""Rows and columns of a heat map; with more values the points are dots."""

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, "#D55E00", "#CC79A7", "#56B4E9", plots.GREY)
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
LOW, MIDDLE, HIGH = plots.ORANGE, "#8F9AA0", plots.BLUE
"""Ends and middle of the scale of colours: all of them are seen on white and on black."""
HOVER = "%{text}<extra></extra>"
"""What plotly shows beside a mark: the text that `hover` made."""

Line = tuple[str, dict[float, list[Row]]]
"""Title of a line, and its points by the value of the field; several points at one value are averaged."""


@dataclass(frozen=True)
class Mean:
    """A metric over one or several points."""

    value: float
    sd: float | None
    """Over seeds, pooled over the points."""
    rows: list[Row]

    @classmethod
    def of(cls, rows: Sequence[Row], metric: str) -> "Mean | None":
        """Over the points that have the metric; None where none has."""
        there = [row for row in rows if metric in row.figures]
        if not there:
            return None
        figures = [row.figures[metric] for row in there]
        squares = [figure.sd**2 for figure in figures if figure.sd is not None]
        sd = math.sqrt(sum(squares) / len(squares)) if squares else None
        return cls(sum(figure.mean for figure in figures) / len(figures), sd, there)


@dataclass(frozen=True)
class Bundle:
    """The lines over one field: which other fields tell them apart, and which are averaged over."""

    lines: list[Line]
    hint: str

    @classmethod
    def of(cls, rows: Sequence[Row], axis: Axis, fields: Sequence[Axis]) -> "Bundle":
        """Lines told apart by as many of the other fields as `MAX_LINES` allows, in the order of the file.

        A point that lacks a field (no noise has no kind) is part of every line that has the values of its others.
        """
        rows = [row for row in rows if axis.path in row.point]
        others = [each for each in fields if each is not axis and len(_firsts(rows, [each])) > 1]
        kept: list[Axis] = []
        for other in others:
            if not other.ranged and len(_firsts(rows, [*kept, other])) <= MAX_LINES:
                kept.append(other)
        told: list[Line] = []
        for first in _firsts(rows, kept):
            points: dict[float, list[Row]] = {}
            for row in rows:
                if level(row, kept) <= level(first, kept):
                    points.setdefault(row.point[axis.path], []).append(row)
            told.append((label(first, kept), points))
        return cls(told, _hint(axis, told, kept, [other for other in others if other not in kept]))


def _firsts(rows: Sequence[Row], fields: Sequence[Axis]) -> list[Row]:
    """Of every line that some fields tell apart the first point that has all of its values."""
    found: dict[Level, Row] = {}
    for row in rows:
        found.setdefault(level(row, fields), row)
    return [row for own, row in found.items() if not any(own < other for other in found)]


def _hint(axis: Axis, bundle: Sequence[Line], kept: list[Axis], rest: list[Axis]) -> str:
    said = []
    if kept:
        order = ", named in this order" if len(kept) > 1 else ""
        said.append(f"One {'colour' if axis.ranged else 'line'} per {named_point(kept)}{order}.")
    on_lines = [id(row) for _, places in bundle for rows in places.values() for row in rows]
    if len(set(on_lines)) < len(on_lines):
        said.append("A point that lacks one of them is part of all lines that agree in the others.")
    averaged = [rows for _, places in bundle for rows in places.values() if len(rows) > 1]
    if rest and averaged:
        several = any(
            figure.sd is not None for rows in averaged for row in rows for figure in row.figures.values()
        )
        said.append(
            f"Averaged over {named_point(rest)}"
            + ("; bars pool the deviations over seeds." if several else ".")
        )
    elif rest:
        said.append(f"{named_point(rest)} {'differs' if len(rest) == 1 else 'differ'} from dot to dot.")
    return " ".join(said)


def lines(axis: Axis, bundle: Bundle, metric: str) -> plots.PlotlyFigure | None:
    """A metric over a numeric field; None where no point has it."""
    data = []
    for place, (title, points) in enumerate(bundle.lines):
        means = {x: mean for x, rows in sorted(points.items()) if (mean := Mean.of(rows, metric)) is not None}
        if not means:
            continue
        trace = _line(place, title, list(means), [mean.value for mean in means.values()])
        trace["text"] = [hover(metric, mean, f"{axis.name} = {show(x)}", title) for x, mean in means.items()]
        if any(mean.sd is not None for mean in means.values()):
            spread = [mean.sd or 0.0 for mean in means.values()]
            trace["error_y"] = {"type": "data", "array": spread, "thickness": 1.2, "width": 4}
        if axis.ranged:
            trace["mode"] = "markers"
        data.append(trace)
    return {"data": data, "layout": legend(layout(axis.ticks(), ticks(metric)), data)} if data else None


def over_two(
    rows: Sequence[Row], fields: Sequence[Axis], metric: str
) -> tuple[dict[str, Any] | None, plots.PlotlyFigure | None]:
    """A metric over two fields: a table with coloured cells, or dots where values are drawn from a range.

    Over the two that most points have both of; of several such pairs, that with the most values.
    """
    there = [row for row in rows if metric in row.figures]

    def shared(pair: tuple[Axis, Axis]) -> tuple[int, int]:
        both = sum(all(axis.path in row.point for axis in pair) for row in there)
        return both, sum(len(axis.values) for axis in pair)

    pairs = itertools.combinations([axis for axis in fields if axis.varies], 2)
    pair = max(pairs, key=shared, default=None)
    if pair is None or not shared(pair)[0]:
        return None, None
    # The field of more values, or of numbers, goes from left to right.
    down, across = sorted(pair, key=lambda axis: (axis.numeric, len(axis.values)))
    there = [row for row in there if down.path in row.point and across.path in row.point]
    rest = [axis for axis in fields if axis not in pair and len(levels(there, [axis])) > 1]
    title = f"{metric} over {across.name} and {down.name}"
    if any(axis.ranged or len(axis.values) > MAX_LEVELS for axis in pair):
        differ = f" {named_point(rest)} may differ from dot to dot." if rest else ""
        view = {"title": title, "hint": f"The bluer a dot, the higher.{differ}"}
        return view, _dots(there, down, across, fields, metric)
    averaged = f" Averaged over {named_point(rest)}." if rest else ""
    outlined = " Outlined: the reference." if not rest and any(row.is_reference for row in there) else ""
    hint = f"Rows: {down.name}. Columns: {across.name}. The bluer a cell, the higher.{averaged}{outlined}"
    return {"title": title, "hint": hint, **_cells(there, down, across, metric)}, None


def _cells(rows: Sequence[Row], down: Axis, across: Axis, metric: str) -> dict[str, Any]:
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((point_key(row.point[down.path]), point_key(row.point[across.path])), []).append(
            row
        )
    means = {place: mean for place, each in grouped.items() if (mean := Mean.of(each, metric)) is not None}
    low = min((mean.value for mean in means.values()), default=0.0)
    high = max((mean.value for mean in means.values()), default=0.0)

    def cell(mean: Mean | None) -> dict[str, Any]:
        if mean is None:
            return {"value": "", "sd": "", "strength": 0.0, "is_reference": False}
        places = digits(metric, mean.value)
        return {
            "value": amount(metric, mean.value),
            "sd": "" if mean.sd is None else f"± {mean.sd:,.{places}f}",
            "strength": round((mean.value - low) / (high - low), 3) if high > low else 0.0,
            "is_reference": len(mean.rows) == 1 and mean.rows[0].is_reference,
        }

    return {
        "corner": (down.name, across.name),
        "columns": [show(value) for value in across.values],
        "rows": [
            {"name": show(a), "cells": [cell(means.get((point_key(a), point_key(b)))) for b in across.values]}
            for a in down.values
        ],
    }


def _dots(
    rows: Sequence[Row], down: Axis, across: Axis, fields: Sequence[Axis], metric: str
) -> plots.PlotlyFigure:
    """Points over two fields, coloured by a metric."""
    trace = {
        "type": "scatter", "mode": "markers", "showlegend": False, "hovertemplate": HOVER,
        "x": [across.place(row.point[across.path]) for row in rows],
        "y": [down.place(row.point[down.path]) for row in rows],
        "text": [hover_of(row, fields, metric) for row in rows],
        "marker": {
            "size": 13, "color": [row.figures[metric].mean for row in rows], "showscale": True,
            "colorscale": [[0, LOW], [0.5, MIDDLE], [1, HIGH]],
            "line": {"width": 1, "color": "rgba(128,128,128,0.6)"},
            "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": plots.plain_values(metric), "side": "right"}},
        },
    }  # fmt: skip
    return {"data": [trace], "layout": layout(across.ticks(), down.ticks()) | {"height": 380}}


def curves(
    results: Results, fields: Sequence[Axis]
) -> tuple[dict[str, Any] | None, dict[str, plots.PlotlyFigure]]:
    """Development accuracy over epochs: the best points', or the first ones' where nothing decides."""
    found = [(row, curve) for row in results.rows if (curve := _curve(row))]
    if not found:
        return None, {}
    if (objectives := results.sweep.objectives) and results.best is not None:
        metric, way = objectives[0].metric, 1 if objectives[0].mode == "min" else -1
        found.sort(
            key=lambda each: way * each[0].figures[metric].mean if metric in each[0].figures else math.inf
        )
    varying = [axis for axis in fields if len(levels(results.rows, [axis])) > 1]
    data = []
    for place, (row, curve) in enumerate(found[:MAX_LINES]):
        title = label(row, varying) or "the only point"
        trace = _line(place, title, [float(epoch) for epoch in curve], [mean for mean, _ in curve.values()])
        trace["text"] = [
            _told(title, f"epoch {epoch}: dev accuracy {mean:.4f}", f"mean of {seeds} seeds" if seeds > 1 else "")
            for epoch, (mean, seeds) in curve.items()
        ]  # fmt: skip
        trace["marker"]["size"] = 5
        data.append(trace)
    longest = max(len(curve) for _, curve in found)
    epochs = {"title": {"text": "epoch"}, "tickformat": "d", "dtick": 1 if longest <= 15 else None}
    whole = legend(layout(epochs, {"title": {"text": "dev accuracy"}}), data, wide=True)
    return {
        "name": "curves",
        "left_out": max(0, len(found) - MAX_LINES),
        "sorted": results.best is not None,
        "named": named_point(varying) if len(varying) > 1 else "",
    }, {"curves": {"data": data, "layout": whole}}


def _curve(row: Row) -> dict[int, tuple[float, int]]:
    """By epoch: the mean development accuracy of the seeds that reached it, and how many did."""
    found: dict[int, list[float]] = {}
    for records in row.epochs.values():
        for record in records:
            if record.get("dev_accuracy") is not None and record.get("epoch") is not None:
                found.setdefault(int(record["epoch"]), []).append(float(record["dev_accuracy"]))
    return {epoch: (sum(values) / len(values), len(values)) for epoch, values in sorted(found.items())}


def hover(metric: str, mean: Mean, *said: str) -> str:
    """What stands beside a mark."""
    several = f"mean of {len(mean.rows)} points" if len(mean.rows) > 1 else ""
    reference = "reference" if all(row.is_reference for row in mean.rows) else ""
    return _told(*said, f"{metric} {amount(metric, mean.value, mean.sd)}", several, reference)


def hover_of(row: Row, fields: Sequence[Axis], metric: str, *more: str) -> str:
    """What stands beside the mark of one point."""
    figure = row.figures[metric]
    return hover(metric, Mean(figure.mean, figure.sd, [row]), *parts(row, fields), *more)


def _told(*said: str) -> str:
    return "<br>".join(plots.plain_values(part, 90) for part in said if part)


def _line(place: int, title: str, x: list[float], y: list[float]) -> dict[str, Any]:
    """One line of several, told apart by colour, dashes and marks."""
    colour = COLOURS[place % len(COLOURS)]
    return {
        "type": "scatter", "mode": "lines+markers", "name": plots.plain_values(title, 60), "x": x, "y": y,
        "line": {"color": colour, "width": 2, "dash": DASHES[place // len(COLOURS) % len(DASHES)]},
        "marker": {"color": colour, "size": 8, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        "hovertemplate": HOVER,
    }  # fmt: skip


def ticks(metric: str, more: str = "") -> dict[str, Any]:
    """Plotly's settings of an axis of a metric."""
    whole = {"tickformat": ",~f"} if metric in COUNTS else {}
    return {"title": {"text": plots.plain_values(metric) + more}, **whole}


def layout(x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    """Text and grid take their colours from the page; axes need not begin at 0: it is differences that matter."""
    axis: dict[str, Any] = {"zeroline": False, "fixedrange": True, "automargin": True}
    axis |= {"gridcolor": "rgba(128,128,128,0.2)", "exponentformat": "e", "separatethousands": True}
    y = y | {"title": {"standoff": 12, **y.get("title", {})}}
    return {
        "xaxis": {**axis, "showgrid": False, **x}, "yaxis": {**axis, **y},
        "margin": {"l": 52, "r": 14, "t": 14, "b": 44}, "height": 320, "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12}, "hovermode": "closest",
    }  # fmt: skip


def legend(base: dict[str, Any], data: Sequence[dict[str, Any]], wide: bool = False) -> dict[str, Any]:
    """A layout with the names of the lines above the plot, which stays about as high as without them."""
    if len(data) < 2:
        return base
    longest = max(len(str(trace["name"])) for trace in data)
    rows = math.ceil(len(data) / max(1, (140 if wide else 62) // (longest + 7)))
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return base | {"showlegend": True, "legend": legend, "height": base["height"] + 19 * rows}
