"""The data of one job on one worker: training and development examples, labels, and the inputs of each
network.

Only ids and labels are in memory (about 40 bytes per example of one class); tokens or features are
memory-mapped. Networks of the same encoder read the same inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotations import UNDECIDED
from rayclean.config import Plugin
from rayclean.errors import DataError
from rayclean.folder import Folder
from rayclean.functional.held_out import held_out_splits
from rayclean.functional.lookup import lookup
from rayclean.hashing import int64
from rayclean.models.base import Inputs
from rayclean.tasks.base import Task
from rayclean.training.fold_table import read_folds
from rayclean.training.inputs import NetworkInputs, Rows, WordInputs, open_inputs, reads_features
from rayclean.training.job import FEWEST_SETTLED, FitJob
from rayclean.training.label_columns import (
    class_of_each,
    known_labels,
    largest_label,
    read_label_column,
    shards_with,
)


@dataclass(frozen=True)
class Part:
    """A subset of examples (training or development), sorted by id."""

    ids: Rows
    labels: pa.Array
    """[N] known labels, in the form of the task."""
    rows: dict[str, Rows]
    """Rows of each network's inputs, by network."""
    task: Task

    def targets(self, chosen: Rows | None = None) -> npt.NDArray[Any]:
        """What networks learn of some examples, or of all, [B, ...]; see `Task.targets`."""
        return self.task.targets(self.labels if chosen is None else self.labels.take(pa.array(chosen)))


@dataclass(frozen=True)
class FinalDev:
    """Development examples with their final labels, by which the best epoch is chosen."""

    part: Part
    """All development examples, in the order of `JobData.dev`."""
    counts: npt.NDArray[np.bool_]
    """[N] which of them the epoch is chosen by."""
    settled: int
    """Number of those that are no unresolved suspects."""


@dataclass(frozen=True)
class JobData:
    """The training and development examples of one job."""

    inputs: dict[str, NetworkInputs]
    """Inputs by network; networks with equal inputs share one object."""
    train: Part
    dev: Part
    """Development examples with their given labels."""
    examples: str
    """Folder of example shards."""
    final_dev: FinalDev | None = None
    """None where the best epoch is chosen by the given labels."""

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

    def batch(self, part: Part, chosen: Rows, names: Sequence[str] | None = None) -> dict[str, Inputs]:
        """Inputs [B, ...] of some examples of a part, by network (all, or those of some names); networks with equal inputs
        share one object.
        """
        made: dict[int, Inputs] = {}
        wanted = {name: self.inputs[name] for name in (self.inputs if names is None else names)}
        for name, inputs in wanted.items():
            if id(inputs) not in made:
                made[id(inputs)] = inputs.batch(part.rows[name][chosen])
        return {name: made[id(inputs)] for name, inputs in wanted.items()}

    def lengths(self, part: Part) -> Rows | None:
        """Tokens per example for the first network that reads tokens; None if all read features."""
        for name, inputs in self.inputs.items():
            if (lengths := inputs.lengths(part.rows[name])) is not None:
                return lengths
        return None


def open_job(job: FitJob, encoders: Mapping[str, Plugin], task: Task, featured: Plugin) -> JobData:
    """Select the job's examples and open what each network reads.

    Args:
        job: which examples.
        encoders: by network.
        task: what a label is.
        featured: the encoder that computed the job's cached features, if there are any; networks of it read
            these if its body is frozen and it answers once for a text. All others read tokens.

    Raises:
        DataError: no training example, a label outside the classes, examples without label or features, or
            tags that are not as many as the words.
    """
    ids, given, splits = read_label_column(job.data.examples, "given_label")
    labels = given
    if job.data.labels is not None:
        label_ids, label_values, _ = read_label_column(job.data.labels, job.data.label_column)
        position, found = lookup(label_ids, ids)
        if not found.all():
            raise DataError(
                f"{job.data.labels}: no row for {int((~found).sum())} of {len(ids)} examples (first id "
                f"{ids[~found][0]}); it was made from other examples: run the verb that writes it again"
            )
        labels = label_values.take(pa.array(position))
    train, dev = select_examples(job, ids, splits, given)
    train, dev = train & known_labels(labels), dev & known_labels(given)
    if job.data.sources is not None:
        dev &= known_labels(labels)
    if not train.any():
        raise nothing_to_train(job, len(ids))
    trained, given_dev, final_dev = (
        column.filter(pa.array(mask)) for column, mask in ((labels, train), (given, dev), (labels, dev))
    )
    largest = max(largest_label(column) for column in (trained, given_dev, final_dev))
    if largest >= task.outputs:
        raise label_too_large(job, largest, task)
    inputs = open_each(job, encoders, task, featured)

    def part(mask: npt.NDArray[np.bool_], values: pa.Array) -> Part:
        rows = {name: each.rows(ids[mask]) for name, each in inputs.items()}
        made = Part(ids[mask], values, rows, task)
        for name, each in inputs.items():
            if isinstance(each, WordInputs):
                _check_words(job, made, each.words(rows[name]))
        return made

    final = None
    if job.data.sources is not None and dev.any():
        final = _final_dev(job.data.sources, part(dev, final_dev))
    return JobData(inputs, part(train, trained), part(dev, given_dev), job.data.examples, final)


