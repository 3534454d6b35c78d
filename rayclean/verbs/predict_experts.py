"""The experts of `predict`: whoever predicts a label out of fold, and the mean of what they say.

The classifier is always one (`predict_classifier.py`). Beside it, `neighbours` takes the labels of the nearest other
examples, and `words` is a linear model of the words. They err differently, so their mean ranks wrong labels better than
any of them (`rayclean.experts`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_matrix

from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.experts.mean import Mixture, fit_mixture
from rayclean.experts.neighbours import (
    FeatureRows,
    GivenLabels,
    cell_count,
    fit_centres,
    in_cells,
    neighbour_votes,
    sample_for_cells,
)
from rayclean.experts.words import WordCounts, count_words
from rayclean.folder import Folder
from rayclean.functional.types import Ids
from rayclean.models.loading import encoder_class
from rayclean.progress import progress_bar
from rayclean.runtime.engines import Engines
from rayclean.runtime.shard_figures import count_rows, label_figures, sum_figures
from rayclean.runtime.threads import own_threads
from rayclean.schema import matrix
from rayclean.tasks import TASKS
from rayclean.tasks.probabilities import FOLD_NONE, prediction_table
from rayclean.training.fold_table import read_folds

SHARDS_PER_BLOCK = 8
"""Shards whose neighbours are searched together, among as many at a time: with one at a time, a search in cells takes
three times as long."""
CLASSIFIER = "classifier"
FURTHER = ("neighbours", "words")
"""Experts beside the classifier, in the order of the mean."""


def chosen_experts(config: Config, labelled: bool = True) -> tuple[str, ...]:
    """The experts beside the classifier, which learn from the given labels.

    Args:
        config: of the run.
        labelled: whether the examples have labels.

    Raises:
        ConfigError: experts are named, and labels are not one class, or examples have none.
    """
    one_class = TASKS.resolve(config.task.name).label_form == "class"
    named = config.predict.experts
    if named and not one_class:
        raise ConfigError(
            f"predict.experts: {', '.join(named)} know one class per example, which the task {config.task.name!r} "
            "does not have; leave it out"
        )
    if named and not labelled:
        raise ConfigError(
            f"predict.experts: {', '.join(named)} learn from given labels, and examples have none; leave it out"
        )
    if named is not None:
        return tuple(name for name in FURTHER if name in named)
    if not one_class or not labelled or config.predict.mode == "given":
        return ()
    # A trained body has learnt the labels of the examples that it draws together: no neighbour votes out of fold there.
    cls, options = encoder_class(config.encoder)
    return FURTHER if cls.is_frozen(options) else ("words",)


def mix_experts(
    config: Config, engines: Engines, examples: Folder, out: Folder, classes: int, labelled: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the experts beside the classifier, and write the mean of all to `predictions/`.

    Args:
        config: of the run.
        engines: engines that run the work.
        examples: folder of example shards.
        out: folder of the verb, with `experts/classifier/`, `features/` and `folds/`.
        classes: number of classes.
        labelled: whether every example has a given label.

    Returns:
        Figures of the mixture (`experts.mean.fit_mixture`), and the sums of `label_figures` of the mean.
    """
    shards, predictions = examples.shards(), out.sub("predictions")
    names, total = (CLASSIFIER, *chosen_experts(config, labelled)), count_rows(examples)
    urls = {name: out.url("experts", name) for name in names}
    seconds: dict[str, float] = {}
    for name in names[1:]:
        start = time.monotonic()
        if out.sub("experts", name).shards() != shards:  # else finished by an earlier attempt
            _RUN[name](config, engines, examples, out, classes)
        seconds[f"seconds_{name}"] = round(time.monotonic() - start, 3)
    mixture, fitted = fit_mixture(
        urls, shards, engines.map_items, config.seed, total, classes, config.predict.folds
    )
    with progress_bar("predict", total, "examples") as bar:
        mean = sum_figures(engines.map_items(partial(_write_mean, mixture, predictions.url()), shards), bar)
    return fitted | seconds, {name: value for name, value in mean.items() if name not in ("rows", "resumed")}


def _write_neighbours(config: Config, engines: Engines, examples: Folder, out: Folder, classes: int) -> None:
    """Search the neighbours of every example, block by block, and write `experts/neighbours/`."""
    shards, total = examples.shards(), count_rows(examples)
    every = pa.concat_tables(
        examples.read_table(shard, columns=["example_id", "given_label"]) for shard in shards
    )
    ids = every["example_id"].to_numpy()
    # All copies of a text would fill the neighbourhood of others.
    stands = read_folds(out.url("folds"), ids).stands
    labels = GivenLabels(ids, np.where(stands, _known(every["given_label"]), -1), classes)
    source = _FeatureSource(out.url(), "cells" if cell_count(total) else None)
    if source.cells and out.sub("experts", "cells").shards() != shards:
        whole = replace(source, cells=None)
        centres = fit_centres(engines.map_items(partial(_sampled, whole, total), shards), total)
        for _ in engines.map_items(partial(_write_cells, whole, centres), shards):
            pass
    blocks = [shards[start : start + SHARDS_PER_BLOCK] for start in range(0, len(shards), SHARDS_PER_BLOCK)]
    vote = partial(_vote, source, examples.url(), blocks, labels)
    with progress_bar("neighbours", total, "examples") as bar:
        for count in engines.map_items(vote, blocks):
            bar.advance(count)


