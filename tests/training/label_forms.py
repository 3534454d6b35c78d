"""Data sets whose labels are sets of classes or tags, and how networks are trained on them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.config import Plugin
from rayclean.folder import Folder
from rayclean.schema import SPLIT_DEV, SPLIT_TRAIN
from rayclean.training.job import FitSpec
from tests.training.toys import spec

NAMES = ("a", "b", "c")
MARKS = ("red", "two", "cat")
"""A set holds class c where the text holds the word MARKS[c]."""
TAGGED = {"oak": 0, "elm": 0, "anna": 1, "bob": 1, "junior": 2, "rome": 3, "lima": 3}
"""Tag of each word: O, B-a, I-a, B-b."""

SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.string())),
        ("given_label", pa.list_(pa.int32())),
        ("split", pa.string()),
    ]
)
BAG = Plugin(name="bag_of_words", buckets=500, dropout=0.0)
LSTM = Plugin(name="bilstm", buckets=500, embedding=8, hidden=8, dropout=0.0, max_length=10)
ENCODERS = {"multi_label": BAG, "tagging": LSTM}


def write(folder: Path, task: str, count: int, dev: int = 0, shards: int = 3, longest: int = 8) -> str:
    """`count` train and `dev` dev examples of 1 to `longest` words."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(count + dev):
        length = int(rng.integers(1, longest + 1))
        if task == "tagging":
            words = [str(word) for word in rng.choice(list(TAGGED), length)]
            label = [TAGGED[word] for word in words]
        else:
            label = [c for c in range(3) if rng.random() < 0.4]
            words = [MARKS[c] for c in label] + [str(word) for word in rng.choice(list(TAGGED), length)]
        split = SPLIT_TRAIN if number < count else SPLIT_DEV
        rows.append((int(rng.integers(1 << 40)) - (1 << 39), " ".join(words), words, label, split))
    columns = dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns, schema=SCHEMA)
    for number, part in enumerate(np.array_split(rng.permutation(len(rows)), shards)):
        Folder(str(folder)).write_table(table.take(part), f"part-{number:05d}.parquet")
    return str(folder)


def how(task: str, encoder: Plugin | None = None, method: str = "cross_entropy", **training: Any) -> FitSpec:
    """A specification for one of the tasks."""
    values = {"precision": "float32", **training}
    made = spec(method=method, **values)
    return replace(made, encoder=encoder or ENCODERS[task], labels=NAMES, task=Plugin(name=task))
