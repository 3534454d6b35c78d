"""The charts of the report, as plain plotly figures, and the tables that are drawn with CSS.

Colours are those of Okabe and Ito, which colour-blind people can tell apart, with a second sign (a line's dashes, a
legend) beside the colour. Text and grid take their colours from the page, so that charts follow light and dark.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.annotations import SuspectRanking
from rayclean.evaluation.counts import BINS

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#8A8F98"
MAX_CLASSES = 20
"""A matrix of more classes than this says nothing on a page: the most frequent pairs are listed instead."""
BARS = 50
"""Of a histogram."""
KINDS = (("truth unknown", GREY), ("label is right", BLUE), ("label is wrong", ORANGE))
"""Rows of histograms of examples, and how they are drawn."""
TAIL = 0.01
"""Share of the examples that may lie beyond the end of an axis without one of its own; they are in the last bar."""

PlotlyFigure = dict[str, Any]


def plain_values(text: str, length: int = 32) -> str:
    """Text that plotly shows as it is: its labels know some HTML, and so would a user's text."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    return html.escape(text, quote=False)


def quality_histogram(histogram: npt.NDArray[np.int64], cut: float) -> PlotlyFigure:
    """Examples by quality; right and wrong labels apart where the truth is known.

    Args:
        histogram: [3, BINS] counts over [0, 1]: truth unknown, label right, label wrong.
        cut: highest quality of a suspect; -inf if there is none.
    """
    data = _bars(histogram.reshape(3, BARS, BINS // BARS).sum(axis=2), 1.0, "quality")
    layout = _layout("quality (low = doubtful)", "examples", barmode="stack", bargap=0.04)
    layout["xaxis"]["range"] = [0, 1]
    if np.isfinite(cut):
        line = {"type": "line", "x0": cut, "x1": cut, "y0": 0, "y1": 1, "yref": "paper"}
        layout["shapes"] = [line | {"line": {"color": GREY, "dash": "dash", "width": 1.5}}]
        note = {"x": cut, "y": 1.0, "yref": "paper", "yanchor": "top", "showarrow": False}
        layout["annotations"] = [note | {"text": "last suspect", "xanchor": "left" if cut < 0.5 else "right"}]
    layout["showlegend"] = len(data) > 1
    return {"data": data, "layout": layout}


def epoch_histograms(
    histograms: npt.NDArray[np.int64], axis: str, top: float, bounded: bool = True
) -> list[PlotlyFigure]:
    """Examples by a scalar, a small figure for each of some epochs, with the same horizontal axis.

    Args:
        histograms: [E, 3, BINS] counts over [0, top]: truth unknown, label right, label wrong.
        axis: what the scalar is.
        top: end of the last bin.
        bounded: whether the scalar cannot exceed `top`; otherwise the axis ends where hardly any example is left.
    """
    bins = BINS if bounded else _end(histograms)
    kept = histograms[..., :bins].copy()
    kept[..., -1] += histograms[..., bins:].sum(axis=-1)
    end = top * bins / BINS
    title = axis if bounded else f"{axis} (last bar: and above)"
    figures = []
    for counts in kept.reshape(len(kept), 3, BARS, bins // BARS).sum(axis=3):
        layout = _layout(title, "examples", barmode="stack", bargap=0.04)
        layout["xaxis"] |= {"range": [0, end], "nticks": 6}
        layout["yaxis"] |= {"nticks": 5}
        layout |= {"height": 220, "margin": {"l": 44, "r": 8, "t": 8, "b": 36}}
        if not counts.any():
            middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
            layout["annotations"] = [middle | {"showarrow": False, "text": "no example"}]
            layout["yaxis"] |= {"range": [0, 1], "showticklabels": False, "showgrid": False}
        figures.append({"data": _bars(counts, end, axis), "layout": layout})
    return figures


def _end(histograms: npt.NDArray[np.int64]) -> int:
    """The fewest bins, of a quarter, a half or all of them, that hold all but `TAIL` of each epoch's examples."""
    for bins in (BINS // 4, BINS // 2):
        beyond = histograms[..., bins:].sum(axis=(1, 2))
        if (beyond <= TAIL * histograms.sum(axis=(1, 2))).all():
            return bins
    return BINS


def roc_plot(curve: Mapping[str, npt.NDArray[np.float64]]) -> PlotlyFigure:
    """Wrong labels found over right labels doubted, for every possible budget."""
    hover = "doubts %{x:.1%} of the right labels<br>finds %{y:.1%} of the wrong ones<extra></extra>"
    data = [
        _line([0.0, *curve["false_positive_rate"].tolist()], [0.0, *curve["recall"].tolist()], BLUE, hover),
        _line([0, 1], [0, 1], GREY, "guessing<extra></extra>", dash="dot"),
    ]
    return {"data": data, "layout": _unit(_layout("right labels doubted", "wrong labels found"))}


def precision_recall_plot(
    curve: Mapping[str, npt.NDArray[np.float64]], noise: float, budget: tuple[float | None, float | None]
) -> PlotlyFigure:
    """Share of doubted labels that are wrong, over wrong labels found.

    Args:
        curve: of `metrics.curve`.
        noise: share of wrong labels: what guessing reaches.
        budget: recall and precision of the suspects.
    """
    hover = "finds %{x:.1%} of the wrong labels<br>%{y:.1%} of the doubted are wrong<extra></extra>"
    data = [
        _line(curve["recall"].tolist(), curve["precision"].tolist(), BLUE, hover),
        _line([0, 1], [noise, noise], GREY, "guessing<extra></extra>", dash="dot"),
    ]
    if None not in budget:
        point = {
            "type": "scatter",
            "mode": "markers",
            "x": [budget[0]],
            "y": [budget[1]],
            "showlegend": False,
        }
        marker = {"color": ORANGE, "size": 11, "line": {"color": BLUE, "width": 1.5}}
        data.append(point | {"marker": marker, "hovertemplate": "these suspects<br>" + hover})
    return {"data": data, "layout": _unit(_layout("wrong labels found", "doubted labels that are wrong"))}


def confidence_histogram(suspects: SuspectRanking) -> PlotlyFigure:
    """Answers by calibrated confidence and by what came of them."""
    edges = np.linspace(0, 1, 21)
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    data = []
    for name, colour in (("changed", ORANGE), ("kept", BLUE), ("abstained", GREY)):
        values = suspects.confidence[suspects.decided(name) & np.isfinite(suspects.confidence)]
        counts = np.histogram(values, bins=edges)[0]
        if counts.any():
            data.append({
                "type": "bar", "name": name, "x": centres, "y": counts.tolist(), "marker": {"color": colour},
                "hovertemplate": "confidence %{x:.2f}<br>%{y:,} answers<extra>" + name + "</extra>",
            })  # fmt: skip
    layout = _layout("calibrated confidence", "answers", barmode="stack", bargap=0.06, showlegend=True)
    layout["xaxis"]["range"] = [0, 1]
    return {"data": data, "layout": layout}


def reliability_plot(rows: Sequence[Mapping[str, Any]]) -> PlotlyFigure:
    """Accuracy over confidence, a dot per bin, its area by its answers."""
    largest = max((row["count"] for row in rows), default=1)
    sizes = [8 + 20 * (row["count"] / largest) ** 0.5 for row in rows]
    dots = {
        "type": "scatter", "mode": "lines+markers", "showlegend": False,
        "x": [row["confidence"] for row in rows], "y": [row["accuracy"] for row in rows],
        "customdata": [row["count"] for row in rows],
        "marker": {"color": BLUE, "size": sizes, "opacity": 0.85}, "line": {"color": BLUE, "width": 1.5},
        "hovertemplate": "says %{x:.0%}, is right %{y:.0%}<br>%{customdata:,} answers<extra></extra>",
    }  # fmt: skip
    data = [dots, _line([0, 1], [0, 1], GREY, "perfectly calibrated<extra></extra>", dash="dot")]
    return {"data": data, "layout": _unit(_layout("confidence", "share of right answers"))}


def heat_map(pairs: Mapping[tuple[int, int], int], names: Sequence[str]) -> dict[str, Any] | None:
    """A confusion matrix with the strength of each cell's colour; None where there are too many classes.

    Off the diagonal strength is relative to the most frequent confusion: the diagonal would drown it.
    """
    size = len(names)
    if size > MAX_CLASSES:
        return None
    largest = max((count for (a, b), count in pairs.items() if a != b), default=0)
    rows = []
    for a in range(size):
        counts = [pairs.get((a, b), 0) for b in range(size)]
        cells = [
            {
                "count": n,
                "same": a == b,
                "strength": round((n / largest) ** 0.5, 3) if largest and a != b else 0.0,
            }
            for b, n in enumerate(counts)
        ]
        rows.append({"name": names[a], "cells": cells, "total": sum(counts)})
    return {"names": list(names), "rows": rows}


def _bars(counts: npt.NDArray[np.int64], end: float, what: str) -> list[dict[str, Any]]:
    """Stacked bars of the kinds that occur.

    Args:
        counts: [3, bars] over [0, end], a row for each of `KINDS`.
        end: of the last bar.
        what: the scalar, for whoever points at a bar.
    """
    centres = ((np.arange(counts.shape[1]) + 0.5) * (end / counts.shape[1])).tolist()
    return [
        {"type": "bar", "name": name, "x": centres, "y": row.tolist(), "marker": {"color": colour},
         "hovertemplate": what + " %{x:.2f}<br>%{y:,} examples<extra>" + name + "</extra>"}
        for (name, colour), row in zip(KINDS, counts, strict=True) if row.any()
    ]  # fmt: skip


def _line(x: list[float], y: list[float], colour: str, hover: str, dash: str = "solid") -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "showlegend": False,
        "line": {"color": colour, "width": 2, "dash": dash}, "hovertemplate": hover,
    }  # fmt: skip


def _layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    axis = {"zeroline": False, "fixedrange": True, "automargin": True, "gridcolor": "rgba(128,128,128,0.2)"}
    return {
        "xaxis": {**axis, "title": {"text": x}, "showgrid": False},
        "yaxis": {**axis, "title": {"text": y}, "rangemode": "tozero"},
        "margin": {"l": 48, "r": 12, "t": 24, "b": 40}, "height": 300, "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12}, "hovermode": "closest",
        **more,
    }  # fmt: skip


def _unit(layout: dict[str, Any]) -> dict[str, Any]:
    """Both axes are shares."""
    for name in ("xaxis", "yaxis"):
        layout[name] |= {"range": [0, 1.02], "tickformat": ".0%"}
    return layout
