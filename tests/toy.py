"""A small data set with known noise, for end-to-end tests: K topics, each with its own words and some shared ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.datasets.example_id import key_id

TOPICS = {
    "garden": "rose soil seed tulip compost hedge lawn prune bloom weed orchard".split(),
    "kitchen": "oven flour butter simmer whisk recipe knife sauce dough pepper roast".split(),
    "harbour": "ship anchor tide crane dock sail cargo rope captain wharf buoy".split(),
}
SHARED = "the a of and with near every some old new big small morning evening people city".split()


def write(folder: Path, rows: int = 400, noise: float = 0.15, seed: int = 0, files: int = 4) -> Path:
    """Parquet files with columns key, text, label (noisy) and truth; `noise` of the labels are wrong."""
    rng = np.random.default_rng(seed)
    names = list(TOPICS)
    truth = rng.integers(len(names), size=rows)
    label = np.where(
        rng.random(rows) < noise, (truth + rng.integers(1, len(names), size=rows)) % len(names), truth
    )
    texts = []
    for index in truth:
        own = rng.choice(TOPICS[names[index]], size=rng.integers(4, 9))
        shared = rng.choice(SHARED, size=rng.integers(3, 9))
        texts.append(" ".join(rng.permutation(np.concatenate([own, shared]))))
    table = pa.table(
        {
            "key": [f"row-{i:05d}" for i in range(rows)],
            "text": texts,
            "label": [names[i] for i in label],
            "truth": [names[i] for i in truth],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    step = -(-rows // files)
    for number, start in enumerate(range(0, rows, step)):
        pq.write_table(table.slice(start, step), folder / f"{number:03d}.parquet")
    return folder


def true_labels(folder: Path) -> pa.Table:
    """The truth of files that `write` made as a simulated annotator reads it, with labels in the order of `TOPICS`."""
    rows = pq.read_table(folder, columns=["key", "truth"]).to_pylist()
    ids = [key_id(row["key"]) for row in rows]
    names = [list(TOPICS).index(row["truth"]) for row in rows]
    return pa.table({"example_id": pa.array(ids, pa.int64()), "true_label": pa.array(names, pa.int32())})


def config(folder: Path, runs: Path, name: str = "toy") -> dict:
    """A config of plain values that finishes in seconds: bag of words, two folds, no LLM."""
    return {
        "name": name,
        "output": str(runs),
        "dataset": {
            "path": str(folder),
            "format": "parquet",
            "id": "key",
            "truth": "truth",
            "test": {"share": 0.2},
            "rows_per_shard": 64,
        },
        "encoder": {"name": "bag_of_words", "buckets": 2000},  # for some sixty words and their pairs
        "predict": {"folds": 2},
        "detect": {"budget": 0.2},
        "annotator": {"name": "knn"},
        "relabel": {"demonstrations": 5},
    }
