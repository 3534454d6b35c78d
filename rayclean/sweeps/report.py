"""The page of a sweep, which needs no network, and the table that the command line prints.

Everything that comes from data (values of points, errors, names, commands) is escaped by jinja2, or by `plots.plain`
where plotly draws it. Parallel coordinates are drawn with plain lines: plotly's own need WebGL and `eval`, which the
page's content security policy forbids.
"""

import itertools
import json
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from rich import box
from rich.markup import escape
from rich.table import Table

from rayclean.evaluation import plots
from rayclean.sweeps import results as outcome
from rayclean.sweeps.results import Figure, Results, Row
from rayclean.sweeps.space import show
from rayclean.sweeps.spec import Dimension, Objective
from rayclean.sweeps.trial import TRUTH

MAX_LINES = 12
"""Lines of one plot; what more fields would tell apart is averaged over."""
MAX_METRICS = 12
"""Metrics that plots can be switched between; the table has them all."""
MAX_LEVELS = 20
"""Rows and columns of a heat map; with more values the points are dots."""
MAX_TICKS = 10
"""Values that an axis names each; of more it names round numbers."""
TERMINAL_METRICS = 6
"""Columns of figures that fit into a terminal."""
HEADLINES = ("accuracy", "accuracy_last", "noise_final", "annotator_accuracy")
"""What the terminal shows after the objectives, where it is there."""
SIGNIFICANT = 0.05
"""p below this is marked."""
WIDE = 100.0
"""Positive numbers whose largest is so many times the smallest are drawn on a logarithmic axis."""
COUNTS = ("suspects", "asked", "changed", "tokens")
"""Figures that are whole numbers."""

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, "#D55E00", "#CC79A7", "#56B4E9", plots.GREY)
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
LOW, MIDDLE, HIGH = plots.ORANGE, "#8F9AA0", plots.BLUE
"""Ends and middle of the scale of colours: all of them are seen on white and on black."""
ABSENT = -0.14
"""Where parallel coordinates draw a field that a point does not have, below the lowest value at 0."""


Line = tuple[str, dict[float, list[Row]]]
"""Title of a line, and its points by the value of the field; several points at one value are averaged."""


@dataclass(frozen=True)
class Axis:
    """A swept field as the page shows it."""

    path: str
    name: str
    """Short, but no other swept field has it."""
    values: list[Any]
    """Those that occur, each once; numbers by size, others in the order of the rows."""
    dimension: Dimension

    @cached_property
    def numeric(self) -> bool:
        """Whether every value is a number."""
        return bool(self.values) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in self.values
        )

    @property
    def ranged(self) -> bool:
        """Whether values are drawn from a range: hardly two points share one."""
        return self.dimension.drawn and self.dimension.choice is None

    @property
    def log(self) -> bool:
        """Whether to draw it on a logarithmic axis."""
        if not self.numeric or self.values[0] <= 0:
            return False
        return self.dimension.log_uniform is not None or self.values[-1] / self.values[0] >= WIDE

    def place(self, value: Any) -> float:
        """Where a plot puts a value: numbers at themselves, others side by side."""
        return (
            float(value) if self.numeric else float([_key(each) for each in self.values].index(_key(value)))
        )

    def ticks(self) -> dict[str, Any]:
        """Plotly's settings of an axis of this field."""
        kind: dict[str, Any] = {"title": {"text": plots.plain(self.name, 48)}}
        if self.numeric:
            kind |= {"type": "log" if self.log else "linear"}
        if not self.numeric or (not self.ranged and len(self.values) <= MAX_TICKS and not self._crowded):
            kind |= {
                "tickmode": "array",
                "tickvals": [self.place(value) for value in self.values],
                "ticktext": [plots.plain(show(value), 20) for value in self.values],
            }
        return kind

    @property
    def _crowded(self) -> bool:
        places = [math.log(value) if self.log else value for value in self.values]
        gaps = [b - a for a, b in itertools.pairwise(places)]
        return bool(gaps) and min(gaps) < 0.07 * (places[-1] - places[0])


@dataclass(frozen=True)
class Mean:
    """A metric over one or several points."""

    value: float
    sd: float | None
    """Over seeds, pooled over the points."""
    rows: list[Row]


@dataclass(frozen=True)
class Scale:
    """A vertical axis of parallel coordinates, from 0 to 1."""

    place: Callable[[Any], float]
    ticks: list[tuple[float, str]]


