"""Parallel coordinates of a sweep: a line per point, through its value of every field, to its figure.

They are drawn with plain lines: plotly's own need WebGL and `eval`, which the page's content security policy forbids.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.evaluation import plots
from rayclean.sweeps.page.axes import MAX_TICKS, Axis
from rayclean.sweeps.page.charts import HIGH, HOVER, LOW, MIDDLE, hover_of, layout
from rayclean.sweeps.results import Results
from rayclean.sweeps.space import show

ABSENT = -0.14
"""Where a field that a point does not have is drawn, below the lowest value at 0."""


@dataclass(frozen=True)
class Scale:
    """A vertical axis, from 0 to 1."""

    place: Callable[[Any], float]
    ticks: list[tuple[float, str]]


def parallel(results: Results, fields: Sequence[Axis], metric: str) -> plots.PlotlyFigure | None:
    """The chart; None where two axes show as much."""
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
        heights = [
            scale.place(row.point[axis.path]) if axis.path in row.point else ABSENT
            for axis, scale in zip(shown, scales, strict=True)
        ]
        end = last.place(row.figures[metric].mean)
        data.append({
            "type": "scatter", "mode": "lines+markers", "showlegend": False, "x": list(range(len(shown) + 1)),
            "y": [*heights, end], "text": hover_of(row, fields, metric),
            "hovertemplate": HOVER, "opacity": 1.0 if row is results.best else 0.75,
            "line": {"color": _blend(end), "width": 4 if row is results.best else 1.6},
            "marker": {"color": _blend(end), "size": 5},
        })  # fmt: skip
    for axis, scale in zip(shown, scales, strict=True):
        if any(axis.path not in row.point for row in rows):
            scale.ticks.append((ABSENT, "not set"))
    return {"data": data, "layout": _layout([*(axis.name for axis in shown), metric], [*scales, last])}


def _layout(names: Sequence[str], scales: Sequence[Scale]) -> dict[str, Any]:
    hidden = {"visible": False, "fixedrange": True}
    last = len(names) - 1
    lowest = [min(0.0, *(height for height, _ in scale.ticks)) for scale in scales]
    grey = {"color": plots.GREY, "width": 1}
    notes = []
    for place, (name, scale) in enumerate(zip(names, scales, strict=True)):
        notes.append(
            {"x": place, "y": 1.05, "yanchor": "bottom", "text": f"<b>{plots.plain_values(name, 24)}</b>"}
        )
        side = {"xanchor": "left", "xshift": 7} if place == last else {"xanchor": "right", "xshift": -7}
        notes += [
            {"x": place, "y": height, **side, "text": plots.plain_values(text, 24)}
            for height, text in scale.ticks
        ]
    # Room for the names of the first axis, which stand left of it: about 6.5 pixels per letter of this size.
    letters = max(len(names[0]) / 2, *(len(text) for _, text in scales[0].ticks), 4)
    return layout({}, {}) | {
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
