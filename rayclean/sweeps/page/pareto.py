"""The Pareto front of a sweep, drawn: objectives against each other."""

from collections.abc import Sequence
from typing import Any

from rayclean.evaluation import plots
from rayclean.sweeps.page.axes import Axis, among, parts
from rayclean.sweeps.page.charts import DASHES, HOVER, hover_of, layout, legend, ticks
from rayclean.sweeps.page.wording import amount
from rayclean.sweeps.results import Results, Row
from rayclean.sweeps.spec import Objective, is_condition


def trade(results: Results, fields: Sequence[Axis], first: Objective, other: Objective) -> plots.PlotlyFigure:
    """The first objective over another one, with the Pareto front."""
    rows = [row for row in results.rows if first.metric in row.figures and other.metric in row.figures]
    front = sorted(
        (row for row in rows if among(row, results.front)), key=lambda row: row.figures[other.metric].mean
    )

    def trace(chosen: Sequence[Row], name: str, **more: Any) -> dict[str, Any]:
        figures = [(row.figures[other.metric], row.figures[first.metric]) for row in chosen]
        said = [
            hover_of(row, fields, first.metric, f"{other.metric} {amount(other.metric, x.mean, x.sd)}")
            for row, (x, _) in zip(chosen, figures, strict=True)
        ]
        return {
            "type": "scatter", "mode": "markers", "name": name, "hovertemplate": HOVER,
            "x": [x.mean for x, _ in figures], "y": [y.mean for _, y in figures], "text": said, **more,
        }  # fmt: skip

    rim = {"color": plots.BLUE, "width": 1.5}
    data = [
        trace(
            [row for row in rows if not among(row, front)],
            "beaten by another point",
            marker={"color": plots.GREY, "size": 8},
        ),
        *(
            trace(
                chosen,
                f"Pareto front{where}",
                # With more than two objectives the front is a surface: a line between its points would mean nothing.
                mode="lines+markers" if len(results.sweep.objectives) == 2 else "markers",
                line={"color": plots.ORANGE, "width": 1.5, "dash": DASHES[place % len(DASHES)]},
                marker={"color": plots.ORANGE, "size": 12, "symbol": "diamond", "line": rim},
            )
            for place, (where, chosen) in enumerate(_by_condition(front, fields).items())
        ),
    ]
    ways = {"max": "higher is better", "min": "lower is better"}
    x, y = (ticks(each.metric, f" ({ways[each.mode]})") for each in (other, first))
    return {"data": data, "layout": legend(layout(x, y), data)}


def _by_condition(front: Sequence[Row], fields: Sequence[Axis]) -> dict[str, list[Row]]:
    """Every condition has a front of its own: easier data beat nothing."""
    own = [axis for axis in fields if is_condition(axis.path) and axis.varies]
    found: dict[str, list[Row]] = {}
    for row in front:
        where = ", ".join(parts(row, own))
        found.setdefault(f" at {where}" if where else "", []).append(row)
    return found
