"""The first rows of a file, looked at before anything is read: do they hold labels of the form that the task reads?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rayclean.config import DatasetConfig
from rayclean.datasets.base import FileSegment, Reader, SourceFile
from rayclean.datasets.class_label import named_rows
from rayclean.datasets.columns import SourceColumns
from rayclean.datasets.label_forms import LabelForm, only_item
from rayclean.datasets.rejected_rows import RejectedRow, shorten_value
from rayclean.datasets.row_validation import RowValidator
from rayclean.errors import DataError
from rayclean.schema import FormName

_ROWS = 100


@dataclass(frozen=True)
class Misfit:
    """A column of labels of another form, by its first value."""

    row: int
    value: str
    """The value as Python writes it."""
    form: FormName
    """The form that the column has."""


def find_misfit(form: LabelForm, reader: Reader, file: SourceFile, column: str) -> Misfit | None:
    """The first label of a column, if none of its first values can be of a form."""
    found = None
    for row, (value,) in _first_rows(reader, file, [column]):
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            continue
        if form.one_code and only_item(value) is not value:
            continue  # a list of one is a class, unless another row has a list of several
        form_of_value = form.misfit(value)
        if form_of_value is None:
            return None
        found = found or Misfit(row, shorten_value(repr(value)), form_of_value)
    return found


def check_first_rows(
    config: DatasetConfig,
    role: str,
    form: LabelForm,
    reader: Reader,
    file: SourceFile,
    columns: SourceColumns,
) -> None:
    """Stop if a label among the first rows is written in a way that the config does not say.

    Raises:
        DataError: names the row, its value and what to change.
    """
    if not form.stops:
        return
    validate = RowValidator(config, columns, role, form)
    for row, values in _first_rows(reader, file, columns.names):
        checked = validate(values)
        if isinstance(checked, RejectedRow) and checked.reason in form.stops:
            fix = form.stops[checked.reason]
            raise DataError(f"{file.url} row {row}: {checked.reason}: {checked.value!r}; {fix}")


def _first_rows(reader: Reader, file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Those of the first rows of a file that can be read."""
    for row, values in islice(named_rows(reader, FileSegment(file), columns), _ROWS):
        if not isinstance(values, RejectedRow):
            yield row, values
