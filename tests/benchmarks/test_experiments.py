"""What the experiments keep and how they count, without training anything but a toy."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import common, experiments  # noqa: E402
from rayclean.artifacts import Folder  # noqa: E402

NOISE = {"kind": "sym", "rate": 0.4}


def experiment(**options: Any) -> dict[str, Any]:
    return {
        "sets": [{"name": "trec6", "noise": NOISE}, {"name": "hausa_news"}], "arms": {"CE": {"name": "cross_entropy"}},
        "encoder": {"name": "bag_of_words"}, "epochs": 2, **options,
    }  # fmt: skip


def test_the_hash_of_the_sources_follows_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.py").write_text("1\n")
    before = common.sources(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert common.sources(tmp_path) == before
    (tmp_path / "inner" / "one.py").write_text("2\n")
    changed = common.sources(tmp_path)
    (tmp_path / "inner" / "one.py").rename(tmp_path / "inner" / "two.py")
    assert len({before, changed, common.sources(tmp_path)}) == 3


def test_a_task_carries_the_code() -> None:
    task = experiments._task(experiment(), 0, "CE", 0, {"trec6": "somewhere"})
    assert task["code"] == common.sources()


def test_questions_are_those_paid_and_those_that_the_ledger_answered() -> None:
    lines = [
        {"epoch": 1},
        {"asked": 10.0, "from_ledger": 2, "tokens": 500},
        {"asked": 0, "from_ledger": 3, "tokens": 0},
    ]
    assert experiments.questions_of(lines) == {"questions": 15, "tokens_paid": 500}


def test_a_run_keeps_the_specification_of_its_noise() -> None:
    described = experiment()
    runs = {
        experiments._key(described, number, "CE", 0): {"noise_realised": share, "commit": "c"}
        for number, share in ((0, 0.41), (1, 0.5))
    }
    found = experiments._runs(described, runs, [0])
    assert [run["noise"] for run in found] == [NOISE, None]
    assert [run["noise_realised"] for run in found] == [0.41, 0.5]
    assert [row["noise_realised"] for row in experiments.summary(described, runs, [0])] == [
        [0.41, 0.0],
        [0.5, 0.0],
    ]


def test_the_committed_results_can_be_merged() -> None:
    known = experiments._known()
    assert known
    assert all(isinstance(one["commit"], list) for one in known.values())
    assert all(not isinstance(run["noise"], float) for one in known.values() for run in one["runs"])
    assert experiments.markdown(known, [0, 1, 2])


@pytest.fixture
def toy_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Folder with a set of 60 examples of two classes, each in words of its own."""
    monkeypatch.setitem(experiments.SETS, "toy", {"label": "label"})
    monkeypatch.setattr(experiments, "WORK", tmp_path / "work")
    rng = np.random.default_rng(0)
    words = np.array([["red", "blue", "green"], ["one", "two", "three"]])
    (tmp_path / "toy").mkdir()
    for split, rows in (("train", 60), ("test", 20)):
        labels = np.arange(rows) % 2
        texts = [f"{' '.join(rng.choice(words[label], 5))} {split} {row}" for row, label in enumerate(labels)]
        table = pa.table({"text": texts, "label": [("colour", "number")[label] for label in labels]})
        pq.write_table(table, tmp_path / "toy" / f"{split}.parquet")
    return str(tmp_path)


def features_of(root: str) -> list[float]:
    folder = Folder(root).sub("features", "test")
    return list(folder.read_table(folder.shards()[0])["features"][0].as_py())


@pytest.mark.slow
def test_what_is_kept_is_taken_for_the_same_encoder_and_code_alone(ray_embedded: None, toy_set: str) -> None:
    encoder = {"name": "bag_of_words", "buckets": 500}
    root = experiments.prepare("toy", toy_set, {**encoder, "hidden": 8})
    before = features_of(root)
    encoder["hidden"] = 4
    assert experiments.prepare("toy", toy_set, encoder) == root
    assert (len(before), len(features_of(root))) == (8, 4)
    task = {
        "root": root, "noise": NOISE, "seed": 0, "arm": {"name": "cross_entropy"}, "encoder": encoder, "epochs": 1,
        "training": {}, "code": "first", "commit": "a",
    }  # fmt: skip
    assert experiments.train(task)["commit"] == "a"
    kept = experiments.train({**task, "commit": "b"})
    assert kept["commit"] == "a"
    assert kept["noise_realised"] == pytest.approx(0.4, abs=0.05)
    assert experiments.train({**task, "commit": "b", "code": "second"})["commit"] == "b"
    assert kept["questions"] == kept["tokens_paid"] == 0