def render(results: Results) -> str:
    """The page."""
    environment = Environment(
        # The style is that of the report of a run.
        loader=ChoiceLoader([PackageLoader("rayclean.sweeps"), PackageLoader("rayclean.evaluation")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": show}
    sweep, fields = results.sweep, axes(results)
    views, charts = _views(results, fields)
    front, front_charts = _front(results, fields)
    curves, curve_charts = _curves(results, fields)
    return environment.get_template("sweep.html.jinja").render(
        sweep=sweep,
        results=results,
        fields=fields,
        space={axis.name: {"path": axis.path, "says": _says(axis.dimension)} for axis in fields},
        trials=sum(len(row.seeds) for row in results.rows),
        stopped=sum(row.stopped for row in results.rows),
        unfinished=sum(len(row.seeds) < len(sweep.seeds) for row in results.rows),
        compared=any(figure.p is not None for row in results.rows for figure in row.figures.values()),
        referenced=any(row.is_reference for row in results.rows),
        best=_best(results, fields),
        conditions=[
            axis.name for axis in fields if axis.path.startswith("dataset.") and len(axis.values) > 1
        ],
        front=front,
        views=views,
        barred=any(figure.sd is not None for row in results.rows for figure in row.figures.values()),
        unplotted=[name for name in results.metrics if name not in _plotted(results)],
        curves=curves,
        table=_table(results, fields),
        charts=charts | front_charts | curve_charts,
        plotlyjs=get_plotlyjs(),
        nonce=secrets.token_urlsafe(16),
    )


def terminal_table(results: Results) -> Table:
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
        cells = ["*" if _among(row, results.front) else ""] if results.front else []
        cells += [escape(show(row.point[axis.path])) if axis.path in row.point else "–" for axis in fields]
        cells += [str(len(row.seeds)) + (" ref" if row.is_reference else "")]
        cells += [_terminal_cell(row.figures.get(metric), metric) for metric in metrics]
        table.add_row(*cells, style="bold" if row is results.best else None)
    table.caption, table.caption_justify = _caption(results), "left"
    return table


def axes(results: Results) -> list[Axis]:
    """Swept fields as the page shows them, in the order of the file."""
    names = field_names(results.fields)
    found = []
    for path, dimension in results.sweep.space.items():
        distinct = {_key(row.point[path]): row.point[path] for row in results.rows if path in row.point}
        axis = Axis(path, names[path], list(distinct.values()), dimension)
        found.append(Axis(path, names[path], sorted(axis.values), dimension) if axis.numeric else axis)
    return found


def field_names(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each path, the whole path where two would have the same.

    >>> field_names(["method.lambda_", "method.name", "encoder.name"])
    {'method.lambda_': 'lambda', 'method.name': 'method.name', 'encoder.name': 'encoder.name'}
    """
    names = [outcome.short(path) for path in paths]
    return {path: name if names.count(name) == 1 else path for path, name in zip(paths, names, strict=True)}


def digits(metric: str, value: float, precision: int = 4) -> int:
    """Decimals with which a figure is shown.

    >>> digits("accuracy", 0.91), digits("seconds", 75.2), digits("tokens", 123456.7), digits("cost", 0.00012)
    (4, 2, 0, 5)
    """
    size = abs(value)
    if metric in COUNTS:
        return 0 if size >= 100 or value == int(value) else 1
    if size >= 1:
        return max(0, precision - len(str(int(size))))
    return precision if size == 0 else min(8, max(precision, 1 - math.floor(math.log10(size))))


def amount(metric: str, mean: float, sd: float | None = None, precision: int = 4) -> str:
    """A figure as people read it.

    >>> amount("accuracy", 0.91234, 0.00321), amount("tokens", 12345.6), amount("asked", 7, 1.5)
    ('0.9123 ± 0.0032', '12,346', '7 ± 1.5')
    """
    places = digits(metric, mean, precision)
    if sd is None:
        return f"{mean:,.{places}f}"
    return f"{mean:,.{places}f} ± {sd:,.{digits(metric, sd, 1) if metric in COUNTS else places}f}"


def p_value(p: float) -> str:
    """A p-value.

    >>> p_value(0.03), p_value(0.0002), p_value(1.0)
    ('p=.03', 'p<.001', 'p=1')
    """
    if p < 0.001:
        return "p<.001"
    return "p=" + f"{p:.3f}".rstrip("0").rstrip(".").removeprefix("0")


def _headlines(results: Results) -> list[str]:
    wanted = [*(objective.metric for objective in results.sweep.objectives), *HEADLINES, *results.metrics]
    return [name for name in dict.fromkeys(wanted) if name in results.metrics][:TERMINAL_METRICS]


def _terminal_cell(figure: Figure | None, metric: str) -> str:
    if figure is None:
        return "–"
    mark = f" {_sign(figure)}" if _significant(figure) else ""
    return amount(metric, figure.mean, figure.sd, 3) + mark


def _caption(results: Results) -> str:
    parts = ["mean ± standard deviation over seeds"]
    if results.best is not None:
        parts.append(f"bold: best {results.sweep.objectives[0].metric}")
    if results.front:
        parts.append("*: on the Pareto front")
    if any(row.is_reference for row in results.rows):
        parts.append("ref: reference")
    if any(_significant(figure) for row in results.rows for figure in row.figures.values()):
        parts.append(f"▲▼: above or below the reference, p < {SIGNIFICANT:g}")
    if results.failed:
        parts.append(f"failed trials: {len(results.failed)}")
    return escape("; ".join(parts))


def _significant(figure: Figure) -> bool:
    return figure.p is not None and figure.p < SIGNIFICANT


def _sign(figure: Figure) -> str:
    return "=" if not figure.difference else ("▲" if figure.difference > 0 else "▼")


def _key(value: Any) -> str:
    """Tells values apart: tables and lists cannot be keys themselves."""
    return json.dumps(value, sort_keys=True, default=str)


def _among(row: Row, rows: Iterable[Row]) -> bool:
    """By identity: equality would compare every epoch."""
    return any(row is each for each in rows)


def _parts(row: Row, fields: Sequence[Axis]) -> list[str]:
    return [f"{axis.name} = {show(row.point[axis.path])}" for axis in fields if axis.path in row.point]


def _title(row: Row, fields: Sequence[Axis]) -> str:
    return ", ".join(_parts(row, fields))


def _label(row: Row, fields: Sequence[Axis]) -> str:
    """Of a line in a legend: several values stand without their names, which the hint beside the plot says."""
    if len(fields) < 2:
        return _title(row, fields)
    return ", ".join(show(row.point[axis.path]) if axis.path in row.point else "–" for axis in fields)


def _says(dimension: Dimension) -> str:
    """The values of a dimension, for people."""
    if dimension.grid is not None or dimension.choice is not None:
        said = ", ".join(show(value) for value in dimension.grid or dimension.choice or ())
        said = said if dimension.grid is not None else f"one of {said}"
    elif dimension.integer is not None:
        said = f"whole numbers from {dimension.integer[0]} to {dimension.integer[1]}"
    else:
        low, high = dimension.uniform or dimension.log_uniform or (0.0, 0.0)
        said = f"from {show(low)} to {show(high)}" + (", log-uniform" if dimension.log_uniform else "")
    conditions = [f"{path} is {show(value)}" for path, value in dimension.when.items()]
    return said + (f"; only where {' and '.join(conditions)}" if conditions else "")


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
        "mark": _mark(figure),
        "is_reference": row.is_reference,
        "toml": outcome.best_config(results),
    }


def _mark(figure: Figure) -> dict[str, Any] | None:
    """How a figure differs from the reference; None where it is not compared."""
    if figure.p is None:
        return None
    return {"text": f"{_sign(figure)} {p_value(figure.p)}", "significant": _significant(figure)}


def _table(results: Results, fields: Sequence[Axis]) -> dict[str, Any]:
    free = [name for name in results.metrics if name not in TRUTH]
    truth = [name for name in results.metrics if name in TRUTH]

    def cell(row: Row, name: str) -> dict[str, Any]:
        figure = row.figures.get(name)
        if figure is None:
            return {"value": "–", "mark": None, "difference": None, "missing": False}
        difference = figure.difference if figure.p is not None else None
        return {
            "value": amount(name, figure.mean, figure.sd),
            "mark": _mark(figure),
            "difference": None if difference is None else f"{difference:+,.{digits(name, figure.mean)}f}",
            "missing": figure.seeds < len(row.seeds),
        }

    return {
        "free": free,
        "on_truth": truth,
        "missing": any(
            figure.seeds < len(row.seeds) for row in results.rows for figure in row.figures.values()
        ),
        "rows": [
            {
                "title": _title(row, fields),
                "values": [show(row.point[axis.path]) if axis.path in row.point else "–" for axis in fields],
                "seeds": len(row.seeds),
                "cells": [cell(row, name) for name in (*free, *truth)],
                "is_best": row is results.best,
                "is_front": _among(row, results.front),
                "is_reference": row.is_reference,
                "stopped": row.stopped,
                "commands": row.commands,
            }
            for row in results.rows
        ],
    }


def _views(results: Results, fields: Sequence[Axis]) -> tuple[list[dict[str, Any]], dict[str, plots.Figure]]:
    """What is drawn of each metric, one of which is seen at a time, and its charts by name."""
    views: list[dict[str, Any]] = []
    charts: dict[str, plots.Figure] = {}
    bundles = [(axis, Bundle.of(results.rows, axis, fields)) for axis in fields if _is_drawn(axis)]
    for number, metric in enumerate(_plotted(results)):
        view: dict[str, Any] = {"metric": metric, "on_truth": metric in TRUTH, "lines": [], "map": None}
        for place, (axis, bundle) in enumerate(bundles):
            name = f"lines-{number}-{place}"
            if (chart := _lines(axis, bundle, metric)) is not None:
                charts[name] = chart
                view["lines"].append(
                    {"name": name, "title": f"{metric} over {axis.name}", "hint": bundle.hint}
                )
        view["map"], chart = _map(results.rows, fields, metric)
        if chart is not None:
            view["map"]["name"] = f"map-{number}"
            charts[f"map-{number}"] = chart
        view["parallel"] = None
        if (chart := _parallel(results, fields, metric)) is not None:
            view["parallel"] = f"parallel-{number}"
            charts[f"parallel-{number}"] = chart
        views.append(view)
    return views, charts


def _plotted(results: Results) -> list[str]:
    """At most `MAX_METRICS`, in their order: what decides and the headlines before others, what differs before the rest."""
    first = (*(objective.metric for objective in results.sweep.objectives), *HEADLINES)

    def rank(name: str) -> tuple[bool, bool]:
        values = {row.figures[name].mean for row in results.rows if name in row.figures}
        return name not in first, len(values) < 2

    chosen = sorted(results.metrics, key=rank)[:MAX_METRICS]
    return [name for name in results.metrics if name in chosen]


def _is_drawn(axis: Axis) -> bool:
    return axis.numeric and len(axis.values) > 1


@dataclass(frozen=True)
class Bundle:
    """The lines over one field: which other fields tell them apart, and which are averaged over."""

    lines: list[Line]
    """Title -> points by the field's value; several where it is averaged."""
    hint: str

    @classmethod
    def of(cls, rows: Sequence[Row], axis: Axis, fields: Sequence[Axis]) -> "Bundle":
        """Lines told apart by as many of the other fields as `MAX_LINES` allows, in the order of the file."""
        rows = [row for row in rows if axis.path in row.point]
        others = [each for each in fields if each is not axis and len(_levels(rows, [each])) > 1]
        kept: list[Axis] = []
        for other in others:
            if not other.ranged and len(_levels(rows, [*kept, other])) <= MAX_LINES:
                kept.append(other)
        lines: dict[str, Line] = {}
        for row in rows:
            line = lines.setdefault(_level(row, kept), (_label(row, kept), {}))
            line[1].setdefault(row.point[axis.path], []).append(row)
        told = list(lines.values())
        return cls(told, _hint(axis, told, kept, [other for other in others if other not in kept]))


def _hint(axis: Axis, bundle: Sequence[Line], kept: list[Axis], rest: list[Axis]) -> str:
    said = []
    if kept:
        order = ", named in this order" if len(kept) > 1 else ""
        said.append(f"One {'colour' if axis.ranged else 'line'} per {_and(kept)}{order}.")
    averaged = [rows for _, places in bundle for rows in places.values() if len(rows) > 1]
    if rest and averaged:
        several = any(
            figure.sd is not None for rows in averaged for row in rows for figure in row.figures.values()
        )
        said.append(
            f"Averaged over {_and(rest)}" + ("; bars pool the deviations over seeds." if several else ".")
        )
    elif rest:
        said.append(f"{_and(rest)} {'differs' if len(rest) == 1 else 'differ'} from dot to dot.")
    return " ".join(said)


def _and(fields: Sequence[Axis]) -> str:
    names = [axis.name for axis in fields]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _level(row: Row, fields: Sequence[Axis]) -> str:
    return _key([[axis.path, row.point[axis.path]] for axis in fields if axis.path in row.point])


def _levels(rows: Sequence[Row], fields: Sequence[Axis]) -> set[str]:
    return {_level(row, fields) for row in rows}


def _mean(rows: Sequence[Row], metric: str) -> Mean | None:
    """Over the points that have the metric; None where none has."""
    there = [row for row in rows if metric in row.figures]
    if not there:
        return None
    figures = [row.figures[metric] for row in there]
    squares = [figure.sd**2 for figure in figures if figure.sd is not None]
    sd = math.sqrt(sum(squares) / len(squares)) if squares else None
    return Mean(sum(figure.mean for figure in figures) / len(figures), sd, there)


def _lines(axis: Axis, bundle: Bundle, metric: str) -> plots.Figure | None:
    """A metric over a numeric field; None where no point has it."""
    data = []
    for place, (title, points) in enumerate(bundle.lines):
        means = {x: mean for x, rows in sorted(points.items()) if (mean := _mean(rows, metric)) is not None}
        if not means:
            continue
        trace = _trace(place, title, list(means), [mean.value for mean in means.values()])
        trace["text"] = [_hover(metric, mean, f"{axis.name} = {show(x)}", title) for x, mean in means.items()]
        if any(mean.sd is not None for mean in means.values()):
            spread = [mean.sd or 0.0 for mean in means.values()]
            trace["error_y"] = {"type": "data", "array": spread, "thickness": 1.2, "width": 4}
        if axis.ranged:
            trace["mode"] = "markers"
        data.append(trace)
    if not data:
        return None
    return {
        "data": data,
        "layout": _legend(_layout(axis.ticks(), _figures(metric)), data),
    }


def _hover(metric: str, mean: Mean, *said: str) -> str:
    several = f"mean of {len(mean.rows)} points" if len(mean.rows) > 1 else ""
    reference = "reference" if all(row.is_reference for row in mean.rows) else ""
    parts = (*said, f"{metric} {amount(metric, mean.value, mean.sd)}", several, reference)
    return "<br>".join(plots.plain(part, 90) for part in parts if part)


def _map(
    rows: Sequence[Row], fields: Sequence[Axis], metric: str
) -> tuple[dict[str, Any] | None, plots.Figure | None]:
    """A metric over two fields: a table with coloured cells, or dots where values are drawn from a range."""
    there = [row for row in rows if metric in row.figures]
    pair = sorted((axis for axis in fields if len(axis.values) > 1), key=lambda axis: -len(axis.values))[:2]
    if len(pair) < 2 or not there:
        return None, None
    # The field of more values, or of numbers, goes from left to right.
    down, across = sorted(pair, key=lambda axis: (axis.numeric, len(axis.values)))
    there = [row for row in there if down.path in row.point and across.path in row.point]
    rest = [axis for axis in fields if axis not in pair and len(_levels(there, [axis])) > 1]
    title = f"{metric} over {across.name} and {down.name}"
    if any(axis.ranged or len(axis.values) > MAX_LEVELS for axis in pair):
        differ = f" {_and(rest)} may differ from dot to dot." if rest else ""
        return {"title": title, "hint": f"The bluer a dot, the higher.{differ}"}, _dots(
            there, down, across, fields, metric
        )
    averaged = f" Averaged over {_and(rest)}." if rest else ""
    outlined = " Outlined: the reference." if not rest and any(row.is_reference for row in there) else ""
    hint = f"Rows: {down.name}. Columns: {across.name}. The bluer a cell, the higher.{averaged}{outlined}"
    return {"title": title, "hint": hint, "name": None, **_cells(there, down, across, metric)}, None


def _cells(rows: Sequence[Row], down: Axis, across: Axis, metric: str) -> dict[str, Any]:
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((_key(row.point[down.path]), _key(row.point[across.path])), []).append(row)
    means = {place: mean for place, each in grouped.items() if (mean := _mean(each, metric)) is not None}
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
            {"name": show(a), "cells": [cell(means.get((_key(a), _key(b)))) for b in across.values]}
            for a in down.values
        ],
    }


def _dots(rows: Sequence[Row], down: Axis, across: Axis, fields: Sequence[Axis], metric: str) -> plots.Figure:
    """Points over two fields, coloured by a metric."""
    means = [Mean(row.figures[metric].mean, row.figures[metric].sd, [row]) for row in rows]
    trace = {
        "type": "scatter", "mode": "markers", "showlegend": False, "hovertemplate": "%{text}<extra></extra>",
        "x": [across.place(row.point[across.path]) for row in rows],
        "y": [down.place(row.point[down.path]) for row in rows],
        "text": [_hover(metric, mean, *_parts(row, fields)) for row, mean in zip(rows, means, strict=True)],
        "marker": {
            "size": 13, "color": [mean.value for mean in means], "showscale": True,
            "colorscale": [[0, LOW], [0.5, MIDDLE], [1, HIGH]],
            "line": {"width": 1, "color": "rgba(128,128,128,0.6)"},
            "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": plots.plain(metric), "side": "right"}},
        },
    }  # fmt: skip
    return {"data": [trace], "layout": _layout(across.ticks(), down.ticks()) | {"height": 380}}


