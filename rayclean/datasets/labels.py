"""From the label values found in all files to the label set and the index of every value.

* Without `dataset.labels` the set is the sorted values (integers by number), or the names that a Hugging Face data set
  itself gives to its integers.
* With it, strings are names and integers are indices; integers are names too if all names are integers ("1".."4").
  Where the column holds strings of digits and no name (a CSV), they are indices.
* A column must be of one type: strings or integers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayclean.errors import DataError
from rayclean.plugins import did_you_mean

MAX_LABELS = 100_000
"""More different values than this are no label column."""


@dataclass
class LabelCounts:
    """A label value in the data: how often, and where first."""

    count: int
    source: str
    row: int


@dataclass(frozen=True)
class LabelMapping:
    """The label set and, per role, the index of each code; codes of no label are left out."""

    names: list[str]
    codes: dict[str, dict[str, int]]
    unknown: dict[str, dict[str, LabelCounts]]
    named: bool
    """Whether the names were given, so that integers are indices."""

    def explain(self, code: str) -> str:
        """Why a code has no index."""
        return f"unknown label {code[2:]!r}; {did_you_mean(code[2:], self.names[:50])}"


def resolve_labels(
    seen: Mapping[str, Mapping[str, LabelCounts]],
    given: Sequence[str] | None,
    hint: Sequence[str] | None = None,
) -> LabelMapping:
    """The label set of a data set.

    Args:
        seen: role -> code -> where the label column holds it.
        given: `dataset.labels`.
        hint: names that the file gives to integers.

    Raises:
        DataError: strings and integers mixed, or fewer than two classes.
    """
    for role, codes in seen.items():
        _one_type(role, codes)
    names = list(given or hint or _sorted({code for codes in seen.values() for code in codes}))
    indices = {role: _indices(codes, names, bool(given or hint)) for role, codes in seen.items()}
    unknown = {
        role: {c: s for c, s in codes.items() if c not in indices[role]} for role, codes in seen.items()
    }
    found = set(indices["data"].values())
    if len(found) < 2:
        only = f"only {names[found.pop()]!r}" if found else "none"
        values = ", ".join(repr(code[2:]) for code in list(seen["data"])[:10]) or "nothing"
        raise DataError(
            f"the data hold {only} of the labels {names[:10]}; at least two classes are needed. The label column holds "
            f"{values}: check dataset.label, dataset.labels and dataset.unlabelled"
        )
    return LabelMapping(names, indices, unknown, bool(given or hint))


def truth_indices(codes: Mapping[str, int], labels: LabelMapping) -> dict[str, int]:
    """Index of each code in the truth column, read in the same way as labels; values outside the set are left out."""
    return _indices(codes, labels.names, labels.named)


def _one_type(role: str, codes: Mapping[str, LabelCounts]) -> None:
    first = {code[0]: (code[2:], seen) for code, seen in sorted(codes.items(), reverse=True)}
    if len(first) > 1:
        (i, at_i), (s, at_s) = first["i"], first["s"]
        raise DataError(
            f"the label column of the {role} files mixes types: the integer {i} ({at_i.source} row {at_i.row}) and the "
            f"string {s!r} ({at_s.source} row {at_s.row}); write all labels as strings, or all as integers"
        )


def _sorted(codes: set[str]) -> list[str]:
    if all(_is_integer(code[2:]) for code in codes):
        return sorted({code[2:] for code in codes}, key=int)
    return sorted({code[2:] for code in codes})


def _indices(codes: Mapping[str, object], names: Sequence[str], named: bool) -> dict[str, int]:
    by_name = {name: index for index, name in enumerate(names)}
    numbers_are_names = not named or all(_is_integer(name) for name in names)
    digits_are_indices = not any(code[2:] in by_name for code in codes) and all(
        _is_integer(code[2:]) for code in codes
    )
    indices = {}
    for code in codes:
        value = code[2:]
        by_index = named and digits_are_indices if code[0] == "s" else not numbers_are_names
        index = int(value) if by_index else by_name.get(value, -1)
        if 0 <= index < len(names):
            indices[code] = index
    return indices


def _is_integer(text: str) -> bool:
    """Whether a text is an integer as Python writes it; "007" is a name.

    >>> [_is_integer(text) for text in ("3", "-1", "007", "3.0", "x")]
    [True, True, False, False, False]
    """
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and str(int(text)) == text
