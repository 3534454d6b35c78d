"""What the labels of a run are worth against whatever truth is known: noise, detection, annotator,
confusion.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotations import SuspectRanking
from rayclean.config import Config
from rayclean.evaluation import metrics as figures
from rayclean.evaluation.class_figures import class_figures
from rayclean.evaluation.counts import UNKNOWN, RunCounts, aligned
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup_values
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task


def measure_labels(config: Config, run: Run) -> tuple[dict[str, Any], RunCounts, SuspectRanking]:
    """Everything that needs no network, measured after relabel.

    Returns:
        The metrics of noise, detection, annotator and confusion, and the counts and the suspects that they
        are of.
    """
    load, detect, relabel = run.require("load"), run.require("detect"), run.require("relabel")
    task = TASKS.build(config.task, LabelSet.from_json(load.read_text("labels.json")))
    names = task.answers.names
    suspects = SuspectRanking.read(relabel)
    counts = _count_shards(config, load, detect, relabel, suspects, task)
    verb_metrics = {
        verb: manifest.metrics for verb in ("detect", "relabel") if (manifest := run.manifest(verb))
    }
    known = counts.total("known")
    metrics = figures.compute({
        "counts": counts,
        "truth": counts if known else None,
        "suspects": suspects,
        "judged": suspects if (suspects.truth >= 0).any() else None,
        "estimated_noise_rate": verb_metrics["detect"].get("estimated_noise_rate"),
    })  # fmt: skip
    metrics["noise"]["injected"] = injected_noise(load)
    metrics["noise"]["truth_outside"] = _truth_outside(load)
    metrics["annotator"] |= verb_metrics["relabel"]["annotator"]
    metrics["classes"] = class_figures(counts, names)
    metrics["confusion"] = {
        "given_final": figures.confusions(counts.given_final, names),
        "given_true": figures.confusions(counts.given_true, names) if known else None,
    }
    return metrics, counts, suspects


def true_labels(load: Folder, shard: str, ids: pa.ChunkedArray) -> pa.Array:
    """The true label of each example, null where it is not known."""
    if not load.exists("truth", shard):
        return pa.nulls(len(ids))
    truth = load.read_table("truth", shard)
    rows = pc.index_in(ids.combine_chunks(), value_set=truth["example_id"].combine_chunks())
    return truth["true_label"].combine_chunks().take(rows)


def true_answers(load: Folder, shard: str, findings: pa.Table, task: Task) -> npt.NDArray[np.int64]:
    """The true answer of each unit [B], `UNKNOWN` where it is not known.

    Args:
        load: the folder of `load`.
        shard: name of the shard that holds the examples of the units.
        findings: B rows of `findings/`.
        task: the run's task.
    """
    ids = findings["unit_id"].to_numpy()
    if not load.exists("truth", shard):
        return np.full(len(ids), UNKNOWN, dtype=np.int64)
    units = task.true_answers(load.read_table("truth", shard).drop_null(), findings)
    return lookup_values(units["unit_id"].to_numpy(), units["given_label"].to_numpy(), ids)


def _count_shards(
    config: Config, load: Folder, detect: Folder, relabel: Folder, suspects: SuspectRanking, task: Task
) -> RunCounts:
    """Count all units, a shard at a time."""
    detectors = [detector.name for detector in config.detect.detectors]
    columns = [
        "quality",
        "suspect",
        *(f"{kind}_{name}" for name in detectors for kind in ("quality", "vote")),
    ]
    counts = RunCounts(suspects, detectors)
    for shard in load.shards("examples"):
        examples = load.read_table("examples", shard, columns=["example_id", "given_label"])
        ids = task.unit_rows(examples)["unit_id"].to_numpy()
        findings = detect.read_table(
            "findings", shard, columns=["unit_id", "given_value", "suggested_value", *columns]
        )
        findings = aligned(findings, ids, f"findings/{shard}")
        final = aligned(relabel.read_table("labels", shard), ids, f"labels/{shard}")
        counts.add({
            "unit_id": ids,
            "given": final["given_label"].to_numpy(),
            "final": final["final_label"].to_numpy(),
            "truth": true_answers(load, shard, findings, task),
            "split": np.asarray(final["split"].to_pylist(), dtype=np.str_),
            "source": np.asarray(final["source"].to_pylist(), dtype=np.str_),
            **{name: findings[name].to_numpy() for name in columns},
        })  # fmt: skip
    return counts


def _truth_outside(load: Folder) -> dict[str, Any] | None:
    """`labels`: how many true labels are none of the classes; `values`: the most frequent ones. None if there are none."""
    if not load.exists("truth", "summary.json"):
        return None
    summary = load.read_json("truth", "summary.json")
    if not summary["outside_label_set"]:
        return None
    return {"labels": summary["outside_label_set"], "values": summary["most_frequent_outside"]}


def injected_noise(load: Folder) -> dict[str, Any] | None:
    """Kind, rates and seed of noise injected on purpose; None without any."""
    if not load.exists("truth", "noise.json"):
        return None
    noise = load.read_json("truth", "noise.json")
    return {key: noise[key] for key in ("kind", "requested_rate", "expected_rate", "realised_rate", "seed")}
