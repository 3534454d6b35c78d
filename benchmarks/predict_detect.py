"""Predict and detect with all experts, beside scikit-learn doing the same, each in one process on one core.

    python benchmarks/predict_detect.py                       10,000 to 300,000 rows -> results/predict_detect.json
    python benchmarks/predict_detect.py --small               seconds, for the smoke test
    python benchmarks/predict_detect.py --rows 10000 --kinds text --output text.json

Every measured call runs in a process of its own, on one core and with one thread. CPU seconds cover everything
from a finished `load` (or from features that are computed) to the findings, not imports and not the making of data. Ten
classes, five folds, 12 % wrong labels, texts and features as in `experts.py`.

text: the encoder `bag_of_words` and the expert `words`. The other side is what one would write with scikit-learn in the
place of the two: HashingVectorizer, and for each of the five folds SGDClassifier with log-loss on its counts divided by
their length, and another one on TF-IDF; both with the 3 passes of the expert. `cpu_s_words_alone` is
the time of HashingVectorizer and the second one.

features: 384 cached numbers per text, a linear head, and the experts `neighbours` and `words`. The other side is
LogisticRegression (C = 10) for each fold, NearestNeighbors by brute force (above 20,000 rows on some queries and scaled
up), and HashingVectorizer, TF-IDF and SGDClassifier.

Above 100,000 rows scikit-learn is left out (LogisticRegression alone takes half an hour there); growth is still measured.

Log-loss is that of the classifier's probabilities on the given labels, at the temperature where it is least.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from benchmarks.experts import (
    ALL_QUERIES,
    CLASSES,
    DIMENSION,
    FOLDS,
    NOISE,
    SEED,
    SOME_QUERIES,
    features,
    log_loss,
    texts,
)
from benchmarks.measure import measured_alone, peak_mb

KINDS = ("text", "features")
AT = 100_000
"""Rows at which the times are compared."""


def data(kind: str, rows: int) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Texts, given labels, and features or None. With features, the labels are a linear function of them."""
    content, labels = texts(rows)
    if kind == "text":
        return content, labels, None
    values, rng = features(rows), np.random.default_rng(SEED)
    labels = (values @ rng.standard_normal((DIMENSION, CLASSES), dtype=np.float32)).argmax(axis=1)
    wrong = rng.random(rows) < NOISE
    return content, np.where(wrong, rng.integers(0, CLASSES, rows), labels), values


