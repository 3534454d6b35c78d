"""Descriptions of training jobs in plain values, with the key that identifies their results.

A job specifies its folders of data, its training examples and its output folder. Many jobs (the K folds of
`predict`, the three models that `evaluate` compares) share one specification; a group of workers trains several of
them, one after another.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rayclean.config import Config, Plugin, TrainingConfig
from rayclean.fingerprints import fingerprint, stamp
from rayclean.folder import Folder

_VERSION = 13
"""Part of every job's key, raised when a change of the code changes the results of training."""

FEWEST_SETTLED = 20
"""Least number of settled development examples by which an epoch is chosen. Fewer say less about the epochs than all
of them do, unresolved suspects included."""

ONE_CLASS: Plugin = Config.model_fields["task"].default
"""The default task, where a label is one class."""


@dataclass(frozen=True)
class DataSpec:
    """Folders of examples, labels and inputs."""

    examples: str
    """Folder of example shards (`schema.EXAMPLES`)."""
    labels: str | None = None
    """Folder of shards with the training labels, by `example_id`; None: the given labels of `examples`. The figures
    `dev_loss` and `dev_accuracy` are always of the given development labels, so that models trained on different
    labels are comparable.
    """
    label_column: str = "given_label"
    """Column of `labels`. Examples whose label is null are left out."""
    features: str | None = None
    """Folder of shards (`schema.features`) computed by the same encoder, on which the head is trained if the
    body is frozen. An encoder with a trainable body reads the texts instead."""
    sources: str | None = None
    """Folder of shards with the source of every unit's label (`schema.LABELS`): the best epoch is then chosen by the
    labels of `labels` of the development examples that are no unresolved suspects. None: by the given labels of all."""


@dataclass(frozen=True)
class ExampleSelection:
    """Selection of training and development examples, by `example_id` alone."""

    kind: Literal["split", "fold"] = "split"
    """`split`: the train and dev examples of the data set. `fold`: all examples (train and dev) outside fold
    `fold` that stand for the copies of their text; of the groups of each class among these a share of `dev_share`
    are development examples (`functional.held_out`)."""
    fold: int = -1
    folds: str = ""
    """Folder of shards with the fold of every example (`schema.FOLDS`)."""
    dev_share: float = 0.1


@dataclass(frozen=True)
class FitJob:
    """A job that trains one network (or one group of networks)."""

    name: str
    """Name of the job in progress lines and errors."""
    data: DataSpec
    select: ExampleSelection
    seed: int
    output: str
    """Folder for `model/`, `metrics.jsonl`, `dynamics/`, `measures.json`, and `result.json`, which is written last."""
    keep_last: bool = False
    """Whether to also write the weights of the last epoch to `model_last/` (papers report best and last)."""
    keep_epochs: bool = False
    """Whether to also write the method's columns after every epoch to `epochs/`, for the plots of the
    report."""
    standalone: bool = False
    """Whether to write a frozen body with its head, so that the folder is portable; otherwise a reference to
    the body."""
    best_by: Literal["dev_loss", "dev_accuracy"] = "dev_loss"
    """Criterion of the best epoch and of patience, on the development labels that `DataSpec.sources` says.
    `dev_loss`: the lowest, if the network's probabilities matter; `dev_accuracy`: the highest, with ties broken by
    the lower dev loss. Remaining ties go to the earlier epoch."""


@dataclass(frozen=True)
class FitSpec:
    """Specification of the training of all jobs of a group."""

    encoder: Plugin
    method: Plugin
    training: TrainingConfig
    labels: tuple[str, ...]
    """Names of the classes in index order, of the entity classes where labels are tags."""
    annotator: tuple[Any, ...] = ()
    """Values on which the answers of the annotator depend that the method may ask; () where there is no
    annotator."""
    task: Plugin = ONE_CLASS
    """What a label is."""


@dataclass(frozen=True)
class FitResult:
    """Result of a finished job: the content of `result.json`."""

    name: str
    key: str
    """`job_key` of the trained job; a different key means that the result belongs to another job."""
    epochs: int
    """Number of trained epochs, including those after the best one."""
    best_epoch: int
    """Number of the best epoch, from 1; its weights are in `model/`."""
    selected_by: Literal["dev_loss", "dev_accuracy", "last"]
    """Criterion by which the epoch was selected; `last`: the last epoch, as there were no development
    examples."""
    loss: float
    """Mean training loss of the last epoch."""
    dev_loss: float | None
    """Mean loss, by the task, of the best epoch on the given development labels; None without development
    examples."""
    dev_accuracy: float | None
    """Mean share, by the task, of what the best epoch says right of the given development labels; None without
    development examples."""
    train_examples: int
    """Number of training examples of the last stage."""
    dev_examples: int
    truncated: int
    """Number of texts of the data set cut at the encoder's `max_length`."""
    seconds: float
    """Seconds spent in epochs, over all attempts."""
    examples_per_second: float
    """Training examples per second, without development passes."""
    workers: int
    """Number of workers of the last attempt."""
    dev_loss_final: float | None = None
    """As `dev_loss`, on the final labels of the settled development examples (of all, if fewer than `FEWEST_SETTLED`
    are settled), by which the best epoch was chosen; None where it was chosen by the given labels."""
    dev_accuracy_final: float | None = None
    """As `dev_accuracy`, likewise."""
    dev_settled: int | None = None
    """Number of development examples that are no unresolved suspects; None where the best epoch was chosen by the
    given labels."""

    def chosen_by(self) -> dict[str, Any]:
        """By which development labels the epoch was chosen, as metrics: `dev_labels` is `given`, `settled` (the final
        labels of settled examples) or `final` (of all, with a `note` that says why); with the figures on final ones.
        """
        if self.dev_settled is None:
            return {"dev_labels": "given"}
        names = ("dev_loss_final", "dev_accuracy_final", "dev_settled")
        figures = {name: getattr(self, name) for name in names}
        if self.dev_settled >= min(FEWEST_SETTLED, self.dev_examples):
            return {"dev_labels": "settled", **figures}
        note = (
            f"all {self.dev_examples} development examples chose the epoch, as only {self.dev_settled} are no unresolved "
            f"suspects and {FEWEST_SETTLED} are needed: raise dataset.dev.share, or settle the suspects"
        )
        return {"dev_labels": "final", **figures, "note": note}


def folder_key(url: str) -> list[tuple[str, int, str]]:
    """Name, size and time or tag of every shard, which detect changes without reading the content."""
    folder = Folder(url)
    names = set(folder.shards())
    key = []
    for entry in folder.fs.ls(folder.path(), detail=True) if names else []:
        name = os.path.basename(str(entry["name"]))
        if name in names:
            key.append((name, int(entry["size"]), stamp(entry)))
    return sorted(key)


def job_key(job: FitJob, spec: FitSpec) -> str:
    """Hash of everything that a job's result depends on: data, selection, seed, encoder, method, training,
    task and classes.

    It excludes the output folder and the number of workers.
    """
    data: dict[str, Any] = {"label_column": job.data.label_column, "examples": folder_key(job.data.examples)}
    for name, url in (
        ("labels", job.data.labels), ("features", job.data.features), ("sources", job.data.sources),
    ):  # fmt: skip
        data[name] = folder_key(url) if url is not None else None
    return fingerprint(
        _VERSION, job.name, data, asdict(job.select), job.seed, job.keep_last, job.keep_epochs, job.standalone,
        job.best_by, spec.encoder.model_dump(mode="json"), spec.method.model_dump(mode="json"), spec.training.identity(),
        spec.labels,
        spec.annotator,
        spec.task.model_dump(mode="json"),
    )  # fmt: skip
