"""The label set of a data set, and the index of every label value that its files hold.

* The names of the classes are those of `dataset.labels`; without it, those that the files give themselves (a `ClassLabel`
  of the Hugging Face format); without both, the values of the training data. Development and test files never add a class.
* A value names a class by what it means (`rayclean.class_names`): however a class is written, as text, number or boolean, in
  whatever format.
* Where `dataset.labels` names the classes, a column of whole numbers none of which is a name holds positions in it, which
  count from 0 or from `dataset.first_label` (`label_positions.py`).
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rayclean.class_names import (
    NO_LABELS,
    PERHAPS_NO_LABELS,
    ClassNames,
    class_key,
    is_number,
    is_numeric,
    near_groups,
    spelling,
    visible,
)
from rayclean.config import DatasetConfig
from rayclean.datasets.label_positions import (
    PositionRule,
    check_measure,
    check_numbers_and_names,
    check_shift,
)
from rayclean.errors import ConfigError, DataError

_NUMBERS = {1: "one class is", 2: "two classes are"}
_NAMES_SHOWN = 50

MAX_LABELS = 100_000
"""Most different values that a label column may hold."""

LABEL_CODES_FILE = "label_codes.json"
"""File in `load/` that says how the files write the classes (`frequent_codes`)."""


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
    classes: ClassNames
    """The names, to look values up."""
    positions: PositionRule
    """When whole numbers are positions in the label set."""
    ways: dict[str, dict[str, int]]
    """name -> the value as the files write it -> how often, of classes that are not simply written by their name."""
    counts: dict[str, int]
    """name -> how often the label column of `dataset.path` names it."""

    def explain(self, code: str) -> str:
        """Why a code has no index."""
        return f"unknown label {visible(code[2:])}; {self.classes.hint(code[2:])}{unlabelled_hint(code)}"


def unlabelled_hint(code: str) -> str:
    """The end of a message about a value outside the label set that people write for no label; "" for any other value.

    >>> unlabelled_hint("i:-1"), unlabelled_hint("s:sprots")
    ('. If it means no label, set dataset.unlabelled = [-1]', '')
    """
    key = class_key(code[2:])
    number = is_number(key) and key.startswith("-")
    if not number and key.lower() not in NO_LABELS | PERHAPS_NO_LABELS:
        return ""
    return f". If it means no label, set dataset.unlabelled = [{key if number else json.dumps(key, ensure_ascii=False)}]"


def resolve_labels(
    counts: Mapping[str, Mapping[str, LabelCounts]],
    given: Sequence[str] | None,
    from_file: Sequence[str] = (),
    least: int = 2,
    *,
    numberings: Sequence[Sequence[str]] = (),
    first_label: int | None = None,
    merge: bool = False,
) -> LabelMapping:
    """The label set of a data set.

    Args:
        counts: role -> code -> where the label column holds it.
        given: `dataset.labels`.
        from_file: names that the training files themselves give to their classes.
        least: fewest classes that the data must hold.
        numberings: the names of the values in the order of their numbers, as each of the training files gives them; in
            `from_file` those of `dataset.unlabelled` are left out, so that positions there are no numbers.
        first_label: `dataset.first_label`.
        merge: `dataset.merge_labels`.

    Raises:
        ConfigError: `dataset.labels` and the files name other classes, or `first_label` has no names to count.
        DataError: numbers and names that seem to stand for each other, numbers that seem to count from 1, or too few classes.
    """
    if given and from_file:
        check_same_names(given, from_file)
    totals = Counter[str]()
    for code, places in counts["data"].items():
        totals[class_key(code[2:])] += places.count
    named = bool(given or from_file)
    if first_label is not None and not named:
        raise ConfigError(
            f"dataset.first_label = {first_label} says which number the first name of dataset.labels has: set dataset.labels, or "
            "remove first_label, since without names every number is the name of its class"
        )
    names = list(given) if given else _names(from_file, totals, merge)
    classes = ClassNames(names, merge)
    orders = [*([names] if given or not numberings else ()), *numberings]
    positions = PositionRule(tuple(orders[0]), named, first_label, others=tuple(map(tuple, orders[1:])))
    indices = {}
    for role, codes in counts.items():  # the training data first
        indices[role] = label_indices(codes, classes, positions, f"the label column of the {role} files")
        if role == "data" and positions.apply_to({class_key(code[2:]) for code in codes}):
            positions = replace(positions, is_known=True)
    unknown = {
        role: {code: places for code, places in codes.items() if code not in indices[role]}
        for role, codes in counts.items()
    }
    beyond = f"i:{max(map(len, numberings), default=len(from_file))}"
    if beyond in unknown["data"] and 0 not in indices["data"].values():
        raise DataError(
            f"the files name {len(from_file)} classes, and their label column holds the number {beyond[2:]} and never 0 "
            f"({names[0]!r}), as if it counted from 1: then every row would have another class. Write the numbers anew, "
            "from 0, or the names themselves"
        )
    found = set(indices["data"].values())
    if len(found) < least:
        only = f"only {names[found.pop()]!r}" if found else "none"
        values = ", ".join(visible(code[2:]) for code in list(counts["data"])[:10]) or "nothing"
        raise DataError(
            f"the data hold {only} of the labels {names[:10]}; at least {_NUMBERS[least]} needed. The label "
            f"column holds {values}: check dataset.label, dataset.labels and dataset.unlabelled"
        )
    in_data = Counter[str]()
    for code, index in indices["data"].items():
        in_data[names[index]] += counts["data"][code].count
    return LabelMapping(
        names, indices, unknown, classes, positions, _ways(counts, indices, names), dict(in_data)
    )


def label_indices(
    codes: Iterable[str], classes: ClassNames, positions: PositionRule, column: str
) -> dict[str, int]:
    """Index of each code of a label or truth column; codes that name no class are left out.

    Args:
        codes: all that the column holds in the files of one role.
        classes: the label set.
        positions: when numbers are positions in the label set.
        column: for messages, like "the label column of the test files".

    Raises:
        DataError: numbers seem to count from 1, or from another number than the classes.
    """
    keys = {code: class_key(code[2:]) for code in codes}
    if positions.apply_to(keys.values()):
        numbers = {code: int(key) for code, key in keys.items()}
        first = positions.first(numbers.values(), column)
        positions.check_order(numbers.values(), first, column)
        named = [classes.index(name) for name in positions.names]
        places = {code: n - first for code, n in numbers.items() if 0 <= n - first < len(named)}
        return {code: index for code, place in places.items() if (index := named[place]) is not None}
    check_shift(classes.names, keys.values(), column)
    found = {code: classes.index(code[2:]) for code in keys}
    return {code: index for code, index in found.items() if index is not None}


def frequent_codes(
    counts: Mapping[str, Mapping[str, LabelCounts]], labels: LabelMapping
) -> dict[str, list[str | None]]:
    """How the files of each role write the classes: role -> [K] the most frequent code of each; None of one that never occurs."""
    found: dict[str, list[str | None]] = {}
    for role, indices in labels.codes.items():
        codes: list[str | None] = [None] * len(labels.names)
        for code in sorted(indices, key=lambda code: (counts[role][code].count, code)):
            codes[indices[code]] = code
        found[role] = codes
    return found


def check_same_names(given: Sequence[str], from_file: Sequence[str]) -> None:
    """Stop unless `dataset.labels` holds the names that the files give themselves, in whatever order.

    Raises:
        ConfigError: it does not; both are listed.
    """
    if {class_key(name) for name in given} != {class_key(name) for name in from_file}:
        raise ConfigError(
            f"dataset.labels = {list(given)[:_NAMES_SHOWN]}, but the files themselves name their classes "
            f"{list(from_file)[:_NAMES_SHOWN]}: labels are read by these names, so dataset.labels may only put them in another "
            "order. Write them in your order or remove dataset.labels; dataset.words gives classes other words in prompts"
        )


def distinct_names(names: Iterable[str], without: Iterable[str] = ()) -> list[str]:
    """Names as they are shown, in their order, each class once.

    Args:
        names: any number of names.
        without: class keys of names that are left out, like those of `dataset.unlabelled`.
    """
    left_out = {"", *without}
    found: dict[str, str] = {}
    for name in names:
        if class_key(name) not in left_out:
            found.setdefault(class_key(name), spelling(name))
    return list(found.values())


def noise_indices(dataset: DatasetConfig, names: Sequence[str]) -> dict[int, int]:
    """`dataset.noise.mapping` (label -> wrong label) as indices; {} without noise.

    Raises:
        ConfigError: it names an unknown label, or maps a label to itself or to two others.
    """
    if dataset.noise is None:
        return {}
    classes, where = ClassNames(names), "dataset.noise.mapping"
    found: dict[int, int] = {}
    for label, wrong in dataset.noise.mapping.items():
        index, wrong_index = classes.require(label, where), classes.require(wrong, where)
        if index == wrong_index or index in found:
            raise ConfigError(
                f"{where}: {label!r} is mapped to itself or twice, as names are compared by what they mean; keep one other label"
            )
        found[index] = wrong_index
    return found


def _names(from_file: Sequence[str], totals: Counter[str], merge: bool) -> list[str]:
    """The names of the files, otherwise the values of the data in the order of the alphabet, or of numbers where all are."""
    if not from_file:
        check_numbers_and_names(totals)
        check_measure(totals)
    names = list(from_file) or sorted(totals)
    if merge:
        frequency = {name: totals[class_key(name)] for name in names}
        groups = near_groups(names)
        names = [max(sorted(group), key=lambda name: frequency[name]) for group in groups]
    if from_file:
        return names
    return sorted(names, key=float) if all(map(is_numeric, names)) else sorted(names)


def _ways(
    counts: Mapping[str, Mapping[str, LabelCounts]],
    indices: Mapping[str, Mapping[str, int]],
    names: Sequence[str],
) -> dict[str, dict[str, int]]:
    """How those classes are written that are not always written by their name, the most frequent way first."""
    written: dict[int, Counter[str]] = {}
    for role, codes in indices.items():
        for code, index in codes.items():
            way = visible(code[2:]) if code[0] == "s" else code[2:]
            written.setdefault(index, Counter())[way] += counts[role][code].count
    return {
        names[index]: dict(ways.most_common())
        for index, ways in sorted(written.items())
        if not ways.keys() <= {visible(names[index])} and not ways.keys() <= {names[index]}
    }
