"""The interface of a form of labels: one class, a set of classes, or a tag per token.

What differs between the forms is here and nowhere else in this package: how a value of the label column is read, which
classes it names, how it is stored, counted, and made wrong for experiments. The passes of `load` know a label as

    value (of the file)  --parse-->  staged label (a string)  --store-->  stored label (`schema.LABEL_TYPES`)

between which the codes (`row_validation.py`) of all staged labels make the label set. `LABEL_FORMS` is the registry.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.class_names import class_key
from rayclean.config import DatasetConfig
from rayclean.datasets import LABEL_FORMS
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.functional.noise import Kind
from rayclean.functional.types import Ids
from rayclean.plugins import resolve
from rayclean.schema import LABEL_TYPES, FormName

_PYTHON_VALUE = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?|True|False|None)"""
_PYTHON_LIST = re.compile(rf"\s*\[\s*(?:{_PYTHON_VALUE}(?:\s*,\s*{_PYTHON_VALUE})*\s*,?\s*)?\]\s*")


@dataclass(frozen=True)
class StoredLabels:
    """Labels of B rows as they are stored."""

    values: pa.Array
    """[B] of the form's type; null where the label is not known."""
    unknown: npt.NDArray[np.bool_]
    """[B] Whether the label names something that is not in the label set."""


@dataclass(frozen=True)
class InjectedNoise:
    """The noise that a config asks for, with all that is global resolved."""

    kind: Kind
    rate: float
    exact: bool
    seed: int
    classes: int
    """K."""
    mapping: dict[int, int]
    """Class -> wrong class, for `asym_map`."""
    shares: tuple[float, ...]
    """[K] Share of the rows of `dataset.path` whose label names a class; of tags, spans per row."""


class LabelForm:
    """Base class of the forms. It is built once per load and travels to the workers."""

    name: ClassVar[FormName]
    holds: ClassVar[str]
    """What a label column of this form holds, for messages."""
    advice: ClassVar[str] = "check which column it is"
    """What to do about a column of another form, beside choosing another task."""
    least_classes: ClassVar[int] = 1
    """Fewest classes that the data must hold."""
    one_code: ClassVar[bool] = False
    """Whether a label has exactly one code, so that counts of codes are counts of rows."""
    reads_columns: ClassVar[bool] = False
    """Whether `dataset.label` may name several columns."""
    reads_tokens: ClassVar[bool] = False
    """Whether the text is a column of tokens (`dataset.tokens`)."""
    noises: ClassVar[tuple[str, ...]] = ()
    """Kinds of noise that exist for this form."""
    stops: ClassVar[Mapping[str, str]] = {}
    """Reasons for rejecting a row that stop the whole load, since the config must be wrong -> what to change."""

    def __init__(self, config: DatasetConfig):
        """Take from the config what concerns labels."""
        self.names: list[str] | None = list(config.labels) if config.labels else None
        """The label set where the config names it."""

    def classes_of(self, names: Sequence[str]) -> list[str]:
        """The classes of the names that a file gives to its values."""
        return list(names)

    # first pass: one row

    def parse(self, value: Any, tokens: Sequence[str]) -> str | RejectedRow | None:
        """The staged label of a row, why it is unusable, or None if there is no label.

        Args:
            value: of the label or truth column; a tuple of values where the config names several columns.
            tokens: of the row; () without tokens.
        """
        raise NotImplementedError

    def codes(self, staged: str) -> Sequence[str]:
        """The codes that a staged label names, one for each time that it is counted."""
        raise NotImplementedError

    def misfit(self, value: Any) -> FormName | None:
        """The form that a value of the label column has, if it cannot be of this one."""
        return None

    def only_key(self, staged: str) -> str | None:
        """The class key of a staged label that names one class, to be looked up in `dataset.unlabelled`; None of any other."""
        codes = self.codes(staged)
        return class_key(codes[0][2:]) if len(codes) == 1 else None

    # second pass: the rows of a shard

    def store(self, staged: pa.ChunkedArray, indices: Mapping[str, int]) -> StoredLabels:
        """Stored labels of staged ones.

        Args:
            staged: [B] strings.
            indices: code -> index, of codes that are in the label set.
        """
        raise NotImplementedError

    def corrupt(self, ids: Ids, labels: pa.Array, noise: InjectedNoise) -> pa.Array:
        """Labels [N] with noise, none of them null; called shard by shard where the kind of noise allows it."""
        raise NotImplementedError

    def count(self, labels: pa.Array) -> list[list[int]]:
        """[index of a class, how often labels name it], where they do."""
        raise NotImplementedError

    def sums(self, staged: pa.ChunkedArray, labels: pa.Array) -> dict[str, int]:
        """Further numbers about labels that are added up over shards, for `figures`."""
        return {}

    # export: labels as people read and write them

    @property
    def stored_type(self) -> pa.DataType:
        """Type of a stored label."""
        return LABEL_TYPES[self.name]

    def spelled(self, labels: pa.Array, names: Sequence[str]) -> pa.Array:
        """Stored labels [N] in words: strings, or lists of them; null where there is none.

        Args:
            labels: as they are stored.
            names: [K] of the classes.
        """
        raise NotImplementedError

    def rewritten(self, before: Any, label: Any, codes: Sequence[str], in_file: Sequence[str]) -> Any:
        """The value of the label column that says a label, of the type and in the style of the value before; the inverse of
        `parse`.

        Args:
            before: the value of the row, which is not null.
            label: the new label, as it is stored.
            codes: [K] the code by which the file writes each class.
            in_file: names that the file itself gives to the numbers of the column; () if none.
        """
        raise NotImplementedError

    # driver: metrics and reports

    def figures(self, examples: Mapping[str, int], test: Mapping[str, int]) -> dict[str, Any]:
        """What the metrics of `load` say about labels beside the counts of the classes, from the sums of both."""
        return {}

    def warnings(self, examples: Mapping[str, int], test: Mapping[str, int]) -> list[str]:
        """What a reader should know about the labels."""
        return []

    def transitions(self, truth: pa.Array, given: pa.Array, classes: int) -> list[list[int]]:
        """What noise made of labels, [..., count], for `noise_rates`."""
        raise NotImplementedError

    def noise_rates(
        self, transitions: Counter[tuple[int, ...]], names: Sequence[str], noise: InjectedNoise
    ) -> dict[str, Any]:
        """`truth/noise.json`: expected and realised rate of injected noise, in total and per class.

        Args:
            transitions: of all shards, added up.
            names: [K] of the classes.
            noise: what was asked for.
        """
        raise NotImplementedError


