"""The table of a sweep that the command line prints."""

from rich import box
from rich.markup import escape
from rich.table import Table

from rayclean.evaluation.formatting import format_measured
from rayclean.sweeps.page.fields import cells, swept_fields
from rayclean.sweeps.page.report import metrics_by_interest
from rayclean.sweeps.results import SIGNIFICANT, PointFigure, Results

MAX_COLUMNS = 6
"""Number of columns of figures that fit into a terminal."""


def sweep_table(results: Results) -> Table:
    """A table of points with their most important figures: the best in bold, the Pareto front with stars."""
    fields, metrics = swept_fields(results), metrics_by_interest(results)[:MAX_COLUMNS]
    table = Table(box=box.SIMPLE_HEAD, title=f"Sweep {escape(results.sweep.name)}", title_justify="left")
    if results.front:
        table.add_column("")
    for field in fields:
        table.add_column(escape(field.name))
    for name in ("seeds", *map(results.title, metrics)):
        table.add_column(escape(name), justify="right")
    for row in results.rows:
        star = ["*" * row.is_among(results.front)] if results.front else []
        seeds = f"{len(row.seeds)}{' ref' if row.is_reference else ''}"
        figures = [_cell(row.figures.get(metric), metric) for metric in metrics]
        style = "bold" if row is results.best else None
        table.add_row(*star, *map(escape, cells(row, fields)), seeds, *figures, style=style)
    table.caption, table.caption_justify = _caption(results), "left"
    return table


def _cell(figure: PointFigure | None, metric: str) -> str:
    if figure is None:
        return "–"
    return format_measured(metric, figure.mean, figure.sd, 3) + f" {figure.sign}" * figure.significant


def _caption(results: Results) -> str:
    first = results.title(results.sweep.objectives[0].metric) if results.sweep.objectives else ""
    notes = {
        "mean ± standard deviation over seeds": True,
        f"bold: best {first}": results.best is not None,
        "*: on the Pareto front": bool(results.front),
        "ref: reference": any(row.is_reference for row in results.rows),
        f"▲▼: above or below the reference, p < {SIGNIFICANT:g}": any(f.significant for f in results.figures),
        "chosen for now: no setting is finished under every seed and condition": results.provisional,
        f"failed trials: {len(results.failed)}": bool(results.failed),
    }
    return escape("; ".join(note for note, holds in notes.items() if holds))
