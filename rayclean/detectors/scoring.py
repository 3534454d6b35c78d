"""The work of `detect` on one shard: checking and scoring it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean import schema
from rayclean.detectors.base import Detector, DetectorBatch
from rayclean.detectors.prediction_shards import require_unique, require_valid, require_whole, shard_blocks
from rayclean.detectors.suspect_selection import id_fingerprint
from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder
from rayclean.functional.posterior import rival
from rayclean.tasks.base import Task


def survey_shard(name: str, load: str, predict: str, units: Task, num_answers: int) -> tuple[int, int]:
    """Check a shard of predictions and match it, id by id, with its shard of examples.

    Returns:
        Number of units and fingerprint of their ids.

    Raises:
        DataError: a prediction is not valid (`require_valid`).
        ArtifactError: the predictions belong to other examples.
    """
    parts = []
    for block in shard_blocks(predict, name, units):
        batch = block.read()
        require_valid(batch, num_answers, f"predictions/{name}")
        parts.append((batch.unit_id, batch.given_label))
    found, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    require_unique(found, f"predictions/{name}")
    ids, given, _ = _units(load, name, units)
    predicted, loaded = np.argsort(found), np.argsort(ids)
    same_ids = np.array_equal(found[predicted], ids[loaded])
    if not (same_ids and np.array_equal(labels[predicted], given[loaded])):
        raise ArtifactError(
            f"predictions/{name} and examples/{name} hold other ids or other given labels, so "
            "the predictions are of another load: run 'rayclean predict CONFIG --again'"
        )
    return len(ids), id_fingerprint(ids)


def _units(
    load: str, name: str, units: Task
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Ids and given answers of the units of a shard of examples, and whether each is of a development example."""
    table = Folder(load).read_table("examples", name, columns=["example_id", "given_label", "split"])
    require_whole(table, f"examples/{name}")
    rows = units.unit_rows(table)
    dev = pc.equal(rows["split"], schema.SPLIT_DEV).to_numpy()
    return rows["unit_id"].to_numpy(), rows["given_label"].to_numpy(), dev


@dataclass(frozen=True)
class Scorer:
    """The scoring of shards by all detectors, which is sent to the workers."""

    detectors: dict[str, Detector]
    states: dict[str, Any]
    load: str
    predict: str
    out: str
    protect_dev: bool
    units: Task

    def __call__(self, name: str) -> int:
        """Write `scores/<name>` and return its number of units."""
        features, groups = (
            any(getattr(detector, needs) for detector in self.detectors.values())
            for needs in ("needs_features", "needs_groups")
        )
        declared = self._declared(name)
        tables = [
            self._scored(block.read(features, groups), name, declared)
            for block in shard_blocks(self.predict, name, self.units)
        ]
        table = pa.concat_tables(tables)
        Folder(self.out).write_table(table, "scores", name)
        return len(table)

    def _scored(self, batch: DetectorBatch, name: str, declared: npt.NDArray[np.int64]) -> pa.Table:
        """The rows of `scores/<name>` of some of its units; `declared` as `_declared` returns it."""
        columns: dict[str, Any] = {
            "unit_id": batch.unit_id,
            "example_id": batch.examples,
            "given_label": batch.given_label,
            **self._suggested(batch),
            "given_value": batch.given_value,
            "suggested_value": batch.suggested_value,
            **self._doubtable(batch, declared),
        }
        for key, detector in self.detectors.items():
            quality, vote = detector.score(batch, self.states[key])
            if (
                quality.shape != vote.shape
                or len(quality) != len(batch.unit_id)
                or not np.isfinite(quality).all()
            ):
                raise ConfigError(
                    f"detector {key!r} must return a finite quality and a vote per example of {name}, "
                    f"got shapes {quality.shape} and {vote.shape}; mend the detector"
                )
            columns[f"quality_{key}"] = quality.astype(np.float32)
            columns[f"vote_{key}"] = vote.astype(np.bool_)
        return pa.table(columns)

    def _declared(self, name: str) -> npt.NDArray[np.int64]:
        """Ids of the units of a shard whose answers were declared right: those of clean development examples."""
        if not self.protect_dev:
            return np.zeros(0, dtype=np.int64)
        ids, _, dev = _units(self.load, name, self.units)
        return ids[dev]

    def _doubtable(
        self, batch: DetectorBatch, right: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """Whether a unit may be a suspect (`eligible`): another answer can be suggested, and it is not of a clean development
        example; and whether it is of one (`declared_right`), which makes it a control question.
        """
        other = np.ones(len(batch.unit_id), dtype=np.bool_)
        if batch.suggested_value is not None and batch.given_value is not None:
            same = pc.equal(batch.suggested_value, batch.given_value)
            other = ~np.asarray(same.fill_null(False))
        declared = np.isin(batch.unit_id, right)
        return {"eligible": other & ~declared, "declared_right": other & declared}

    def _suggested(self, batch: DetectorBatch) -> dict[str, npt.NDArray[Any]]:
        """The most probable answer but the given one, and the probabilities of both."""
        values = self._answer_probabilities(batch)
        rows, suggested = np.arange(len(values)), rival(values, batch.given_label)
        return {
            "suggested_label": suggested,
            "given_probability": values[rows, batch.given_label].astype(np.float32),
            "suggested_probability": values[rows, suggested].astype(np.float32),
        }

    def _answer_probabilities(self, batch: DetectorBatch) -> npt.NDArray[np.floating[Any]]:
        """Probabilities of the answers [B, K]: each unit's by the first detector that knows them better than the model,
        else by the model.
        """
        values = np.full(batch.probabilities.shape, np.nan)
        unknown = np.ones(len(values), dtype=np.bool_)
        for key, detector in self.detectors.items():
            found = detector.answer_probabilities(batch, self.states[key]) if unknown.any() else None
            if found is not None:
                values[unknown] = found[unknown]
                unknown = np.isnan(values).any(axis=1)
        values[unknown] = batch.probabilities[unknown]
        return values
