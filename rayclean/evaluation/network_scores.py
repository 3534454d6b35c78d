"""What networks are worth on test examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.folder import Folder
from rayclean.functional.paired import accuracy_difference
from rayclean.tasks.base import Task


def shared_test_ids(load: Folder) -> set[int]:
    """Ids of the rows of other roles whose text is in the training data: their labels may be known by heart."""
    return {
        key
        for shard in load.shards("shared")
        for key in load.read_table("shared", shard, columns=["example_id"])["example_id"].to_pylist()
    }


def score_answers(
    answers: Mapping[str, Mapping[int, Any]], expected: Mapping[int, Any], task: Task
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Score what networks answer about some test examples.

    Args:
        answers: network -> predicted label of each test example.
        expected: labels by example, true or given; may be empty.
        task: of the run.

    Returns:
        Network -> accuracy, f1_macro, f1_weighted, hits; {} without examples. And the accuracy on cleaned less that on given
        labels, with its interval; None where they are not compared.
    """
    scores: dict[str, Any] = {}
    right: dict[str, npt.NDArray[np.bool_]] = {}
    for name, predicted in answers.items() if expected else ():
        found = [predicted[key] for key in expected]
        pairs = zip(found, expected.values(), strict=True)
        right[name] = np.array([label == wanted for label, wanted in pairs], dtype=np.bool_)
        type_ = task.label_type
        measured = task.metrics(pa.array(found, type_), pa.array([*expected.values()], type_))
        scores[name] = {**measured, "hits": int(right[name].sum())}
    if not {"given", "cleaned"} <= right.keys():
        return scores, None
    value, low, high = accuracy_difference(right["given"], right["cleaned"])
    return scores, {"value": value, "low": low, "high": high, "measurable": low > 0 or high < 0}
