"""Training dynamics as a detector: the quality that a robust method gave every example while it trained.

NoiseAL's co-prediction and LANE's averaged margins judge an example over many epochs and two networks, where
a single prediction judges it once. `rayclean train` leaves them in `train/dynamics/`; a later run, or a run
of another name on the same data, names that folder and lets them vote beside confident learning:

    [detect]
    detectors = ["posterior", { name = "dynamics", path = "runs/first/train/dynamics" }]
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rayclean.detectors.base import Detector, DetectorBatch, DetectorShard, Mapper
from rayclean.errors import ArtifactError, DataError
from rayclean.fingerprints import stamps
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup
from rayclean.plugins import Options


class TrainingDynamics(Detector):
    """Quality = share of the examples that a training found worse; 0.5 for examples it did not train on."""

    class Config(Options):
        """Options beside `name`."""

        path: str
        """The folder `train/dynamics` of a finished run on the same data."""
        share: float = Field(0.1, gt=0, lt=1)
        """Votes against the labels of the examples of lowest quality; this is their share."""

        def identity(self) -> dict[str, object]:
            """The options, and a stamp of each file of the folder."""
            return {**super().identity(), "files": stamps(self.path)}

    config: Config

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> str:
        """Check that this is the right folder, and return the stamps of its files; nothing is fitted.

        Raises:
            ArtifactError: the folder holds no dynamics.
            DataError: none of the examples was trained on; the data or their keys are others.
        """
        files = str(stamps(self.config.path))
        ids, _ = _read(self.config.path, files)
        if not any(np.isin(shard.read().examples, ids).any() for shard in shards):
            raise DataError(
                f"detector dynamics: {self.config.path} holds none of these examples; it was written by a run on other "
                "data, or with another dataset.id"
            )
        return files

    def score(
        self, batch: DetectorBatch, state: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]."""
        ids, worse = _read(self.config.path, state)
        position, known = lookup(ids, batch.examples)
        quality = np.where(known, worse[position], 0.5)
        return quality.astype(np.float32), known & (quality < self.config.share)


@lru_cache(maxsize=1)  # a process scores many shards
def _read(path: str, files: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Sorted ids, and the share of all examples with a lower quality than theirs: 16 bytes per example.

    Args:
        path: path of the folder.
        files: stamps of its files; the folder is read again when they change.
    """
    folder = Folder(path)
    names = folder.shards()
    if not names:
        raise ArtifactError(
            f"detector dynamics: {path} holds no dynamics; give the folder train/dynamics of a finished run"
        )
    tables = [folder.read_table(name, columns=["example_id", "quality"]) for name in names]
    ids, quality = (
        np.concatenate([table[name].to_numpy() for table in tables]) for name in ("example_id", "quality")
    )
    order = np.argsort(ids, kind="stable")
    quality = quality[order].astype(np.float64)
    return ids[order], np.searchsorted(np.sort(quality), quality) / len(ids)
