"""A look at the labels and texts of the chosen columns: how many of each there are, and what looks odd."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from rayclean.class_names import (
    NO_LABELS,
    PERHAPS_NO_LABELS,
    class_key,
    difference,
    is_misspelling,
    is_number,
    near_groups,
)
from rayclean.config import DatasetConfig
from rayclean.datasets.columns import SourceColumns, names_of
from rayclean.datasets.label_forms import LabelForm, label_form
from rayclean.datasets.labels import MAX_LABELS
from rayclean.datasets.rejected_rows import NULL_LABEL, RejectedRow
from rayclean.datasets.row_validation import RowValidator
from rayclean.first_look.reading import FirstRows
from rayclean.hashing import text_group
from rayclean.schema import FormName

_COMPARED = 300
"""Most classes whose names are compared pair by pair."""


@dataclass(frozen=True)
class LabelLook:
    """What the first rows hold in the columns of text, label and key."""

    rows: int
    """Rows read."""
    is_whole: bool
    """Whether these are all rows of the data set."""
    form: FormName
    classes: dict[str, int]
    """Class -> how many labels name it, the most frequent first."""
    rejected: dict[str, int]
    """Reason why `load` would leave rows out -> how many, the most frequent first."""
    unlabelled: tuple[int | str, ...]
    """Values of the label column that mean no label; "" for null and blank."""
    perhaps_unlabelled: tuple[str, ...]
    """Values that may mean no label, or be a class."""
    near: tuple[tuple[str, str, str], ...]
    """Two names of classes, and by what alone they differ."""
    misspelled: tuple[tuple[str, str], ...]
    """Two names of classes that may be one with a slip of the pen, the rarer one first."""
    repeated_keys: int
    """Rows whose key came before."""
    copies: int
    """Rows whose text came before."""
    conflicting: int
    """Texts that come with different labels."""
    words: tuple[int, int, int]
    """Words of a text: half of the texts have at most so many, 95 % of them, all of them."""

    @property
    def labelled(self) -> int:
        """How often a class is named by the labels."""
        return sum(self.classes.values())

    @property
    def counts_from(self) -> int | None:
        """0 or 1 where the classes are numbers without a gap from there; None otherwise."""
        keys = {class_key(name) for name in self.classes if name not in map(str, self.unlabelled)}
        if len(keys) < 2 or not all(map(is_number, keys)):
            return None
        numbers = sorted(map(int, keys))
        return (
            numbers[0]
            if numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            else None
        )

    def rarer_than(self, count: int) -> list[str]:
        """Classes that fewer labels name, the rarest first."""
        left_out = {str(value) for value in self.unlabelled}
        return [
            name for name in reversed(self.classes) if self.classes[name] < count and name not in left_out
        ]


def look_at_labels(first: FirstRows, dataset: DatasetConfig, form_name: FormName) -> LabelLook:
    """Read the rows once more, in the columns of text, label and key alone.

    Args:
        first: where the rows come from.
        dataset: names the columns.
        form_name: form of the labels.

    Raises:
        DataError: a file cannot be read.
    """
    form = label_form(form_name, dataset)
    text = () if form.reads_tokens else names_of(dataset.text)
    columns = SourceColumns(
        text, dataset.label, None, dataset.id, dataset.tokens if form.reads_tokens else None
    )
    validate = RowValidator(dataset, columns, "data", form)
    codes, rejected = Counter[str](), Counter[str]()
    texts, labels, keys, words = array("q"), array("q"), array("q"), array("q")
    for values in first.read(columns.names):
        checked = validate(values)
        if isinstance(checked, RejectedRow):
            rejected[checked.reason] += 1
            continue
        assert checked.label is not None
        for code in form.codes(checked.label):
            if code in codes or len(codes) < MAX_LABELS:
                codes[code] += 1
        texts.append(text_group(checked.text))
        labels.append(hash(_comparable(form, checked.label)))
        words.append(len(checked.text.split()))
        if checked.key is not None:
            keys.append(hash(checked.key))
    rejected.update(first.rejected)
    classes = _classes(codes)
    copies, conflicting = _count_copies(_numbers(texts), _numbers(labels))
    none, perhaps = _no_labels(classes, rejected[NULL_LABEL])
    near, misspelled = _alike(classes)
    return LabelLook(
        first.rows, first.is_whole, form_name, classes, dict(rejected.most_common()), none, perhaps, near, misspelled,
        len(keys) - len(np.unique(_numbers(keys))), copies, conflicting, _percentiles(_numbers(words)),
    )  # fmt: skip


def _comparable(form: LabelForm, staged: str) -> tuple[str, ...]:
    """A label as it is compared, however it is written."""
    return (
        (staged,) if form.reads_tokens else tuple(sorted(class_key(code[2:]) for code in form.codes(staged)))
    )


def _classes(codes: Counter[str]) -> dict[str, int]:
    """Classes by their keys, the most frequent first."""
    found = Counter[str]()
    for code, count in codes.items():
        found[class_key(code[2:])] += count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _numbers(values: "array[int]") -> npt.NDArray[np.int64]:
    return np.frombuffer(values, np.int64) if values else np.empty(0, np.int64)


def _count_copies(texts: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> tuple[int, int]:
    """How many texts came before, and how many different texts have more than one label."""
    if not len(texts):
        return 0, 0
    pairs = np.unique(np.stack([texts, labels], axis=1), axis=0)
    different, labels_of_each = np.unique(pairs[:, 0], return_counts=True)
    return len(texts) - len(different), int((labels_of_each > 1).sum())


def _percentiles(words: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    if not len(words):
        return 0, 0, 0
    half, most, longest = np.percentile(words, [50, 95, 100], method="higher")
    return int(half), int(most), int(longest)


def _no_labels(classes: dict[str, int], blank: int) -> tuple[tuple[int | str, ...], tuple[str, ...]]:
    """Values that mean no label, and those that may."""
    keys = [name for name in classes if is_number(name)]
    only_numbers = len(keys) == len(classes) > 2
    negative = [int(name) for name in keys if int(name) < 0]
    none: list[int | str] = [""] if blank else []
    none += [name for name in classes if name.lower() in NO_LABELS]
    if negative == [-1] and (only_numbers or len(keys) < len(classes)):  # not -1 and 1, which are two classes
        none.append(-1)
    return tuple(none), tuple(name for name in classes if name.lower() in PERHAPS_NO_LABELS)


def _alike(classes: dict[str, int]) -> tuple[tuple[tuple[str, str, str], ...], tuple[tuple[str, str], ...]]:
    """Names that differ by next to nothing, and names that may be slips of the pen."""
    groups: Sequence[Sequence[str]] = near_groups(classes)
    near = [
        (group[0], other, difference(group[0], other))
        for group in groups
        if len(group) > 1
        for other in group[1:]
    ]
    names = [group[0] for group in groups][:_COMPARED]
    pairs = [
        sorted(pair, key=lambda name: classes[name])
        for pair in combinations(names, 2)
        if is_misspelling(*pair)
    ]
    return tuple(near), tuple((rarer, other) for rarer, other in pairs)
