"""Swept fields as the page shows them: short names, values in order, where a plot puts them, and what a point says of
them.
"""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rayclean.evaluation import plots
from rayclean.sweeps.page.wording import listing
from rayclean.sweeps.results import Results, Row, short
from rayclean.sweeps.space import show
from rayclean.sweeps.spec import Dimension

MAX_TICKS = 10
"""Values that an axis names each; of more it names round numbers."""
WIDE = 100.0
"""Positive numbers whose largest is so many times the smallest are drawn on a logarithmic axis."""

Level = frozenset[tuple[str, str]]
"""Path and value of some fields, of those that a point has."""


@dataclass(frozen=True)
class Axis:
    """A swept field."""

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
    def varies(self) -> bool:
        """Whether points differ in it."""
        return len(self.values) > 1

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
        return float(
            value if self.numeric else [point_key(each) for each in self.values].index(point_key(value))
        )

    def ticks(self) -> dict[str, Any]:
        """Plotly's settings of an axis of this field."""
        kind: dict[str, Any] = {"title": {"text": plots.plain_values(self.name, 48)}}
        if self.numeric:
            kind |= {"type": "log" if self.log else "linear"}
        if not self.numeric or (not self.ranged and len(self.values) <= MAX_TICKS and not self._crowded):
            kind |= {
                "tickmode": "array",
                "tickvals": [self.place(value) for value in self.values],
                "ticktext": [plots.plain_values(show(value), 20) for value in self.values],
            }
        return kind

    @property
    def _crowded(self) -> bool:
        places = [math.log(value) if self.log else value for value in self.values]
        gaps = [b - a for a, b in itertools.pairwise(places)]
        return bool(gaps) and min(gaps) < 0.07 * (places[-1] - places[0])


def axes(results: Results) -> list[Axis]:
    """Swept fields in the order of the file."""
    names = field_names(results.fields)
    found = []
    for path, dimension in results.sweep.space.items():
        distinct = {point_key(row.point[path]): row.point[path] for row in results.rows if path in row.point}
        axis = Axis(path, names[path], list(distinct.values()), dimension)
        found.append(replace(axis, values=sorted(axis.values)) if axis.numeric else axis)
    return found


def field_names(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each path, the whole path where two would have the same.

    >>> field_names(["method.lambda_", "method.name", "encoder.name"])
    {'method.lambda_': 'lambda', 'method.name': 'method.name', 'encoder.name': 'encoder.name'}
    """
    names = [short(path) for path in paths]
    return {path: name if names.count(name) == 1 else path for path, name in zip(paths, names, strict=True)}


def point_key(value: Any) -> str:
    """Tells values apart: tables and lists cannot be keys themselves."""
    return json.dumps(value, sort_keys=True, default=str)


def among(row: Row, rows: Iterable[Row]) -> bool:
    """By identity: equality would compare every epoch."""
    return any(row is each for each in rows)


def cells(row: Row, fields: Sequence[Axis]) -> list[str]:
    """A point's value of each field, – where it has none."""
    return [show(row.point[axis.path]) if axis.path in row.point else "–" for axis in fields]


def parts(row: Row, fields: Sequence[Axis]) -> list[str]:
    """A point's values with the names of the fields that it has."""
    return [f"{axis.name} = {show(row.point[axis.path])}" for axis in fields if axis.path in row.point]


def label(row: Row, fields: Sequence[Axis]) -> str:
    """Of a line in a legend: several values stand without their names, which the hint beside the plot says."""
    return ", ".join(parts(row, fields) if len(fields) < 2 else cells(row, fields))


def level(row: Row, fields: Sequence[Axis]) -> Level:
    """Tells points apart by some fields."""
    return frozenset(
        (axis.path, point_key(row.point[axis.path])) for axis in fields if axis.path in row.point
    )


def levels(rows: Iterable[Row], fields: Sequence[Axis]) -> set[Level]:
    """The different values of some fields together."""
    return {level(row, fields) for row in rows}


def named_point(fields: Sequence[Axis]) -> str:
    """Of some fields, for a sentence."""
    return listing([axis.name for axis in fields])
