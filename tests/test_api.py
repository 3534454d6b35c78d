"""Tables in memory, of whatever library, are cleaned like a file of them."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.errors import ConfigError, DataError
from tests import toy
from tests.exports.runs import QUICK


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A table with a column of each of a few types."""
    found = (
        pq.read_table(toy.write(tmp_path_factory.mktemp("toy"), rows=150)).to_pandas().drop(columns="truth")
    )
    found["when"] = pd.date_range("2026-01-01", periods=len(found), tz="Europe/Berlin")
    found["kind"] = pd.Categorical(np.where(np.arange(len(found)) % 3, "a", "b"))
    return found


def errors(data: Any, output: Path, **settings: Any) -> rayclean.RunResults:
    return rayclean.find_label_errors(
        data, output=str(output), **{"text": "text", "label": "label", **QUICK, **settings}
    )


def made(kind: str, frame: pd.DataFrame) -> Any:
    """The table as another library has it."""
    table = pa.Table.from_pandas(frame)
    if kind in ("polars", "lazy"):
        polars = pytest.importorskip("polars")
        found = polars.from_pandas(frame)
        return found if kind == "polars" else found.lazy()
    return {
        "pandas": frame, "arrow": table, "stream": table.to_reader(max_chunksize=7), "datasets": datasets.Dataset(table),
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        "pandas",
        "datasets",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("polars", "lazy", "arrow", "stream")),
    ],
)
def test_every_library_gives_the_same_suspects(kind: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "file.parquet")
    expected = errors(str(tmp_path / "file.parquet"), tmp_path / "a", id="key").suspects()
    run = errors(made(kind, frame), tmp_path / "b", id="key")
    found = run.suspects()
    assert list(found.key) == list(expected.key)
    assert list(found.columns) == list(expected.columns)
    np.testing.assert_allclose(found.label_quality, expected.label_quality)
    assert run.name.startswith("data-")


def test_the_same_table_is_the_same_run(frame: pd.DataFrame, tmp_path: Path) -> None:
    first = errors(frame, tmp_path)
    again = errors(frame.copy(), tmp_path)
    assert again.url() == first.url()
    assert again.manifest("predict") == first.manifest("predict")
    other = errors(frame.iloc[:-1], tmp_path)
    assert other.url() != first.url()
    assert {path.name for path in tmp_path.iterdir()} == {first.name, other.name}


def test_a_name_keeps_what_is_known_of_rows_that_stay(frame: pd.DataFrame, tmp_path: Path) -> None:
    first = errors(frame, tmp_path, name="mine", id="key")
    before = first.manifest("load")
    again = errors(frame.iloc[10:], tmp_path, name="mine", id="key")
    assert again.url() == first.url()
    assert again.manifest("load") != before
    assert set(again.suspects().key) <= set(frame.key[10:])


def test_a_misspelt_column_argument_is_named(frame: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match=r"text=\.\.\. is missing.*; is txt=\.\.\. a slip of the pen\?$"):
        rayclean.find_label_errors(frame, txt="text", label="label")
    with pytest.raises(ConfigError, match=r"like label='label'$"):
        rayclean.find_label_errors(frame, text="text", encoder={"name": "bag_of_words"})


@pytest.mark.parametrize("index", [None, pd.RangeIndex(10, 10 + 3 * 120, 3, name="number"), "shuffled"])
def test_rows_of_a_part_have_the_index_of_the_table(frame: pd.DataFrame, index: Any, tmp_path: Path) -> None:
    table = frame.head(120).reset_index(drop=True)
    if index is not None:
        table.index = pd.Index(np.random.default_rng(0).permutation(120)) if isinstance(index, str) else index
    run = rayclean.clean(table, text="text", label="label", output=str(tmp_path), **QUICK)
    for part in (run.suspects(), run.changes()):
        assert part.index.name == table.index.name
        assert list(table.loc[part.index, "key"]) == list(part["key"])
    assert len(run.suspects()) > 0
    assert list(run.suspects()["label_rank"]) == list(range(len(run.suspects())))
    assert not [name for name in run.changes().columns if name.endswith("label_row")]


def test_an_index_and_types_come_back(frame: pd.DataFrame, tmp_path: Path) -> None:
    indexed = frame.set_index("key")
    run = rayclean.clean(indexed, text="text", label="label", output=str(tmp_path), **QUICK)
    found = run.to_pandas()
    pd.testing.assert_frame_equal(found[indexed.columns], indexed)
    data = run.to_hf()
    assert data.column_names[: len(indexed.columns)] == list(indexed.columns)
    assert len(data) == len(indexed)


