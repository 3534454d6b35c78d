"""One row: whether its text, label and key are usable, and in which form they are staged.

Label values are codes until the label set is known: `s:sports` for a string as the file writes it, `i:3` for an integer (also
for `3.0`, as a column with nulls holds it). Which codes are the same class, only the label set says (`labels.py`). Labels that
are no single class are staged as their form says (`label_forms.py`). Texts stay as they are, control characters included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from typing import Any

from rayclean.class_names import class_key, spelling
from rayclean.config import DatasetConfig
from rayclean.datasets.columns import SourceColumns
from rayclean.datasets.label_forms import LabelForm, label_form, parsed_list
from rayclean.datasets.rejected_rows import NO_LABEL, NULL_LABEL, RejectedRow, shorten_value
from rayclean.hashing import int64, text_group

_EXACT = 2**53
"""Floats beyond it are not exact, and so stand for no class."""


@dataclass(frozen=True)
class ValidRow:
    """A usable row."""

    text: str
    label: str | None
    """The staged label; None in a test row that holds the truth alone."""
    truth: str | None
    """The staged true label; None where it is unknown."""
    key: str | int | None
    """The user's key; None without `dataset.id`."""
    tokens: list[str] | None = None
    """None where the form of the labels reads no tokens."""
    group: str | int | None = None
    """What the row belongs to; None without `dataset.group`."""

    def group_number(self) -> int:
        """A hash that the rows of a group share; without groups, copies of a text."""
        return text_group(self.text) if self.group is None else int64(repr(self.group))


class RowValidator:
    """Accepts or rejects each row of a file: `SourceColumns.names` -> `ValidRow` or `RejectedRow`."""

    def __init__(
        self,
        config: DatasetConfig,
        columns: SourceColumns,
        role: str,
        form: LabelForm | None = None,
        needs_labels: bool = True,
    ):
        self.form = form or label_form("class", config)
        self.separator = config.separator
        self.unlabelled = unlabelled_keys(config)
        self.unlabelled_found: set[str] = set()
        """Those of `unlabelled` that the rows held so far."""
        names = columns.names
        self.text = [names.index(name) for name in columns.text]
        self.tokens = None if columns.tokens is None else names.index(columns.tokens)
        self.label, self.truth = _getter(columns.label, names), _getter(columns.truth, names)
        self.key = None if columns.key is None else names.index(columns.key)
        self.group = None if columns.group is None else names.index(columns.group)
        self.labels_optional = not needs_labels
        self.needs_label = needs_labels and role != "test"  # a test row may hold the truth alone

    def __call__(self, values: Sequence[Any]) -> ValidRow | RejectedRow:
        """Check one row."""
        tokens = None if self.tokens is None else _tokens(values[self.tokens])
        if isinstance(tokens, RejectedRow):
            return tokens
        text = self._text([values[i] for i in self.text]) if tokens is None else _sentence(tokens)
        if isinstance(text, RejectedRow):
            return text
        parse = self.form.parse
        truth = None if self.truth is None else parse(self.truth(values), tokens or ())
        if not isinstance(truth, str) or self._unlabelled_key(truth) is not None:
            truth = None
        label = None if self.label is None else parse(self.label(values), tokens or ())
        if isinstance(label, RejectedRow):
            return label
        key_of_none = None if self.label is None else self._unlabelled_key(label)
        if key_of_none is not None:
            self.unlabelled_found.add(key_of_none)
            if self.needs_label or truth is None:
                return RejectedRow(NO_LABEL, key_of_none)
            label = None
        if label is None and not self.labels_optional and (self.needs_label or truth is None):
            return RejectedRow(NULL_LABEL, "" if self.label is None else repr(self.label(values)))
        key = None if self.key is None else _key(values[self.key])
        group = None if self.group is None else _key(values[self.group], "group")
        if isinstance(key, RejectedRow):
            return key
        return group if isinstance(group, RejectedRow) else ValidRow(text, label, truth, key, tokens, group)

    def _unlabelled_key(self, staged: str | None) -> str | None:
        """The class key by which a label is one of `dataset.unlabelled`: "" for null, NaN and blank; None if it is a label."""
        key = "" if staged is None else self.form.only_key(staged) if self.unlabelled else None
        return key if key in self.unlabelled else None

    def classes(self, values: Sequence[Any]) -> set[str]:
        """Codes of the classes that the label of a row names, of a row that is rejected for another reason, too; none where
        the label cannot be read.
        """
        tokens = None if self.tokens is None else _tokens(values[self.tokens])
        if self.label is None or isinstance(tokens, RejectedRow):
            return set()
        label = self.form.parse(self.label(values), tokens or ())
        return set(self.form.codes(label)) if isinstance(label, str) else set()

    def _text(self, parts: list[Any]) -> str | RejectedRow:
        for part in parts:
            if part is not None and not isinstance(part, str):
                return RejectedRow("text is not a string", f"{type(part).__name__}: {shorten_value(part)}")
        if all(part is None for part in parts):
            return RejectedRow("null text")
        if not any(part is not None and part.strip() for part in parts):
            return RejectedRow("empty text", shorten_value(parts[0]))
        text = parts[0] if len(parts) == 1 else self.separator.join(part or "" for part in parts)
        return text if is_unicode(text) else RejectedRow("not valid Unicode", shorten_value(text))