def _parallel(results: Results, fields: Sequence[Axis], metric: str) -> plots.Figure | None:
    """A line per point through its values to its figure; None where two axes show as much."""
    shown = [axis for axis in fields if axis.values]
    drawn = any(axis.dimension.drawn for axis in shown)
    rows = [row for row in results.rows if metric in row.figures]
    if len(shown) < (2 if drawn else 3) or len(rows) < 2:
        return None
    means = [row.figures[metric].mean for row in rows]
    scales = [_scale(axis) for axis in shown]
    last = _numbers(min(means), max(means), [], log=False)
    data = []
    for row in sorted(rows, key=lambda row: row is results.best):  # the best is drawn last, over the others
        figure = row.figures[metric]
        heights = [
            scale.place(row.point[axis.path]) if axis.path in row.point else ABSENT
            for axis, scale in zip(shown, scales, strict=True)
        ]
        text = _hover(metric, Mean(figure.mean, figure.sd, [row]), *_parts(row, fields))
        colour = _blend(last.place(figure.mean))
        data.append({
            "type": "scatter", "mode": "lines+markers", "showlegend": False, "x": list(range(len(shown) + 1)),
            "y": [*heights, last.place(figure.mean)], "text": text,
            "hovertemplate": "%{text}<extra></extra>", "opacity": 1.0 if row is results.best else 0.75,
            "line": {"color": colour, "width": 4 if row is results.best else 1.6},
            "marker": {"color": colour, "size": 5},
        })  # fmt: skip
    for axis, scale in zip(shown, scales, strict=True):
        if any(axis.path not in row.point for row in rows):
            scale.ticks.append((ABSENT, "not set"))
    layout = _parallel_layout([*(axis.name for axis in shown), metric], [*scales, last])
    return {"data": data, "layout": layout}


