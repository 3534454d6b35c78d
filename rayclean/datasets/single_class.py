"""Labels that are one class each: strings, numbers or booleans."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from rayclean.datasets.label_forms import (
    InjectedNoise,
    LabelForm,
    StoredLabels,
    distinct,
    only_item,
    parsed_list,
    value_like,
    written_list,
)
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.row_validation import label_code
from rayclean.functional.bio import is_tag
from rayclean.functional.noise import Kind, corrupt, expected_rate
from rayclean.functional.types import Ids
from rayclean.schema import FormName

_NO_VALUE, _UNKNOWN = -1, -2
"""Values in the place of a label's index: the column is null; the label is not in the label set."""


class SingleClass(LabelForm):
    """One class per example; a staged label is its code."""

    name = "class"
    holds = "one class per row"
    least_classes = 2
    one_code = True
    noises = get_args(Kind)

    def parse(self, value: Any, tokens: Sequence[str]) -> str | RejectedRow | None:
        """The code of the value, which may be a list of one."""
        return label_code(only_item(value))

    def codes(self, staged: str) -> Sequence[str]:
        """The staged label itself."""
        return (staged,)

    def misfit(self, value: Any) -> FormName | None:
        """A list is a set of classes, or tags if it looks like them."""
        items = parsed_list(value) if isinstance(value, str) else value
        if not isinstance(items, list):
            return None
        tags = bool(items) and all(isinstance(item, str) and is_tag(item) for item in items)
        return "tags" if tags else "classes"

    def store(self, staged: pa.ChunkedArray, indices: Mapping[str, int]) -> StoredLabels:
        """Indices of the classes."""
        codes, numbers = distinct(staged)
        table = np.array([indices.get(code, _UNKNOWN) for code in codes] + [_NO_VALUE], np.int32)
        found = table[numbers]
        return StoredLabels(pa.array(found, mask=found < 0), found == _UNKNOWN)

    def corrupt(self, ids: Ids, labels: pa.Array, noise: InjectedNoise) -> pa.Array:
        """Other classes, by the kinds of noise that look at one example at a time."""
        before = labels.to_numpy()
        return pa.array(
            corrupt(ids, before, noise.classes, noise.kind, noise.rate, noise.seed, mapping=noise.mapping)
        )

    def spelled(self, labels: pa.Array, names: Sequence[str]) -> pa.Array:
        """Names of the classes."""
        return pa.array(names, pa.string()).take(labels)

    def rewritten(self, before: Any, label: Any, codes: Sequence[str], in_file: Sequence[str]) -> Any:
        """The value of the class, in a list of one if there was such a list."""
        item = only_item(before)
        value = value_like(item, codes[label], in_file)
        if item is before:
            return value
        return written_list(before, [value]) if isinstance(before, str) else [value]

    def count(self, labels: pa.Array) -> list[list[int]]:
        """[index, examples] of the classes."""
        known = labels.drop_null().to_numpy()
        counted: list[list[int]] = np.column_stack(np.unique(known, return_counts=True)).tolist()
        return counted

    def transitions(self, truth: pa.Array, given: pa.Array, classes: int) -> list[list[int]]:
        """[true index, given index, count]."""
        pairs = Counter(zip(truth.to_pylist(), given.to_pylist(), strict=True))
        return [[before, after, count] for (before, after), count in sorted(pairs.items())]

    def noise_rates(
        self, transitions: Counter[tuple[int, ...]], names: Sequence[str], noise: InjectedNoise
    ) -> dict[str, Any]:
        """Rates as shares of the examples, and the transitions between classes."""
        examples = np.zeros(len(names), np.int64)
        wrong = np.zeros(len(names), np.int64)
        for (true, given), count in transitions.items():
            examples[true] += count
            wrong[true] += count * (true != given)
        total = max(int(examples.sum()), 1)
        return {
            "kind": noise.kind,
            "requested_rate": noise.rate,
            "expected_rate": expected_rate(noise.kind, noise.rate, examples / total, noise.mapping),
            "realised_rate": int(wrong.sum()) / total,
            "seed": noise.seed,
            "examples": int(examples.sum()),
            "per_class": {
                name: wrong[i] / examples[i] if examples[i] else None for i, name in enumerate(names)
            },
            # [true index, given index, count]; count / examples of the true class is the transition matrix
            "transitions": [[*pair, count] for pair, count in sorted(transitions.items())],
        }
