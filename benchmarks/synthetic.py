"""Synthetic predictions of any size on disk, made and read a piece at a time.

Class priors that fall off, 13 % wrong labels of which half go to the class that resembles the true one, and
probabilities of a model that is right on about nine examples of ten.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20240607
NOISE = 0.13
"""Share of examples whose label is drawn anew; some draw the true one again."""
CHUNK = 100_000
"""Rows made at a time; each chunk has a seed of its own."""


def generate(folder: Path, rows: int, classes: int) -> None:
    """Write labels.npy [N] int32, probabilities.npy [N, K] float32 and wrong.npy [N] bool, a chunk at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    open_ = partial(np.lib.format.open_memmap, mode="w+")
    labels = open_(folder / "labels.npy", dtype=np.int32, shape=(rows,))
    probabilities = open_(folder / "probabilities.npy", dtype=np.float32, shape=(rows, classes))
    wrong = open_(folder / "wrong.npy", dtype=np.bool_, shape=(rows,))
    prior = 1 / np.arange(1, classes + 1) ** 0.5
    prior /= prior.sum()
    for start in range(0, rows, CHUNK):
        rng = np.random.default_rng([SEED, classes, start])
        size = min(CHUNK, rows - start)
        true = rng.choice(classes, size, p=prior)
        alike = (true + 1) % classes
        flipped = rng.random(size) < NOISE
        other = np.where(rng.random(size) < 0.5, alike, (true + rng.integers(1, classes, size)) % classes)
        logits = rng.standard_normal((size, classes), dtype=np.float32) * 1.3
        at = np.arange(size)
        logits[at, true] += 4.5 + np.log(classes / 10)
        logits[at, alike] += 1.5
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        given = np.where(flipped, other, true)
        labels[start : start + size] = given
        probabilities[start : start + size] = logits
        wrong[start : start + size] = given != true


@dataclass(frozen=True)
class ArrayShard:
    """Rows of the arrays on disk, read (not mapped: mapped pages would count as memory) where they are needed."""

    folder: str
    start: int
    stop: int

    def read(self, features: bool = False, groups: bool = False) -> Any:
        """The rows as a detector sees them; example_id = row."""
        from rayclean.detectors.base import DetectorBatch

        p = self._rows("probabilities.npy")
        ids = np.arange(self.start, self.stop, dtype=np.int64)
        return DetectorBatch(ids, self._rows("labels.npy"), np.zeros(len(ids), dtype=np.int32), p)

    def _rows(self, name: str) -> Any:
        with open(Path(self.folder) / name, "rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            width = int(np.prod(shape[1:], dtype=int))
            file.seek(self.start * width * dtype.itemsize, 1)
            flat = np.fromfile(file, dtype=dtype, count=(self.stop - self.start) * width)
        return flat.reshape(-1, *shape[1:])
