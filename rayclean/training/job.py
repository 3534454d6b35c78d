"""Training jobs in plain values: picklable, comparable, and with the key under which their results are found.

A job names its data by folder, says which examples it trains on and where its results go. Many jobs (the K
folds of `predict`, the three models that `evaluate` compares) share one specification and run one after
another in one group of workers.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rayclean.config import Plugin, TrainingConfig
from rayclean.fingerprints import fingerprint, stamp
from rayclean.folder import Folder

_VERSION = 8
"""Part of every job's key: raised when the code changes what training yields."""


@dataclass(frozen=True)
class DataSpec:
    """Folders of examples, labels and inputs."""

    examples: str
    """Folder of shards (`schema.EXAMPLES`)."""
    labels: str | None = None
    """Folder of shards with the labels to train on, by `example_id`; None: the given labels of `examples`.
    Development labels are always the given ones, so that models trained on other labels stay comparable."""
    label_column: str = "given_label"
    """Column of `labels`. Examples whose label is null are left out."""
    features: str | None = None
    """Folder of shards (`schema.features`) that the same encoder computed, in case its body is frozen: then
    the head is trained on these. An encoder that is trained whole reads the texts, whatever is given here."""


@dataclass(frozen=True)
class ExampleSelection:
    """Which examples train and which decide on the best epoch; both by `example_id` alone."""

    kind: Literal["split", "fold"] = "split"
    """`split`: the data set's own train and dev examples. `fold`: all examples (train and dev) outside fold
    `fold` of `folds`; of these a hash picks `dev_share` as development examples."""
    fold: int = -1
    folds: int = 0
    dev_share: float = 0.1


@dataclass(frozen=True)
class FitJob:
    """One network (or one group of networks) to train."""

    name: str
    """Name of the job in progress lines and errors."""
    data: DataSpec
    select: ExampleSelection
    seed: int
    output: str
    """Folder for `model/`, `metrics.jsonl`, `dynamics/`, `measures.json`, and `result.json`, which is written last."""
    keep_last: bool = False
    """Also write the weights of the last epoch, to `model_last/` (papers report best and last)."""
    keep_epochs: bool = False
    """Also write the method's columns after every epoch, to `epochs/`: what the report draws over time."""
    standalone: bool = False
    """Write a frozen body beside its head, so that the folder can be given away; else a reference to the
    body."""
    best_by: Literal["dev_loss", "dev_accuracy"] = "dev_loss"
    """Criterion of the best epoch, and of patience. `dev_loss`: the lowest, where the network's probabilities
    matter; `dev_accuracy`: the highest, of equal ones the lower dev loss. The earlier epoch breaks ties."""


@dataclass(frozen=True)
class FitSpec:
    """Specification of a training, which all jobs of a group share."""

    encoder: Plugin
    method: Plugin
    training: TrainingConfig
    labels: tuple[str, ...]
    """Names of the classes in index order; K of them."""
    annotator: tuple[Any, ...] = ()
    """Values on which the answers of the annotator depend that the method may ask; () where there is no
    annotator."""


@dataclass(frozen=True)
class FitResult:
    """Result of a finished job: the content of `result.json`."""

    name: str
    key: str
    """`job_key` of what was trained: another key means that the result belongs to something else."""
    epochs: int
    """Epochs trained, those after the best one included."""
    best_epoch: int
    """1-based; its weights are in `model/`."""
    selected_by: Literal["dev_loss", "dev_accuracy", "last"]
    """`last`: there were no development examples, so the last epoch was kept."""
    loss: float
    """Mean training loss of the last epoch."""
    dev_loss: float | None
    """Mean cross-entropy of the best epoch on the given development labels; None without development
    examples."""
    dev_accuracy: float | None
    """Accuracy of the best epoch on the given development labels; None without development examples."""
    train_examples: int
    """Examples of the last stage."""
    dev_examples: int
    truncated: int
    """Texts of the data set cut at the encoder's `max_length`."""
    seconds: float
    """Time in epochs, of all attempts together."""
    examples_per_second: float
    """Training examples per second, development passes not counted."""
    workers: int
    """Workers of the attempt that finished."""


def folder_key(url: str) -> list[tuple[str, int, str]]:
    """Name, size and time or tag of every shard: they change when the content does, and need no reading."""
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
    classes.

    The folder of its output and the number of workers are no part of it.
    """
    data: dict[str, Any] = {"label_column": job.data.label_column, "examples": folder_key(job.data.examples)}
    for name, url in (("labels", job.data.labels), ("features", job.data.features)):
        data[name] = folder_key(url) if url is not None else None
    return fingerprint(
        _VERSION, job.name, data, asdict(job.select), job.seed, job.keep_last, job.keep_epochs, job.standalone,
        job.best_by, spec.encoder.model_dump(mode="json"), spec.method.model_dump(mode="json"), spec.training.identity(),
        spec.labels,
        spec.annotator,
    )  # fmt: skip