def _parallel_layout(names: Sequence[str], scales: Sequence[Scale]) -> dict[str, Any]:
    hidden = {"visible": False, "fixedrange": True}
    last = len(names) - 1
    lowest = [min(0.0, *(height for height, _ in scale.ticks)) for scale in scales]
    grey = {"color": plots.GREY, "width": 1}
    notes = []
    for place, (name, scale) in enumerate(zip(names, scales, strict=True)):
        notes.append({"x": place, "y": 1.05, "yanchor": "bottom", "text": f"<b>{plots.plain(name, 24)}</b>"})
        side = {"xanchor": "left", "xshift": 7} if place == last else {"xanchor": "right", "xshift": -7}
        notes += [
            {"x": place, "y": height, **side, "text": plots.plain(text, 24)} for height, text in scale.ticks
        ]
    # Room for the names of the first axis, which stand left of it: about 6.5 pixels per letter of this size.
    letters = max(len(names[0]) / 2, *(len(text) for _, text in scales[0].ticks), 4)
    return _layout({}, {}) | {
        "xaxis": hidden | {"range": [-0.02, last + 0.02]},
        "yaxis": hidden | {"range": [min(lowest) - 0.05, 1.14]},
        "shapes": [
            {"type": "line", "x0": x, "x1": x, "y0": low, "y1": 1, "line": grey}
            for x, low in enumerate(lowest)
        ],
        "annotations": [{"showarrow": False, "borderpad": 1, "font": {"size": 11}, **note} for note in notes],
        "margin": {
            "l": 24 + 6.5 * min(24, letters),
            "r": 24 + 3.5 * min(24, max(len(names[-1]), 12)),
            "t": 4,
            "b": 4,
        },
        "height": 380,
    }


