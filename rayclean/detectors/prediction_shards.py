"""Shards of predictions in a run folder, and the checks that they must pass before any detector sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.detectors.base import DetectorBatch
from rayclean.errors import ArtifactError, DataError
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup_values
from rayclean.functional.types import Ids
from rayclean.schema import matrix
from rayclean.tasks.base import Task

ROW_SUM_TOLERANCE = 1e-3
"""Greatest distance from 1 of an example's sum of probabilities: rounding of K float32 or of a float16
softmax."""
MOST_PROBABILITIES = 1 << 23
"""Where examples have many units, of which each has a probability of all answers, so many are in memory at once."""


@dataclass(frozen=True)
class PredictionShard:
    """The shard `predict/predictions/<name>`, and `predict/features/<name>` where features are needed; or some rows of it."""

    folder: str
    """URL of the folder of predict."""
    name: str
    """File name, `part-*.parquet`."""
    units: Task
    """Makes the units of examples and their probabilities."""
    start: int = 0
    """First row."""
    rows: int | None = None
    """Number of rows; None: all."""

    def read(self, features: bool = False, groups: bool = False) -> DetectorBatch:
        """Read the shard's columns.

        Args:
            features: whether the features are read, too.
            groups: whether the numbers that copies of a text share are read, too.

        Raises:
            DataError: a value is missing.
            ArtifactError: features or folds that do not belong to these predictions.
        """
        folder = Folder(self.folder)
        columns = ["example_id", "given_label", "probabilities"]
        table = folder.read_table("predictions", self.name, columns=columns)
        table = table.slice(self.start, self.rows)
        require_whole(table, f"predictions/{self.name}")
        rows = self.units.unit_rows(table.select(columns[:2]))
        probabilities = self.units.unit_probabilities(table)
        ids = rows["example_id"].to_numpy()
        return DetectorBatch(
            unit_id=rows["unit_id"].to_numpy(),
            given_label=rows["given_label"].to_numpy(),
            predicted_label=probabilities.argmax(axis=1).astype(np.int32),
            probabilities=probabilities,
            features=matrix(self._column(folder, "features", "features", ids)) if features else None,
            example_id=ids,
            group=self._column(folder, "folds", "copies", ids).to_numpy() if groups else None,
            examples_given=None if self.units.units_are_examples else table.select(columns[:2]),
            given_value=rows["given_value"],
            suggested_value=self.units.suggested_values(table),
        )

    def _column(self, folder: Folder, table: str, column: str, ids: Ids) -> pa.ChunkedArray:
        """A column of another table of predict, for some examples."""
        rows = folder.read_table(table, self.name, columns=["example_id", column])
        require_whole(rows, f"{table}/{self.name}")
        found = rows["example_id"].to_numpy()
        if np.array_equal(found, ids):
            return rows[column]
        position = lookup_values(found, np.arange(len(found)), ids)
        if len(found) != len(ids) or (position < 0).any():
            raise ArtifactError(
                f"{table}/{self.name} holds other examples than predictions/{self.name} in {self.folder}; "
                "run 'rayclean predict CONFIG --again'"
            )
        return rows[column].take(position)


def shard_blocks(folder: str, name: str, units: Task) -> list[PredictionShard]:
    """A shard of predictions in blocks of rows, so that no more than `MOST_PROBABILITIES` are in memory at once: they grow
    with the square of the classes where every class of an example is a unit.

    Args:
        folder: URL of the folder of predict.
        name: file name.
        units: makes the units of examples and their probabilities.
    """
    if units.units_are_examples:
        return [PredictionShard(folder, name, units)]
    where = Folder(folder)
    with where.fs.open(where.path("predictions", name), "rb") as file:
        total = pq.ParquetFile(file).metadata.num_rows
    size = max(1, MOST_PROBABILITIES // (units.units_per_example * len(units.answers)))
    return [PredictionShard(folder, name, units, start, size) for start in range(0, max(total, 1), size)]


def require_whole(table: pa.Table, where: str) -> None:
    """Refuse missing values.

    Raises:
        DataError: a column holds a null; the message names the example.
    """
    for name in table.column_names:
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise DataError(
                f"{where}: example {table['example_id'][row].as_py()} has no {name}; expected a value in every row. "
                "Mend the predictions (predict.path), or run 'rayclean predict CONFIG --again'"
            )


def require_valid(batch: DetectorBatch, num_classes: int, where: str) -> None:
    """Refuse predictions that would silently spoil the detectors.

    Raises:
        DataError: probabilities of another number of classes, not finite, outside [0, 1] or not summing to 1; a label
            outside the label set; an id that occurs twice. The message names example, value and remedy.
    """
    found = batch.probabilities.shape[1]
    if found != num_classes:
        raise DataError(
            f"{where}: {found} probabilities per example, but the label set has {num_classes} labels; "
            "one probability per label, in the order of dataset.labels, is expected"
        )
    require_unique(batch.unit_id, where)
    for column, label in (
        ("given_label", batch.given_label),
        ("predicted_label", batch.predicted_label),
    ):
        _refuse_label(column, label, num_classes, batch, where)
    p = batch.probabilities
    low, high, total = p.min(axis=1), p.max(axis=1), p.sum(axis=1, dtype=np.float64)
    mend = (
        "check what wrote them (softmax over all labels, float32), or run 'rayclean predict CONFIG --again'"
    )
    _refuse(
        ~np.isfinite(total), batch, where,
        lambda row: f"probability {p[row][~np.isfinite(p[row])][0]}, expected finite numbers; {mend}",
    )  # fmt: skip
    _refuse(
        (low < -1e-6) | (high > 1 + 1e-6), batch, where,
        lambda row: f"probability {low[row] if low[row] < 0 else high[row]}, expected [0, 1]; {mend}",
    )  # fmt: skip
    _refuse(
        np.abs(total - 1) > ROW_SUM_TOLERANCE, batch, where,
        lambda row: f"probabilities that sum to {total[row]:.6g}, expected 1 within {ROW_SUM_TOLERANCE}; {mend}",
    )  # fmt: skip


def require_unique(ids: Ids, where: str) -> None:
    """Refuse ids that occur twice.

    Raises:
        DataError: one does.
    """
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{where}: example {unique[counts > 1][0]} occurs {counts.max()} times; every id must be unique"
        )


def _refuse_label(
    column: str, label: npt.NDArray[np.integer[Any]], num_classes: int, batch: DetectorBatch, where: str
) -> None:
    """Raise DataError for the first row whose label is no class."""
    _refuse(
        (label < 0) | (label >= num_classes),
        batch,
        where,
        lambda row: (
            f"{column} {label[row]}, expected 0 to {num_classes - 1}; "
            "list the value under dataset.unlabelled, or mend dataset.labels"
        ),
    )


def _refuse(
    wrong: npt.NDArray[np.bool_], batch: DetectorBatch, where: str, describe: Callable[[int], str]
) -> None:
    """Raise a DataError that describes the first wrong row, if there is one."""
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{where}: example {batch.unit_id[row]} has {describe(row)} ({int(wrong.sum())} such here)"
        )
