"""When each trial ran: a bar per trial, and how many ran at once. A gap is a worker that had nothing to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.evaluation import plots
from rayclean.sweeps.page.axes import Axis, parts
from rayclean.sweeps.page.charts import COLOURS, HOVER, layout
from rayclean.sweeps.results import Results, Row

PAUSE = 60.0
"""Seconds in which no trial ran: the sweep was interrupted, which is cut out."""
NAME = "timeline"


@dataclass(frozen=True)
class TrialBar:
    """One trial, in seconds since the first one began, interruptions left out."""

    row: Row
    seed: int
    begin: float
    end: float


def bars(rows: Sequence[Row]) -> list[TrialBar]:
    """Every trial that says when it ran, by its beginning."""
    spans = sorted((row.spans[seed], seed, number) for number, row in enumerate(rows) for seed in row.spans)
    found: list[TrialBar] = []
    cut, busy_until = 0.0, None
    for (began, seconds), seed, number in spans:
        if busy_until is None:
            cut = began
        elif began - busy_until > PAUSE:
            cut += began - busy_until
        busy_until = max(busy_until or 0.0, began + seconds)
        found.append(TrialBar(rows[number], seed, began - cut, began - cut + seconds))
    return found


def at_once(of: Sequence[TrialBar]) -> float:
    """Trials that ran at the same time, on average over the whole sweep."""
    whole = max((bar.end for bar in of), default=0.0)
    return sum(bar.end - bar.begin for bar in of) / whole if whole else 0.0


def timeline(
    results: Results, fields: Sequence[Axis]
) -> tuple[dict[str, Any] | None, Mapping[str, plots.PlotlyFigure]]:
    """The chart and what is said of it; None where fewer than two trials say when they ran."""
    found = bars(results.rows)
    if len(found) < 2:
        return None, {}
    order = {id(row): place for place, row in enumerate(results.rows)}
    data = [
        {
            "type": "scatter", "mode": "lines", "showlegend": False,
            "x": [bar.begin / 60, bar.end / 60], "y": [place, place], "hovertemplate": HOVER,
            "text": plots.plain_values(
                ", ".join([*parts(bar.row, fields), f"seed {bar.seed}", f"{bar.end - bar.begin:,.1f} s"]), 200
            ),
            "line": {"width": 8 if len(found) <= 60 else 3, "color": COLOURS[order[id(bar.row)] % len(COLOURS)]},
        }
        for place, bar in enumerate(found)
    ]  # fmt: skip
    y = {"title": {"text": "trial"}, "range": [len(found) - 0.4, -0.6], "showgrid": False}
    height = min(640, max(220, 80 + 14 * len(found)))
    chart = {"data": data, "layout": layout({"title": {"text": "minutes"}}, y) | {"height": height}}
    return {"name": NAME, "at_once": f"{at_once(found):.1f}", "trials": len(found)}, {NAME: chart}
