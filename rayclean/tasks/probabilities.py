"""From logits to probabilities, and from probabilities to the tables of `predictions/`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.schema import list_column, predictions

FOLD_NONE = -1
"""`fold` of predictions that are not out of fold."""


def softmax(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Probabilities [N, K], computed in float64.

    >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5], [1. , 0. ]], dtype=float32)
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def prediction_table(
    ids: npt.NDArray[np.int64],
    given: pa.ChunkedArray | pa.Array,
    probabilities: npt.NDArray[np.float32],
    fold: npt.NDArray[np.int16],
) -> pa.Table:
    """A shard of `schema.predictions`. Ties go to the lowest class.

    Args:
        ids: [N]
        given: [N] int32, null where there is no given label; then `given_probability` and `margin` are null.
        probabilities: [N, K], K >= 2, each row a distribution.
        fold: [N]
    """
    rows = np.arange(len(ids))
    known = np.asarray(given.is_valid())
    labels = np.asarray(given.fill_null(0)).astype(np.int64)
    predicted = probabilities.argmax(axis=1)
    rest = probabilities.copy()
    rest[rows, predicted] = -1.0
    runner_up = rest.argmax(axis=1)
    given_probability = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1.0
    margin = given_probability - others.max(axis=1, initial=-1.0)
    columns = {
        "example_id": pa.array(ids),
        "given_label": pa.array(labels, pa.int32(), mask=~known),
        "given_probability": pa.array(given_probability, mask=~known),
        "predicted_label": pa.array(predicted.astype(np.int32)),
        "predicted_probability": pa.array(probabilities[rows, predicted]),
        "runner_up_label": pa.array(runner_up.astype(np.int32)),
        "runner_up_probability": pa.array(probabilities[rows, runner_up]),
        "margin": pa.array(margin.astype(np.float32), mask=~known),
        "fold": pa.array(fold.astype(np.int16)),
        "probabilities": list_column(probabilities),
    }
    return pa.table(columns, schema=predictions(probabilities.shape[1]))


def list_predictions(
    ids: npt.NDArray[np.int64],
    given: pa.ChunkedArray | pa.Array,
    fold: npt.NDArray[np.int16],
    probabilities: pa.Array,
) -> pa.Table:
    """A shard of predictions whose labels are lists: `example_id`, `given_label`, `fold`, `probabilities`.

    Args:
        ids: [N]
        given: [N] list<int32>, null where there is no given label.
        fold: [N]
        probabilities: [N] lists.
    """
    columns = {
        "example_id": pa.array(ids),
        "given_label": given,
        "fold": pa.array(fold.astype(np.int16)),
        "probabilities": probabilities,
    }
    return pa.table(columns)


def list_parts(column: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Length of each list [B], 0 where it is null, and all values one after another.

    >>> list_parts(pa.array([[3, 4], [], None, [5]]))
    (array([2, 0, 0, 1]), array([3, 4, 5]))
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = array.flatten().to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64), values.astype(np.int64)
