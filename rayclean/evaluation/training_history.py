"""The course of a training: a row of figures per epoch, and how the scalars that a method keeps per example
spread.

A robust method bets that right and wrong labels drift apart: in the probability of the label (NoiseAL), in
the weight inferred from its margins (LANE), in the loss (cross-entropy). The histograms show whether they
did. The method never saw which labels are wrong; where the truth is not known, all examples are in one
histogram.

Everything is counted part by part from `train/epochs/`, so that a few thousand numbers per epoch stay in
memory.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.evaluation.counts import BINS, UNKNOWN
from rayclean.evaluation.run_figures import epoch_records
from rayclean.evaluation.subsets import SUBSETS, EpochColumns, count_subsets, joined_subsets, subset_shares
from rayclean.folder import Folder
from rayclean.functional.types import Floats

HIGHEST_LOSS = 20.0
"""Larger losses are counted in the last bin; exp(-20) is the probability of their labels."""


@dataclass(frozen=True)
class Measure:
    """A scalar per example whose distribution is drawn where a method keeps what it is computed from."""

    title: str
    """Title of its charts."""
    means: str
    """Its meaning in plain words, and how wrong labels should show."""
    axis: str
    """Title of the horizontal axis."""
    needs: tuple[str, ...]
    """Columns of `train/epochs/` that it is computed from."""
    values: Callable[[EpochColumns], Floats]
    """Computes the scalars [B] from these columns; NaN is not counted."""
    top: float = 1.0
    """End of the last bin, which also counts what is above."""
    bounded: bool = True
    """Whether no value can be above `top`."""


def _mean_weight(columns: EpochColumns) -> Floats:
    visits = columns["visits"]
    return np.where(visits > 0, columns["weight_sum"] / np.maximum(visits, 1), np.nan)


def _below_one(columns: EpochColumns) -> Floats:
    return np.where(columns["weight"] < 1, columns["weight"], np.nan)


def _co_prediction(columns: EpochColumns) -> Floats:
    return np.asarray((columns["label_probability_strong"] + columns["label_probability_weak"]) / 2)


def _loss(probability: Floats) -> Floats:
    """Minus the logarithm of the label's probability."""
    return np.asarray(-np.log(np.maximum(probability, np.finfo(np.float32).tiny)))


def _of_network(name: str, title: str, probability: tuple[str, ...], joint: str) -> dict[str, Measure]:
    """Loss and confidence of one network, or of both together, on which NoiseAL's verdicts rest.

    Args:
        name: key of the measures.
        title: name of the network in charts.
        probability: columns whose mean is the label's probability.
        joint: column of the highest class probability.
    """

    def mean(columns: EpochColumns) -> Floats:
        return np.asarray(np.mean([columns[column] for column in probability], axis=0))

    return {
        f"{name}_loss": Measure(
            f"{title}: loss", "Minus the logarithm of the label's probability. Wrong labels should gather on the right.",
            "loss", probability, lambda columns: _loss(mean(columns)), HIGHEST_LOSS, bounded=False,
        ),
        f"{name}_confidence": Measure(
            f"{title}: confidence", "The highest probability of any class, which the thresholds follow.",
            "confidence", (joint, *probability), lambda columns: columns[joint].astype(np.float32),
        ),
    }  # fmt: skip


