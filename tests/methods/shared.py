"""What the tests of several methods need."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.config import Plugin, TrainingConfig
from rayclean.folder import Folder
from rayclean.methods.base import Method
from rayclean.training.job import FitSpec
from tests.training.toys import WORDS


def columns(one: Method, labels: Any) -> dict[str, Any]:
    """A method's columns at the start, with ids 0, 1, ..."""
    state = {name: np.full(len(labels), value, dtype=dtype) for name, (dtype, value) in one.state().items()}
    return {"example_id": np.arange(len(labels)), "given_label": np.asarray(labels), **state}


def words(method: Plugin, **training: Any) -> FitSpec:
    """A small bag of words trained by a method."""
    encoder = Plugin(name="bag_of_words", buckets=500)
    return FitSpec(encoder, method, TrainingConfig(**training), ("a", "b", "c"))


def wrongly_labelled(examples: str, ids: Any) -> npt.NDArray[np.bool_]:
    """Which examples of `write_examples` have a label that is not the class of their words."""
    wrong: dict[int, bool] = {}
    for shard in Folder(examples).shards():
        for row in Folder(examples).read_table(shard).to_pylist():
            (true,) = [label for label, words in enumerate(WORDS) if row["text"].split()[0] in words.split()]
            wrong[row["example_id"]] = row["given_label"] != true
    return np.array([wrong[one] for one in ids])
