"""The columns that an export adds to a row, and the label column where the final label takes the place of the given one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayclean.datasets.label_forms import LabelForm
from rayclean.datasets.nested_fields import nested_value, with_nested_value
from rayclean.errors import ConfigError

OF_SUSPECTS = ("label_given", "label_suggested", "label_quality", "label_rank", "label_reason")
"""The columns that a table of suspects has beside those of the data."""
ROW = "label_row"
"""A column for the number of each row in its file, from 0."""
_PREFIX = "rayclean_"


@dataclass(frozen=True)
class AddedColumns:
    """Builds the added columns, and rewrites labels in place."""

    form: LabelForm
    names: dict[str, str]
    """Added column (`config.export_section.ADDED_COLUMNS`, `OF_SUSPECTS`) -> the name that it has."""
    classes: list[str]
    """[K] names of the classes."""
    codes: list[str]
    """[K] the codes by which the label column writes them."""
    in_place: tuple[str, ...]
    """The label columns that are rewritten; () if none."""

    def schema(self) -> pa.Schema:
        """Names and types of the added columns."""
        words = self.form.spelled(pa.array([], self.form.stored_type), self.classes).type
        types = {
            **dict.fromkeys(("label_given", "label", "label_suggested"), words),
            **dict.fromkeys(("label_confidence", "label_quality"), pa.float32()),
            **dict.fromkeys(("label_rank", ROW), pa.int64()),
        }
        return pa.schema([(name, types.get(column, pa.string())) for column, name in self.names.items()])

    def table(self, said: pa.Table) -> pa.Table:
        """The added columns of some rows.

        Args:
            said: what the run says of them (`run_labels.row_table`).
        """
        read = {"label_given": "given", "label": "final", "label_suggested": "suggested"}
        arrays = [
            self.form.spelled(_one(said[read[column]]), self.classes)
            if column in read
            else _one(said[column.removeprefix("label_")])
            for column in self.names
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema())

    def rewrite(
        self, rows: pa.Table | list[dict[str, Any]], said: pa.Table, in_file: Mapping[str, Sequence[str]]
    ) -> pa.Table | list[dict[str, Any]]:
        """The rows with the final label in the label column where it is another than the given one.

        Args:
            rows: with all columns of their file.
            said: what the run says of them.
            in_file: column -> names that the file gives to its numbers.
        """
        if not self.in_place:
            return rows
        changed = [
            (row, final)
            for row, (given, final) in enumerate(
                zip(said["given"].to_pylist(), said["final"].to_pylist(), strict=True)
            )
            if given is not None and final is not None and given != final
        ]
        if not changed:
            return rows
        roots = [column if _has(rows, column) else column.split(".")[0] for column in self.in_place]
        cells = {root: _values(rows, root) for root in roots}
        for row, final in changed:
            found = {root: values[row] for root, values in cells.items()}
            before = [nested_value(found, column) for column in self.in_place]
            several = len(self.in_place) > 1
            names = in_file.get(self.in_place[0], ())
            after = self.form.rewritten(tuple(before) if several else before[0], final, self.codes, names)
            for column, root, value in zip(self.in_place, roots, after if several else [after], strict=True):
                cells[root][row] = with_nested_value({root: cells[root][row]}, column, value)[root]
        for root, values in cells.items():
            rows = _with_values(rows, root, values)
        return rows


def added_names(
    columns: Iterable[str], taken: Iterable[str], chosen: Mapping[str, str], in_place: bool
) -> dict[str, str]:
    """Added column -> its name, which no column of the data has.

    Args:
        columns: that are added (`ADDED_COLUMNS`, `OF_SUSPECTS`).
        taken: columns of the data.
        chosen: names that the config gives.
        in_place: whether the final label gets no column of its own.

    Raises:
        ConfigError: a chosen name is that of a column of the data, or of another added one.

    >>> added_names(["label_given", "label"], ["text", "label"], {}, False)
    {'label_given': 'label_given', 'label': 'rayclean_label'}
    """
    taken = set(taken)
    names: dict[str, str] = {}
    for column in columns:
        if column == "label" and in_place:
            continue
        name = chosen.get(column) or (column if column not in taken else f"{_PREFIX}{column}")
        if name in taken or name in names.values():
            raise ConfigError(
                f"export: the added column {column!r} would be called {name!r}, and there is a column of that name; give it "
                f"another one: export.names.{column}=NAME (--name {column}=NAME)"
            )
        names[column] = name
    return names


def label_codes(codes: Sequence[str | None], classes: Sequence[str]) -> list[str]:
    """[K] the code by which a file writes each class; of a class that it never names, the class's name."""
    return [code or f"s:{name}" for code, name in zip(codes, classes, strict=True)]


def _has(rows: pa.Table | list[dict[str, Any]], column: str) -> bool:
    return column in rows.column_names if isinstance(rows, pa.Table) else any(column in row for row in rows)


def _values(rows: pa.Table | list[dict[str, Any]], column: str) -> list[Any]:
    if isinstance(rows, pa.Table):
        return list(rows[column].to_pylist())
    return [row.get(column) for row in rows]


def _with_values(
    rows: pa.Table | list[dict[str, Any]], column: str, values: list[Any]
) -> pa.Table | list[dict[str, Any]]:
    if isinstance(rows, list):
        return [
            {**row, column: value} if column in row else row for row, value in zip(rows, values, strict=True)
        ]
    place = rows.schema.get_field_index(column)
    field = rows.schema.field(place)
    return rows.set_column(place, field, pa.array(values, field.type))


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
