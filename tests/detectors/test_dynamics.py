from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.training_dynamics import TrainingDynamics
from rayclean.errors import ArtifactError, DataError
from rayclean.folder import Folder


class InMemory:
    def __init__(self, ids: list[int]):
        self.ids = np.array(ids)

    def read(self, features: bool = False, groups: bool = False) -> DetectorBatch:
        labels = np.zeros(len(self.ids), dtype=np.int32)
        return DetectorBatch(self.ids, labels, labels, np.full((len(self.ids), 2), 0.5, dtype=np.float32))


def write(folder: Path, ids: list[int], quality: list[float]) -> str:
    for number, part in enumerate((slice(0, 4), slice(4, None))):
        table = pa.table({"example_id": ids[part], "quality": quality[part]})
        Folder(str(folder)).write_table(table, f"part-{number:05d}.parquet")
    return str(folder)


def test_qualities_are_found_by_id_whatever_the_order(tmp_path: Path) -> None:
    path = write(tmp_path, [50, 10, 40, 20, 30, 60], [-5.0, -1.0, -4.0, -2.0, -3.0, -6.0])
    detector = TrainingDynamics(TrainingDynamics.Config(path=path, share=0.3), 2)
    shards = [InMemory([10, 60, 99]), InMemory([20, 50])]
    files = detector.fit(shards, map)  # type: ignore[arg-type]
    quality, vote = detector.score(shards[0].read(), files)
    np.testing.assert_allclose(quality, [5 / 6, 0, 0.5])  # 99 was not trained on
    assert vote.tolist() == [False, True, False]
    np.testing.assert_allclose(detector.score(shards[1].read(), files)[0], [4 / 6, 1 / 6])


def test_what_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="train/dynamics of a finished run"):
        TrainingDynamics(TrainingDynamics.Config(path=str(tmp_path / "nowhere")), 2).fit([InMemory([1])], map)  # type: ignore[arg-type]
    path = write(tmp_path / "other", list(range(6)), [0.0] * 6)
    with pytest.raises(DataError, match="none of these examples"):
        TrainingDynamics(TrainingDynamics.Config(path=path), 2).fit([InMemory([77])], map)  # type: ignore[arg-type]


def test_dynamics_written_anew_are_another_detector(tmp_path: Path) -> None:
    path = write(tmp_path, list(range(6)), [0.0] * 6)
    before = TrainingDynamics.Config(path=path).identity()
    write(tmp_path, list(range(7)), [0.0] * 7)
    assert TrainingDynamics.Config(path=path).identity() != before
