"""Finished runs over small data sets of any format, made in this process in about a second."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

import rayclean
from rayclean import schema
from rayclean.results import RunResults
from rayclean.run import Manifest
from rayclean.tasks import TASKS

QUICK: dict[str, Any] = {
    "encoder": {"name": "bag_of_words", "buckets": 2000},
    "predict": {"folds": 2},
    "detect": {"budget": 0.3},
    "train": {"epochs": 1},
    "evaluate": {"compare": False, "report": False},
    "cluster": {"ray": False},
}


def relabelled(
    dataset: dict[str, Any], output: Path, name: str = "run", *, perfect: bool = False, **sections: Any
) -> tuple[rayclean.Config, RunResults]:
    """A run of load, predict, detect and relabel; `perfect`: by an annotator who knows the truth."""
    values = {**QUICK, "name": name, "output": str(output), "dataset": dataset, **sections}
    if perfect:
        truth = str(output / name / "load" / "truth")
        values["annotator"] = {"name": "simulated", "accuracy": 1.0, "confidence": 0.95, "truth_path": truth}
    config = rayclean.parse_config(values)
    for verb in (rayclean.load, rayclean.predict, rayclean.detect):
        verb(config)
    return config, rayclean.relabel(config)


def undoubted(
    dataset: dict[str, Any], output: Path, name: str = "run", task: str = "classification"
) -> tuple[rayclean.Config, RunResults]:
    """A run whose load is real, and whose detect doubts nothing; for tests that only look at what comes back."""
    config = rayclean.parse_config(
        {**QUICK, "name": name, "output": str(output), "dataset": dataset, "task": {"name": task}}
    )
    run = rayclean.load(config)
    findings = schema.findings(["posterior"])
    load = run.require("load")
    built = TASKS.build(config.task, schema.LabelSet.from_json(load.read_text("labels.json")))
    for shard in load.shards("examples"):
        units = built.unit_rows(load.read_table("examples", shard)).combine_chunks()
        found = {
            **{name: units[name] for name in ("unit_id", "example_id", "given_label", "given_value")},
            "suggested_label": units["given_label"],
            "suspect": pa.array([False] * len(units)),
        }
        columns = [found.get(field.name, pa.nulls(len(units), field.type)) for field in findings]
        run.sub("detect").write_table(pa.table(columns, schema=findings), "findings", shard)
    run.write_json(asdict(Manifest("detect", "test", 0.0, "test")), "detect", "manifest.json")
    return config, run
