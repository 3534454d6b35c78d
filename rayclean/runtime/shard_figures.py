"""Figures of a written shard of features or predictions, computed from the file itself."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.folder import Folder
from rayclean.progress import ProgressBar

CUT = b"rayclean.cut"
"""Key in a shard's schema metadata for the number of texts cut at `max_length`."""


def count_rows(folder: Folder, *parts: str) -> int:
    """Number of rows of all shards in a folder, from the files' footers."""
    total = 0
    for shard in folder.shards(*parts):
        with folder.fs.open(folder.path(*parts, shard), "rb") as file:
            total += pq.ParquetFile(file).metadata.num_rows
    return total


def shard_figures(folder: Folder, shard: str) -> dict[str, Any]:
    """Numbers of rows and cut texts of a shard; for predictions of one class also the sums of `label_figures`."""
    with folder.fs.open(folder.path(shard), "rb") as file:
        parquet = pq.ParquetFile(file)
        metadata = parquet.schema_arrow.metadata or {}
        result = {"rows": parquet.metadata.num_rows, "cut": int(json.loads(metadata.get(CUT, b"0")))}
        if "given_probability" not in parquet.schema_arrow.names:
            return result
        columns = ["given_label", "given_probability", "predicted_label"]
        return result | label_figures(parquet.read(columns=columns))


def sum_figures(results: Iterable[dict[str, Any]], progress: ProgressBar) -> dict[str, Any]:
    """Sum the figures of shards, `rows` and `resumed` among them; sums are exact, so the order does not matter."""
    figures: dict[str, list[float]] = {}
    for result in results:
        progress.advance(result["rows"], resumed=result["resumed"] > 0)
        for name, value in result.items():
            figures.setdefault(name, []).append(value)
    return {
        name: math.fsum(values) if isinstance(values[0], float) else sum(values)
        for name, values in figures.items()
    }


def label_figures(predictions: pa.Table) -> dict[str, float]:
    """Sums of agreement and log-loss over the rows with a given label."""
    known = predictions.filter(predictions["given_label"].is_valid())
    given = known["given_label"].to_numpy()
    probability = known["given_probability"].to_numpy().astype(np.float64)
    return {
        "labelled": len(given),
        "correct": int((known["predicted_label"].to_numpy() == given).sum()),
        "log_loss": float(-np.log(np.maximum(probability, np.finfo(np.float32).tiny)).sum()),
    }


def agreement(figures: dict[str, Any]) -> dict[str, float]:
    """Accuracy and log-loss on the given labels, from summed figures of predictions of one class; of others, and where no
    example has a label, {}.
    """
    if not figures.get("labelled"):
        return {}
    return {
        "accuracy_given": figures["correct"] / figures["labelled"],
        "log_loss_given": figures["log_loss"] / figures["labelled"],
    }


def holds_examples(folder: Folder, shard: str, ids: npt.NDArray[np.int64]) -> bool:
    """Whether a shard is there, with exactly these examples in their order."""
    if not folder.exists(shard):
        return False
    found = folder.read_table(shard, columns=["example_id"])["example_id"].to_numpy()
    return bool(np.array_equal(found, ids))
