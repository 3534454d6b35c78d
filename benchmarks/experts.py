"""The experts "words" and "neighbours" beside plain scikit-learn, each in one process on one core.

    python benchmarks/experts.py                     10,000 and 100,000 rows (minutes) -> results/experts.json
    python benchmarks/experts.py --small             seconds, for the smoke test
    python benchmarks/experts.py --rows 10000 --experts words --output words.json

Every measured call runs in a process of its own with one thread. CPU seconds cover everything from texts (or
features) to the probabilities of all examples, not imports and not the making of data.

Words: short texts of Zipf-distributed words, two in ten of them from words that one of 10 classes prefers, and 12 %
wrong labels. The other side is what one would write with scikit-learn: HashingVectorizer, TfidfTransformer, and
the same classifier fitted for the same five folds on all columns. Log-loss is that of the given labels, after a
temperature.

Neighbours: 384 features in clusters. The other side is NearestNeighbors(algorithm="brute", metric="cosine") for the
same rows, above 20,000 rows on some queries and scaled up. Recall is the share of the 20 nearest examples by
scikit-learn that are found, over 500 examples.
"""

import argparse
import json
import math
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from benchmarks.measure import measured_alone, peak_mb

SEED, CLASSES, FOLDS, NOISE, DIMENSION = 20241129, 10, 5, 0.12, 384
ALL_QUERIES = 20_000
"""Up to so many rows, scikit-learn searches the neighbours of all; beyond, of `SOME_QUERIES`."""
SOME_QUERIES, RECALL_QUERIES = 2_000, 500


def texts(rows: int) -> tuple[list[str], np.ndarray]:
    """Texts of 4 to 40 words, and the labels with noise."""
    rng = np.random.default_rng(SEED)
    label = rng.integers(0, CLASSES, rows)
    lengths = np.clip(rng.lognormal(np.log(12), 0.5, rows), 4, 40).astype(int)
    found = []
    for own, length in zip(label, lengths, strict=True):
        common = np.minimum(rng.zipf(1.2, length), 50_000)
        preferred = np.minimum(rng.zipf(1.5, length), 2_000)
        pick = rng.random(length) < 0.2
        found.append(
            " ".join(f"c{own}w{b}" if p else f"w{a}" for a, b, p in zip(common, preferred, pick, strict=True))
        )
    wrong = rng.random(rows) < NOISE
    return found, np.where(wrong, rng.integers(0, CLASSES, rows), label)


def features(rows: int) -> np.ndarray:
    """Unit vectors in 2,000 clusters that spread over 64 directions, with noise in all."""
    rng = np.random.default_rng(SEED)
    basis = rng.standard_normal((64, DIMENSION), dtype=np.float32)
    centres = rng.standard_normal((2_000, 64), dtype=np.float32)
    found = np.empty((rows, DIMENSION), dtype=np.float32)
    for start in range(0, rows, 10_000):
        part = found[start : start + 10_000]
        inner = centres[rng.integers(0, len(centres), len(part))]
        inner = inner + 0.7 * rng.standard_normal(inner.shape, dtype=np.float32)
        part[:] = inner @ basis + 0.8 * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def words_ours(rows: int) -> dict[str, Any]:
    from rayclean.experts.words import words_probabilities
    from rayclean.functional.hashing import folds

    content, labels = texts(rows)
    ids = np.arange(rows)
    began = time.process_time()
    found = words_probabilities(ids, content, labels, folds(ids, SEED, FOLDS), CLASSES, SEED)
    return {"cpu_s": time.process_time() - began, "log_loss": log_loss(found, labels)}


def words_plain(rows: int) -> dict[str, Any]:
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import SGDClassifier

    from rayclean.experts.words import COLUMNS, INVERSE_REGULARISATION, PASSES
    from rayclean.functional.hashing import folds

    content, labels = texts(rows)
    fold = folds(np.arange(rows), SEED, FOLDS)
    began = time.process_time()
    counts = HashingVectorizer(ngram_range=(1, 2), n_features=COLUMNS, alternate_sign=False, norm=None)
    values = TfidfTransformer(sublinear_tf=True).fit_transform(counts.transform(content))
    found = np.empty((rows, CLASSES))
    for held_out in range(FOLDS):
        train = np.flatnonzero(fold != held_out)
        alpha = 1 / (INVERSE_REGULARISATION * len(train))
        model = SGDClassifier(
            loss="log_loss", alpha=alpha, average=True, max_iter=PASSES, tol=None, random_state=SEED
        )
        model.fit(values[train], labels[train])
        found[fold == held_out] = model.predict_proba(values[fold == held_out])
    return {"cpu_s": time.process_time() - began, "log_loss": log_loss(found, labels)}


