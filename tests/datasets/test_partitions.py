"""Columns in the names of folders."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.errors import DataError

from .staged import Staged


@pytest.fixture
def folder(tmp_path):
    for label, text in (("spam", "win"), ("so%2Fso", "maybe"), ("__HIVE_DEFAULT_PARTITION__", "nobody")):
        part = tmp_path / "data" / f"label={label}" / "year=2024"
        part.mkdir(parents=True)
        (part / "a.csv").write_text(f"text\n{text} 1\n{text} 2\n")
    return tmp_path


def test_folders_are_columns(folder):
    found = Staged(folder / "out", folder / "data")
    assert sorted(found.pairs) == [
        ("maybe 1", "so/so"),
        ("maybe 2", "so/so"),
        ("win 1", "spam"),
        ("win 2", "spam"),
    ]
    assert [reason for _, reason, _ in found.rejected] == ["null label"] * 2
    assert Staged(folder / "out2", folder / "data", label="year").labels == {"2024"}
    with pytest.raises(DataError, match=r"no column 'yaer'; did you mean year"):
        Staged(folder / "out3", folder / "data", label="yaer")


def test_a_single_file_has_the_columns_of_its_folders(folder):
    assert Staged(folder / "out", folder / "data/label=spam/year=2024/a.csv").labels == {"spam"}


def test_ids_do_not_depend_on_where_the_folder_lies(folder):
    before = Staged(folder / "out", folder / "data").examples
    (folder / "data").rename(folder / "moved")
    assert Staged(folder / "out2", folder / "moved").examples == before


def test_parquet_and_columns_of_the_file_itself(tmp_path):
    for label in ("a", "b"):
        (tmp_path / f"data/label={label}").mkdir(parents=True)
        pq.write_table(pa.table({"text": [f"{label} text"]}), tmp_path / f"data/label={label}/x.parquet")
    assert Staged(tmp_path / "out", tmp_path / "data").pairs == [("a text", "a"), ("b text", "b")]
    pq.write_table(pa.table({"text": ["own"], "label": ["c"]}), tmp_path / "data/label=b/x.parquet")
    assert Staged(tmp_path / "out2", tmp_path / "data").pairs == [("a text", "a"), ("own", "c")]
