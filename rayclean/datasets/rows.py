"""One row: is its text, label and key usable, and in which form do they go on?

Label values travel as codes until the label set is known: `s:sports` for a string, `i:3` for an integer (`3.0` from
a column with nulls too). Surrounding blanks of a label are dropped. Texts stay as they are, control characters included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.config import DatasetConfig
from rayclean.datasets.base import RowFault
from rayclean.errors import DataError
from rayclean.plugins import did_you_mean

VALUE_CHARACTERS = 200
"""So much of a value at fault is kept in `rejected/`."""

NO_LABEL = "no label"
"""Reason for rows whose label is one of `dataset.unlabelled`; they do not count against `max_rejected`."""


@dataclass(frozen=True)
class RowColumns:
    """The columns that one file is read with."""

    text: tuple[str, ...]
    label: str | None
    truth: str | None
    key: str | None

    @property
    def names(self) -> list[str]:
        """Each column once."""
        wanted = (*self.text, self.label, self.truth, self.key)
        return list(dict.fromkeys(name for name in wanted if name is not None))


@dataclass(frozen=True)
class ParsedRow:
    """A usable row. Codes are None where there is no value."""

    text: str
    label: str | None
    truth: str | None
    key: str | int | None


def choose_columns(
    config: DatasetConfig, role: str, found: Sequence[str], where: str, sparse: bool = False
) -> RowColumns:
    """The columns of a file, in its role.

    A test file may hold the truth alone; a development or test file need not hold the truth. In a `sparse` file the truth
    may be known of few rows only, none of them among the first ones that `found` was read from.

    Raises:
        DataError: a column is missing; the message lists the nearest ones.
    """
    text = (config.text,) if isinstance(config.text, str) else config.text
    own = {"dev": config.dev.label, "test": config.test.label}.get(role)
    label: str | None = own or config.label
    truth = config.truth if role == "data" or sparse or config.truth in found else None
    if role == "test" and own is None and label not in found and truth is not None:
        label = None
    columns = RowColumns(text, label, truth, config.id)
    for name in columns.names:
        if name not in found and not (sparse and name == truth):
            raise DataError(f"{where}: no column {name!r}; {did_you_mean(name, list(found))}")
    return columns


class RowParser:
    """`values of Columns.names -> Parsed | Fault`."""

    def __init__(self, config: DatasetConfig, columns: RowColumns, role: str):
        self.separator = config.separator
        self.unlabelled = {str(value) for value in config.unlabelled}
        names = columns.names
        self.text = [names.index(name) for name in columns.text]
        self.label, self.truth, self.key = (
            None if name is None else names.index(name)
            for name in (columns.label, columns.truth, columns.key)
        )
        self.needs_label = role != "test"  # a test row may have the truth alone

    def __call__(self, values: Sequence[Any]) -> ParsedRow | RowFault:
        """Check one row."""
        text = self._text([values[position] for position in self.text])
        if isinstance(text, RowFault):
            return text
        truth = None if self.truth is None else label_code(values[self.truth])
        if not isinstance(truth, str) or truth[2:] in self.unlabelled:
            truth = None
        label = None if self.label is None else label_code(values[self.label])
        if isinstance(label, RowFault):
            return label
        if label is not None and label[2:] in self.unlabelled:
            if self.needs_label or truth is None:
                return RowFault(NO_LABEL, label[2:])
            label = None
        if label is None and (self.needs_label or truth is None):
            return RowFault("null label", "" if self.label is None else repr(values[self.label]))
        key = None if self.key is None else _key(values[self.key])
        return key if isinstance(key, RowFault) else ParsedRow(text, label, truth, key)

    def _text(self, parts: list[Any]) -> str | RowFault:
        for part in parts:
            if part is not None and not isinstance(part, str):
                return RowFault("text is not a string", f"{type(part).__name__}: {shorten_value(part)}")
        if all(part is None for part in parts):
            return RowFault("null text")
        if not any(part is not None and part.strip() for part in parts):
            return RowFault("empty text", shorten_value(parts[0]))
        text = parts[0] if len(parts) == 1 else self.separator.join(part or "" for part in parts)
        return text if is_unicode(text) else RowFault("not valid Unicode", shorten_value(text))


def label_code(value: Any) -> str | RowFault | None:
    """The code of a label value; None for null, NaN and blank strings.

    >>> label_code(" sports "), label_code(3), label_code(3.0), label_code(float("nan")), label_code(True)
    ('s:sports', 'i:3', 'i:3', None, 's:true')
    """
    if isinstance(value, str):
        value = value.strip()
        if not is_unicode(value):
            return RowFault("not valid Unicode", shorten_value(value))
        return f"s:{value}" if value else None
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return f"s:{str(value).lower()}"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"i:{int(value)}"
    return RowFault(
        "label is neither a string nor an integer", f"{type(value).__name__}: {shorten_value(value)}"
    )


def shorten_value(value: Any) -> str:
    """The beginning of a value, safe to write as UTF-8."""
    text = value if isinstance(value, str) else repr(value)
    return text[:VALUE_CHARACTERS].encode("utf-8", "backslashreplace").decode()[:VALUE_CHARACTERS]


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates (JSON can smuggle them in), which no file format can hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(value: Any) -> str | int | RowFault:
    if value is None or value == "":
        return RowFault("null key")
    if isinstance(value, bool) or not isinstance(value, str | int):
        return RowFault(
            "key is neither a string nor an integer", f"{type(value).__name__}: {shorten_value(value)}"
        )
    if isinstance(value, str) and not is_unicode(value):
        return RowFault("not valid Unicode", shorten_value(value))
    return value