def test_splits_play_their_roles(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = datasets.DatasetDict({
        "train": datasets.Dataset.from_pandas(frame.iloc[:100]),
        "validation": datasets.Dataset.from_pandas(frame.iloc[100:120]),
        "test": datasets.Dataset.from_pandas(frame.iloc[120:]),
    })  # fmt: skip
    run = errors(data, tmp_path)
    manifest = run.manifest("load")
    assert manifest is not None
    assert (manifest.metrics["dev"], manifest.metrics["test"]) == (20, 30)
    del data["train"]
    with pytest.raises(DataError, match=r"none of them is 'train'"):
        errors(data, tmp_path)


@pytest.mark.ray
def test_a_data_set_of_ray(frame: pd.DataFrame, tmp_path: Path, ray_embedded: None) -> None:
    import ray

    data = ray.data.from_pandas([frame.iloc[:60], frame.iloc[60:]])
    run = errors(data, tmp_path / "a", id="key")
    assert list(run.suspects().key) == list(errors(frame, tmp_path / "b", id="key").suspects().key)
    rayclean.clean(frame, text="text", label="label", id="key", output=str(tmp_path / "b"), **QUICK)
    back = rayclean.clean(
        frame, text="text", label="label", id="key", output=str(tmp_path / "b"), **QUICK
    ).to_dataset()
    assert sorted(row["key"] for row in back.take_all()) == sorted(frame.key)


def test_a_path_of_data_or_of_a_config(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "tickets.csv", index=False)
    run = errors(tmp_path / "tickets.csv", tmp_path / "runs")
    assert run.name == "tickets"
    (tmp_path / "job.toml").write_text(
        f'output = "{tmp_path}/runs"\n[dataset]\npath = "{tmp_path}/tickets.csv"\n[encoder]\nname = "bag_of_words"\n'
        "[predict]\nfolds = 2\n[cluster]\nray = false\n"
    )
    assert rayclean.find_label_errors(tmp_path / "job.toml").name == "job"
    assert rayclean.find_label_errors(rayclean.load_config(tmp_path / "job.toml")).name == "job"
    with pytest.raises(ConfigError, match=r"text, label: a config names these itself"):
        rayclean.clean(tmp_path / "job.toml", text="text", label="label")


def test_what_cannot_be_cleaned_is_refused_in_words(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"label=... is missing"):
        rayclean.clean(frame, text="text", output=str(tmp_path))
    with pytest.raises(TypeError, match=r"got int; give a DataFrame"):
        rayclean.clean(3, text="text", label="label")
    with pytest.raises(ConfigError, match=r"given twice"):
        rayclean.clean(frame, text="text", label="label", dataset={"text": "text"}, output=str(tmp_path))
    with pytest.raises(ConfigError, match=r"detect: unknown key|unknown key 'detect.bugdet'"):
        rayclean.clean(frame, text="text", label="label", detect={"bugdet": 0.1}, output=str(tmp_path))
    with pytest.raises(DataError, match=r"no column 'body'"):
        rayclean.clean(frame, text="body", label="label", output=str(tmp_path / "runs"), **QUICK)
    mixed = frame.assign(zip=[1, "2"] * (len(frame) // 2))
    with pytest.raises(
        DataError, match=r"column 'zip' holds values of several types \(int, str\).*astype\(str\)"
    ):
        rayclean.clean(mixed, text="text", label="label", output=str(tmp_path), **QUICK)
    for table, kind, message in (
        (pd.concat([frame, frame[["label"]]], axis=1), DataError, r"names the column 'label' more than once"),
        (
            frame.assign(p=pd.cut(range(len(frame)), 3)),
            DataError,
            r"of a type that no file holds .*astype\(str\)",
        ),
        (
            frame.assign(p=pd.arrays.SparseArray([0] * len(frame))),
            DataError,
            r"column p.*leave the column out",
        ),
        (frame.groupby("label"), TypeError, r"got pandas' DataFrameGroupBy"),
        (
            frame.to_dict("records"),
            TypeError,
            r"got list of dict; give a DataFrame.*pandas.DataFrame\(rows\)",
        ),
        (frame.to_dict("list"), TypeError, r"got dict; give a DataFrame"),
    ):
        with pytest.raises(kind, match=message):
            rayclean.clean(table, text="text", label="label", output=str(tmp_path), **QUICK)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".data")]