def neighbours_ours(rows: int) -> dict[str, Any]:
    from rayclean.experts.neighbours import (
        BLOCK_ROWS,
        FeatureRows,
        GivenLabels,
        cell_count,
        fit_centres,
        in_cells,
        neighbour_votes,
        sample_for_cells,
    )

    ids, values = np.arange(rows), features(rows)
    labels = GivenLabels(ids, np.random.default_rng(SEED).integers(0, CLASSES, rows), CLASSES)
    began = time.process_time()
    blocks = [
        FeatureRows(ids[part], ids[part], values[part])
        for part in (slice(start, start + BLOCK_ROWS) for start in range(0, rows, BLOCK_ROWS))
    ]
    if cell_count(rows):
        centres = fit_centres([sample_for_cells(block, rows) for block in blocks], rows)
        blocks = [in_cells(block, centres) for block in blocks]
    for block in blocks:
        neighbour_votes(block, blocks, labels)
    return {"cpu_s": time.process_time() - began, "cells": cell_count(rows), "recall": recall(blocks, values)}


def neighbours_plain(rows: int) -> dict[str, Any]:
    from sklearn.neighbors import NearestNeighbors

    values = features(rows)
    queries = values if rows <= ALL_QUERIES else values[:SOME_QUERIES]
    began = time.process_time()
    NearestNeighbors(n_neighbors=21, algorithm="brute", metric="cosine").fit(values).kneighbors(queries)
    return {"cpu_s": (time.process_time() - began) * rows / len(queries), "queries": len(queries)}


def recall(blocks: list[Any], values: np.ndarray) -> float:
    """Share of the 20 nearest of the first examples of the first block that the expert looks at."""
    from sklearn.neighbors import NearestNeighbors as Plain

    from rayclean.experts.neighbours import search_neighbours

    queries = blocks[0][np.arange(min(RECALL_QUERIES, len(values)))]
    found = search_neighbours(queries, blocks, 20).ids
    _, near = (
        Plain(n_neighbors=21, algorithm="brute", metric="cosine").fit(values).kneighbors(queries.features)
    )
    hits = sum(
        len(set(ours.tolist()) & (set(theirs.tolist()) - {row}))
        for row, (ours, theirs) in enumerate(zip(found, near, strict=True))
    )
    return round(hits / (20 * len(found)), 4)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """With the temperature at which it is least, as where experts are combined."""
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities, 1e-6))

    def loss(logarithm: float) -> float:
        scaled = logits * np.exp(logarithm)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]))

    return round(float(minimize_scalar(loss, bounds=(-3, 3), method="bounded").fun), 4)


CALLS = {
    ("words", "rayclean"): words_ours,
    ("words", "scikit-learn"): words_plain,
    ("neighbours", "rayclean"): neighbours_ours,
    ("neighbours", "scikit-learn"): neighbours_plain,
}


def child(expert: str, who: str, rows: int) -> dict[str, Any]:
    """One measured call in a process of its own, with one thread."""
    result = {"expert": expert, "who": who, "rows": rows} | measured_alone(__file__, [expert, who, rows])
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def claims_of(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seconds = {(row["expert"], row["who"], row["rows"]): row["cpu_s"] for row in figures}
    result = []
    for expert in sorted({row["expert"] for row in figures}):
        sizes = sorted({row["rows"] for row in figures if row["expert"] == expert})
        limit = 2.0 if expert == "words" else 1.5
        for rows in sizes:
            times = seconds[expert, "rayclean", rows] / seconds[expert, "scikit-learn", rows]
            result.append(
                claim(f"CPU time of {expert} at {rows:,} rows, over scikit-learn's", goal=f"<= {limit}", measured=round(times, 2), holds=times <= limit)
            )  # fmt: skip
        for low, high in pairwise(size for size in sizes if size >= 10_000):  # below, what is fixed counts
            ratio = seconds[expert, "rayclean", high] / seconds[expert, "rayclean", low]
            power = math.log(ratio) / math.log(high / low)
            result.append(
                claim(f"{expert}: exponent of growth from {low:,} to {high:,} rows", goal="<= 1.1", measured=round(power, 2), holds=power <= 1.1)
            )  # fmt: skip
    for row in figures:
        if "recall" in row:
            least = 0.9 if row["cells"] else 0.999
            result.append(
                claim(f"share of the nearest 20 that are found at {row['rows']:,} rows", goal=f">= {least}", measured=row["recall"], holds=row["recall"] >= least)
            )  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument(
        "--experts", nargs="+", default=["words", "neighbours"], choices=["words", "neighbours"]
    )
    parser.add_argument("--output")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        expert, who, rows = json.loads(options.task)
        result = CALLS[expert, who](rows)
        result["cpu_s"] = round(result["cpu_s"], 2)
        print(json.dumps(result | {"peak_mb": peak_mb()}))
        return
    sizes = options.rows or ([2_000, 8_000] if options.small else [10_000, 100_000])
    calls = [(expert, who) for expert, who in CALLS if expert in options.experts]
    figures = [child(expert, who, rows) for rows in sizes for expert, who in calls]
    config = {
        "rows": sizes, "classes": CLASSES, "folds": FOLDS, "noise": NOISE, "dimension": DIMENSION, "neighbours": 20, "threads": 1,
    }  # fmt: skip
    write_result(__file__, config, SEED, figures, claims_of(figures), options.small, options.output)


if __name__ == "__main__":
    main()