def label_form(name: FormName, config: DatasetConfig) -> LabelForm:
    """The form of labels that a task reads."""
    form: LabelForm = resolve("form of labels", LABEL_FORMS, name)(config)
    return form


def described_form(name: FormName) -> str:
    """What a label column of a form holds, for messages."""
    assert name in get_args(FormName)
    return str(resolve("form of labels", LABEL_FORMS, name).holds)


def value_like(before: Any, code: str, in_file: Sequence[str] = ()) -> Any:
    """The value of a code (`row_validation.label_code`) in the type of another value.

    >>> value_like("x", "i:3"), value_like(0, "i:3"), value_like(0.0, "i:3"), value_like(0, "s:no", ["yes", "no"])
    ('3', 3, 3.0, 1)
    """
    text = code[2:]
    if isinstance(before, bool):
        return text == "true"
    if isinstance(before, int) and in_file and code[0] == "s":
        return [class_key(name) for name in in_file].index(class_key(text))
    return text if isinstance(before, str) else type(before)(text)


def distinct(staged: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The different values of a column, and the number [B] of each row's value; -1 for null."""
    encoded = staged.combine_chunks().dictionary_encode()
    numbers = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_pylist(), numbers


def names_in_lists(labels: pa.Array, names: Sequence[str]) -> pa.Array:
    """Lists [N] of names for lists of their positions; null stays null."""
    labels = pa.concat_arrays([labels])  # without an offset
    values = pa.array(names, pa.string()).take(labels.values)
    return pa.ListArray.from_arrays(labels.offsets, values, mask=labels.is_null())


def only_item(value: Any) -> Any:
    """The item of a list of one, as tools that allow several labels write one; any other value as it is.

    >>> only_item(["spam"]), only_item('["spam"]'), only_item("spam"), only_item(["a", "b"])
    ('spam', 'spam', 'spam', ['a', 'b'])
    """
    items = parsed_list(value) if isinstance(value, str) else value
    return items[0] if isinstance(items, list) and len(items) == 1 else value


def parsed_list(text: str) -> list[Any] | None:
    """The list that a text writes in JSON or as Python does, as the cells of a CSV hold lists; None for any other text.

    >>> parsed_list('["a", "b"]'), parsed_list("['a', 'b']"), parsed_list("[unknown]"), parsed_list("a b")
    (['a', 'b'], ['a', 'b'], None, None)
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _python_list(text)
    return found if isinstance(found, list) else None


def written_list(before: str, values: list[Any]) -> str:
    """A list in a text, as another text writes one.

    >>> print(written_list('["a"]', ["b", "c"]), written_list("['a']", ["b", "c"]))
    ["b", "c"] ['b', 'c']
    """
    try:
        json.loads(before)
    except (ValueError, RecursionError):
        return repr(values)
    return json.dumps(values, ensure_ascii=False)


def _python_list(text: str) -> list[Any] | None:
    """The plain values of a list that `str` has written; two strings side by side are no value."""
    if _PYTHON_LIST.fullmatch(text) is None:
        return None
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return None
    return found if isinstance(found, list) else None