@dataclass(frozen=True)
class _FeatureSource:
    """Where the features, groups and cells of a shard's examples are."""

    out: str
    """Folder of predict."""
    cells: str | None
    """Sub-folder of `experts/` with their cells; None: all pairs are compared."""

    def read(self, shard: str) -> FeatureRows:
        out = Folder(self.out)
        features, folds = out.read_table("features", shard), out.read_table("folds", shard)
        cells = None
        if self.cells:
            cells = matrix(out.read_table("experts", self.cells, shard)["cells"]).astype(np.int32)
        return FeatureRows(
            features["example_id"].to_numpy(), folds["group"].to_numpy(), matrix(features["features"]), cells
        )


def _sampled(source: _FeatureSource, total: int, shard: str) -> FeatureRows:
    return sample_for_cells(source.read(shard), total)


def _write_cells(source: _FeatureSource, centres: npt.NDArray[np.float32], shard: str) -> str:
    cells = in_cells(source.read(shard), centres).cells
    assert cells is not None
    column = pa.FixedSizeListArray.from_arrays(pa.array(cells.reshape(-1)), cells.shape[1])
    Folder(source.out).write_table(pa.table({"cells": column}), "experts", "cells", shard)
    return shard


def _vote(
    source: _FeatureSource, examples: str, blocks: list[list[str]], labels: GivenLabels, block: list[str]
) -> int:
    """Write the votes about a block of shards by the examples of all blocks; returns its number of examples."""
    parts = {shard: source.read(shard) for shard in block}
    rows = FeatureRows.joined([*parts.values()])
    candidates = (FeatureRows.joined([*map(source.read, each)]) for each in blocks)
    found = neighbour_votes(rows, candidates, labels)
    start = 0
    for shard, part in parts.items():
        table = Folder(examples).read_table(shard, columns=["example_id", "given_label"])
        fold = np.full(len(part.ids), FOLD_NONE, dtype=np.int16)  # each leaves out its own label alone
        votes = found[start : start + len(part.ids)]
        table = prediction_table(part.ids, table["given_label"], votes, fold)
        Folder(source.out).write_table(table, "experts", "neighbours", shard)
        start += len(part.ids)
    return len(rows.ids)


def _known(labels: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Indices of the given labels; -1 where there is none."""
    return np.asarray(labels.fill_null(-1).to_numpy(), dtype=np.int64)


def _write_words(config: Config, engines: Engines, examples: Folder, out: Folder, classes: int) -> None:
    """Count the words of every shard, fit all folds in this process, write `experts/words/`."""
    counts, folds = WordCounts(), out.sub("folds")
    parts: dict[str, tuple[Ids, pa.ChunkedArray]] = {}
    with progress_bar("words", count_rows(examples), "examples") as bar:
        for shard, ids, labels, counted in engines.map_items(
            partial(_count, examples.url()), examples.shards()
        ):
            counts.add_counted(ids, counted)
            parts[shard] = ids, labels
            bar.advance(len(ids))
    ids = np.concatenate([part[0] for part in parts.values()])
    labels = np.concatenate([_known(part[1]) for part in parts.values()])
    of_ids = read_folds(folds.url(), ids)
    fold, learnt = of_ids.fold, np.where(of_ids.stands, labels, -1)
    threads = own_threads(engines.place.sharers)
    found = counts.probabilities(
        ids, learnt, fold, classes, config.seed, threads, stands=of_ids.stands, order=of_ids.copies
    )
    start = 0
    for shard, (own, given) in parts.items():
        rows = slice(start, start + len(own))
        out.write_table(prediction_table(own, given, found[rows], fold[rows]), "experts", "words", shard)
        start += len(own)


def _count(examples: str, shard: str) -> tuple[str, Ids, pa.ChunkedArray, csr_matrix]:
    table = Folder(examples).read_table(shard, columns=["example_id", "text", "given_label"])
    counted = count_words(table["text"].to_pylist())
    return shard, table["example_id"].to_numpy(), table["given_label"], counted


def _write_mean(mixture: Mixture, out: str, shard: str) -> dict[str, float]:
    table = mixture.table(shard)
    Folder(out).write_table(table, shard)
    return {"rows": len(table), "resumed": 0, **label_figures(table)}


_RUN: dict[str, Callable[[Config, Engines, Folder, Folder, int], None]] = {
    "neighbours": _write_neighbours,
    "words": _write_words,
}