MEASURES: dict[str, Measure] = {
    "strong": Measure(
        "Strong network", "Probability that the strong network gives the label, after the epoch.",
        "probability of the label", ("label_probability_strong",), lambda columns: columns["label_probability_strong"],
    ),
    **_of_network("strong", "Strong network", ("label_probability_strong",), "confidence_strong"),
    "weak": Measure(
        "Weak network", "Probability that the weak network gives the label, after the epoch.",
        "probability of the label", ("label_probability_weak",), lambda columns: columns["label_probability_weak"],
    ),
    **_of_network("weak", "Weak network", ("label_probability_weak",), "confidence_weak"),
    "co_prediction": Measure(
        "Co-prediction", "The mean of both networks. Wrong labels should gather on the left, right ones on the right.",
        "probability of the label", ("label_probability_strong", "label_probability_weak"), _co_prediction,
    ),
    **_of_network("co_prediction", "Co-prediction", ("label_probability_strong", "label_probability_weak"), "confidence"),
    "loss": Measure(
        "Loss", "Cross-entropy of each label when it was trained on. Wrong labels stay on the right until the network has "
        "learnt them by heart.",
        "loss", ("loss",), lambda columns: columns["loss"], HIGHEST_LOSS, bounded=False,
    ),
    "weight": Measure(
        "Weight", "What each example counted for when it was last trained on. Wrong labels should count for little, on the left.",
        "weight", ("weight",), lambda columns: columns["weight"],
    ),
    "weight_below_one": Measure(
        "Weight, of those below 1", "The same without the examples of full weight, which would drown the others.",
        "weight", ("weight",), _below_one,
    ),
    "mean_weight": Measure(
        "Mean weight", "Mean of an example's weights over its visits so far.",
        "mean weight", ("weight_sum", "visits"), _mean_weight,
    ),
}  # fmt: skip

_LOGGED = (
    "loss",
    "dev_loss",
    "dev_accuracy",
    "asked",
    "from_ledger",
    "negative_margins",
    "mean_weight",
    "clamp_rate",
)
"""Figures copied from `train/metrics.jsonl`."""


@dataclass(frozen=True)
class TrainingHistory:
    """Figures and histograms of a training."""

    epochs: list[dict[str, Any]]
    """A row per epoch, as in `metrics.json` under `training.epochs`."""
    histograms: dict[str, npt.NDArray[np.int64]]
    """Counts [E, 3, BINS] of examples by measure: truth unknown, label right, label wrong; only measures that
    the method has and that count anything."""


def read_history(load: Folder, train: Folder) -> TrainingHistory | None:
    """The history of a finished training; None where it left nothing to show (an older run).

    Args:
        load: the folder of `load`; there may be no truth in it.
        train: the folder of `train`.
    """
    if not (folders := _epochs(train)):
        return None
    logged = {record["epoch"]: record for record in epoch_records(train)}
    counts = [Counter[str]() for _ in folders]
    histograms: dict[str, npt.NDArray[np.int64]] = {}
    for place, columns, true in joined_subsets(load, list(folders.values())):
        counts[place].update(count_subsets(columns, true))
        kind = np.where(true == UNKNOWN, 0, np.where(columns["given_label"] == true, 1, 2))
        for name, measure in MEASURES.items():
            if set(measure.needs) <= set(columns):
                whole = histograms.setdefault(name, np.zeros((len(folders), 3, BINS), dtype=np.int64))
                whole[place] += _histogram(measure.values(columns), kind, measure.top)
    present = [name for name in MEASURES if name in histograms and histograms[name].any()]
    if not present and not logged:
        return None
    rows = [
        _row(epoch, logged.get(epoch, {}), counter) for epoch, counter in zip(folders, counts, strict=True)
    ]
    return TrainingHistory(rows, {name: histograms[name] for name in present})


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


def _histogram(values: Floats, kind: npt.NDArray[np.int64], top: float) -> npt.NDArray[np.int64]:
    """Counts [3, BINS] over [0, top] by kind [B]; values outside are in the first or last bin, NaN in
    none.
    """
    counted = ~np.isnan(values)
    inside = np.clip(values[counted].astype(np.float64), 0, top)
    bins = np.minimum((inside * (BINS / top)).astype(np.int64), BINS - 1)
    return np.bincount(kind[counted] * BINS + bins, minlength=3 * BINS).reshape(3, BINS)


def _row(epoch: int, record: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    """The figures of an epoch; null where the method has none, or none yet."""
    noise = subset_shares(counts)
    split = any(counts[name] for name in SUBSETS)
    return {
        "epoch": epoch,
        **{name: _finite(record.get(name)) for name in _LOGGED},
        **{name: counts[name] if split else None for name in (*SUBSETS, "answered")},
        **{f"{name}_wrong": noise.get(name) for name in (*SUBSETS, "purified_after", "answered", "answers")},
    }


def _finite(value: float | None) -> float | None:
    """The number itself where JSON can hold it, else None."""
    return value if value is not None and math.isfinite(value) else None
