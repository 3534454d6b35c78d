"""The data of several jobs that read the same examples, such as the folds of self-prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.config import Plugin
from rayclean.tasks.base import Task
from rayclean.training.fold_table import read_folds
from rayclean.training.inputs import NetworkInputs, Rows, open_inputs
from rayclean.training.job import FitJob
from rayclean.training.job_data import JobData, Part, label_too_large, nothing_to_train, select_examples
from rayclean.training.label_columns import known_labels, largest_label, read_label_column


@dataclass(frozen=True)
class SharedData:
    """The examples of jobs that read the same data, such as the folds of self-prediction."""

    inputs: NetworkInputs
    examples: str
    """Folder of example shards."""
    part: Part
    """All N examples with a label."""
    train: npt.NDArray[np.bool_]
    """[J, N] which examples train the network of each job."""
    dev: npt.NDArray[np.bool_]
    """[J, N] by which examples the best epoch of each job is chosen."""
    pool: Rows
    """Positions of the examples of all batches. Where they are selected by folds, neither these nor their order depend on any
    label: they are all that stand for their text, also if a network has them as development examples."""
    learnt: float
    """How many of the pool train a network on average; by folds without regard to labels, from the share of development."""

    def of_job(self, place: int, name: str) -> JobData:
        """The data of one job, by its place among all; its network has a name."""

        def part(mask: npt.NDArray[np.bool_]) -> Part:
            all_ = self.part
            rows = {name: next(iter(all_.rows.values()))[mask]}
            return Part(all_.ids[mask], all_.labels.filter(pa.array(mask)), rows, all_.task)

        return JobData({name: self.inputs}, part(self.train[place]), part(self.dev[place]), self.examples)


def open_shared(jobs: Sequence[FitJob], encoder: Plugin, task: Task) -> SharedData:
    """Read once what all jobs train on, by the given labels.

    Args:
        jobs: of the same `data`, without labels of their own.
        encoder: of all networks; it answers once for a text.
        task: what a label is.

    Raises:
        DataError: a job has no training example, a label is outside the classes, or an example has no features.
    """
    data = jobs[0].data
    assert all(job.data == data for job in jobs)
    assert data.labels is None
    ids, given, splits = read_label_column(data.examples, "given_label")
    known = known_labels(given)
    ids, given, splits = ids[known], given.filter(pa.array(known)), splits[known]
    masks = [select_examples(job, ids, splits, given) for job in jobs]
    train, dev = (np.stack([mask[which] for mask in masks]) for which in (0, 1))
    for job, chosen in zip(jobs, train, strict=True):
        if not chosen.any():
            raise nothing_to_train(job, len(known))
    if (largest := largest_label(given)) >= task.outputs:
        raise label_too_large(jobs[0], largest, task)
    inputs = open_inputs(data.examples, data.features, encoder)
    rows = inputs.rows(ids)
    part = Part(ids, given, {job.name: rows for job in jobs}, task)
    if jobs[0].select.kind == "fold":
        folds = read_folds(jobs[0].select.folds, ids)
        pool = np.flatnonzero(folds.stands)
        pool = pool[np.argsort(folds.copies[pool], kind="stable")]
        learnt = (train | dev).sum() / len(jobs) * (1 - jobs[0].select.dev_share)
    else:
        pool = np.flatnonzero(train.any(axis=0))
        learnt = train.sum() / len(jobs)
    return SharedData(inputs, data.examples, part, train, dev, pool, float(learnt))
