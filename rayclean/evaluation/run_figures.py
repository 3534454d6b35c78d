"""The figures of one run by name, by which runs are compared: of its labels, its training and its costs."""

import json
import math
from collections.abc import Sequence
from typing import Any

from rayclean.config import Config
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.folder import Folder
from rayclean.run import Run

TRUTH_FIGURES = (
    "accuracy", "accuracy_last", "f1_macro", "noise_given", "noise_final", "repaired", "harm", "roc_auc",
    "average_precision", "precision_at_budget", "recall_at_budget", "annotator_accuracy",
)  # fmt: skip
"""Figures measured on the test examples or on known true labels: shown, never chosen by."""


def run_figures(config: Config, run: Run, verbs: Sequence[str]) -> dict[str, float]:
    """The figures of a run that finished some verbs; a figure that is not known is left out."""
    verb_metrics = {verb: manifest.metrics for verb in verbs if (manifest := run.manifest(verb)) is not None}
    metrics = (
        run.read_json("evaluate", "metrics.json") if "evaluate" in verbs else measure_labels(config, run)[0]
    )
    relabel, train = verb_metrics["relabel"], verb_metrics.get("train", {})
    accuracy, detection, noise = metrics.get("accuracy", {}), metrics["detection"], metrics["noise"]
    asked, worth = relabel["answered"] + sum(relabel["errors"].values()), relabel["worth"]
    asked += sum(each["controls"]["asked"] for each in relabel["judged"])
    tokens, cost = worth["tokens"], worth["cost"]
    if asker := train.get("annotator"):  # a method that asks while it trains
        asked += asker["worth"]["queries"]
        tokens, cost = tokens + asker["worth"]["tokens"], cost + asker["worth"]["cost"]
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


def epoch_records(train: Folder) -> list[dict[str, Any]]:
    """The lines of `train/metrics.jsonl`, one for each epoch; [] where nothing was trained."""
    if not train.exists("metrics.jsonl"):
        return []
    return [json.loads(line) for line in train.read_text("metrics.jsonl").splitlines() if line.strip()]
