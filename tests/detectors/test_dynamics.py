from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.prediction_shards import PredictionShard
from rayclean.detectors.training_dynamics import TrainingDynamics
from rayclean.errors import ArtifactError, DataError
from rayclean.folder import Folder
from rayclean.plugins import Plugin
from rayclean.schema import Label, LabelSet
from rayclean.tasks import TASKS


class InMemory:
    def __init__(self, ids: list[int], labels: list[int] | None = None):
        self.ids = np.array(ids)
        self.labels = np.array(labels or [0] * len(ids), dtype=np.int32)

    def read(self, features: bool = False, groups: bool = False) -> DetectorBatch:
        p = np.full((len(self.ids), 2), 0.5, dtype=np.float32)
        return DetectorBatch(self.ids, self.labels, self.labels, p)


def write(folder: Path, ids: list[int], quality: list[float], labels: Any = None) -> str:
    labels = pa.array([0] * len(ids), pa.int32()) if labels is None else labels
    table = pa.table({"example_id": ids, "trained_label": labels, "quality": quality})
    for number, part in enumerate((table.slice(0, 4), table.slice(4))):
        Folder(str(folder)).write_table(part, f"part-{number:05d}.parquet")
    return str(folder)


def judged(path: str, shard: Any, **options: Any) -> tuple[list[float], list[bool]]:
    detector = TrainingDynamics(TrainingDynamics.Config(path=path, **options), 2)
    quality, vote = detector.score(shard.read(), detector.fit([shard], map))  # type: ignore[arg-type]
    return quality.tolist(), vote.tolist()


def test_qualities_are_found_by_id_whatever_the_order(tmp_path: Path) -> None:
    path = write(tmp_path, [50, 10, 40, 20, 30, 60], [-5.0, -1.0, -4.0, -2.0, -3.0, -6.0])
    detector = TrainingDynamics(TrainingDynamics.Config(path=path, share=0.3), 2)
    shards = [InMemory([10, 60, 99]), InMemory([20, 50])]
    files = detector.fit(shards, map)  # type: ignore[arg-type]
    quality, vote = detector.score(shards[0].read(), files)
    np.testing.assert_allclose(quality, [5 / 6, 0, 0.5])  # 99 was not trained on
    assert vote.tolist() == [False, True, False]
    np.testing.assert_allclose(detector.score(shards[1].read(), files)[0], [4 / 6, 1 / 6])


def test_an_example_trained_on_another_label_is_the_worst(tmp_path: Path) -> None:
    """The training likes example 10 best of all, with the label that it had been given instead."""
    labels = pa.array([1, 0, 0, 0, 0, 0], pa.int32())
    path = write(tmp_path, [10, 20, 30, 40, 50, 60], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], labels)
    quality, vote = judged(path, InMemory([10, 20, 30]))
    np.testing.assert_allclose(quality, [0, 4 / 6, 3 / 6])
    assert vote == [True, False, False]
    quality, vote = judged(path, InMemory([10, 20, 30], [1, 0, 0]))  # the given label is now that one
    np.testing.assert_allclose(quality, [5 / 6, 4 / 6, 3 / 6])
    assert vote == [False, False, False]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30), st.randoms())
def test_other_labels_are_never_better_than_equal_ones(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], random: Any
) -> None:
    given, trained = ([*column] for column in zip(*pairs, strict=True))
    ids = random.sample(range(1000), len(pairs))
    path = write(
        tmp_path_factory.mktemp("d"), ids, [random.random() for _ in ids], pa.array(trained, pa.int32())
    )
    quality, vote = judged(path, InMemory(ids, given), share=0.5)
    for value, voted, (one, other) in zip(quality, vote, pairs, strict=True):
        assert (value == 0 and voted) if one != other else 0 <= value < 1
    same = [ids.index(i) for i, (one, other) in zip(ids, pairs, strict=True) if one == other]
    unchanged, _ = judged(path, InMemory(ids, trained), share=0.5)
    assert [quality[row] for row in same] == [unchanged[row] for row in same]


@pytest.mark.parametrize("task", ["multi_label", "tagging"])
def test_whole_labels_of_sets_and_tags_are_compared(tmp_path: Path, task: str) -> None:
    form = pa.list_(pa.int32())
    now = {7: [0, 1], 3: [1, 2], 9: [0, 0]} if task == "tagging" else {7: [0], 3: [0, 1], 9: []}
    before = {**now, 3: [1, 0] if task == "tagging" else [1]}
    path = write(
        tmp_path / "dynamics", [3, 7, 9], [3.0, 2.0, 1.0], pa.array([before[i] for i in (3, 7, 9)], form)
    )
    labels = LabelSet(Label(i, x, x) for i, x in enumerate("ab"))
    built = TASKS.build(Plugin(name=task), labels)
    p = np.full((6 if task == "tagging" else 3, built.outputs), 1 / built.outputs, np.float32)
    offsets = np.array([0, 2, 4, 6]) if task == "tagging" else None
    table = built.prediction_table(
        np.array([*now]), pa.array([*now.values()], form), p, np.zeros(3, np.int16), offsets
    )
    predict = Folder(str(tmp_path / "predict"))
    predict.write_table(table, "predictions", "part-00000.parquet")
    shard = PredictionShard(predict.url(), "part-00000.parquet", built)
    quality, vote = judged(path, shard)
    np.testing.assert_allclose(
        quality, np.repeat([1 / 3, 0, 0], 2)
    )  # 9 was found worst by the training itself
    assert vote == [False, False, True, True, True, True]


def test_what_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="train/dynamics of a finished run"):
        judged(str(tmp_path / "nowhere"), InMemory([1]))
    path = write(tmp_path / "other", list(range(6)), [0.0] * 6)
    with pytest.raises(DataError, match="none of these examples"):
        judged(path, InMemory([77]))
    old = pa.table({"example_id": [1], "quality": [0.0]})
    Folder(str(tmp_path / "old")).write_table(old, "part-00000.parquet")
    with pytest.raises(ArtifactError, match=r"got example_id, quality.*rayclean train CONFIG --again"):
        judged(str(tmp_path / "old"), InMemory([1]))


def test_dynamics_written_anew_are_another_detector(tmp_path: Path) -> None:
    path = write(tmp_path, list(range(6)), [0.0] * 6)
    before = TrainingDynamics.Config(path=path).identity()
    write(tmp_path, list(range(7)), [0.0] * 7)
    assert TrainingDynamics.Config(path=path).identity() != before
