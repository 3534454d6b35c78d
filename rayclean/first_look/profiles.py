"""What a column holds, gathered row by row in bounded memory."""

import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayclean.class_names import class_key, is_number, is_numeric, spelling
from rayclean.datasets.label_forms import parsed_list
from rayclean.datasets.row_validation import label_code
from rayclean.functional.bio import is_tag

MOST_VALUES = 2000
"""Different values that are counted one by one; a column with more is no column of classes for a first look."""
LONGEST_VALUE = 200
"""Characters of a value that is counted; a column with longer ones is no column of classes."""
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?|\d{1,2}:\d{2}(:\d{2}.*)?")
_ADDRESS = re.compile(r"(https?://|www\.)\S+|[\w.+-]+@[\w-]+\.[\w.]+|[/\\]?[\w.-]+([/\\][\w.-]+){2,}")
_BITS = frozenset({"0", "1", "true", "false"})


@dataclass
class ColumnProfile:
    """What the first rows hold in one column."""

    name: str
    rows: int = 0
    """Rows looked at."""
    filled: int = 0
    """Rows with a value that is neither null nor blank."""
    texts: int = 0
    """Values that are no numbers, booleans, dates, addresses or lists."""
    numbers: int = 0
    """Whole numbers, also as texts."""
    fractions: int = 0
    """Numbers with a fraction."""
    lists: int = 0
    """Lists, also as JSON in a text."""
    tags: int = 0
    """Values that are a tag per token: lists of tags, or tags with blanks between them."""
    objects: int = 0
    """Values that hold names and values themselves, or dates and bytes: neither text nor label."""
    characters: int = 0
    """Sum of the lengths of all texts."""
    words: int = 0
    """Sum of the words of all texts."""
    longest: int = 0
    """Characters of the longest text."""
    values: Counter[str] | None = field(default_factory=Counter)
    """Value, as it is compared (`class_key`) -> rows; None where there are too many, or too long ones."""
    items: Counter[str] = field(default_factory=Counter)
    """Items of lists -> how often; at most `MOST_VALUES` different ones."""
    hashes: "array[int]" = field(default_factory=lambda: array("q"))
    """A hash of each value."""

    def add(self, value: Any) -> None:
        """Look at one value."""
        self.rows += 1
        if value is None or value != value or (isinstance(value, str) and not spelling(value)):
            return
        self.filled += 1
        items = parsed_list(value) if isinstance(value, str) else value
        if isinstance(items, list):
            self._add_list(items)
        elif not isinstance(value, str | bool | int | float) and not isinstance(label_code(value), str):
            self.objects += 1
        else:
            self._add_plain(value)

    def _add_list(self, items: list[Any]) -> None:
        self.lists += 1
        self.values = None
        words = [item for item in items if isinstance(item, str | int)]
        self.objects += len(words) < len(items)
        self.tags += bool(items) and all(isinstance(item, str) and is_tag(item) for item in items)
        self.hashes.append(hash(tuple(map(str, words))))
        for item in map(str, words[:LONGEST_VALUE]):
            if item in self.items or len(self.items) < MOST_VALUES:
                self.items[item] += 1

    def _add_plain(self, value: Any) -> None:
        text = value if isinstance(value, str) else str(label_code(value) or "s:")[2:]
        self.hashes.append(hash(text))
        key = class_key(text) if len(text) <= LONGEST_VALUE else text
        if is_number(key):
            self.numbers += 1
        elif is_numeric(key):
            self.fractions += 1
        elif key not in ("true", "false") and not _DATE.fullmatch(key) and not _ADDRESS.fullmatch(key):
            self._add_text(text)
        if self.values is not None:
            self.values[key] += 1
            if len(self.values) > MOST_VALUES or len(key) > LONGEST_VALUE:
                self.values = None

    def _add_text(self, text: str) -> None:
        words = text.split()
        self.texts += 1
        self.characters += len(text)
        self.words += len(words)
        self.longest = max(self.longest, len(text))
        self.tags += len(words) > 1 and all(map(is_tag, words))

    @property
    def different(self) -> int:
        """Number of different values."""
        if self.values is not None:
            return len(self.values)
        return len(np.unique(np.frombuffer(self.hashes, np.int64))) if self.hashes else 0

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.filled == self.rows > 1 and self.different == self.rows

    @property
    def is_bits(self) -> bool:
        """Whether it holds 0 and 1, or true and false, in every row, and both of them."""
        return (
            self.filled == self.rows
            and self.different == 2
            and self.values is not None
            and {*self.values} <= _BITS
        )

    @property
    def mean_words(self) -> float:
        """Words of a text, on average; 0 without texts."""
        return self.words / max(self.texts, 1)

    @property
    def mean_characters(self) -> float:
        """Characters of a text, on average; 0 without texts."""
        return self.characters / max(self.texts, 1)

    @property
    def is_text(self) -> bool:
        """Whether nearly all values are texts."""
        return self.texts > 0.9 * self.filled > 0

    @property
    def kind(self) -> str:
        """What the column holds, in words."""
        if not self.filled:
            return "nothing"
        if self.objects > self.filled / 2:
            return "objects"
        if self.tags > 0.9 * self.filled and self.tags > 1:
            return "tags of tokens"
        if self.lists > self.filled / 2:
            return "lists"
        if self.is_bits:
            return "0 and 1"
        if self.is_text:
            return f"texts of {self.mean_words:.0f} words" if self.mean_words >= 2 else "words"
        if self.numbers + self.fractions > 0.9 * self.filled:
            return "numbers with fractions" if self.fractions else "whole numbers"
        return "mixed values" if self.texts or self.numbers else "dates or addresses"
