"""The charts of the report, as plotly figures in plain JSON values, and the matrices that are drawn with CSS.

Colours are those of Okabe and Ito, which colour-blind people can tell apart, with a second sign (a line's
dashes, a legend) beside the colour. Text and grid take their colours from the page, so that charts follow
light and dark.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from rayclean.annotations import SuspectRanking
from rayclean.evaluation.counts import BINS

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#8A8F98"
MAX_CLASSES = 20
"""Most classes that a matrix can show; of more, the most frequent pairs are listed instead."""
BARS = 50
"""Bars of a histogram."""
KINDS = (("truth unknown", GREY), ("label is right", BLUE), ("label is wrong", ORANGE))
"""Rows of histograms of examples, and how they are drawn."""
TAIL = 0.01
"""Share of the examples that may lie beyond the end of an unbounded axis; they are counted in the last
bar."""

PlotlyFigure = dict[str, Any]
"""The data and the layout of a figure, as plotly.js reads them."""


def plain_values(text: str, length: int = 32) -> str:
    """Text that plotly shows as it is: plotly renders some HTML in labels, also where it comes from data."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    return html.escape(text, quote=False)


def quality_histogram(histogram: npt.NDArray[np.int64], cut: float) -> PlotlyFigure:
    """Examples by quality; right and wrong labels in two colours where the truth is known.

    Args:
        histogram: [3, BINS] counts over [0, 1]: truth unknown, label right, label wrong.
        cut: highest quality of a suspect; -inf if there is none.
    """
    bars = _bars(histogram.reshape(3, BARS, BINS // BARS).sum(axis=2), 1.0, "quality")
    figure = _figure(bars, "quality (low = doubtful)", "examples", barmode="stack", bargap=0.04)
    figure.update_layout(xaxis_range=[0, 1], showlegend=len(bars) > 1)
    if np.isfinite(cut):
        side = "left" if cut < 0.5 else "right"
        figure.add_shape(type="line", x0=cut, x1=cut, y0=0, y1=1, yref="paper",
                         line={"color": GREY, "dash": "dash", "width": 1.5})  # fmt: skip
        figure.add_annotation(x=cut, y=1.0, yref="paper", yanchor="top", xanchor=side, text="last suspect",
                              showarrow=False)  # fmt: skip
    return _plain(figure)


def epoch_histograms(
    histograms: npt.NDArray[np.int64], axis: str, top: float, bounded: bool = True
) -> list[PlotlyFigure]:
    """Examples by a scalar: a small figure for each of some epochs, all with the same horizontal axis.

    Args:
        histograms: [E, 3, BINS] counts over [0, top]: truth unknown, label right, label wrong.
        axis: name of the scalar.
        top: end of the last bin.
        bounded: whether the scalar cannot exceed `top`; otherwise the axis ends where hardly any example is
            left.
    """
    bins = BINS if bounded else _bins_in_use(histograms)
    kept = histograms[..., :bins].copy()
    kept[..., -1] += histograms[..., bins:].sum(axis=-1)
    end = top * bins / BINS
    title = axis if bounded else f"{axis} (last bar: and above)"
    figures = []
    for counts in kept.reshape(len(kept), 3, BARS, bins // BARS).sum(axis=3):
        figure = _figure(_bars(counts, end, axis), title, "examples", barmode="stack", bargap=0.04)
        figure.update_layout(height=220, margin={"l": 44, "r": 8, "t": 8, "b": 36})
        figure.update_xaxes(range=[0, end], nticks=6)
        figure.update_yaxes(nticks=5)
        if not counts.any():
            figure.add_annotation(
                x=0.5, y=0.5, xref="paper", yref="paper", text="no example", showarrow=False
            )
            figure.update_yaxes(range=[0, 1], showticklabels=False, showgrid=False)
        figures.append(_plain(figure))
    return figures


def _bins_in_use(histograms: npt.NDArray[np.int64]) -> int:
    """The fewest bins, of a quarter, a half or all of them, that hold all but `TAIL` of each epoch's
    examples.
    """
    for bins in (BINS // 4, BINS // 2):
        beyond = histograms[..., bins:].sum(axis=(1, 2))
        if (beyond <= TAIL * histograms.sum(axis=(1, 2))).all():
            return bins
    return BINS


def roc_plot(curves: Mapping[str, npt.NDArray[np.float64]]) -> PlotlyFigure:
    """Wrong labels found over right labels doubted, for every possible budget."""
    hover = "doubts %{x:.1%} of the right labels<br>finds %{y:.1%} of the wrong ones<extra></extra>"
    false, recall = curves["false_positive_rate"].tolist(), curves["recall"].tolist()
    lines = [_line([0.0, *false], [0.0, *recall], hover), _reference([0, 1], "guessing")]
    return _plain(_unit_square(_figure(lines, "right labels doubted", "wrong labels found")))


def precision_recall_plot(
    curves: Mapping[str, npt.NDArray[np.float64]], noise: float, budget: tuple[float | None, float | None]
) -> PlotlyFigure:
    """Share of doubted labels that are wrong, over wrong labels found.

    Args:
        curves: of `metrics.detection_curves`.
        noise: share of wrong labels, which is what guessing reaches.
        budget: recall and precision of the suspects.
    """
    hover = "finds %{x:.1%} of the wrong labels<br>%{y:.1%} of the doubted are wrong<extra></extra>"
    traces = [
        _line(curves["recall"].tolist(), curves["precision"].tolist(), hover),
        _reference([noise, noise], "guessing"),
    ]
    if None not in budget:
        marker = {"color": ORANGE, "size": 11, "line": {"color": BLUE, "width": 1.5}}
        hover = "these suspects<br>" + hover
        traces.append(
            go.Scatter(x=budget[:1], y=budget[1:], mode="markers", marker=marker, hovertemplate=hover)
        )
    return _plain(_unit_square(_figure(traces, "wrong labels found", "doubted labels that are wrong")))


def confidence_histogram(suspects: SuspectRanking) -> PlotlyFigure:
    """Answers by calibrated confidence, in a colour for each decision."""
    edges = np.linspace(0, 1, 21)
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    bars = []
    for name, colour in (("changed", ORANGE), ("kept", BLUE), ("referred", GREY)):
        values = suspects.confidence[suspects.decided(name) & np.isfinite(suspects.confidence)]
        counts = np.histogram(values, bins=edges)[0]
        if counts.any():
            hover = f"confidence %{{x:.2f}}<br>%{{y:,}} answers<extra>{name}</extra>"
            bars.append(_bar(name, colour, centres, counts.tolist(), hover))
    figure = _figure(bars, "calibrated confidence", "answers", barmode="stack", bargap=0.06, showlegend=True)
    return _plain(figure.update_layout(xaxis_range=[0, 1]))


def reliability_plot(bins: Sequence[Mapping[str, Any]]) -> PlotlyFigure:
    """Accuracy over confidence: a dot per bin of `metrics.reliability_curve`, its area by its answers."""
    largest = max((row["count"] for row in bins), default=1)
    dots = _line(
        [row["confidence"] for row in bins],
        [row["accuracy"] for row in bins],
        "says %{x:.0%}, is right %{y:.0%}<br>%{customdata:,} answers<extra></extra>",
    ).update(
        mode="lines+markers",
        customdata=[row["count"] for row in bins],
        line_width=1.5,
        marker={
            "color": BLUE,
            "size": [8 + 20 * (row["count"] / largest) ** 0.5 for row in bins],
            "opacity": 0.85,
        },
    )
    traces = [dots, _reference([0, 1], "perfectly calibrated")]
    return _plain(_unit_square(_figure(traces, "confidence", "share of right answers")))


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
        strengths = [(n / largest) ** 0.5 if largest and a != b else 0.0 for b, n in enumerate(counts)]
        cells = [
            {"count": n, "same": a == b, "strength": round(strength, 3)}
            for b, (n, strength) in enumerate(zip(counts, strengths, strict=True))
        ]
        rows.append({"name": names[a], "cells": cells, "total": sum(counts)})
    return {"names": list(names), "rows": rows}


def _bars(counts: npt.NDArray[np.int64], end: float, axis: str) -> list[go.Bar]:
    """Stacked bars of the kinds that occur.

    Args:
        counts: [3, bars] over [0, end], a row for each of `KINDS`.
        end: end of the last bar.
        axis: name of the scalar, shown where somebody points at a bar.
    """
    centres = ((np.arange(counts.shape[1]) + 0.5) * (end / counts.shape[1])).tolist()
    return [
        _bar(
            name,
            colour,
            centres,
            row.tolist(),
            f"{axis} %{{x:.2f}}<br>%{{y:,}} examples<extra>{name}</extra>",
        )
        for (name, colour), row in zip(KINDS, counts, strict=True)
        if row.any()
    ]


def _bar(name: str, colour: str, x: list[float], y: list[int], hover: str) -> go.Bar:
    return go.Bar(name=name, x=x, y=y, marker_color=colour, hovertemplate=hover)


def _line(x: list[float], y: list[float], hover: str) -> go.Scatter:
    return go.Scatter(x=x, y=y, mode="lines", line={"color": BLUE, "width": 2}, hovertemplate=hover)


def _reference(y: list[float], name: str) -> go.Scatter:
    """A dotted line from the left edge of a unit square to the right one, to compare with."""
    return _line([0, 1], y, f"{name}<extra></extra>").update(line={"color": GREY, "dash": "dot"})


def _figure(traces: Sequence[Any], x: str, y: str, **layout: Any) -> go.Figure:
    """A figure of the report; its vertical axis begins at 0.

    Args:
        traces: what is drawn.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        layout: further properties of the layout.
    """
    figure = in_style(go.Figure(traces, layout={"height": 300, "showlegend": False, **layout}))
    figure.update_xaxes(title_text=x)
    return figure.update_yaxes(title_text=y, rangemode="tozero")


def in_style(figure: go.Figure) -> go.Figure:
    """The figure in the style of a page, which gives it the colours of text and background."""
    figure.update_layout(
        template="none",
        margin={"l": 48, "r": 12, "t": 24, "b": 40},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="closest",
    )
    axis = {"zeroline": False, "fixedrange": True, "automargin": True, "gridcolor": "rgba(128,128,128,0.2)"}
    return figure.update_xaxes(**axis, showgrid=False).update_yaxes(**axis)


def _unit_square(figure: go.Figure) -> go.Figure:
    """Both axes are shares."""
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(range=[0, 1.02], tickformat=".0%")
    return figure


def _plain(figure: go.Figure) -> PlotlyFigure:
    """The figure as plain JSON values, without a template: the page has its style."""
    figure.layout.template = None
    return dict(figure.to_plotly_json())
