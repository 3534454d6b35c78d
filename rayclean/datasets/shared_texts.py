"""Texts that occur more than once: copies among the examples, and texts of other roles that are in the training data, too.

Texts are known by their hash (`hashing.text_group`), so that copies may differ in case and blanks. The second pass leaves
hash, label and split of each row in `stage/texts/`; the driver then holds numbers, 18 bytes per row, and no text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.folder import Folder
from rayclean.hashing import int64, text_group
from rayclean.schema import SPLIT_DEV, SPLIT_TEST, SPLIT_TRAIN

_SPLITS = (SPLIT_TRAIN, SPLIT_DEV, SPLIT_TEST)
_ROLES = ("data", "dev", "test")
_NO_LABEL = -1

_Int64s = npt.NDArray[np.int64]
_Int8s = npt.NDArray[np.int8]


@dataclass(frozen=True)
class TextCounts:
    """How often texts repeat."""

    examples: int
    """Examples, of training and development."""
    distinct: int
    """Different texts among them."""
    most_frequent: int
    """Examples that have the most frequent text."""
    repeated: int
    """Texts that more than one example has."""
    copies: int
    """Examples that have such a text."""
    conflicting: int
    """Texts whose copies carry different labels."""
    least_wrong: int
    """Labels of copies that cannot be right, since another label of the same text is at least as frequent."""
    dev: int
    """Development examples."""
    test: int
    """Test examples."""
    shared_dev: int
    """Development examples from files of their own whose text is in the training data."""
    shared_test: int
    """Test examples whose text is in the training data."""
    dev_in_test: int
    """Test examples whose text is in the development files, by which epochs are chosen."""
    same_dev: bool
    """Whether the development files hold the very texts of the data, and no others."""
    same_test: bool
    """Whether the test files do."""


def stage_texts(folder: Folder, shard: str, examples: pa.Table) -> None:
    """Write `stage/texts/<shard>.parquet`: id, hash of the text, label and split of each row.

    Args:
        folder: of the load.
        shard: name of the shard.
        examples: rows of `schema.examples_schema`.
    """
    texts = np.array([text_group(text) for text in examples["text"].to_pylist()], dtype=np.int64)
    splits = np.array([_SPLITS.index(split) for split in examples["split"].to_pylist()], dtype=np.int8)
    table = {
        "example_id": examples["example_id"],
        "text": texts,
        "label": _label_numbers(examples["given_label"]),
        "split": splits,
    }
    folder.write_table(pa.table(table), "stage", "texts", f"{shard}.parquet")


def count_texts(out: Folder, shards: Sequence[tuple[str, str]]) -> TextCounts:
    """Count the copies, and write `shared/<shard>.parquet`: the ids of the rows of development and test files, and of test
    rows that a share of groups has chosen, whose text is in the training data.

    Args:
        out: the folder of `load`, with the staged texts.
        shards: name and role of each shard.
    """
    staged = [_read(out, name, role) for name, role in shards]
    text, label, split, role = (np.concatenate(column) for column in zip(*staged, strict=True))
    data, examples = role == _ROLES.index("data"), split < _SPLITS.index(SPLIT_TEST)
    trained = np.unique(text[data & examples])
    shared = {"dev": 0, "test": 0}
    for name, role_of_shard in shards:
        shared_of_shard = _write_shared(out, name, role_of_shard, trained)
        shared["dev" if role_of_shard == "dev" else "test"] += shared_of_shard
    every = np.unique(text[data])
    same = {
        name: bool(np.array_equal(np.unique(text[role == _ROLES.index(name)]), every))
        for name in ("dev", "test")
    }
    return TextCounts(
        **_copies(text[examples], label[examples]),
        dev=int((split == _SPLITS.index(SPLIT_DEV)).sum()),
        test=int((split == _SPLITS.index(SPLIT_TEST)).sum()),
        shared_dev=shared["dev"],
        shared_test=shared["test"],
        dev_in_test=int(
            np.isin(text[split == _SPLITS.index(SPLIT_TEST)], text[role == _ROLES.index("dev")]).sum()
        ),
        same_dev=same["dev"],
        same_test=same["test"],
    )


def _read(out: Folder, name: str, role: str) -> tuple[_Int64s, _Int64s, _Int8s, _Int8s]:
    """Texts, labels, splits and role of the rows of a shard."""
    table = out.read_table("stage", "texts", f"{name}.parquet", columns=["text", "label", "split"])
    text, label, split = (column.to_numpy() for column in table.columns)
    return text, label, split, np.full(len(text), _ROLES.index(role), dtype=np.int8)


def _write_shared(out: Folder, name: str, role: str, trained: _Int64s) -> int:
    """Write the ids of the rows of a shard that are no part of the training data and whose text is; returns their number."""
    table = out.read_table("stage", "texts", f"{name}.parquet")
    split = SPLIT_DEV if role == "dev" else SPLIT_TEST
    apart = table["split"].to_numpy() == _SPLITS.index(split)
    ids = table["example_id"].to_numpy()[apart & np.isin(table["text"].to_numpy(), trained)]
    if len(ids):
        out.write_table(pa.table({"example_id": ids}), "shared", f"{name}.parquet")
    return len(ids)


def _copies(text: _Int64s, label: _Int64s) -> dict[str, Any]:
    """The counts of copies among some examples [N]."""
    _, member, size = np.unique(text, return_inverse=True, return_counts=True)
    known = np.flatnonzero(label != _NO_LABEL)
    cells, number = np.unique(np.stack([member[known], label[known]]), axis=1, return_counts=True)
    labels_of_text = np.bincount(cells[0], minlength=len(size))
    labelled = np.bincount(cells[0], weights=number, minlength=len(size)).astype(np.int64)
    most = np.zeros(len(size), dtype=np.int64)
    np.maximum.at(most, cells[0], number)
    return {
        "examples": len(text),
        "distinct": len(size),
        "most_frequent": int(size.max(initial=0)),
        "repeated": int((size > 1).sum()),
        "copies": int(size[size > 1].sum()),
        "conflicting": int((labels_of_text > 1).sum()),
        "least_wrong": int((labelled - most).sum()),
    }


def _label_numbers(labels: pa.ChunkedArray) -> _Int64s:
    """A number for each label [B], the same for equal ones; -1 for none."""
    if not pa.types.is_list(labels.type):
        return np.asarray(labels.fill_null(_NO_LABEL).to_numpy(), dtype=np.int64)
    values = labels.to_pylist()
    hashes = [_NO_LABEL if value is None else int64(json.dumps(value)) & (2**63 - 1) for value in values]
    return np.array(hashes, dtype=np.int64)
