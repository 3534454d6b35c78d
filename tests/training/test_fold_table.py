"""The table of folds: copies of a text together, the same for any shards, kept, and complete."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.functional.folds import stratified_folds
from rayclean.hashing import text_group
from rayclean.schema import EXAMPLES, FOLDS
from rayclean.training.fold_table import read_folds, write_folds

IDS = np.random.default_rng(0).permutation(120) * 1000 - 50_000
TEXTS = [f"The text {row % 80}" if row % 3 else f"the  TEXT {row % 80} " for row in range(120)]
LABELS = [None if row % 10 == 7 else row % 3 for row in range(120)]


def examples(folder: Path, edges: list[int], order: np.ndarray, label_type: Any = None) -> Folder:
    labels = pa.array(LABELS, pa.int32())
    if label_type is not None:
        labels = pa.array([None if each is None else [each] for each in LABELS], label_type)
    for number, rows in enumerate(np.split(order, edges)):
        columns = {
            "example_id": IDS[rows],
            "text": [TEXTS[row] for row in rows],
            "given_label": labels.take(pa.array(rows)),
            "split": ["train"] * len(rows),
        }
        table = pa.table(columns, schema=EXAMPLES) if label_type is None else pa.table(columns)
        Folder(str(folder)).write_table(table, f"part-{number:05d}.parquet")
    return Folder(str(folder))


def backwards(function: Any, items: Any) -> Any:
    return iter([function(item) for item in reversed(list(items))])


def rows_of(folder: Folder) -> dict[int, tuple[int, int]]:
    tables = [folder.read_table(shard) for shard in folder.shards()]
    return {row["example_id"]: (row["group"], row["fold"]) for t in tables for row in t.to_pylist()}


def test_folds_of_all_examples(tmp_path: Path) -> None:
    source = examples(tmp_path / "examples", [50, 50, 51], np.arange(120))
    out = Folder(str(tmp_path / "folds"))
    write_folds(source, out, map, seed=4, count=5)
    assert out.shards() == source.shards()
    for shard in source.shards():
        table = out.read_table(shard)
        assert table.schema.equals(FOLDS)
        assert table["example_id"].equals(source.read_table(shard)["example_id"])
    found = rows_of(out)
    groups = np.array([text_group(text) for text in TEXTS])
    labels = np.array([-1 if label is None else label for label in LABELS])
    expected = stratified_folds(IDS, groups, labels, 4, 5)
    assert [found[int(each)] for each in IDS] == list(zip(groups.tolist(), expected.tolist(), strict=True))
    # text row + 80 is a copy of row, in other letters and with other blanks
    assert all(found[int(IDS[row])] == found[int(IDS[row + 80])] for row in range(40))
    assert any(TEXTS[row] != TEXTS[row + 80] for row in range(40))
    assert set(expected) == set(range(5))


@pytest.mark.parametrize("label_type", [None, pa.list_(pa.int32())])
def test_neither_shards_nor_order_nor_workers_change_anything(tmp_path: Path, label_type: Any) -> None:
    one = examples(tmp_path / "one", [], np.arange(120), label_type)
    order = np.random.default_rng(1).permutation(120)
    other = examples(tmp_path / "other", [7, 60, 60], order, label_type)
    first, second = Folder(str(tmp_path / "a")), Folder(str(tmp_path / "b"))
    write_folds(one, first, map, seed=0, count=3)
    write_folds(other, second, backwards, seed=0, count=3)
    assert rows_of(first) == rows_of(second)
    assert len(rows_of(first)) == 120


def test_labels_of_more_than_one_class_do_not_stratify(tmp_path: Path) -> None:
    source = examples(tmp_path / "examples", [60], np.arange(120), pa.list_(pa.int32()))
    out = Folder(str(tmp_path / "folds"))
    write_folds(source, out, map, seed=0, count=3)
    dealt = np.bincount([fold for _, fold in set(rows_of(out).values())])
    assert dealt.sum() == 80
    assert np.ptp(dealt) <= 1


def test_whole_folds_of_an_earlier_attempt_are_kept(tmp_path: Path) -> None:
    source = examples(tmp_path / "examples", [60], np.arange(120))
    out = Folder(str(tmp_path / "folds"))
    write_folds(source, out, map, seed=0, count=3)
    first = rows_of(out)

    def never(*_: Any) -> Any:
        raise AssertionError("read again")

    write_folds(source, out, never, seed=0, count=3)
    out.remove("part-00001.parquet")
    write_folds(source, out, map, seed=0, count=3)
    assert rows_of(out) == first


def test_folds_are_read_in_any_order_and_missing_ones_are_said(tmp_path: Path) -> None:
    source = examples(tmp_path / "examples", [60], np.arange(120))
    out = Folder(str(tmp_path / "folds"))
    write_folds(source, out, map, seed=0, count=3)
    rows, wanted = rows_of(out), IDS[::-3]
    found = read_folds(out.url(), wanted)
    assert list(zip(found.group.tolist(), found.fold.tolist(), strict=True)) == [
        rows[int(each)] for each in wanted
    ]
    none = read_folds(out.url(), IDS[:0])
    assert len(none.group) == len(none.fold) == 0
    with pytest.raises(ArtifactError, match=r"holds 120 examples and lacks 1 of 2.*`rayclean predict` again"):
        read_folds(out.url(), np.array([IDS[0], 1]))
    out.remove("part-00000.parquet")
    with pytest.raises(ArtifactError, match="holds 60 examples and lacks 60 of 120"):
        read_folds(out.url(), IDS)
    with pytest.raises(ArtifactError, match="holds 0 examples and lacks 120 of 120"):
        read_folds(str(tmp_path / "nowhere"), IDS)
