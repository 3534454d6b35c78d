"""The labels of one run, shard by shard, as they are compared: by what they say, never by numbers of a label set."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayclean.config import Config
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.stories.finding import EXAMPLE_PARTS
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task

SIDE = pa.schema(
    [
        ("example_id", pa.int64()),
        ("part", pa.string()),  # of the example, by the name of a class; empty where the example is the unit
        ("unit_id", pa.int64()),
        ("split", pa.string()),
        ("given", pa.string()),  # what the label says; null where there is none
        ("given_name", pa.string()),  # the same by name, which says less where labels are texts of their own
        ("final", pa.string()),  # null before relabel, and of test examples; likewise the following
        ("final_name", pa.string()),
        ("source", pa.string()),
        ("confidence", pa.float32()),
        ("annotator", pa.string()),
    ]
)
"""Every unit of every example of a run."""


@dataclass(frozen=True)
class Side:
    """One of two runs that are compared."""

    run: Run
    config: Config
    compares_labels: bool = True
    """Whether labels are read; those of two tasks cannot be compared."""

    @cached_property
    def load(self) -> Folder:
        """The folder of `load`.

        Raises:
            ArtifactError: it has not finished.
        """
        return self.run.require("load")

    @cached_property
    def task(self) -> Task:
        """The run's task."""
        return TASKS.build(self.config.task, LabelSet.from_json(self.load.read_text("labels.json")))

    @cached_property
    def relabel(self) -> Folder | None:
        """The folder of `relabel`; None where it has not finished."""
        return None if self.run.manifest("relabel") is None else self.run.sub("relabel")

    @cached_property
    def answers(self) -> pa.Array:
        """Names of all answers."""
        return pa.array(self.task.answers.names, pa.string())

    @property
    def shards(self) -> list[str]:
        """Names of the shards of examples; those for the test have some of the same names."""
        return sorted({shard for table in EXAMPLE_PARTS for shard in self.load.shards(table)})

    def count(self) -> int:
        """Number of examples, by the metadata of the files alone."""
        total = 0
        for table in EXAMPLE_PARTS:
            for shard in self.load.shards(table):
                with self.load.fs.open(self.load.path(table, shard), "rb") as file:
                    total += pq.read_metadata(file).num_rows
        return total

    def read(self, shard: str) -> pa.Table:
        """The units of one shard, with the columns of `SIDE`."""
        columns = ["example_id", "given_label", "split"]
        parts = [
            self._units(
                self.load.read_table(table, shard, columns=columns), shard if table == "examples" else None
            )
            for table in EXAMPLE_PARTS
            if self.load.exists(table, shard)
        ]
        return pa.concat_tables([SIDE.empty_table(), *parts])

    def _units(self, examples: pa.Table, shard: str | None) -> pa.Table:
        """The units of some examples; their final labels are in a shard of `relabel/labels/`, or there are none."""
        if not self.compares_labels:
            found = {name: examples["example_id"] for name in ("example_id", "unit_id")} | {
                "split": examples["split"]
            }
            found["part"] = pa.array([""] * len(examples), pa.string())
            return _completed(found)
        units = self.task.unit_rows(examples)
        parts = [""] if self.task.units_are_examples else self.task.labels.names
        found = {
            "example_id": units["example_id"],
            "part": pa.array(parts, pa.string()).take(
                pa.array(np.tile(np.arange(len(parts)), len(examples)))
            ),
            "unit_id": units["unit_id"],
            "split": units["split"],
            **self._said("given", units["given_label"], units["given_value"]),
        }
        if shard is not None and self.relabel is not None and self.relabel.exists("labels", shard):
            columns = ["unit_id", "final_label", "final_value", "source", "confidence", "annotator"]
            labels = self.relabel.read_table("labels", shard, columns=columns)
            place = pc.index_in(
                units["unit_id"].combine_chunks(), value_set=labels["unit_id"].combine_chunks()
            )
            labels = labels.take(place)
            found |= self._said("final", labels["final_label"], labels["final_value"])
            found |= {name: labels[name] for name in ("source", "confidence", "annotator")}
        return _completed(found)

    def _said(self, column: str, numbers: pa.ChunkedArray, values: pa.ChunkedArray) -> dict[str, pa.Array]:
        """Answers as `column`, by what they say: as JSON where their number does not say it; and as `column_name`, by name."""
        names = self.answers.take(numbers.combine_chunks())
        return {column: pc.coalesce(values.combine_chunks(), names), f"{column}_name": names}


def _completed(columns: dict[str, Any]) -> pa.Table:
    """A table with the columns of `SIDE`; those that are missing are null."""
    nulls = {field.name: pa.nulls(len(columns["example_id"]), field.type) for field in SIDE}
    return pa.table(nulls | columns).select(SIDE.names).cast(SIDE)
