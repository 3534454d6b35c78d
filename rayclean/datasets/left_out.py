"""The rows that a load leaves out: how many and why, and whether rows of some kind are lost far more often than others.

Rows are counted by file, by class and by whether they hold characters beyond ASCII. A loss that strikes one kind, such as
every text with an accent in a file of another encoding, changes what a model learns, however small it is altogether.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import scipy

from rayclean.datasets.rejected_rows import UNKNOWN_LABEL, RejectedRow

Kinds = dict[str, dict[str, list[int]]]
"""Way of dividing rows (`file`, `class`, `characters`) -> kind of row -> [rows read, rows left out]."""

BEYOND_ASCII = "beyond ASCII"
_NOT_ASCII = frozenset({"not UTF-8", "not valid Unicode"})
"""Reasons that only rows with characters beyond ASCII are rejected for, though the excerpt of the value may be escaped."""
_LEAST_LOST = 5
"""Fewer lost rows of a kind are no pattern."""
_LEAST_RATIO = 3.0
"""A kind is lost far more often if its share is at least so many times that of the other rows."""
_SIGNIFICANCE = 1e-3
"""Largest probability, over all kinds that are tested, that rows which are lost by chance are called biased."""
_MOST_SHOWN = 3
"""Kinds of a role that are named."""


def count_row(kinds: Kinds, file: str, classes: Iterable[str], beyond_ascii: bool, lost: bool) -> None:
    """Count one row that was read.

    Args:
        kinds: counts that are added to.
        file: name of its file.
        classes: codes of the classes that its label names, as far as they can be read.
        beyond_ascii: whether it holds characters beyond ASCII.
        lost: whether it is left out.
    """
    where = [("file", file), *(("class", code) for code in classes)]
    where.append(("characters", BEYOND_ASCII if beyond_ascii else "ASCII"))
    for way, kind in where:
        counts = kinds.setdefault(way, {}).setdefault(kind, [0, 0])
        counts[0] += 1
        counts[1] += lost


def count_loss(kinds: Kinds, file: str, classes: Iterable[str], beyond_ascii: bool, reason: str) -> None:
    """Count a row as left out that `count_row` has counted as kept, which the second pass of a load finds."""
    named = (
        () if reason == UNKNOWN_LABEL else classes
    )  # of such a class, all rows are lost for this very reason
    for way, kind in [("file", file), *(("class", code) for code in named)]:
        kinds.setdefault(way, {}).setdefault(kind, [0, 0])[1] += 1
    kinds.setdefault("characters", {}).setdefault(BEYOND_ASCII if beyond_ascii else "ASCII", [0, 0])[1] += 1


def is_beyond_ascii(values: Sequence[Any] | RejectedRow) -> bool:
    """Whether a row holds characters beyond ASCII, in a cell or, of a row that could not be read, in its excerpt."""
    if isinstance(values, RejectedRow):
        return values.reason in _NOT_ASCII or not values.value.isascii()
    return any(isinstance(value, str) and not value.isascii() for value in values)


def add_kinds(total: Kinds, part: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Add counts to others."""
    for way, counts in part.items():
        for kind, (rows, lost) in counts.items():
            entry = total.setdefault(way, {}).setdefault(kind, [0, 0])
            entry[0] += rows
            entry[1] += lost


def left_out_sentence(rows: int, reasons: Mapping[str, int]) -> str:
    """How many rows are left out, and why.

    >>> left_out_sentence(1200, {"empty text": 3, "duplicate key": 8})
    '11 of 1,200 rows left out: duplicate key 8, empty text 3'
    """
    frequent = ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common())
    return f"{sum(reasons.values()):,} of {rows:,} rows left out" + (f": {frequent}" if frequent else "")


def biased_losses(kinds: Mapping[str, Mapping[str, Sequence[int]]]) -> list[str]:
    """Kinds of rows that are left out far more often than the others, in sentences, the least likely by chance first.

    If n of N rows are lost whatever their kind, the number of lost rows among the R of a kind is hypergeometric; its upper
    tail is tested, as many times as there are kinds (Bonferroni).

    >>> biased_losses({"class": {"s:fox": [40, 20], "s:owl": [400, 3]}})
    ["20 of the 40 rows of the class 'fox' (50%) are left out, and 3 of the 400 others (0.8%)"]
    """
    tests = sum(len(counts) for counts in kinds.values() if len(counts) > 1)
    found: list[tuple[float, str]] = []
    for way, counts in kinds.items():
        total, total_lost = (sum(each[place] for each in counts.values()) for place in (0, 1))
        for kind, (rows, lost) in counts.items():
            others, others_lost = total - rows, total_lost - lost
            if kind == "ASCII" or not others or lost < _LEAST_LOST:
                continue
            if lost * others < _LEAST_RATIO * others_lost * rows:
                continue
            chance = float(scipy.stats.hypergeom.sf(lost - 1, total, total_lost, rows)) * tests
            if chance <= _SIGNIFICANCE:
                found.append((chance, _sentence(way, kind, rows, lost, others, others_lost)))
    return [sentence for _, sentence in sorted(found)[:_MOST_SHOWN]]


def _sentence(way: str, kind: str, rows: int, lost: int, others: int, others_lost: int) -> str:
    named = {
        "file": f"of the file {kind!r}",
        "class": f"of the class {kind[2:]!r}",
        "characters": "with characters beyond ASCII",
    }[way]
    return (
        f"{lost:,} of the {rows:,} rows {named} ({_share(lost, rows)}) are left out, and {others_lost:,} of the "
        f"{others:,} others ({_share(others_lost, others)})"
    )


def _share(part: int, whole: int) -> str:
    share = part / whole
    return f"{share:.0%}" if share >= 0.1 or not part else f"{share:.1%}"
