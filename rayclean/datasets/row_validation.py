"""One row: whether its text, label and key are usable, and in which form they are staged.

Label values are staged as codes until the label set is known: `s:sports` for a string, `i:3` for an integer
(also for `3.0`, as a column with nulls holds it). Blanks around a label are dropped. Texts stay as they are,
control characters included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rayclean.config import DatasetConfig
from rayclean.datasets.columns import SourceColumns
from rayclean.datasets.rejected_rows import NO_LABEL, RejectedRow, shorten_value


@dataclass(frozen=True)
class ValidRow:
    """A usable row."""

    text: str
    label: str | None
    """Code of the label; None in a test row that holds the truth alone."""
    truth: str | None
    """Code of the true label; None where it is unknown."""
    key: str | int | None
    """The user's key; None without `dataset.id`."""


class RowValidator:
    """Accepts or rejects each row of a file: `SourceColumns.names` -> `ValidRow` or `RejectedRow`."""

    def __init__(self, config: DatasetConfig, columns: SourceColumns, role: str):
        self.separator = config.separator
        self.unlabelled = {str(value) for value in config.unlabelled}
        names = columns.names
        self.text = [names.index(name) for name in columns.text]
        self.label, self.truth, self.key = (
            None if name is None else names.index(name)
            for name in (columns.label, columns.truth, columns.key)
        )
        self.needs_label = role != "test"  # a test row may hold the truth alone

    def __call__(self, values: Sequence[Any]) -> ValidRow | RejectedRow:
        """Check one row."""
        text = self._text([values[position] for position in self.text])
        if isinstance(text, RejectedRow):
            return text
        truth = None if self.truth is None else label_code(values[self.truth])
        if not isinstance(truth, str) or truth[2:] in self.unlabelled:
            truth = None
        label = None if self.label is None else label_code(values[self.label])
        if isinstance(label, RejectedRow):
            return label
        if label is not None and label[2:] in self.unlabelled:
            if self.needs_label or truth is None:
                return RejectedRow(NO_LABEL, label[2:])
            label = None
        if label is None and (self.needs_label or truth is None):
            return RejectedRow("null label", "" if self.label is None else repr(values[self.label]))
        key = None if self.key is None else _key(values[self.key])
        return key if isinstance(key, RejectedRow) else ValidRow(text, label, truth, key)

    def _text(self, parts: list[Any]) -> str | RejectedRow:
        for part in parts:
            if part is not None and not isinstance(part, str):
                return RejectedRow("text is not a string", f"{type(part).__name__}: {shorten_value(part)}")
        if all(part is None for part in parts):
            return RejectedRow("null text")
        if not any(part is not None and part.strip() for part in parts):
            return RejectedRow("empty text", shorten_value(parts[0]))
        text = parts[0] if len(parts) == 1 else self.separator.join(part or "" for part in parts)
        return text if _is_unicode(text) else RejectedRow("not valid Unicode", shorten_value(text))


def label_code(value: Any) -> str | RejectedRow | None:
    """The code of a label value; None for null, NaN and blank strings.

    >>> label_code(" sports "), label_code(3), label_code(3.0), label_code(float("nan")), label_code(True)
    ('s:sports', 'i:3', 'i:3', None, 's:true')
    """
    if isinstance(value, str):
        value = value.strip()
        if not _is_unicode(value):
            return RejectedRow("not valid Unicode", shorten_value(value))
        return f"s:{value}" if value else None
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return f"s:{str(value).lower()}"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"i:{int(value)}"
    found = f"{type(value).__name__}: {shorten_value(value)}"
    return RejectedRow("label is neither a string nor an integer", found)


def _key(value: Any) -> str | int | RejectedRow:
    if value is None or value == "":
        return RejectedRow("null key")
    if isinstance(value, bool) or not isinstance(value, str | int):
        found = f"{type(value).__name__}: {shorten_value(value)}"
        return RejectedRow("key is neither a string nor an integer", found)
    if isinstance(value, str) and not _is_unicode(value):
        return RejectedRow("not valid Unicode", shorten_value(value))
    return value


def _is_unicode(text: str) -> bool:
    """Whether a text is free of lone surrogates, which JSON can escape and no file format can hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
