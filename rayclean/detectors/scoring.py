"""The work of `detect` on one shard: checking and scoring it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean import schema
from rayclean.detectors.base import Detector, DetectorBatch
from rayclean.detectors.findings import id_fingerprint
from rayclean.detectors.prediction_shards import PredictionShard, require_valid, require_whole
from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder


def survey_shard(name: str, load: str, predict: str, num_classes: int) -> tuple[int, int]:
    """Check a shard of predictions and match it, id by id, with its shard of examples.

    Returns:
        Number of examples and fingerprint of their ids.

    Raises:
        DataError: a prediction is not valid (`require_valid`).
        ArtifactError: the predictions belong to other examples.
    """
    batch = PredictionShard(predict, name).read()
    require_valid(batch, num_classes, f"predictions/{name}")
    ids, given, _ = _examples(load, name)
    predicted, loaded = np.argsort(batch.example_id), np.argsort(ids)
    same_ids = np.array_equal(batch.example_id[predicted], ids[loaded])
    if not (same_ids and np.array_equal(batch.given_label[predicted], given[loaded])):
        raise ArtifactError(
            f"predictions/{name} and examples/{name} hold other ids or other given labels; "
            "the predictions belong to another load: run predict again"
        )
    return len(ids), id_fingerprint(ids)


def _examples(
    load: str, name: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Ids and given labels of a shard of examples, and whether each is a development example."""
    table = Folder(load).read_table("examples", name, columns=["example_id", "given_label", "split"])
    require_whole(table, f"examples/{name}")
    dev = pc.equal(table["split"], schema.SPLIT_DEV).to_numpy()
    return table["example_id"].to_numpy(), table["given_label"].to_numpy(), dev


@dataclass(frozen=True)
class Scorer:
    """The scoring of shards by all detectors, which is sent to the workers."""

    detectors: dict[str, Detector]
    states: dict[str, Any]
    load: str
    predict: str
    out: str
    require_disagreement: bool
    protect_dev: bool

    def __call__(self, name: str) -> int:
        """Write `scores/<name>` and return its number of examples."""
        wants_features = any(detector.needs_features for detector in self.detectors.values())
        batch = PredictionShard(self.predict, name).read(features=wants_features)
        columns: dict[str, Any] = {
            "example_id": batch.example_id,
            "given_label": batch.given_label,
            "suggested_label": self._suggested(batch, name),
            "eligible": self._eligible(batch, name),
        }
        for key, detector in self.detectors.items():
            quality, vote = detector.score(batch, self.states[key])
            if (
                quality.shape != vote.shape
                or len(quality) != len(batch.example_id)
                or not np.isfinite(quality).all()
            ):
                raise ConfigError(
                    f"detector {key!r} must return a finite quality and a vote per example of {name}, "
                    f"got shapes {quality.shape} and {vote.shape}; mend the detector"
                )
            columns[f"quality_{key}"] = quality.astype(np.float32)
            columns[f"vote_{key}"] = vote.astype(np.bool_)
        Folder(self.out).write_table(pa.table(columns), "scores", name)
        return len(batch.example_id)

    def _suggested(self, batch: DetectorBatch, name: str) -> npt.NDArray[np.int32]:
        """The predicted label, or the runner-up where the prediction is the given label."""
        table = Folder(self.predict).read_table(
            "predictions", name, columns=["example_id", "runner_up_label"]
        )
        require_whole(table, f"predictions/{name}")
        agree = batch.predicted_label == batch.given_label
        return np.where(agree, table["runner_up_label"].to_numpy(), batch.predicted_label).astype(np.int32)

    def _eligible(self, batch: DetectorBatch, name: str) -> npt.NDArray[np.bool_]:
        """Whether an example may be a suspect."""
        eligible = np.ones(len(batch.example_id), dtype=np.bool_)
        if self.require_disagreement:
            eligible &= batch.predicted_label != batch.given_label
        if self.protect_dev:
            ids, _, dev = _examples(self.load, name)
            eligible &= ~np.isin(batch.example_id, ids[dev])
        return eligible
