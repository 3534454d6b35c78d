"""The swept fields as the page shows them: short names, the values that occur, and the values of a point."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.evaluation.plots import plain_values
from rayclean.sweeps.dimension import Dimension, show
from rayclean.sweeps.results import Results, Row

WIDE = 100.0
"""Positive numbers whose largest is so many times the smallest are drawn on a logarithmic axis."""

FieldValues = frozenset[tuple[str, str]]
"""Path and value of some fields, of those that a point has."""


@dataclass(frozen=True)
class SweptField:
    """A swept field."""

    path: str
    name: str
    """A short name that no other swept field has."""
    values: list[Any]
    """The values that occur, each once; numbers by size, others in the order of the rows."""
    dimension: Dimension

    @property
    def numeric(self) -> bool:
        """Whether every value is a number."""
        return bool(self.values) and all(type(value) in (int, float) for value in self.values)

    @property
    def varies(self) -> bool:
        """Whether points differ in it."""
        return len(self.values) > 1

    @property
    def log(self) -> bool:
        """Whether to draw it on a logarithmic axis."""
        if not self.numeric or self.values[0] <= 0:
            return False
        return self.dimension.log_uniform is not None or self.values[-1] / self.values[0] >= WIDE

    @property
    def plain(self) -> str:
        """The name for plotly."""
        return plain_values(self.name, 48)

    def place(self, row: Row) -> float:
        """Where a point lies on an axis: at its number, or at the place of its value among all values."""
        value = row.point[self.path]
        return value if self.numeric else [*map(value_key, self.values)].index(value_key(value))


def swept_fields(results: Results) -> list[SweptField]:
    """The swept fields in the order of the file. Their short names, the last parts of their paths, lack the
    underscore that keeps one from being a word of Python; where two would be the same, they are whole paths.
    """
    short = {path: path.rpartition(".")[2].rstrip("_") for path in results.sweep.space}
    found = []
    for path, dimension in results.sweep.space.items():
        name = short[path] if [*short.values()].count(short[path]) == 1 else path
        distinct = {value_key(row.point[path]): row.point[path] for row in results.rows if path in row.point}
        field = SweptField(path, name, list(distinct.values()), dimension)
        field.values.sort() if field.numeric else None
        found.append(field)
    return found


def value_key(value: Any) -> str:
    """A hashable stand-in for a value: tables and lists cannot be keys themselves."""
    return json.dumps(value, sort_keys=True, default=str)


def cells(row: Row, fields: Sequence[SweptField]) -> list[str]:
    """A point's value of each field, – where it has none."""
    return [show(row.point[field.path]) if field.path in row.point else "–" for field in fields]


def named_values(row: Row, fields: Sequence[SweptField]) -> str:
    """A point's values of the fields that it has, with their names."""
    return ", ".join(f"{f.name} = {show(row.point[f.path])}" for f in fields if f.path in row.point)


def label(row: Row, fields: Sequence[SweptField]) -> str:
    """The name of a line in a legend: several values are listed without names, which the hint beside the plot says."""
    return named_values(row, fields) if len(fields) < 2 else ", ".join(cells(row, fields))


def field_list(fields: Sequence[SweptField]) -> str:
    """The names of some fields, for a sentence: `a, b and c`."""
    *first, last = [field.name for field in fields]
    return f"{', '.join(first)} and {last}" if first else last


def values_at(row: Row, fields: Sequence[SweptField]) -> FieldValues:
    """The values of a point in some fields, as one key."""
    return frozenset((f.path, value_key(row.point[f.path])) for f in fields if f.path in row.point)


def varying(rows: Sequence[Row], fields: Sequence[SweptField]) -> list[SweptField]:
    """The fields in which some points differ."""
    return [field for field in fields if len({values_at(row, [field]) for row in rows}) > 1]