def label_code(value: Any) -> str | RejectedRow | None:
    """The code of a label value; None for null, NaN and strings that show nothing.

    >>> label_code(" sports"), label_code(3), label_code(3.0), label_code(Decimal("3.00")), label_code(float("nan"))
    ('s: sports', 'i:3', 'i:3', 'i:3', None)
    >>> label_code(True), label_code(1.5), label_code("\u200b ")
    ('s:true', 's:1.5', None)
    """
    if isinstance(value, str):
        if not is_unicode(value):
            return RejectedRow("not valid Unicode", shorten_value(value))
        return f"s:{value}" if spelling(value) else None
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return f"s:{str(value).lower()}"
    if isinstance(value, float | Decimal) and -_EXACT < value < _EXACT and value == int(value):
        value = int(value)
    if isinstance(value, int):
        return f"i:{value}"
    if isinstance(value, float | Decimal) and -_EXACT < value < _EXACT:
        return f"s:{value.normalize() if isinstance(value, Decimal) else value}"  # as a CSV writes it
    found = f"{type(value).__name__}: {shorten_value(value)}"
    return RejectedRow("label is neither a string nor a number", found)


def unlabelled_keys(config: DatasetConfig) -> set[str]:
    """The class keys of `dataset.unlabelled`; "" stands for null, NaN and blank values."""
    return {class_key(str(value)) for value in config.unlabelled}


def _getter(columns: str | tuple[str, ...] | None, names: list[str]) -> Callable[[Sequence[Any]], Any] | None:
    """Takes the value of a column out of a row, or the values of several as a tuple."""
    if columns is None or isinstance(columns, str):
        return None if columns is None else itemgetter(names.index(columns))
    positions = [names.index(name) for name in columns]
    return lambda values: tuple(values[position] for position in positions)


def _tokens(value: Any) -> list[str] | RejectedRow:
    """Tokens of a list, of a list in JSON, or of a text in which blanks divide them."""
    if value is None:
        return RejectedRow("null tokens")
    if isinstance(value, str):
        found = parsed_list(value)
        value = value.split() if found is None else found
    if not isinstance(value, list):
        return RejectedRow("tokens are no list", f"{type(value).__name__}: {shorten_value(value)}")
    if not value:
        return RejectedRow("empty sentence", repr(value))
    for position, token in enumerate(value):
        if not isinstance(token, str):
            found_at = f"token {position} is {type(token).__name__}: {shorten_value(token)}"
            return RejectedRow("token is not a string", found_at)
        if not token.strip():
            return RejectedRow("blank token", f"token {position} is {token!r}")
        if not is_unicode(token):
            return RejectedRow("not valid Unicode", shorten_value(token))
    return value


def _sentence(tokens: Sequence[str]) -> str:
    """The tokens joined by blanks. Blanks inside of a token become no-break spaces, so that the words between blanks are the
    tokens.

    >>> len(_sentence(["New York", "sleeps"]).split(" "))
    2
    """
    return " ".join(token.replace(" ", "\N{NO-BREAK SPACE}") for token in tokens)


def _key(value: Any, what: str = "key") -> str | int | RejectedRow:
    if value is None or value == "":
        return RejectedRow(f"null {what}")
    if isinstance(value, bool) or not isinstance(value, str | int):
        found = f"{type(value).__name__}: {shorten_value(value)}"
        return RejectedRow(f"{what} is neither a string nor an integer", found)
    if isinstance(value, str) and not is_unicode(value):
        return RejectedRow("not valid Unicode", shorten_value(value))
    return value


def is_unicode(text: str) -> bool:
    """Whether a text is free of lone surrogates, which JSON can escape and no file format can hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
