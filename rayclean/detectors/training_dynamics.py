"""Training dynamics as a detector: the quality that a robust method gave every example while it trained.

NoiseAL's co-prediction and LANE's averaged margins judge an example over many epochs and two networks, where
a single prediction judges it once. `rayclean train` leaves them in `train/dynamics/`; a later run, or a run
of another name on the same data, names that folder and lets them vote beside confident learning:

    [detect]
    detectors = ["posterior", { name = "dynamics", path = "runs/first/train/dynamics" }]

The quality of a training is about the label that it was trained on. Where `relabel` had changed that one, a high
quality speaks for the new label, and so against the given one: such an example is judged the worst of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from rayclean.detectors.base import Detector, DetectorBatch, DetectorShard, Mapper
from rayclean.errors import ArtifactError, DataError
from rayclean.fingerprints import stamps
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup
from rayclean.hashing import int64
from rayclean.plugins import Options
from rayclean.schema import TRAINED_LABEL


class TrainingDynamics(Detector):
    """Quality = share of the examples that a training found worse; 0 for examples that it trained on another label than
    the given one; 0.5 for examples that it did not train on. All units of an example have the same quality.
    """

    class Config(Options):
        """Options beside `name`."""

        path: str
        """The folder `train/dynamics` of a finished run on the same data."""
        share: float = Field(0.1, gt=0, lt=1)
        """Votes against the labels of the examples of lowest quality; this is their share. A label that the training
        had another one for is voted against, too."""

        def identity(self) -> dict[str, object]:
            """The options, and a stamp of each file of the folder."""
            return {**super().identity(), "files": stamps(self.path)}

    config: Config

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> str:
        """Check that this is the right folder, and return the stamps of its files; nothing is fitted.

        Raises:
            ArtifactError: the folder holds no dynamics, or those of an older version.
            DataError: none of the examples was trained on; the data or their keys are others.
        """
        files = str(stamps(self.config.path))
        ids = _read(self.config.path, files).ids
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
        trained = _read(self.config.path, state)
        position, known = lookup(trained.ids, batch.examples)
        other = known & (trained.labels[position] != _given(batch))
        quality = np.where(known, trained.worse[position], 0.5)
        quality[other] = 0.0
        return quality.astype(np.float32), known & (quality < self.config.share)


@dataclass(frozen=True)
class _Dynamics:
    """What a training thought of its N examples: 24 bytes for each."""

    ids: npt.NDArray[np.int64]
    """[N] sorted."""
    labels: npt.NDArray[np.int64]
    """[N] `_numbers` of the labels trained on."""
    worse: npt.NDArray[np.float64]
    """[N] share of all examples with a lower quality than theirs."""


def _given(batch: DetectorBatch) -> npt.NDArray[np.int64]:
    """`_numbers` [B] of the whole given labels of the units' examples."""
    if batch.examples_given is None:
        return batch.given_label.astype(np.int64)
    ids = batch.examples_given["example_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    position, _ = lookup(ids[order], batch.examples)
    return _numbers(batch.examples_given["given_label"])[order[position]]


def _numbers(labels: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number [B] for every label, the same for equal ones: a class itself, else a hash of the classes or tags."""
    if not pa.types.is_list(labels.type):
        return np.asarray(labels, dtype=np.int64)
    return np.array([int64(str(label)) for label in labels.to_pylist()], dtype=np.int64)


@lru_cache(maxsize=1)  # a process scores many shards
def _read(path: str, files: str) -> _Dynamics:
    """The dynamics in a folder.

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
    table = pa.concat_tables(_columns(folder, name) for name in names)
    ids, quality = (table[name].to_numpy() for name in ("example_id", "quality"))
    order = np.argsort(ids, kind="stable")
    quality = quality[order].astype(np.float64)
    worse = np.searchsorted(np.sort(quality), quality) / len(ids)
    return _Dynamics(ids[order], _numbers(table[TRAINED_LABEL])[order], worse)


def _columns(folder: Folder, name: str) -> pa.Table:
    table = folder.read_table(name)
    if TRAINED_LABEL not in table.column_names:
        raise ArtifactError(
            f"detector dynamics: {folder.url(name)} does not say which labels were trained on (expected a column "
            f"{TRAINED_LABEL}, got {', '.join(table.column_names)}); an older version wrote it: run "
            "'rayclean train CONFIG --again'"
        )
    return table.select(["example_id", TRAINED_LABEL, "quality"])
