"""Labels that are sets of classes: lists, texts with a separator, lists in JSON, or a column of 0 and 1 per class.

A staged label is the sorted list of the codes of its classes in JSON, each once: `["s:anger", "s:joy"]`. An empty list says
that none of the classes applies, which is a label like any other.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.class_names import class_key, is_numeric, spelling
from rayclean.config import DatasetConfig
from rayclean.datasets.columns import names_of
from rayclean.datasets.label_forms import (
    InjectedNoise,
    LabelForm,
    StoredLabels,
    distinct,
    names_in_lists,
    parsed_list,
    value_like,
    written_list,
)
from rayclean.datasets.rejected_rows import RejectedRow, shorten_value
from rayclean.datasets.row_validation import label_code, unlabelled_keys
from rayclean.functional.set_noise import added_share, corrupt_sets
from rayclean.functional.types import Ids
from rayclean.schema import FormName

_BITS = {"0": False, "false": False, "1": True, "true": True}
_NO_LIST, _NO_TEXT = "label is no list", "label is no text with the separator"


class ClassSets(LabelForm):
    """A set of classes per example."""

    name = "classes"
    holds = "a set of classes per row"
    advice = "set dataset.label_separator if a text names several classes"
    reads_columns = True
    noises = ("sym",)
    stops: ClassVar[Mapping[str, str]] = {
        _NO_LIST: "write every label as a list, or set dataset.label_separator if all of them are texts",
        _NO_TEXT: "write every label as a text, or remove dataset.label_separator if all of them are lists",
    }

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        if isinstance(config.label, tuple):
            self.names = list(config.labels or config.label)
        self.separator = config.label_separator
        self.unlabelled = unlabelled_keys(config)

    def parse(self, value: Any, tokens: Sequence[str]) -> str | RejectedRow | None:
        """The codes of the classes, as one text."""
        if isinstance(value, tuple):
            codes = self._of_columns(value)
        else:
            items = self._items(value)
            codes = _codes(items) if isinstance(items, list) else items
        return json.dumps(sorted(codes), ensure_ascii=False) if isinstance(codes, set) else codes

    def _items(self, value: Any) -> list[Any] | RejectedRow | None:
        """The items of a list or text; None for null, NaN and blank texts."""
        if value is None or value != value or (isinstance(value, str) and not spelling(value)):
            return None
        if isinstance(value, str) and self.separator is not None:
            return [part for part in value.split(self.separator) if spelling(part)]
        found = parsed_list(value) if isinstance(value, str) else value
        if isinstance(found, list) and self.separator is None:
            return found
        if not isinstance(value, list) and class_key(str(value)) in self.unlabelled:
            return [value]
        return RejectedRow(_NO_LIST if self.separator is None else _NO_TEXT, shorten_value(value))

    def _of_columns(self, cells: tuple[Any, ...]) -> set[str] | RejectedRow | None:
        """The classes whose columns hold 1 or true; None if all cells are null."""
        assert self.names is not None, "several label columns without names"
        codes: set[str] = set()
        missing = []
        for name, cell in zip(self.names, cells, strict=True):
            code = label_code(cell)
            if code is None:
                missing.append(name)
                continue
            bit = _BITS.get(class_key(code[2:])) if isinstance(code, str) else None
            if bit is None:
                return RejectedRow("label column holds neither 0 nor 1", f"{name}: {shorten_value(cell)}")
            if bit:
                codes.add(f"s:{name}")
        if len(missing) == len(cells):
            return None
        return RejectedRow("null label", f"column {missing[0]}") if missing else codes

    def codes(self, staged: str) -> Sequence[str]:
        """The code of each class."""
        found: list[str] = json.loads(staged)
        return found

    def misfit(self, value: Any) -> FormName | None:
        """A number, or a text that is neither divided nor a list, is one class."""
        plain = isinstance(value, str) and self.separator is None and parsed_list(value) is None
        return "class" if plain or isinstance(value, int | float) else None

    def store(self, staged: pa.ChunkedArray, indices: Mapping[str, int]) -> StoredLabels:
        """Sorted indices of the classes."""
        texts, numbers = distinct(staged)
        sets: list[list[int] | None] = []
        unknown = []
        for text in texts:
            codes = json.loads(text)
            unknown.append(not all(code in indices for code in codes))
            sets.append(None if unknown[-1] else sorted({indices[code] for code in codes}))
        table = pa.array([*sets, None], pa.list_(pa.int32()))
        places = np.where(numbers < 0, len(sets), numbers)
        return StoredLabels(table.take(pa.array(places)), np.array([*unknown, False])[places])

    def corrupt(self, ids: Ids, labels: pa.Array, noise: InjectedNoise) -> pa.Array:
        """Sets of which some classes were dropped and to which others were added (`set_noise.py`)."""
        shares = np.array(noise.shares)
        return _sets(corrupt_sets(ids, _bits(labels, noise.classes), shares, noise.rate, noise.seed))

    def spelled(self, labels: pa.Array, names: Sequence[str]) -> pa.Array:
        """Lists of the names of the classes."""
        return names_in_lists(labels, names)

    def rewritten(self, before: Any, label: Any, codes: Sequence[str], in_file: Sequence[str]) -> Any:
        """The classes as a list, a text with the separator, a list in JSON, or bits of several columns."""
        if isinstance(before, tuple):
            return tuple(value_like(cell, f"i:{int(k in label)}") for k, cell in enumerate(before))
        if isinstance(before, str) and self.separator is not None:
            return self.separator.join(codes[k][2:] for k in label)
        items = parsed_list(before) if isinstance(before, str) else before
        like = next(iter(items or ()), 0 if in_file or all(code[0] == "i" for code in codes) else "")
        values = [value_like(like, codes[k], in_file) for k in label]
        return written_list(before, values) if isinstance(before, str) else values

    def count(self, labels: pa.Array) -> list[list[int]]:
        """[index, examples that the class applies to]."""
        named = pc.list_flatten(labels).to_numpy()
        counted: list[list[int]] = np.column_stack(np.unique(named, return_counts=True)).tolist()
        return counted

    def sums(self, staged: pa.ChunkedArray, labels: pa.Array) -> dict[str, int]:
        """Labelled rows, classes in all of their sets, and empty sets."""
        sizes = pc.list_value_length(labels.drop_null()).to_numpy()
        return {"labelled": len(sizes), "classes": int(sizes.sum()), "empty": int((sizes == 0).sum())}

    def figures(self, examples: Mapping[str, int], test: Mapping[str, int]) -> dict[str, Any]:
        """Mean size of the sets of the examples, and the share of empty ones."""
        labelled = max(examples["labelled"], 1)
        return {
            "classes_per_example": round(examples["classes"] / labelled, 4),
            "empty_share": round(examples["empty"] / labelled, 4),
        }

    def transitions(self, truth: pa.Array, given: pa.Array, classes: int) -> list[list[int]]:
        """[class, whether it applies, whether it is given, examples]."""
        before, after = _bits(truth, classes), _bits(given, classes)
        kinds = [(true, is_given) for true in (0, 1) for is_given in (0, 1)]
        counts = [((before == true) & (after == is_given)).sum(axis=0) for true, is_given in kinds]
        return [
            [c, *kind, int(count[c])]
            for c in range(classes)
            for kind, count in zip(kinds, counts, strict=True)
        ]

    def noise_rates(
        self, transitions: Counter[tuple[int, ...]], names: Sequence[str], noise: InjectedNoise
    ) -> dict[str, Any]:
        """Rates as shares of the bits (example, class), and of the examples that a class applies to."""
        table = np.zeros((len(names), 2, 2), np.int64)
        for key, count in transitions.items():
            table[key] += count
        examples = int(table[0].sum()) if names else 0
        applies, dropped, added = table[:, 1].sum(axis=1), table[:, 1, 0], table[:, 0, 1]
        shares = applies / max(examples, 1)
        expected = shares * noise.rate + (1 - shares) * added_share(np.array(noise.shares), noise.rate)

        def of_class(counts: npt.NDArray[np.int64]) -> dict[str, float | None]:
            return {name: counts[i] / applies[i] if applies[i] else None for i, name in enumerate(names)}

        bits, ones = max(examples * len(names), 1), max(int(applies.sum()), 1)
        return {
            "kind": noise.kind,
            "requested_rate": noise.rate,
            # of all bits (example, class)
            "expected_rate": float(expected.mean()),
            "realised_rate": int(dropped.sum() + added.sum()) / bits,
            "seed": noise.seed,
            "examples": examples,
            "per_class": {name: (dropped[i] + added[i]) / max(examples, 1) for i, name in enumerate(names)},
            # as shares of the bits that are 1 in truth
            "dropped": int(dropped.sum()) / ones,
            "added": int(added.sum()) / ones,
            "dropped_per_class": of_class(dropped),
            "added_per_class": of_class(added),
            # [class, whether it applies, whether it is given, examples]
            "transitions": [[*key, count] for key, count in sorted(transitions.items())],
        }


def label_columns(config: DatasetConfig) -> dict[str, tuple[str, ...]]:
    """The options of a config that name several columns of 0 and 1, and these columns."""
    options = {
        "label": config.label,
        "truth": config.truth,
        "dev.label": config.dev.label,
        "test.label": config.test.label,
    }
    return {name: names_of(columns) for name, columns in options.items() if isinstance(columns, tuple)}


def _codes(items: Iterable[Any]) -> set[str] | RejectedRow:
    """The codes of the items of a list, each once."""
    items = list(items)
    codes: set[str] = set()
    for item in items:
        code = label_code(item)
        if isinstance(item, list):
            return RejectedRow("list inside a list", shorten_value(items))
        if isinstance(code, RejectedRow):
            return code
        if code is None:
            return RejectedRow("null inside a list", shorten_value(items))
        codes.add(code)
    if any(code[0] == "i" for code in codes) and not all(is_numeric(class_key(code[2:])) for code in codes):
        return RejectedRow("list mixes names and numbers", shorten_value(items))
    return codes


def _bits(labels: pa.Array, classes: int) -> npt.NDArray[np.bool_]:
    """Whether each class applies [B, K]."""
    bits = np.zeros((len(labels), classes), bool)
    bits[pc.list_parent_indices(labels).to_numpy(), pc.list_flatten(labels).to_numpy()] = True
    return bits


def _sets(bits: npt.NDArray[np.bool_]) -> pa.Array:
    """Sorted indices [B] of the classes that apply; the inverse of `_bits`."""
    offsets = np.concatenate([[0], bits.sum(axis=1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.nonzero(bits)[1].astype(np.int32)))
