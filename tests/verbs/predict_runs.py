"""Run folders with a finished load, for the tests of predict."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean import schema
from rayclean.config import Config, parse_config
from rayclean.datasets.example_id import key_id
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import Label, LabelSet
from tests.toy import SHARED, TOPICS


def config_of(folder: Path, **sections: Any) -> Config:
    values = {
        "name": "test",
        "output": str(folder),
        "dataset": {"path": "unread.parquet", "id": "key"},
        "encoder": {"name": "bag_of_words", "buckets": 500},
        **sections,
    }
    return parse_config(values)


def loaded(
    config: Config, sizes: tuple[int, ...] = (70, 1, 49), classes: int = 3, rejected: int = 0
) -> tuple[Run, Folder]:
    """A run whose load wrote shards of these sizes; keys are row-0, row-1, ... and test holds key test-0."""
    run = Run(f"{config.output}/{config.name}")
    rng = np.random.default_rng(0)
    run.write_text(
        LabelSet(Label(i, f"c{i}", f"c{i}") for i in range(classes)).to_json(), "load", "labels.json"
    )
    start = 0
    for number, size in enumerate(sizes):
        labels = np.arange(start, start + size) % 3
        texts = [
            " ".join([*rng.choice(list(TOPICS.values())[label], 5), *rng.choice(SHARED, rng.integers(1, 9))])
            for label in labels
        ]
        columns = {
            "example_id": [key_id(f"row-{row}") for row in range(start, start + size)],
            "text": texts,
            "given_label": labels.astype(np.int32),
            "split": np.where(rng.random(size) < 0.1, "dev", "train"),
        }
        run.write_table(
            pa.table(columns, schema=schema.EXAMPLES), "load", "examples", f"part-{number:05d}.parquet"
        )
        start += size
    test = {"example_id": [key_id("test-0")], "text": ["rose"], "given_label": [0], "split": ["test"]}
    run.write_table(pa.table(test, schema=schema.EXAMPLES), "load", "test", "part-00000.parquet")
    if rejected:
        rows = [{"source": "x", "row": row, "reason": "empty text", "value": ""} for row in range(rejected)]
        run.write_table(
            pa.Table.from_pylist(rows, schema=schema.REJECTED), "load", "rejected", "part-00000.parquet"
        )
    manifest = {"verb": "load", "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": {}}
    run.write_json(manifest, "load", "manifest.json")
    return run, run.begin("predict", "0")


def rows_of(folder: Folder, name: str) -> dict[int, dict[str, Any]]:
    """All rows of a table by example_id."""
    return {
        row["example_id"]: row
        for shard in folder.shards(name)
        for row in folder.read_table(name, shard).to_pylist()
    }