def ours(kind: str, rows: int) -> dict[str, Any]:
    """`predict` and `detect` of a run whose `load` is finished."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    import rayclean.pipeline
    from rayclean.config import parse_config

    content, labels, values = data(kind, rows)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAYCLEAN_CACHE"] = f"{folder}/cache"
        encoder: dict[str, Any] = {"name": "bag_of_words"}
        if values is not None:
            np.save(f"{folder}/features.npy", values)
            content = [f"{row} {text}" for row, text in enumerate(content)]
            encoder = {"name": "benchmarks.stored_features:StoredFeatures", "file": f"{folder}/features.npy"}
        table = {"id": np.arange(rows), "text": content, "label": [f"c{label}" for label in labels]}
        pq.write_table(pa.table(table), f"{folder}/data.parquet")
        config = parse_config(
            {
                "name": "run", "output": folder, "seed": SEED, "encoder": encoder, "cluster": {"ray": False},
                "dataset": {"path": f"{folder}/data.parquet", "id": "id", "text": "text", "label": "label"},
                "predict": {"folds": FOLDS},
            }
        )  # fmt: skip
        rayclean.pipeline.run_verbs(config, ("load",))
        import_all()
        began = time.process_time()
        run = rayclean.pipeline.run_verbs(config, ("predict", "detect"))
        cpu = time.process_time() - began
        manifest = run.manifest("predict")
        assert manifest is not None
    figures = manifest.metrics
    parts = {name: value for name, value in figures.items() if name.startswith("seconds_")}
    epochs = [fit["epochs"] for fit in figures["fits"].values()]
    return {"cpu_s": cpu, "log_loss": round(figures["log_loss"]["classifier"], 4), "epochs": epochs, **parts}


def import_all() -> None:
    """What the verbs would import in the time that is measured."""
    import sklearn.linear_model  # noqa: F401
    import torch._dynamo  # noqa: F401  (fused optimisers)

    import rayclean.runtime.predict
    import rayclean.training.side_by_side
    import rayclean.verbs.detect
    import rayclean.verbs.predict  # noqa: F401


def plain(kind: str, rows: int) -> dict[str, Any]:
    """The same with scikit-learn, up to the probabilities and the rows of the lowest self-confidence."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    from rayclean.experts.words import COLUMNS, INVERSE_REGULARISATION, PASSES
    from rayclean.functional.hashing import folds

    content, labels, values = data(kind, rows)
    fold = folds(np.arange(rows), SEED, FOLDS)

    def sgd(inputs: Any, train: np.ndarray) -> Any:
        alpha = 1 / (INVERSE_REGULARISATION * len(train))
        model = SGDClassifier(
            loss="log_loss", alpha=alpha, average=True, max_iter=PASSES, tol=None, random_state=SEED
        )
        return model.fit(inputs[train], labels[train])

    def out_of_fold(inputs: Any, fit: Any) -> np.ndarray:
        found = np.empty((rows, CLASSES))
        for held_out in range(FOLDS):
            model = fit(inputs, np.flatnonzero(fold != held_out))
            found[fold == held_out] = model.predict_proba(inputs[fold == held_out])
        return found

    extra, began = 0.0, time.process_time()
    counts = HashingVectorizer(ngram_range=(1, 2), n_features=COLUMNS, alternate_sign=False, norm=None)
    counted = counts.transform(content)
    weighed = TfidfTransformer(sublinear_tf=True).fit_transform(counted)
    parts = [out_of_fold(weighed, sgd)]
    one = time.process_time() - began
    if values is None:
        classifier = out_of_fold(normalize(counted), sgd)
    else:
        classifier = out_of_fold(
            values, lambda x, train: LogisticRegression(C=10, max_iter=1000).fit(x[train], labels[train])
        )
        queries = values if rows <= ALL_QUERIES else values[:SOME_QUERIES]
        start = time.process_time()
        near = NearestNeighbors(n_neighbors=21, algorithm="brute", metric="cosine").fit(values)
        voters = labels[near.kneighbors(queries)[1][:, 1:]]
        votes = np.zeros((rows, CLASSES))
        for column in voters.T:
            votes[np.arange(len(queries)), column] += 1 / voters.shape[1]
        extra = (time.process_time() - start) * (rows / len(queries) - 1)
        parts.append(votes)
    mean = np.mean([*parts, classifier], axis=0)
    np.argsort(mean[np.arange(rows), labels])[: rows // 10]
    cpu = time.process_time() - began + extra
    return {"cpu_s": cpu, "cpu_s_words_alone": round(one, 2), "log_loss": log_loss(classifier, labels)}


def child(kind: str, who: str, rows: int) -> dict[str, Any]:
    """One measured call in a process of its own, on one core."""
    result = {"kind": kind, "who": who, "rows": rows} | measured_alone(__file__, [kind, who, rows])
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def claims_of(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seconds = {(row["kind"], row["who"], row["rows"]): row["cpu_s"] for row in figures}
    result = []
    for kind in sorted({row["kind"] for row in figures}):
        sizes = sorted({row["rows"] for row in figures if row["kind"] == kind})
        for rows in (size for size in sizes if size >= AT and (kind, "scikit-learn", size) in seconds):
            times = seconds[kind, "rayclean", rows] / seconds[kind, "scikit-learn", rows]
            result.append(
                claim(f"CPU time of predict and detect from {kind} at {rows:,} rows, over scikit-learn's", goal="<= 2.0", measured=round(times, 2), holds=times <= 2)
            )  # fmt: skip
        for low, high in pairwise(size for size in sizes if size >= 10_000):  # below, what is fixed counts
            ratio = seconds[kind, "rayclean", high] / seconds[kind, "rayclean", low]
            power = math.log(ratio) / math.log(high / low)
            result.append(
                claim(f"{kind}: exponent of growth from {low:,} to {high:,} rows", goal="<= 1.1", measured=round(power, 2), holds=power <= 1.1)
            )  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument(
        "--peer-up-to", type=int, default=AT, help="rows above which scikit-learn is left out"
    )
    parser.add_argument("--output")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        kind, who, rows = json.loads(options.task)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        result = (ours if who == "rayclean" else plain)(kind, rows)
        result["cpu_s"] = round(result["cpu_s"], 2)
        print(json.dumps(result | {"peak_mb": peak_mb()}))
        return
    sizes = options.rows or ([1_000, 2_000] if options.small else [10_000, AT, 300_000])
    figures = [
        child(kind, who, rows)
        for rows in sizes
        for kind in options.kinds
        for who in ("rayclean", "scikit-learn")
        if who == "rayclean" or rows <= options.peer_up_to
    ]
    config = {
        "rows": sizes, "classes": CLASSES, "folds": FOLDS, "noise": NOISE, "dimension": DIMENSION, "threads": 1,
    }  # fmt: skip
    write_result(__file__, config, SEED, figures, claims_of(figures), options.small, options.output)


if __name__ == "__main__":
    main()
