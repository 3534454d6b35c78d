"""The seconds of each verb of a run, from rehearsals on parts of a sample."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayclean.config import Config
from rayclean.estimates.rehearsal import RehearsedRun, Shortened, VerbTime, time_fit
from rayclean.estimates.sampling import DataSample
from rayclean.estimates.scaling import Line, fit_line, seconds_per_row
from rayclean.experts.neighbours import (
    CELL_ROWS,
    EXACT_BELOW,
    PROBES,
    FeatureRows,
    GivenLabels,
    neighbour_votes,
)
from rayclean.functional.types import Ids
from rayclean.run import VERBS
from rayclean.schema import matrix
from rayclean.training.passes import BATCH_SIZE
from rayclean.training.side_by_side import BATCHES

_FAST_BATCH = 512
"""Rows of a batch in which what a step costs beside its rows is next to nothing."""
_PAIRS_ROWS = 8192
"""Examples among which the speed of a search of neighbours is measured."""
_CELLS_COST = 2.0
"""A pair that is compared in cells costs about so many pairs of a search of all."""


@dataclass(frozen=True)
class TimePart:
    """A part of a verb's time."""

    name: str
    seconds: float
    basis: str
    """Where it comes from, in words."""


def estimate_times(
    config: Config, sample: DataSample, runs: Sequence[RehearsedRun], short: Shortened, examples: int
) -> dict[str, list[TimePart]]:
    """Seconds of every verb at the size of the data.

    Args:
        config: of the real run.
        sample: what the rehearsals ran on.
        runs: three of them: a cold one on few rows, one on as many or more, one on all rows of the sample.
        short: what they left out.
        examples: of the real run.

    Returns:
        Verb -> its parts. Questions to an annotator are not among them.
    """
    largest = runs[-1]
    measured = f"measured on {runs[0].examples:,}, {runs[1].examples:,} and {largest.examples:,} examples"
    found: dict[str, list[TimePart]] = {}
    share = largest.examples / max(len(sample.rows), 1)
    rows = examples / max(share, 1e-9)
    for verb in VERBS:
        times = [each.verbs[verb] for each in runs]
        found[verb] = [TimePart("work", _rest(config, verb, times, examples), measured)]
        brought = verb == "predict" and config.predict.mode in (
            "given",
            "model",
        )  # whose networks nobody trains
        if any(each.work for each in times) and not brought:
            found[verb].append(_training(config, verb, times, short, runs, examples))
    found["load"].append(
        TimePart("reading", sample.seconds_per_row * rows, f"measured on {sample.read:,} rows of the files")
    )
    if largest.verbs["predict"].metrics.get("seconds_neighbours"):
        found["predict"].append(_neighbours(largest, examples))
    return found


def _rest(config: Config, verb: str, times: Sequence[VerbTime], examples: int) -> float:
    """Seconds beside trainings and the search of neighbours, in proportion to the examples."""
    seconds = [each.rest - _searched(each) for each in times]
    embeds_while_it_predicts = not times[0].metrics.get("seconds_features")
    if verb == "predict" and config.predict.mode == "out_of_fold" and embeds_while_it_predicts:
        # Each example is read by the network of its fold and, for its features, by the first one.
        passes = [(2 - 1 / config.predict.folds) / (2 - 1 / max(each.metrics["folds"], 1)) for each in times]
        inside = [each.metrics["seconds_predict"] for each in times]
        more = [own * (factor - 1) for own, factor in zip(inside, passes, strict=True)]
        seconds = [every + own for every, own in zip(seconds, more, strict=True)]
    return fit_line([each.examples for each in times], seconds).at(examples)


def _searched(times: VerbTime) -> float:
    return float(times.metrics.get("seconds_neighbours") or 0.0)


def _training(
    config: Config,
    verb: str,
    times: Sequence[VerbTime],
    short: Shortened,
    runs: Sequence[RehearsedRun],
    examples: int,
) -> TimePart:
    """Seconds of the trainings of a verb: in proportion to examples times epochs."""
    work, seconds = [each.work for each in times], [each.training for each in times]
    largest = times[-1]
    longer = short.predict_epochs * short.folds if verb == "predict" else short.train_epochs
    all_work = largest.work * examples / max(largest.examples, 1) * longer
    line, basis = (
        fit_line(work, seconds),
        f"measured on {largest.work:,} of {all_work:,.0f} examples x epochs",
    )
    if verb == "predict" and short.is_small:
        basis += ", as many epochs as the sample took"
        learnt = _learnt(config, runs[-1], examples)
        batch = max(BATCH_SIZE, math.ceil(learnt / BATCHES))
        if config.predict.training.batch_size is None and batch > BATCH_SIZE:
            line, basis = _with_batches_of(batch, line, runs[-1]), basis + f", batches of {batch:,}"
    else:
        basis += (
            ", if patience ends none of them"
            if config.train.patience is not None and verb != "predict"
            else ""
        )
    return TimePart("training", line.at(all_work), basis)


def _learnt(config: Config, largest: RehearsedRun, examples: int) -> float:
    """Examples that a network of `predict` learns from."""
    fits = largest.verbs["predict"].metrics["fits"].values()
    share = sum(fit["train_examples"] for fit in fits) / max(len(fits) * largest.examples, 1)
    return float(share * examples)


def _with_batches_of(batch: int, line: Line, largest: RehearsedRun) -> Line:
    """The line of a training whose batches are larger than those of the rehearsals, by a third training with large ones."""
    seconds, work = time_fit(largest, _FAST_BATCH)
    costs = seconds_per_row((BATCH_SIZE, _FAST_BATCH), (line.slope, seconds / max(work, 1)))
    return Line(line.start, costs.at(1 / batch))


def _neighbours(largest: RehearsedRun, examples: int) -> TimePart:
    """Seconds of the search of neighbours: every pair is compared below a size, pairs of the same cells above it."""
    shard = largest.run.sub("predict", "features").shards()[0]
    real = matrix(largest.run.read_table("predict", "features", shard)["features"])
    rows = np.random.default_rng(0).integers(len(real), size=_PAIRS_ROWS)
    ids: Ids = np.arange(_PAIRS_ROWS, dtype=np.int64)
    block = FeatureRows(ids, ids, np.ascontiguousarray(real[rows]))
    start = time.monotonic()
    neighbour_votes(block, [block], GivenLabels(ids, ids % 2, 2))
    per_pair = (time.monotonic() - start) / _PAIRS_ROWS**2
    if examples < EXACT_BELOW:
        return TimePart(
            "neighbours", per_pair * examples**2, f"measured on {_PAIRS_ROWS:,} x {_PAIRS_ROWS:,} examples"
        )
    pairs = examples * PROBES * CELL_ROWS
    basis = f"measured on {_PAIRS_ROWS:,} x {_PAIRS_ROWS:,}; assumed: a pair in cells costs {_CELLS_COST:g} times as much"
    return TimePart("neighbours", per_pair * _CELLS_COST * pairs, basis)
