"""Labels that are a tag per token: lists, lists in JSON, or texts in which blanks divide the tags.

A staged label is the number of repaired tags, a blank, and the tags in the scheme BIO as a list in JSON:
`0 ["B-PER", "I-PER", "O"]`. The label set holds the entity classes (`PER`), and a class is counted once per span. A span goes
on where the class of the next tag is the same, however it is written; it is staged as its first tag writes it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.class_names import class_key, is_number, near_keys, spelling
from rayclean.config import DatasetConfig
from rayclean.datasets.label_forms import (
    LabelForm,
    StoredLabels,
    names_in_lists,
    parsed_list,
    value_like,
    written_list,
)
from rayclean.datasets.rejected_rows import RejectedRow, shorten_value
from rayclean.errors import ConfigError
from rayclean.functional.bio import OUTSIDE, bio_tags, entity_classes, is_tag, to_bio
from rayclean.schema import FormName

_NO_NAMES = "integer tags without names"
_BEYOND = "the number of a tag is the number of names"


class TagSequences(LabelForm):
    """A tag per token."""

    name = "tags"
    holds = "a tag per token"
    reads_tokens = True
    stops: ClassVar[Mapping[str, str]] = {
        _NO_NAMES: "set dataset.labels to the names of all tags, O among them, in the order of their numbers",
        _BEYOND: "numbers of tags count from 0: set dataset.first_label = 1 if they count from 1, otherwise mend dataset.labels "
        "or the tag (with first_label = 0, such rows are rejected)",
    }

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        self.first_label, self.merge = config.first_label, config.merge_labels
        self.tags: list[str] | None = None
        """Tags in the order of the integers that stand for them, where the config names them."""
        if self.names is not None:
            are_tags = OUTSIDE in self.names or all(map(is_tag, self.names))
            wrong = [name for name in self.names if not is_tag(name)]
            if are_tags and wrong:
                raise ConfigError(
                    f"dataset.labels holds the tag O and {wrong[0]!r}, which is no tag: name all tags (O, B-PER, I-PER, "
                    "...), or the entity classes alone"
                )
            self.tags = self.names if are_tags else bio_tags(self.names)
            self.names = entity_classes(self.tags)

    def classes_of(self, names: Sequence[str]) -> list[str]:
        """The entity classes of the names of tags."""
        return entity_classes([name for name in names if is_tag(name)])

    def parse(self, value: Any, tokens: Sequence[str]) -> str | RejectedRow | None:
        """The tags in the scheme BIO, as one text."""
        if value is None or value != value or (isinstance(value, str) and not spelling(value)):
            return None
        items = _items(value)
        if not isinstance(items, list):
            found = f"{type(value).__name__}: {shorten_value(value)}"
            return RejectedRow("tags are no list", found)
        if len(items) != len(tokens):
            found = f"{len(items)} tags, {len(tokens)} tokens: {shorten_value(items)}"
            return RejectedRow("tags and tokens of different length", found)
        tags: list[str] = []
        for position, item in enumerate(items):
            tag = self._tag(item)
            if isinstance(tag, RejectedRow):
                return RejectedRow(tag.reason, f"tag {position} is {tag.value}")
            same = bool(tags) and self._same_class(tags[-1], tag)
            tags.append(tag[:2] + tags[-1][2:] if same else tag)
        bio, repaired = to_bio(tags)
        return f"{repaired} {json.dumps(bio, ensure_ascii=False)}"

    def _tag(self, item: Any) -> str | RejectedRow:
        if item is None:
            return RejectedRow("null tag", "null")
        text = spelling(item) if isinstance(item, str) else item
        if isinstance(text, str) and is_tag(text):
            return item.strip() if is_tag(item.strip()) else text
        if _is_number(text):
            if self.tags is None:
                return RejectedRow(_NO_NAMES, repr(item))
            number = int(class_key(str(text))) - (self.first_label or 0)
            if 0 <= number < len(self.tags):
                return self.tags[number]
            beyond = number == len(self.tags) and self.first_label is None
            return RejectedRow(_BEYOND if beyond else "unknown tag", f"{item!r} of {len(self.tags)}")
        if isinstance(text, str):
            return RejectedRow("tag is neither O nor has a prefix", repr(item))
        return RejectedRow("tag is neither a string nor an integer", shorten_value(item))

    def _same_class(self, before: str, tag: str) -> bool:
        if class_key(before[2:]) == class_key(tag[2:]):
            return True
        return self.merge and any(
            a == b for a, b in zip(near_keys(before[2:]), near_keys(tag[2:]), strict=True)
        )

    def codes(self, staged: str) -> Sequence[str]:
        """The code of the entity class of each span."""
        return [f"s:{tag[2:]}" for tag in _tags(staged) if tag[0] == "B"]

    def only_key(self, staged: str) -> str | None:
        """None: a row without tags is one whose tags are null or blank."""
        return None

    def misfit(self, value: Any) -> FormName | None:
        """What holds neither tags nor integers is a class or a set of classes."""
        items = _items(value)
        if not isinstance(items, list):
            return "class"
        if not items or any(_is_number(item) or (isinstance(item, str) and is_tag(item)) for item in items):
            return None
        return "class" if isinstance(value, str) and parsed_list(value) is None else "classes"

    def store(self, staged: pa.ChunkedArray, indices: Mapping[str, int]) -> StoredLabels:
        """Numbers of the tags (`schema.LABEL_TYPES`)."""
        numbers = {OUTSIDE: 0}
        for code, index in indices.items():
            numbers |= {f"B-{code[2:]}": 1 + 2 * index, f"I-{code[2:]}": 2 + 2 * index}
        values: list[list[int] | None] = []
        unknown = np.zeros(len(staged), bool)
        for row, text in enumerate(staged.to_pylist()):
            tags = None if text is None else [numbers.get(tag, -1) for tag in _tags(text)]
            unknown[row] = tags is not None and -1 in tags
            values.append(None if unknown[row] else tags)
        return StoredLabels(pa.array(values, pa.list_(pa.int32())), unknown)

    def spelled(self, labels: pa.Array, names: Sequence[str]) -> pa.Array:
        """Lists of tags in the scheme BIO."""
        return names_in_lists(labels, bio_tags(names))

    def rewritten(self, before: Any, label: Any, codes: Sequence[str], in_file: Sequence[str]) -> Any:
        """The tags as a list, a list in JSON, or a text with blanks, by the numbers that the column uses for them if any."""
        tags = [bio_tags([code[2:] for code in codes])[number] for number in label]
        items = _items(before)
        if items and all(map(_is_number, items)):
            numbers = {class_key(tag): position for position, tag in enumerate(in_file or self.tags or ())}
            first = 0 if in_file else self.first_label or 0
            values = [value_like(items[0], f"i:{numbers[class_key(tag)] + first}") for tag in tags]
        else:
            values = tags
        if not isinstance(before, str):
            return values
        in_list = parsed_list(before) is not None
        return written_list(before, values) if in_list else " ".join(map(str, values))

    def count(self, labels: pa.Array) -> list[list[int]]:
        """[index, spans of the entity class]."""
        tags = pc.list_flatten(labels).to_numpy()
        starts = (tags[tags % 2 == 1] - 1) // 2
        counted: list[list[int]] = np.column_stack(np.unique(starts, return_counts=True)).tolist()
        return counted

    def sums(self, staged: pa.ChunkedArray, labels: pa.Array) -> dict[str, int]:
        """Repaired tags, and tokens that belong to no span."""
        repaired = sum(int(text.partition(" ")[0]) for text in staged.to_pylist() if text)
        return {"repaired_tags": repaired, "outside": int((pc.list_flatten(labels).to_numpy() == 0).sum())}

    def figures(self, examples: Mapping[str, int], test: Mapping[str, int]) -> dict[str, Any]:
        """Repaired tags of all rows."""
        return {"repaired_tags": examples["repaired_tags"] + test["repaired_tags"]}

    def warnings(self, examples: Mapping[str, int], test: Mapping[str, int]) -> list[str]:
        """That tags were repaired, and that no tag is O."""
        found = []
        repaired = examples["repaired_tags"] + test["repaired_tags"]
        if repaired:
            what = "1 tag was" if repaired == 1 else f"{repaired:,} tags were"
            found.append(f"{what} repaired: I-X without a B-X or I-X before it became B-X")
        if not examples["outside"]:
            found.append(
                "no token is outside of all spans (O); numbers of tags that count from 1 need dataset.first_label = 1"
            )
        return found


def _items(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = parsed_list(value)
    return value.split() if found is None else found


def _tags(staged: str) -> list[str]:
    found: list[str] = json.loads(staged.partition(" ")[2])
    return found


def _is_number(value: Any) -> bool:
    """Whether a value stands for a number of a tag."""
    if isinstance(value, str):
        return is_number(class_key(value))
    return not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    )
