"""Run folders with finished load and predict, for the tests of detect."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean import schema
from rayclean.config import Config, parse_config
from rayclean.detectors.base import DetectorBatch
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import Label, LabelSet, list_column
from tests.detectors.cases import take


def config_of(folder: Path, *overrides: str) -> Config:
    values = {"name": "test", "output": str(folder), "dataset": {"path": "unread.parquet"}}
    return parse_config(values, overrides)


def build(
    folder: Path, batch: DetectorBatch, edges: tuple[int, ...] = (), dev: Any = None, name: str = "test"
) -> Run:
    """Write load/ and predict/ of a batch, cut at `edges`; `dev` marks development examples."""
    run = Run(str(folder / name))
    size = batch.probabilities.shape[1]
    labels = LabelSet(Label(index, f"label{index}", f"label{index}") for index in range(size))
    run.write_text(labels.to_json(), "load", "labels.json")
    dev = np.zeros(len(batch.unit_id), dtype=bool) if dev is None else dev
    bounds = [0, *edges, len(batch.unit_id)]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        part = f"part-{number:05d}.parquet"
        piece = take(batch, slice(start, stop))
        examples = {
            "example_id": piece.unit_id,
            "text": [f"text {i}" for i in piece.unit_id],
            "given_label": piece.given_label,
            "split": np.where(dev[start:stop], "dev", "train"),
        }
        # the rows of examples in another order than those of predictions: both are joined by id
        table = pa.table(examples, schema=schema.EXAMPLES).take(np.arange(stop - start)[::-1].copy())
        run.write_table(table, "load", "examples", part)
        run.write_table(predictions(piece), "predict", "predictions", part)
        if piece.features is not None:
            columns = {"example_id": piece.unit_id, "features": list_column(piece.features)}
            features = pa.table(columns, schema=schema.features(piece.features.shape[1]))
            run.write_table(features.take(np.arange(stop - start)[::-1].copy()), "predict", "features", part)
        if piece.group is not None:
            fold = np.zeros(stop - start, dtype=np.int16)
            folds = pa.table([piece.unit_id, piece.group, piece.group, fold, fold == 0], schema=schema.FOLDS)
            run.write_table(folds.take(np.arange(stop - start)[::-1].copy()), "predict", "folds", part)
    for verb in ("load", "predict"):
        manifest = {"verb": verb, "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": {}}
        run.write_json(manifest, verb, "manifest.json")
    return run


def predictions(batch: DetectorBatch) -> pa.Table:
    p = batch.probabilities
    rows = np.arange(len(p))
    order = np.argsort(-p, axis=1, kind="stable")
    given = np.clip(batch.given_label, 0, p.shape[1] - 1)
    columns = {
        "example_id": batch.unit_id,
        "given_label": batch.given_label,
        "given_probability": p[rows, given],
        "predicted_label": batch.predicted_label,
        "predicted_probability": p[rows, order[:, 0]],
        "runner_up_label": order[:, 1].astype(np.int32),
        "runner_up_probability": p[rows, order[:, 1]],
        "margin": np.zeros(len(p), dtype=np.float32),
        "fold": np.zeros(len(p), dtype=np.int16),
        "probabilities": list_column(p),
    }
    return pa.table(columns, schema=schema.predictions(p.shape[1]))


def findings_of(out: Folder) -> dict[str, np.ndarray]:
    """All findings, sorted by id."""
    table = pa.concat_tables([out.read_table("findings", name) for name in out.shards("findings")])
    table = table.sort_by("example_id")
    return {name: table[name].to_numpy() for name in table.column_names}
