"""The data of one job on one worker: training and development examples, labels, and the inputs of each
network.

Only ids and labels are in memory (about 40 bytes per example); tokens or features are memory-mapped. Networks
with the same encoder share inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from rayclean.config import Plugin
from rayclean.errors import ArtifactError, DataError
from rayclean.folder import Folder
from rayclean.functional.hashing import folds, uniform
from rayclean.functional.lookup import lookup
from rayclean.hashing import int64
from rayclean.models import ENCODERS
from rayclean.schema import SPLIT_DEV, SPLIT_TRAIN
from rayclean.training.inputs import NetworkInputs, Rows, open_inputs
from rayclean.training.job import FitJob


@dataclass(frozen=True)
class Part:
    """A subset of examples (training or development), sorted by id."""

    ids: Rows
    labels: Rows
    rows: dict[str, Rows]
    """Rows in the inputs of each network, by network."""


@dataclass(frozen=True)
class JobData:
    """The training and development examples of one job."""

    inputs: dict[str, NetworkInputs]
    """Inputs by network; networks with equal inputs share one object."""
    train: Part
    dev: Part
    examples: str
    """Folder of example shards."""

    @cached_property
    def texts_of_train(self) -> Rows:
        """Hash [N] of the stripped text of every training example, computed on first use."""
        folder, found = Folder(self.examples), np.zeros(len(self.train.ids), dtype=np.int64)
        for shard in folder.shards():
            table = folder.read_table(shard, columns=["example_id", "text"])
            ids = table["example_id"].to_numpy()
            positions, is_trained = lookup(self.train.ids, ids)
            rows = np.flatnonzero(is_trained)
            found[positions[rows]] = [int64(text.strip()) for text in table["text"].take(rows).to_pylist()]
        return found

    def batch(self, part: Part, chosen: Rows) -> dict[str, dict[str, Tensor]]:
        """Inputs [B, ...] of some examples of a part, by network; networks with equal inputs share one
        object.
        """
        made: dict[int, dict[str, Tensor]] = {}
        for name, inputs in self.inputs.items():
            if id(inputs) not in made:
                made[id(inputs)] = inputs.batch(part.rows[name][chosen])
        return {name: made[id(inputs)] for name, inputs in self.inputs.items()}

    def lengths(self, part: Part) -> Rows | None:
        """Tokens per example for the first network that reads tokens; None if all read features."""
        for name, inputs in self.inputs.items():
            if (lengths := inputs.lengths(part.rows[name])) is not None:
                return lengths
        return None


def open_job(job: FitJob, encoders: Mapping[str, Plugin], num_classes: int, featured: Plugin) -> JobData:
    """Select the job's examples and open what each network reads.

    Args:
        job: the job, which selects the examples.
        encoders: encoder of each network, by network.
        num_classes: number of classes K.
        featured: the encoder that computed the job's cached features, if any; networks with this encoder read
            them if its body is frozen. All others read tokens.

    Raises:
        DataError: there is no training example, a label is not a class, or an example has no label or
            features.
    """
    ids, given, splits = _columns(job.data.examples, "given_label")
    labels = given
    if job.data.labels is not None:
        label_ids, label_values, _ = _columns(job.data.labels, job.data.label_column)
        position, found = lookup(label_ids, ids)
        if not found.all():
            raise DataError(
                f"{job.data.labels}: no row for {int((~found).sum())} of {len(ids)} examples (first id "
                f"{ids[~found][0]}); it was made from other examples: run the verb that writes it again"
            )
        labels = label_values[position]
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
    inputs: dict[str, NetworkInputs] = {}
    for name, encoder in encoders.items():
        same = [other for other in inputs if encoders[other] == encoder]
        features = job.data.features if encoder == featured and is_frozen(encoder) else None
        inputs[name] = inputs[same[0]] if same else open_inputs(job.data.examples, features, encoder)

    def part(mask: npt.NDArray[np.bool_], values: Rows) -> Part:
        return Part(ids[mask], values[mask], {name: each.rows(ids[mask]) for name, each in inputs.items()})

    return JobData(inputs, part(train, labels), part(dev, given), job.data.examples)


def is_frozen(encoder: Plugin) -> bool:
    """Whether the body of an encoder is frozen, so that only the layers after it are trained."""
    cls, options = ENCODERS.checked(encoder)
    return cls.is_frozen(options)


def _columns(url: str, label_column: str) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """Read, shard by shard, the sorted ids, the labels (-1 for null), and whether the split is dev."""
    folder = Folder(url)
    shards = folder.shards()
    if not shards:
        raise ArtifactError(f"{folder.url()} holds no shards: run the verb that writes it first")
    ids, labels, dev = [], [], []
    for shard in shards:
        table = folder.read_table(shard)
        missing = {"example_id", label_column} - set(table.column_names)
        if missing:
            raise ArtifactError(
                f"{folder.url(shard)} lacks {sorted(missing)}, found {table.column_names}: run its verb again"
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
