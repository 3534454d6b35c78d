"""The label set of a data set, and the index of every label value that its files hold.

* Without `dataset.labels` the set is the sorted values (integers by number), or the names that a Hugging Face
  data set itself gives to its integers.
* With it, strings are names and integers are indices; integers are names too if all names are integers
  ("1".."4"). Where the column holds strings of digits and no name (a CSV), they are indices.
* A column must be of one type: strings or integers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayclean.config import DatasetConfig
from rayclean.errors import ConfigError, DataError
from rayclean.plugins import did_you_mean

_NUMBERS = {1: "one class is", 2: "two classes are"}

MAX_LABELS = 100_000
"""Most different values that a label column may hold."""


@dataclass
class LabelCounts:
    """How often a label value occurs in the data, and where first."""

    count: int
    source: str
    row: int


@dataclass(frozen=True)
class LabelMapping:
    """The label set, and the index of each code that the data hold."""

    names: list[str]
    codes: dict[str, dict[str, int]]
    """role -> code -> index, of codes that are in the label set."""
    unknown: dict[str, dict[str, LabelCounts]]
    """role -> code -> where it occurs, of codes that are not in the label set."""
    names_given: bool
    """Whether the config or the file names the labels, so that integers are indices."""

    def explain(self, code: str) -> str:
        """Why a code has no index."""
        return f"unknown label {code[2:]!r}; {did_you_mean(code[2:], self.names[:50])}"


def resolve_labels(
    counts: Mapping[str, Mapping[str, LabelCounts]],
    given: Sequence[str] | None,
    from_file: Sequence[str] | None = None,
    least: int = 2,
) -> LabelMapping:
    """The label set of a data set.

    Args:
        counts: role -> code -> where the label column holds it.
        given: `dataset.labels`.
        from_file: names that the file itself gives to integers.
        least: fewest classes that the data must hold.

    Raises:
        DataError: strings and integers mixed, or too few classes.
    """
    for role, codes in counts.items():
        _check_one_type(role, codes)
    names_given = bool(given or from_file)
    names = list(given or from_file or _sorted_names({code for codes in counts.values() for code in codes}))
    indices = {role: _indices(codes, names, names_given) for role, codes in counts.items()}
    unknown = {
        role: {code: places for code, places in codes.items() if code not in indices[role]}
        for role, codes in counts.items()
    }
    found = set(indices["data"].values())
    if len(found) < least:
        only = f"only {names[found.pop()]!r}" if found else "none"
        values = ", ".join(repr(code[2:]) for code in list(counts["data"])[:10]) or "nothing"
        raise DataError(
            f"the data hold {only} of the labels {names[:10]}; at least {_NUMBERS[least]} needed. The label "
            f"column holds {values}: check dataset.label, dataset.labels and dataset.unlabelled"
        )
    return LabelMapping(names, indices, unknown, names_given)


def truth_indices(codes: Mapping[str, int], labels: LabelMapping) -> dict[str, int]:
    """Index of each code in the truth column, by the rules for labels; unknown codes are left out."""
    return _indices(codes, labels.names, labels.names_given)


def noise_indices(dataset: DatasetConfig, names: Sequence[str]) -> dict[int, int]:
    """`dataset.noise.mapping` (label -> wrong label) as indices; {} without noise.

    Raises:
        ConfigError: it names an unknown label.
    """
    if dataset.noise is None:
        return {}
    indices = {name: index for index, name in enumerate(names)}
    for name in (*dataset.noise.mapping, *dataset.noise.mapping.values()):
        if name not in indices:
            raise ConfigError(f"dataset.noise.mapping: unknown label {name!r}; {did_you_mean(name, names)}")
    return {indices[label]: indices[wrong] for label, wrong in dataset.noise.mapping.items()}


def _check_one_type(role: str, codes: Mapping[str, LabelCounts]) -> None:
    examples = {code[0]: (code[2:], counts) for code, counts in sorted(codes.items(), reverse=True)}
    if len(examples) > 1:
        (integer, first), (string, other) = examples["i"], examples["s"]
        raise DataError(
            f"the label column of the {role} files mixes types: the integer {integer} ({first.source} row "
            f"{first.row}) and the string {string!r} ({other.source} row {other.row}); write all labels as "
            "strings, or all as integers"
        )


def _sorted_names(codes: set[str]) -> list[str]:
    """Values of codes in the order of the alphabet, or of numbers where all are integers."""
    if all(_is_integer(code[2:]) for code in codes):
        return sorted({code[2:] for code in codes}, key=int)
    return sorted({code[2:] for code in codes})


def _indices(codes: Mapping[str, object], names: Sequence[str], names_given: bool) -> dict[str, int]:
    by_name = {name: index for index, name in enumerate(names)}
    numbers_are_names = not names_given or all(_is_integer(name) for name in names)
    digits_are_indices = not any(code[2:] in by_name for code in codes) and all(
        _is_integer(code[2:]) for code in codes
    )
    indices = {}
    for code in codes:
        value = code[2:]
        by_index = names_given and digits_are_indices if code[0] == "s" else not numbers_are_names
        index = int(value) if by_index else by_name.get(value, -1)
        if 0 <= index < len(names):
            indices[code] = index
    return indices


def _is_integer(text: str) -> bool:
    """Whether a text is an integer in Python's spelling; "007" is a name.

    >>> [_is_integer(text) for text in ("3", "-1", "007", "3.0", "x")]
    [True, True, False, False, False]
    """
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and str(int(text)) == text
