"""What the command line prints of a sweep: a table, or with `--json` its values."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement, measure_renderables
from rich.table import Table
from rich.text import Text

from rayclean.evaluation.formatting import format_measured
from rayclean.evaluation.seed_figures import SIGNIFICANT, PointFigure
from rayclean.folder import Folder
from rayclean.plain_values import plain_value
from rayclean.sweeps.page.fields import cells, swept_fields
from rayclean.sweeps.page.report import metrics_by_interest
from rayclean.sweeps.plan import sweep_root
from rayclean.sweeps.results import Results

MAX_COLUMNS = 6
"""Number of columns of figures that fit into a terminal."""


@dataclass(frozen=True)
class BreakableName:
    """A name in a table, which goes on in the next line behind an underscore or another sign where it has no room."""

    name: str

    def __str__(self) -> str:
        return self.name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(max(map(cell_len, self._parts())), cell_len(self.name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [""]
        for part in self._parts():
            if cell_len(lines[-1] + part) > options.max_width and lines[-1]:
                lines.append("")
            lines[-1] += part
        yield Text("\n".join(lines), overflow="fold")

    def _parts(self) -> list[str]:
        return re.split(r"(?<=[_, /])|(?<=\.)(?!\d)", self.name)


def sweep_table(results: Results) -> Table:
    """A table of points with their most important figures: the best in bold, the Pareto front with stars."""
    fields, metrics = swept_fields(results), metrics_by_interest(results)[:MAX_COLUMNS]
    table = Table(box=box.SIMPLE_HEAD, title=f"Sweep {escape(results.sweep.name)}", title_justify="left")
    if results.front:
        table.add_column("")
    for field in fields:
        table.add_column(BreakableName(field.name), overflow="fold")
    for name in ("seeds", *map(results.title, metrics)):
        table.add_column(BreakableName(name), justify="right", overflow="fold")
    for row in results.rows:
        star = ["*" * row.is_among(results.front)] if results.front else []
        seeds = f"{len(row.seeds)}{' ref' if row.is_reference else ''}"
        figures = [_cell(row.figures.get(metric), metric) for metric in metrics]
        style = "bold" if row is results.best else None
        table.add_row(*star, *map(BreakableName, cells(row, fields)), seeds, *figures, style=style)
    table.caption, table.caption_justify = _caption(results), "left"
    return table


def print_sweep_table(console: Console, results: Results) -> None:
    """Print the table of a sweep. Where it is too wide, names are broken into parts and figures at their blanks; a number is
    broken only where not even that leaves room.
    """
    table = sweep_table(results)
    wide = console.options.update_width(sys.maxsize)
    if Measurement.get(console, wide, table).maximum > console.width:
        table.padding = 0
        ranges = [
            measure_renderables(console, wide, [column.header, *column.cells]) for column in table.columns
        ]
        room = console.width - len(ranges) - 1  # a blank beside every column
        if sum(each.minimum for each in ranges) <= room:
            for column, width in zip(table.columns, _shrunk(ranges, room), strict=True):
                column.width = width
    console.print(table)


def _shrunk(ranges: Sequence[Measurement], room: int) -> list[int]:
    """Widths that fit: the widest columns give way first, and none is narrower than its longest part."""
    widths = [each.maximum for each in ranges]
    while sum(widths) > room:
        place = max(range(len(widths)), key=lambda i: (widths[i] > ranges[i].minimum, widths[i]))
        widths[place] -= 1
    return widths


def sweep_values(results: Results) -> dict[str, Any]:
    """Name and files of a sweep, its objectives, and the figures of every point in the order of the sweep."""
    sweep, folder = results.sweep, Folder(sweep_root(results.sweep))
    values: dict[str, Any] = plain_value({
        "name": sweep.name,
        "folder": folder.url(),
        "report": folder.url("report.html"),
        "best_config": folder.url("best.toml") if results.best is not None else None,
        "objectives": [{"metric": each.metric, "mode": each.mode} for each in sweep.objectives],
        "metrics": results.metrics,
        "currency": results.currency,
        "provisional": results.provisional,
        "points": [
            {
                "point": row.point,
                "seeds": row.seeds,
                "reference": row.is_reference,
                "best": row is results.best,
                "front": row.is_among(results.front),
                "stopped": row.stopped,
                "figures": row.figures,
            }
            for row in results.rows
        ],
        "failed": results.failed,
    })  # fmt: skip
    return values


def _cell(figure: PointFigure | None, metric: str) -> str:
    if figure is None:
        return "–"
    return format_measured(metric, figure.mean, figure.sd, 3) + f" {figure.sign}" * figure.significant


def _caption(results: Results) -> str:
    first = results.title(results.sweep.objectives[0].metric) if results.sweep.objectives else ""
    figures = [figure for row in results.rows for figure in row.figures.values()]
    notes = {
        "mean ± standard deviation over seeds": True,
        f"bold: best {first}": results.best is not None,
        "*: on the Pareto front": bool(results.front),
        "ref: reference": any(row.is_reference for row in results.rows),
        f"▲▼: above or below the reference, p < {SIGNIFICANT:g}": any(each.significant for each in figures),
        "chosen for now: no setting is finished under every seed and condition": results.provisional,
        f"failed trials: {len(results.failed)}": bool(results.failed),
    }
    return escape("; ".join(note for note, holds in notes.items() if holds))
