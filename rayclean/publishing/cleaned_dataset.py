"""The cleaned data set of a run as a folder of Parquet files that `datasets.load_dataset` reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayclean.annotators.final_labels import EXAMPLE_LABELS
from rayclean.exports.shard_labels import SOURCES_BY_IMPORTANCE
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.tasks.base import Task


def write_cleaned_dataset(run: Run, task: Task, folder: Path) -> int:
    """Write `data/part-*.parquet`, a shard for each one of `load/examples/`; test examples, whose labels nobody cleaned, are
    not among them.

    Columns: `example_id`; `text`, and `tokens` where labels are tags; `label_given` and `label`, the names of the classes
    before and after (a list where a label is a set of classes or a sequence of tags, null where there is none);
    `label_source` (`SOURCES_BY_IMPORTANCE`); `label_confidence`, the probability of the label against its rival, the least
    one of its parts, null where nobody doubted it; `split`.

    Args:
        run: whose relabel is finished.
        task: its task.
        folder: made where it is missing.

    Returns:
        Number of rows.
    """
    load, relabel = run.require("load"), run.require("relabel")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows = 0
    for shard in load.shards("examples"):
        table = cleaned_shard(load, relabel, shard, task)
        pq.write_table(table, folder / "data" / shard, compression="zstd")
        rows += table.num_rows
    return rows


def cleaned_shard(load: Folder, relabel: Folder, shard: str, task: Task) -> pa.Table:
    """The rows of one shard, in the order of `load/examples/`."""
    examples = load.read_table("examples", shard)
    ids = examples["example_id"].combine_chunks()
    units = relabel.read_table("labels", shard, columns=["example_id", "final_label", "source", "confidence"])
    final = units if task.units_are_examples else relabel.read_table(EXAMPLE_LABELS, shard)
    final_labels = final["final_label"].combine_chunks().take(_places(ids, final["example_id"]))
    by_example = _of_examples(units)
    at = _places(ids, by_example["example_id"])
    columns: dict[str, Any] = {"example_id": ids, "text": examples["text"]}
    if "tokens" in examples.column_names:
        columns["tokens"] = examples["tokens"]
    names = task.output_names
    return pa.table(
        columns
        | {
            "label_given": _named(examples["given_label"].combine_chunks(), names),
            "label": _named(final_labels, names),
            "label_source": by_example["source"].combine_chunks().take(at),
            "label_confidence": by_example["confidence"].combine_chunks().take(at),
            "split": examples["split"],
        }
    )


def _of_examples(units: pa.Table) -> pa.Table:
    """`example_id`, `source` and `confidence` of each example, from those of its units."""
    rank = pc.index_in(units["source"], value_set=pa.array(SOURCES_BY_IMPORTANCE))
    grouped = (
        pa.table({"example_id": units["example_id"], "rank": rank, "confidence": units["confidence"]})
        .group_by("example_id")
        .aggregate([("rank", "min"), ("confidence", "min")])
    )
    return pa.table(
        {
            "example_id": grouped["example_id"],
            "source": pa.array(SOURCES_BY_IMPORTANCE).take(grouped["rank_min"].combine_chunks()),
            "confidence": grouped["confidence_min"],
        }
    )


def _places(ids: pa.Array, among: pa.ChunkedArray) -> pa.Array:
    return pc.index_in(ids, value_set=among.combine_chunks())


def _named(column: pa.Array, names: list[str]) -> pa.Array:
    """Names in the place of numbers, in lists as well."""
    by_number = pa.array(names, pa.string())
    if not pa.types.is_list(column.type):
        return by_number.take(column)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = by_number.take(column.flatten())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=column.is_null())
