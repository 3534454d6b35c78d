"""Every method on data that lack what it counts on: subsets, rivals, pairs, words, neighbours."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean.config import Plugin, TrainingConfig
from rayclean.folder import Folder
from rayclean.methods import METHODS
from rayclean.schema import EXAMPLES
from rayclean.training.job import FitSpec
from rayclean.training.loop import fit
from tests.methods.test_contract import OPTIONS
from tests.training.toys import TOY, WORDS, Answering, job

CLASSES = [row % 3 for row in range(24)]
TEXTS = [" ".join(WORDS[label].split()[: 1 + row % 2]) for row, label in enumerate(CLASSES)]
DATA = {
    "fewer than a batch": (TEXTS[:5], CLASSES[:5]),
    "one class": (TEXTS, [1] * 24),
    "two classes": (TEXTS, [label % 2 for label in CLASSES]),
    "a hundred classes": (TEXTS, [4 * row + 7 for row in range(24)]),
    "all wrong": (TEXTS, [(label + 1 + row // 3 % 2) % 3 for row, label in enumerate(CLASSES)]),
    "duplicates": (["red cat"] * 24, CLASSES),
    "empty texts": ([text if row % 2 else " " * (row % 3) for row, text in enumerate(TEXTS)], CLASSES),
}
"""Texts and given labels."""
NUMBER_OF_CLASSES = {"two classes": 2, "a hundred classes": 100}
WHOLE = ("cross_entropy", "noiseal", "lane", "aum", "dividemix")
"""Methods that meet all data; the losses of the others share the path of cross entropy through the loop."""
HARDEST = ("one class", "a hundred classes")
CASES = [(method, name) for method in METHODS for name in (DATA if method in WHOLE else HARDEST)]


@pytest.mark.parametrize(("method", "name"), CASES)
def test_training_ends_with_finite_losses_and_qualities(tmp_path: Path, method: str, name: str) -> None:
    texts, labels = DATA[name]
    columns = [range(len(texts)), texts, pa.array(labels, pa.int32()), ["train"] * len(texts)]
    Folder(str(tmp_path / "examples")).write_table(pa.table(columns, schema=EXAMPLES), "part-00000.parquet")
    how = FitSpec(
        Plugin(name=TOY),
        Plugin(name=method, **OPTIONS.get(method, {})),
        TrainingConfig(epochs=2, batch_size=8),
        tuple(f"label {number}" for number in range(NUMBER_OF_CLASSES.get(name, 3))),
    )
    result = fit(job(str(tmp_path / "examples"), tmp_path / "out"), how, consult=Answering())
    output = Folder(str(tmp_path / "out"))
    lines = [json.loads(line) for line in output.read_text("metrics.jsonl").splitlines()]
    assert result.epochs == len(lines) == lines[-1]["epochs"]
    assert all(math.isfinite(line[key]) for line in lines for key in line if key.startswith("loss"))
    table = output.read_table("dynamics", "part-00000.parquet").to_pandas()
    assert len(table) == len(texts)
    assert np.isfinite(table["quality"]).all()
    assert not table.isna().any(axis=None)
