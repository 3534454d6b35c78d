"""The rows of one job on one worker: which examples train, which decide, and the labels of both.

Only ids and labels are in memory (about 40 bytes per example); tokens or features are memory-mapped.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.artifacts import Folder
from rayclean.config import Plugin
from rayclean.errors import ArtifactError, DataError
from rayclean.functional.hashing import folds, uniform
from rayclean.schema import SPLIT_DEV, SPLIT_TRAIN
from rayclean.training.inputs import Inputs, Rows, open_inputs
from rayclean.training.job import FitJob


@dataclass(frozen=True)
class Part:
    """Some examples, sorted by id."""

    ids: Rows
    labels: Rows
    rows: Rows
    """Rows of the inputs."""


@dataclass(frozen=True)
class JobData:
    """What one job trains on and what decides on its best epoch."""

    inputs: Inputs
    train: Part
    dev: Part


def open_job(job: FitJob, encoder: Plugin, num_classes: int, frozen: bool) -> JobData:
    """Select the job's examples and open their inputs: cached features if there are some and the encoder is `frozen`.

    Raises:
        DataError: no training example, a label outside the classes, or examples without label or features.
    """
    ids, given, splits = _columns(job.data.examples, "given_label")
    labels = given
    if job.data.labels is not None:
        their_ids, theirs, _ = _columns(job.data.labels, job.data.label_column)
        where = np.minimum(np.searchsorted(their_ids, ids), max(len(their_ids) - 1, 0))
        missing = their_ids[where] != ids if len(their_ids) else np.ones(len(ids), dtype=np.bool_)
        if missing.any():
            raise DataError(
                f"{job.data.labels}: no row for {int(missing.sum())} of {len(ids)} examples (first id "
                f"{ids[missing][0]}); it was made from other examples: run the verb that writes it again"
            )
        labels = theirs[where]
    train, dev = _select(job, ids, splits)
    train, dev = train & (labels >= 0), dev & (given >= 0)
    if not train.any():
        raise DataError(
            f"{job.name}: no training example among the {len(ids)} of {job.data.examples}; check the split"
        )
    largest = max(int(labels[train].max()), int(given[dev].max(initial=0)))
    if largest >= num_classes:
        raise DataError(
            f"{job.name}: label {largest} found, expected less than the {num_classes} classes: run load again"
        )
    inputs = open_inputs(job.data.examples, job.data.features if frozen else None, encoder)

    def part(mask: npt.NDArray[np.bool_], values: Rows) -> Part:
        return Part(ids[mask], values[mask], inputs.rows(ids[mask]))

    return JobData(inputs, part(train, labels), part(dev, given))


def _columns(url: str, label_column: str) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """Ids sorted, labels (-1 where null) and whether the split is dev; a shard at a time."""
    folder = Folder(url)
    shards = folder.shards()
    if not shards:
        raise ArtifactError(f"{folder.path()} holds no shards: run the verb that writes it first")
    ids, labels, dev = [], [], []
    for shard in shards:
        table = folder.read_table(shard)
        missing = {"example_id", label_column} - set(table.column_names)
        if missing:
            raise ArtifactError(
                f"{folder.path(shard)} lacks {sorted(missing)}, found {table.column_names}: run its verb again"
            )
        ids.append(table["example_id"].to_numpy())
        labels.append(pc.fill_null(table[label_column].cast(pa.int64()), -1).to_numpy())
        split = (
            table["split"].to_numpy(zero_copy_only=False) if "split" in table.column_names else SPLIT_TRAIN
        )
        dev.append(np.broadcast_to(np.asarray(split == SPLIT_DEV, dtype=np.bool_), len(ids[-1])))
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    return every[order], np.concatenate(labels)[order], np.concatenate(dev)[order]


def _select(
    job: FitJob, ids: Rows, dev: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    if job.select.kind == "split":
        return ~dev, dev
    seen = folds(ids, job.seed, job.select.folds) != job.select.fold
    held_back = uniform(ids, job.seed, "fold-dev") < job.select.dev_share
    return seen & ~held_back, seen & held_back