def _final_dev(sources: str, part: Part) -> FinalDev:
    """Choose the development examples of which no unit is an unresolved suspect, if there are enough of them."""
    found = [np.zeros(0, dtype=np.int64)]
    for table in shards_with(sources, ["example_id", "source"]):
        unresolved = pc.is_in(table["source"], pa.array(UNDECIDED))
        found.append(table["example_id"].filter(unresolved).to_numpy())
    settled = ~np.isin(part.ids, np.concatenate(found))
    counts = settled if settled.sum() >= FEWEST_SETTLED else np.ones(len(settled), dtype=np.bool_)
    return FinalDev(part, counts, int(settled.sum()))


def open_each(
    job: FitJob, encoders: Mapping[str, Plugin], task: Task, featured: Plugin
) -> dict[str, NetworkInputs]:
    """What each network reads, by network; made first where this node has none of it. Arguments as for `open_job`."""
    inputs: dict[str, NetworkInputs] = {}
    for name, encoder in encoders.items():
        same = [other for other in inputs if encoders[other] == encoder]
        features = features_read(job, encoder, task, featured)
        inputs[name] = (
            inputs[same[0]] if same else open_inputs(job.data.examples, features, encoder, task.per_token)
        )
    return inputs


def features_read(job: FitJob, encoder: Plugin, task: Task, featured: Plugin) -> str | None:
    """Folder of the features that a network of an encoder reads; None: it reads tokens. Arguments as for `open_job`."""
    cached = encoder == featured and reads_features(encoder, task.per_token)
    return job.data.features if cached else None


def nothing_to_train(job: FitJob, examples: int) -> DataError:
    """The error where none of the examples of a job trains it."""
    return DataError(
        f"{job.name}: no training example among the {examples} of {job.data.examples}; check the split"
    )


def label_too_large(job: FitJob, largest: int, task: Task) -> DataError:
    """The error where labels are not those of a task's classes."""
    return DataError(
        f"{job.name}: label {largest} found, expected less than {task.outputs}: run 'rayclean load CONFIG --again'"
    )


def _check_words(job: FitJob, part: Part, words: Rows) -> None:
    tags = part.labels.value_lengths().to_numpy(zero_copy_only=False)
    if (wrong := np.flatnonzero(tags != words)).size:
        row = wrong[0]
        raise DataError(
            f"{job.name}: example {part.ids[row]} has {words[row]} tokens and {tags[row]} tags; it was labelled as "
            "another text: run the verb that wrote the labels again"
        )


def select_examples(
    job: FitJob, ids: Rows, dev: npt.NDArray[np.bool_], given: pa.Array
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which of some examples [N] a job learns from, and by which its best epoch is chosen.

    Args:
        job: which examples it selects.
        ids: their ids.
        dev: [N] whether the data set has them in its development split.
        given: [N] their given labels; by folds, examples without one are not selected.

    Returns:
        [N] and [N], which exclude each other.
    """
    if job.select.kind == "split":
        return ~dev, dev & ~np.isin(ids, _shared(job.data.examples))
    folds = read_folds(job.select.folds, ids)
    seen = (folds.fold != job.select.fold) & folds.stands & known_labels(given)
    held_back = np.zeros(len(ids), dtype=np.bool_)
    held_back[seen] = held_out_splits(
        ids[seen],
        folds.group[seen],
        class_of_each(given)[seen],
        job.seed,
        test=0.0,
        dev=job.select.dev_share,
        draw="fold-dev",
    )
    return seen & ~held_back, seen & held_back


def _shared(examples: str) -> Rows:
    """Ids of development examples of files of their own whose text is in the training data, which `load` has found: they
    would choose the epoch that has memorised most.
    """
    load = Folder(examples.rstrip("/").rpartition("/")[0])
    found = [load.read_table("shared", shard)["example_id"].to_numpy() for shard in load.shards("shared")]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])