def _scale(axis: Axis) -> Scale:
    if axis.numeric:
        named = [] if axis.ranged or len(axis.values) > MAX_TICKS else axis.values
        return _numbers(axis.values[0], axis.values[-1], named, axis.log)
    last = len(axis.values) - 1

    def place(value: Any) -> float:
        return axis.place(value) / last if last else 0.5

    return Scale(place, [(place(value), show(value)) for value in axis.values])


def _numbers(low: float, high: float, named: Sequence[float], log: bool) -> Scale:
    """Numbers from `low` at 0 to `high` at 1, with ticks at some of them, or at five where none is named."""
    if low == high:
        return Scale(lambda _: 0.5, [(0.5, f"{low:.4g}")])

    def place(value: Any) -> float:
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    def value(height: float) -> float:
        return low * (high / low) ** height if log else low + height * (high - low)

    ticks = [(place(each), show(each)) for each in named] or [
        (height, f"{value(height):.4g}") for height in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    apart: list[tuple[float, str]] = []
    for tick in ticks:  # two ticks closer than a line of text would be written over each other
        if not apart or tick[0] - apart[-1][0] > 0.05:
            apart.append(tick)
    return Scale(place, apart)


def _blend(share: float) -> str:
    """The colour at a share of the way from `LOW` over `MIDDLE` to `HIGH`.

    >>> _blend(0), _blend(1)
    ('rgb(230,159,0)', 'rgb(0,114,178)')
    """
    first, second, part = (LOW, MIDDLE, 2 * share) if share < 0.5 else (MIDDLE, HIGH, 2 * share - 1)
    mixed = (
        round(int(first[at : at + 2], 16) * (1 - part) + int(second[at : at + 2], 16) * part)
        for at in (1, 3, 5)
    )
    return f"rgb({','.join(map(str, mixed))})"


def _front(results: Results, fields: Sequence[Axis]) -> tuple[dict[str, Any] | None, dict[str, plots.Figure]]:
    """The table of the Pareto front, and a chart of the first objective over each other one."""
    objectives = results.sweep.objectives
    if len(objectives) < 2 or not results.front:
        return None, {}
    first, charts = objectives[0], {}
    for place, other in enumerate(objectives[1:]):
        charts[f"front-{place}"] = _trade(results, fields, first, other)
    chosen = sorted(
        results.front, key=lambda row: row.figures[first.metric].mean, reverse=first.mode == "max"
    )
    return {
        "objectives": [{"metric": each.metric, "highest": each.mode == "max"} for each in objectives],
        "charts": list(charts),
        "rows": [
            {
                "values": [show(row.point[axis.path]) if axis.path in row.point else "–" for axis in fields],
                "figures": [
                    amount(o.metric, row.figures[o.metric].mean, row.figures[o.metric].sd) for o in objectives
                ],
                "is_best": row is results.best,
            }
            for row in chosen
        ],
    }, charts


def _trade(results: Results, fields: Sequence[Axis], first: Objective, other: Objective) -> plots.Figure:
    rows = [row for row in results.rows if first.metric in row.figures and other.metric in row.figures]

    def trace(chosen: list[Row], name: str, colour: str, **more: Any) -> dict[str, Any]:
        figures = [(row.figures[other.metric], row.figures[first.metric]) for row in chosen]
        said = [
            _hover(first.metric, Mean(y.mean, y.sd, [row]), *_parts(row, fields),
                   f"{other.metric} {amount(other.metric, x.mean, x.sd)}")
            for row, (x, y) in zip(chosen, figures, strict=True)
        ]  # fmt: skip
        return {
            "type": "scatter", "mode": "markers", "name": name, "hovertemplate": "%{text}<extra></extra>",
            "x": [x.mean for x, _ in figures], "y": [y.mean for _, y in figures], "text": said,
            "marker": {"color": colour, "size": 8}, **more,
        }  # fmt: skip

    front = sorted(
        (row for row in rows if _among(row, results.front)), key=lambda row: row.figures[other.metric].mean
    )
    data = [trace([row for row in rows if not _among(row, front)], "beaten by another point", plots.GREY)]
    marker = {
        "color": plots.ORANGE,
        "size": 12,
        "symbol": "diamond",
        "line": {"color": plots.BLUE, "width": 1.5},
    }
    # With more than two objectives the front is a surface: a line between its points would mean nothing.
    joined = "lines+markers" if len(results.sweep.objectives) == 2 else "markers"
    line = {"color": plots.ORANGE, "width": 1.5, "dash": "dot"}
    data.append(trace(front, "Pareto front", plots.ORANGE, mode=joined, line=line) | {"marker": marker})
    ways = {"max": "higher is better", "min": "lower is better"}
    x, y = (_figures(each.metric, f" ({ways[each.mode]})") for each in (other, first))
    return {"data": data, "layout": _legend(_layout(x, y), data)}


def _curves(
    results: Results, fields: Sequence[Axis]
) -> tuple[dict[str, Any] | None, dict[str, plots.Figure]]:
    """Development accuracy over epochs: the best points', or the first ones' where nothing decides."""
    curves = [(row, curve) for row in results.rows if (curve := _curve(row))]
    if not curves:
        return None, {}
    if (objectives := results.sweep.objectives) and results.best is not None:
        metric, sign = objectives[0].metric, 1 if objectives[0].mode == "min" else -1
        curves.sort(
            key=lambda each: sign * each[0].figures[metric].mean if metric in each[0].figures else math.inf
        )
    varying = [axis for axis in fields if len(_levels(results.rows, [axis])) > 1]
    data = []
    for place, (row, curve) in enumerate(curves[:MAX_LINES]):
        title = _label(row, varying) or "the only point"
        trace = _trace(place, title, [float(epoch) for epoch in curve], [mean for mean, _ in curve.values()])
        trace["text"] = [
            "<br>".join(plots.plain(part, 90) for part in (
                title, f"epoch {epoch}: dev accuracy {mean:.4f}", f"mean of {seeds} seeds" if seeds > 1 else "",
            ) if part)
            for epoch, (mean, seeds) in curve.items()
        ]  # fmt: skip
        trace["marker"]["size"] = 5
        data.append(trace)
    whole = {
        "title": {"text": "epoch"},
        "tickformat": "d",
        "dtick": 1 if max(map(len, (c for _, c in curves))) <= 15 else None,
    }
    layout = _legend(_layout(whole, {"title": {"text": "dev accuracy"}}), data, wide=True)
    return {
        "name": "curves",
        "left_out": max(0, len(curves) - MAX_LINES),
        "sorted": results.best is not None,
        "named": _and(varying) if len(varying) > 1 else "",
    }, {"curves": {"data": data, "layout": layout}}


def _curve(row: Row) -> dict[int, tuple[float, int]]:
    """By epoch: the mean development accuracy of the seeds that reached it, and how many did."""
    found: dict[int, list[float]] = {}
    for lines in row.epochs.values():
        for line in lines:
            if line.get("dev_accuracy") is not None and line.get("epoch") is not None:
                found.setdefault(int(line["epoch"]), []).append(float(line["dev_accuracy"]))
    return {epoch: (sum(values) / len(values), len(values)) for epoch, values in sorted(found.items())}


def _trace(place: int, title: str, x: list[float], y: list[float]) -> dict[str, Any]:
    """One line of several, told apart by colour, dashes and marks."""
    colour = COLOURS[place % len(COLOURS)]
    return {
        "type": "scatter", "mode": "lines+markers", "name": plots.plain(title, 60), "x": x, "y": y,
        "line": {"color": colour, "width": 2, "dash": DASHES[place // len(COLOURS) % len(DASHES)]},
        "marker": {"color": colour, "size": 8, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _figures(metric: str, more: str = "") -> dict[str, Any]:
    """Plotly's settings of an axis of a metric."""
    ticks = {"tickformat": ",~f"} if metric in COUNTS else {}
    return {"title": {"text": plots.plain(metric) + more}, **ticks}


def _layout(x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
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


def _legend(layout: dict[str, Any], data: Sequence[dict[str, Any]], wide: bool = False) -> dict[str, Any]:
    """Names of the lines above the plot, which stays about as high as without them."""
    if len(data) < 2:
        return layout
    longest = max(len(str(trace["name"])) for trace in data)
    rows = math.ceil(len(data) / max(1, (140 if wide else 62) // (longest + 7)))
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return layout | {"showlegend": True, "legend": legend, "height": layout["height"] + 19 * rows}
