"""The figures of one run by name, by which runs are compared: of its labels, its training and its costs."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

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
    prompt, answer = _tokens(run)
    asked = relabel["suspects"] - relabel["unasked"]
    for line in (
        epoch_records(run.sub("train")) if "train" in verbs else ()
    ):  # a method that asks while it trains
        asked += int(line.get("asked", 0) + line.get("from_ledger", 0))
        prompt += int(line.get("prompt_tokens", 0))
        answer += int(line.get("answer_tokens", 0))
    price = config.relabel
    found = {
        "dev_accuracy": train.get("dev_accuracy"),
        "dev_loss": train.get("dev_loss"),
        "suspects": verb_metrics["detect"]["suspects"],
        "asked": asked,
        "changed": relabel["changed"],
        "tokens": prompt + answer,
        "cost": (prompt * price.price_prompt + answer * price.price_answer) / 1e6,
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


def _tokens(run: Run) -> tuple[int, int]:
    """Tokens of relabel's prompts and answers, whether this run paid for them or found them in the ledger."""
    folder, total = run.sub("relabel"), [0, 0]
    for shard in folder.shards("annotations"):
        table = folder.read_table("annotations", shard, columns=["prompt_tokens", "answer_tokens"])
        for place, name in enumerate(table.column_names):
            total[place] += int(pc.sum(table[name]).as_py() or 0)
    return total[0], total[1]


def epoch_records(train: Folder) -> list[dict[str, Any]]:
    """The lines of `train/metrics.jsonl`, one for each epoch; [] where nothing was trained."""
    if not train.exists("metrics.jsonl"):
        return []
    return [json.loads(line) for line in train.read_text("metrics.jsonl").splitlines() if line.strip()]
