"""The development examples of a fold's network: a share of every class that it sees, chosen by no label that it may not."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean.folder import Folder
from rayclean.schema import EXAMPLES
from rayclean.training.fold_table import write_folds
from rayclean.training.job import DataSpec, ExampleSelection, FitJob
from rayclean.training.job_data import select_examples

SIZES, FOLDS = (600, 60, 20, 5), 5
CLASSES = np.repeat(np.arange(len(SIZES)), SIZES)
IDS = np.sort(np.random.default_rng(1).permutation(10_000)[: len(CLASSES)])


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder: Path = tmp_path_factory.mktemp("folds")
    columns = {
        "example_id": IDS,
        "text": [f"text {each}" for each in IDS],
        "given_label": pa.array(CLASSES, pa.int32()),
        "split": ["train"] * len(IDS),
    }
    source, out = Folder(str(folder / "examples")), Folder(str(folder / "folds"))
    source.write_table(pa.table(columns, schema=EXAMPLES), "part-00000.parquet")
    write_folds(source, out, map, seed=3, count=FOLDS)
    return out


def selected(folds: Folder, fold: int, classes: np.ndarray, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    job = FitJob("fold", DataSpec(""), ExampleSelection("fold", fold, folds.url()), seed, "")
    return select_examples(job, IDS, np.zeros(len(IDS), dtype=bool), pa.array(classes, pa.int64()))


@pytest.mark.parametrize("fold", range(FOLDS))
def test_every_class_gives_a_tenth_and_all_else_is_trained_on(folds: Folder, fold: int) -> None:
    train, dev = selected(folds, fold, CLASSES)
    of_fold = folds.read_table("part-00000.parquet")["fold"].to_numpy() == fold
    np.testing.assert_array_equal(train | dev, ~of_fold)
    assert not (train & dev).any()
    for index in range(len(SIZES)):
        seen = int((~of_fold & (index == CLASSES)).sum())
        assert abs((dev & (index == CLASSES)).sum() - 0.1 * seen) < 1
        assert (train & (index == CLASSES)).any()
    assert dev.sum() == round(0.1 * (~of_fold).sum())


def test_labels_of_the_own_fold_choose_nothing_and_another_seed_chooses_others(folds: Folder) -> None:
    of_fold = folds.read_table("part-00000.parquet")["fold"].to_numpy() == 2
    others = np.where(of_fold, (CLASSES + 1) % len(SIZES), CLASSES)
    for first, second in zip(selected(folds, 2, CLASSES), selected(folds, 2, others), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (selected(folds, 2, CLASSES, seed=4)[1] != selected(folds, 2, CLASSES)[1]).any()


def test_examples_without_a_label_are_not_selected_and_choose_nothing(folds: Folder) -> None:
    """Whether they are left out before or here, the same others are development examples."""
    known = np.arange(len(IDS)) % 7 != 3
    labels = pa.array(CLASSES, pa.int64(), mask=~known)
    job = FitJob("fold", DataSpec(""), ExampleSelection("fold", 1, folds.url()), 3, "")
    train, dev = select_examples(job, IDS, np.zeros(len(IDS), dtype=bool), labels)
    assert not ((train | dev) & ~known).any()
    few = select_examples(job, IDS[known], np.zeros(known.sum(), dtype=bool), labels.filter(pa.array(known)))
    np.testing.assert_array_equal(train[known], few[0])
    np.testing.assert_array_equal(dev[known], few[1])
