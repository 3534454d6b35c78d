"""Runs on CSV files whose rows can be sorted, added, removed and put into other files.

Paths are relative to the working folder, so that a copy of a folder holds a run as finished as the original's.
"""

import contextlib
import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import rayclean
from rayclean import pipeline
from tests import toy

Row = dict[str, str]
VERBS = ("load", "predict", "detect", "relabel")


def toy_rows(folder: Path) -> list[Row]:
    """240 texts of the toy with wrong labels, no two alike."""
    toy.write(folder, rows=240, noise=0.12, files=1)
    table = pq.read_table(folder / "000.parquet", columns=["key", "text", "label"]).to_pylist()
    return [*{row["text"]: row for row in table}.values()]


def write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["key", "text", "label"])
        writer.writeheader()
        writer.writerows(rows)


def config(path: str = "data.csv", **dataset: Any) -> rayclean.Config:
    """Some labels change by the model alone, in a second or two."""
    values = toy.config(Path(path), Path("runs"))
    values["dataset"] = {"path": path, "dev": {"share": 0.0}, **dataset}
    values |= {"cluster": {"ray": False}, "annotator": "posterior", "evaluate": {"compare": False}}
    values["predict"] |= {"training": {"epochs": 12}, "experts": ["words"]}
    values["relabel"] = {"accept": 0.6}
    return rayclean.parse_config(values)


def cleaned(config: rayclean.Config) -> rayclean.Run:
    """The run up to its labels."""
    return pipeline.run_verbs(config, VERBS)


def make(folder: Path, rows: Sequence[Row]) -> Path:
    """A folder with `data.csv` and its run, for `copy`."""
    write(folder / "data.csv", rows)
    with contextlib.chdir(folder):
        cleaned(config())
    return folder


def copy(made: Path) -> rayclean.Run:
    """A copy of data and run in the working folder."""
    shutil.copytree(made, ".", dirs_exist_ok=True)
    return pipeline.open_run(config())


def labels(run: rayclean.Run) -> dict[str, dict[str, Any]]:
    """The final labels by text."""
    texts: dict[int, str] = {}
    for part in run.shards("load", "examples"):
        table = run.read_table("load", "examples", part)
        texts |= dict(zip(table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    parts = [run.read_table("relabel", "labels", part) for part in run.shards("relabel", "labels")]
    return {texts[row["example_id"]]: row for part in parts for row in part.to_pylist()}
