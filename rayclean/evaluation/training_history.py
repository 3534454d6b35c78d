"""The course of a training: a row of figures per epoch, and how the scalars that a method keeps per example
spread.

A robust method bets that right and wrong labels drift apart: in the loss, in the probability of the label, in
a weight inferred from margins. The histograms show whether they did. Which scalars those are the method
declares (`measures.py`) and its training leaves in `train/measures.json`. The method never saw which labels
are wrong; where the truth is not known, all examples are in one histogram.

Everything is counted part by part from `train/epochs/`, so that a few thousand numbers per epoch stay in
memory.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.evaluation.counts import BINS, UNKNOWN
from rayclean.evaluation.run_figures import epoch_records
from rayclean.evaluation.subsets import EpochColumns, count_subsets, joined_subsets, subset_figures
from rayclean.folder import Folder
from rayclean.functional.types import Floats
from rayclean.measures import EPOCH_FIGURES, Histogram, Measures


@dataclass(frozen=True)
class TrainingHistory:
    """Figures and histograms of a training."""

    epochs: list[dict[str, Any]]
    """A row per epoch, as in `metrics.json` under `training.epochs`."""
    histograms: dict[str, npt.NDArray[np.int64]]
    """Counts [E, 3, BINS] of examples by scalar: truth unknown, label right, label wrong; only scalars that
    count anything."""
    measures: Measures
    """What is shown of the method, as its training declared it."""


def read_history(load: Folder | None, train: Folder) -> TrainingHistory | None:
    """The history of a finished training; None where it left nothing to show (an older run).

    Args:
        load: the folder of `load`; there may be no truth in it.
        train: the folder of `train`.
    """
    if not (folders := _epochs(train)) or not train.exists("measures.json"):
        return None
    measures = Measures.model_validate(train.read_json("measures.json"))
    logged = {record["epoch"]: record for record in epoch_records(train)}
    counts = [Counter[str]() for _ in folders]
    histograms = {name: np.zeros((len(folders), 3, BINS), dtype=np.int64) for name in measures.histograms}
    for place, columns, true in joined_subsets(load, list(folders.values()), measures.columns):
        counts[place].update(count_subsets(columns, true, measures))
        kind = np.where(true == UNKNOWN, 0, np.where(columns["given_label"] == true, 1, 2))
        for name, histogram in measures.histograms.items():
            histograms[name][place] += _counted(_values(histogram, columns), kind, histogram.top)
    present = {name: each for name, each in histograms.items() if each.any()}
    if not present and not logged:
        return None
    rows = [
        _row(epoch, logged.get(epoch, {}), counter, measures)
        for epoch, counter in zip(folders, counts, strict=True)
    ]
    return TrainingHistory(rows, present, measures)


def _epochs(train: Folder) -> dict[int, Folder]:
    """The folders of `train/epochs/` that hold examples, by their number and in its order."""
    try:
        entries = train.fs.ls(train.path("epochs"), detail=False)
    except FileNotFoundError:
        return {}
    found = (re.search(r"epoch-(\d+)/?$", str(entry)) for entry in entries)
    numbers = sorted((int(match[1]), match[0].rstrip("/")) for match in found if match)
    folders = {number: train.sub("epochs", name) for number, name in numbers}
    return {number: folder for number, folder in folders.items() if folder.shards()}


def _values(histogram: Histogram, columns: EpochColumns) -> Floats:
    """The declared scalar of some rows [B], float64; NaN where an example is not counted."""
    parts = [columns[name].astype(np.float64) for name in histogram.columns]
    if histogram.combine == "ratio":
        values = np.where(parts[1] > 0, parts[0] / np.where(parts[1] > 0, parts[1], 1), np.nan)
    else:
        values = np.mean(parts, axis=0)
    if histogram.minus_log:
        values = -np.log(np.maximum(values, np.finfo(np.float32).tiny))
    if histogram.below is not None:
        values = np.where(values < histogram.below, values, np.nan)
    return np.asarray(values)


def _counted(values: Floats, kind: npt.NDArray[np.int64], top: float) -> npt.NDArray[np.int64]:
    """Counts [3, BINS] over [0, top] by kind [B]; values outside are in the first or last bin, NaN in
    none.
    """
    counted = ~np.isnan(values)
    inside = np.clip(values[counted].astype(np.float64), 0, top)
    bins = np.minimum((inside * (BINS / top)).astype(np.int64), BINS - 1)
    return np.bincount(kind[counted] * BINS + bins, minlength=3 * BINS).reshape(3, BINS)


def _row(epoch: int, record: Mapping[str, Any], counts: Counter[str], measures: Measures) -> dict[str, Any]:
    """The figures of an epoch; null where there are none, or none yet."""
    names = (*EPOCH_FIGURES, *measures.figures)
    return {
        "epoch": epoch,
        **{name: _finite(record.get(name)) for name in names},
        **subset_figures(counts, measures),
    }


def _finite(value: float | None) -> float | None:
    """The number itself where JSON can hold it, else None."""
    return value if value is not None and math.isfinite(value) else None
