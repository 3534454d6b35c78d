"""The outputs of a job: its networks, a line per epoch, the columns of its method, and `result.json`."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.folder import Folder
from rayclean.measures import Measures
from rayclean.methods.base import Method
from rayclean.models.base import DESCRIPTION, Encoder
from rayclean.models.hugging_face import write_hugging_face
from rayclean.schema import TRAINED_LABEL
from rayclean.tasks.base import Task
from rayclean.training.checkpoint import TrainingProgress
from rayclean.training.job import FitJob, FitResult
from rayclean.training.job_data import JobData
from rayclean.training.state import ExampleState

DYNAMICS_ROWS = 65536
"""Number of rows per shard of columns."""


def summarise(job: FitJob, key: str, progress: TrainingProgress, data: JobData, workers: int) -> FitResult:
    """Build the result of a job, the content of `result.json`."""
    best, last = progress.history[progress.best_epoch - 1], progress.history[-1]
    examples = [record.get("examples", len(data.train.ids)) for record in progress.history]
    training = [
        count / record["examples_per_second"]
        for count, record in zip(examples, progress.history, strict=True)
    ]
    return FitResult(
        name=job.name,
        key=key,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        selected_by=job.best_by if len(data.dev.ids) else "last",
        loss=last["loss"],
        dev_loss=best["dev_loss"],
        dev_accuracy=best["dev_accuracy"],
        train_examples=examples[-1],
        dev_examples=len(data.dev.ids),
        truncated=max(inputs.truncated for inputs in data.inputs.values()),
        seconds=round(sum(record["seconds"] for record in progress.history), 3),
        examples_per_second=round(sum(examples) / sum(training), 1),
        workers=workers,
        dev_loss_final=best.get("dev_loss_final"),
        dev_accuracy_final=best.get("dev_accuracy_final"),
        dev_settled=None if data.final_dev is None else data.final_dev.settled,
    )


def save_network(
    network: Encoder,
    output: Folder,
    name: str,
    labels: tuple[str, ...],
    task: Task,
    standalone: bool = False,
) -> None:
    """Write a network to a sub-folder on any file system, with the form of labels that it was trained on in its
    description; `standalone`: with its body, also where that is frozen, as a model of Hugging Face where there is an equal
    one.
    """
    body = True if standalone else None
    output.remove(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(output.path(name) if output.is_local else f"{folder}/{name}")
        network.save(path, labels, body=body)
        description = json.loads((path / DESCRIPTION).read_text("utf-8")) | {"label_form": task.label_form}
        (path / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), "utf-8")
        if standalone:
            write_hugging_face(network, path, task.output_names, task.label_form)
        if not output.is_local:
            output.fs.put(str(path), output.path(name), recursive=True)


def write_history(output: Folder, progress: TrainingProgress) -> None:
    """Write the whole of `metrics.jsonl`, so that an epoch repeated after a crash has one line."""
    output.write_text("".join(json.dumps(record) + "\n" for record in progress.history), "metrics.jsonl")


def write_epoch(output: Folder, state: ExampleState, epoch: int) -> None:
    """`epochs/epoch-003/part-*.parquet`: the label trained on, where it is one class, and the method's columns
    as they are after an epoch.
    """
    labels = {
        name: state.columns[name].astype(np.int32) for name in ("given_label",) if name in state.columns
    }
    _write_columns(output.sub("epochs", f"epoch-{epoch:03d}"), state, labels)


def forget_epochs(output: Folder, after: int) -> None:
    """Remove the columns of later epochs, left by an attempt that ended before its next checkpoint."""
    if not output.exists("epochs"):
        return
    for path in output.fs.ls(output.path("epochs"), detail=False):
        name = str(path).rstrip("/").rpartition("/")[2]
        if int(name.removeprefix("epoch-")) > after:
            output.remove("epochs", name)


def subset_sizes(state: ExampleState, measures: Measures) -> dict[str, int]:
    """Number of examples in each subset of a method, as `size_<name>`; {} for a method without subsets."""
    if (subsets := measures.subsets) is None:
        return {}
    column = state.columns[subsets.column]
    return {f"size_{name}": int((column == value).sum()) for name, value in subsets.values.items()}


def write_dynamics(output: Folder, state: ExampleState, method: Method, labels: pa.Array) -> None:
    """Write `dynamics/part-*.parquet` with example_id, the method's columns, the label trained on, and quality
    (lower = more likely that this very label is wrong), and `measures.json`, which declares the columns that the
    report shows.

    Args:
        output: folder of the job.
        state: N examples.
        method: what they were trained by.
        labels: [N] what they were trained on, in the form of the task.
    """
    output.write_json(method.measures().model_dump(mode="json"), "measures.json")
    further = {TRAINED_LABEL: labels, "quality": method.quality(state.columns)}
    _write_columns(output.sub("dynamics"), state, further)


def _write_columns(
    folder: Folder, state: ExampleState, further: Mapping[str, pa.Array | npt.NDArray[Any]]
) -> None:
    folder.remove()
    table = pa.table({"example_id": state.ids, **state.own, **further})
    for number, start in enumerate(range(0, len(state.ids), DYNAMICS_ROWS)):
        folder.write_table(table.slice(start, DYNAMICS_ROWS), f"part-{number:05d}.parquet")
