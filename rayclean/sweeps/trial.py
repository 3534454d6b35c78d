"""One trial: runs its verbs, collects its figures, writes `result.json` last. It runs in a worker of the
cluster.
"""

import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from rayclean import pipeline
from rayclean.annotators import build_annotator
from rayclean.annotators.budget import Budget
from rayclean.config import Config, parse_config
from rayclean.evaluation.example_rows import changed_rows
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.folder import Folder
from rayclean.schema import LabelSet
from rayclean.sweeps.plan import Work
from rayclean.sweeps.trial_run import TrialRecord, TrialRun

if TYPE_CHECKING:
    from rayclean.runtime.engines import Workplace

RESULT, EPOCHS = "result.json", "epochs.jsonl"
Stopped = bool | Literal["plateau"]
"""Whether a trial was stopped early: False, True (it was worse than others), or "plateau" (its objective
stood still)."""

TRUTH_FIGURES = (
    "accuracy", "accuracy_last", "f1_macro", "noise_given", "noise_final", "repaired", "harm", "roc_auc",
    "average_precision", "precision_at_budget", "recall_at_budget", "annotator_accuracy",
)  # fmt: skip
"""Figures measured on the test examples or on known true labels: shown, never chosen by."""


def run_trial(
    work: Work,
    root: str,
    verbs: tuple[str, ...],
    on_epoch: Callable[[TrialRecord], None],
    place: "Workplace",
) -> TrialRecord:
    """Run what is not finished of a trial and write its result; a finished one is only read.

    Args:
        work: the trial.
        root: folder of the sweep.
        verbs: the verbs that a trial runs.
        on_epoch: called after every epoch with `epoch`, `dev_accuracy`, `dev_loss`, `loss` and the method's
            own measures.
        place: what the trial has in common with others.

    Returns:
        The content of `result.json`.
    """
    run = work.run(root)
    with run.alone():
        if (known := finished_trial(run)) is not None:
            return known
        start = time.monotonic()
        reported: set[int] = set()

        def report(record: TrialRecord) -> None:
            reported.add(record["epoch"])
            on_epoch(record)

        pipeline.run_verbs(work.config, verbs, run=run, on_epoch=report, place=place)
        records = history(run)
        if not reported:  # an earlier attempt, or a trial that shares the training, has finished it
            for record in records:
                on_epoch(record)
        return write_result(work, run, figures(work.config, run, verbs), records, time.monotonic() - start)


def finished_trial(run: TrialRun) -> TrialRecord | None:
    """The result of a trial that has one."""
    return dict(run.read_json(RESULT)) if run.exists(RESULT) else None


def history(run: TrialRun) -> list[TrialRecord]:
    """The epochs of a finished training; [] where nothing was trained."""
    if "train" not in run.fingerprints or not run.exists("train", "metrics.jsonl"):
        return []
    return [json.loads(line) for line in run.read_text("train", "metrics.jsonl").splitlines()]


def write_result(
    work: Work,
    run: TrialRun,
    numbers: dict[str, float],
    records: list[TrialRecord],
    seconds: float,
    stopped: Stopped = False,
) -> TrialRecord:
    """Write `epochs.jsonl`, then `result.json`: a trial with a result is whole. Returns the result."""
    result = {
        "trial": work.trial.name,
        "point": work.trial.point,
        "seed": work.trial.seed,
        "figures": numbers,
        "began": round(time.time() - seconds, 3),
        "wall_seconds": round(seconds, 3),  # without the verbs that it shares, which ran before
        "stopped": stopped,
    }
    run.write_text("".join(json.dumps(record) + "\n" for record in records), EPOCHS)
    run.write_json(result, RESULT)
    return result


def figures(config: Config, run: TrialRun, verbs: tuple[str, ...]) -> dict[str, float]:
    """The trial's figures by name; a figure that is not known here is left out."""
    verb_metrics = {verb: manifest.metrics for verb in verbs if (manifest := run.manifest(verb)) is not None}
    metrics = (
        run.read_json("evaluate", "metrics.json") if "evaluate" in verbs else measure_labels(config, run)[0]
    )
    relabel, train = verb_metrics["relabel"], verb_metrics.get("train", {})
    accuracy, detection, noise = metrics.get("accuracy", {}), metrics["detection"], metrics["noise"]
    asked = relabel["suspects"] - relabel["unasked"]
    tokens, cost = relabel["worth"]["tokens"], relabel["worth"]["cost"]
    budget = Budget.of(build_annotator(config, ()))
    for line in history(run):  # a method that asks while it trains
        asked += int(line.get("asked", 0) + line.get("from_ledger", 0))
        prompt, answer = int(line.get("prompt_tokens", 0)), int(line.get("answer_tokens", 0))
        tokens, cost = tokens + prompt + answer, cost + budget.cost(prompt, answer)
    found = {
        "dev_accuracy": train.get("dev_accuracy"),
        "dev_loss": train.get("dev_loss"),
        "suspects": verb_metrics["detect"]["suspects"],
        "asked": asked,
        "changed": relabel["changed"],
        "tokens": tokens,
        "cost": cost,
        "seconds": sum(manifest.seconds for verb in verbs if (manifest := run.manifest(verb)) is not None),
        "accuracy": accuracy.get("trained"),
        "accuracy_last": accuracy.get("last"),
        "f1_macro": metrics.get("f1_macro", {}).get("trained"),
        "noise_given": noise["given"],
        "noise_final": noise["final"],
        "repaired": metrics["repaired"],
        "harm": metrics["harm"],
        "roc_auc": detection["roc_auc"],
        "average_precision": detection["average_precision"],
        "precision_at_budget": detection["precision_at_budget"],
        "recall_at_budget": detection["recall_at_budget"],
        "annotator_accuracy": metrics["annotator"]["accuracy"],
    }
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def changed_examples(run: TrialRun, limit: int) -> list[TrialRecord]:
    """The changes of labels that matter most, with their texts."""
    labels = LabelSet.from_json(run.require("load").read_text("labels.json"))
    _, tally, suspects = measure_labels(parse_config(run.read_json("config.json")), run)
    rows = changed_rows(run, suspects, tally, labels, limit, harmful=False)
    return [{key: row[key] for key in ("example_id", "text", "given", "final", "confidence")} for row in rows]


def finished_results(folder: Folder) -> dict[str, TrialRecord]:
    """Every finished trial in a sweep's folder, by name."""
    return {name: folder.read_json("trials", name, RESULT) for name in trials_with(folder, RESULT)}


def trial_epochs(folder: Folder, name: str) -> list[TrialRecord]:
    """The epochs of a finished trial in a sweep's folder; [] where nothing was trained."""
    return [json.loads(line) for line in folder.read_text("trials", name, EPOCHS).splitlines()]


def trials_with(folder: Folder, file: str) -> list[str]:
    """Names of the trials in a sweep's folder that have a file, sorted."""
    try:
        entries = folder.fs.ls(folder.path("trials"), detail=False)
    except FileNotFoundError:
        return []
    found = sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in entries)
    return [name for name in found if folder.exists("trials", name, file)]
