"""Finished runs over small data sets of any format, made in this process in about a second."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

import rayclean
from rayclean import schema
from rayclean.results import Results
from rayclean.run import Manifest

QUICK: dict[str, Any] = {
    "encoder": {"name": "bag_of_words"},
    "predict": {"folds": 2},
    "detect": {"budget": 0.3},
    "train": {"epochs": 1},
    "evaluate": {"compare": False, "report": False},
    "cluster": {"ray": False},
}


def relabelled(
    dataset: dict[str, Any], output: Path, name: str = "run", *, perfect: bool = False, **sections: Any
) -> tuple[rayclean.Config, Results]:
    """A run of load, predict, detect and relabel; `perfect`: by an annotator who knows the truth."""
    values = {**QUICK, "name": name, "output": str(output), "dataset": dataset, **sections}
    if perfect:
        truth = str(output / name / "load" / "truth")
        values["annotator"] = {"name": "simulated", "accuracy": 1.0, "confidence": 0.95, "truth_path": truth}
    config = rayclean.parse_config(values)
    for verb in (rayclean.load, rayclean.predict, rayclean.detect):
        verb(config)
    return config, rayclean.relabel(config)


def loaded(
    dataset: dict[str, Any], output: Path, name: str = "run", **sections: Any
) -> tuple[rayclean.Config, Results]:
    """A run whose labels are all as given: load is real, and what follows says nothing of any row."""
    values = {**QUICK, "name": name, "output": str(output), "dataset": dataset, **sections}
    config = rayclean.parse_config(values)
    return config, rayclean.load(config)


def undoubted(dataset: dict[str, Any], output: Path, name: str = "run") -> tuple[rayclean.Config, Results]:
    """A run whose load is real, and whose detect doubts nothing; for tests that only look at what comes back."""
    config, run = loaded(dataset, output, name)
    detectors = schema.findings(["posterior"])
    load = run.require("load")
    for shard in load.shards("examples"):
        table = load.read_table("examples", shard)
        columns = {
            "unit_id": table["example_id"], "example_id": table["example_id"], "given_label": table["given_label"],
            "suggested_label": table["given_label"], "suspect": pa.array([False] * len(table)),
        }  # fmt: skip
        arrays = [columns.get(field.name, pa.nulls(len(table), field.type)) for field in detectors]
        run.sub("detect").write_table(
            pa.Table.from_arrays([pa.chunked_array([each]) if isinstance(each, pa.Array) else each for each in arrays], schema=detectors),
            "findings", shard,
        )  # fmt: skip
    run.write_json(asdict(Manifest("detect", "test", 0.0, "test")), "detect", "manifest.json")
    return config, run
