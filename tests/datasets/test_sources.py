"""Which files a path means, their names, and how they are cut."""

import sys

import fsspec
import pytest

from rayclean.config import DatasetConfig
from rayclean.datasets.base import SourceFile
from rayclean.datasets.sources import PIECE_BYTES, PIECE_FILES, Source, cut_into_pieces, find_sources
from rayclean.errors import ConfigError, DataError


def names(path, **kw):
    (source,) = find_sources(DatasetConfig(path=path, **kw))
    return [file.name for file in source.files]


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.csv", "b/1.csv", "a/1.csv", "_SUCCESS", ".hidden/3.csv", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text,label\na,x\n")
    return tmp_path


def test_folder_glob_list_and_file_name_the_same_files_alike(folder):
    everything = ["a/1.csv", "b/1.csv", "b/2.csv"]
    assert names(str(folder)) == everything
    assert names(f"{folder}/") == everything
    assert names(f"{folder}/*/*.csv") == everything
    assert names((f"{folder}/b", f"{folder}/a/1.csv", f"{folder}/b/2.csv")) == everything
    assert names(f"{folder}/b/2.csv") == ["2.csv"] == names((f"{folder}/b/2.csv", f"{folder}/b/2.csv"))
    assert names(f"file://{folder}") == everything


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    (tmp_path / "a[1].csv").write_text("text,label\n")
    assert names(str(tmp_path / "a[1].csv")) == ["a[1].csv"]


def test_a_glob_in_a_folder_whose_name_looks_like_one(tmp_path):
    (tmp_path / "a [1]").mkdir()
    (tmp_path / "a [1]" / "b.json").write_text("[]")
    with pytest.raises(
        DataError, match=r"no file matches .*brackets are a set of characters there, write \[\[\]"
    ):
        names(f"{tmp_path}/a [1]/*.json")
    assert names(f"{tmp_path}/a [[]1]/*.json") == ["a [1]/b.json"]


def test_memory_urls():
    for name in ("x", "y"):
        with fsspec.open(f"memory://somewhere/{name}.jsonl", "wb") as file:
            file.write(b"{}\n")
    (source,) = find_sources(DatasetConfig(path="memory://somewhere"))
    assert [file.name for file in source.files] == ["x.jsonl", "y.jsonl"]
    assert source.files[0].url == "memory:///somewhere/x.jsonl"
    assert source.format == "jsonl"
    assert source.files[0].stamp


def test_where_a_relative_path_counts_from_is_said(folder, monkeypatch):
    monkeypatch.chdir(folder / "a")
    with pytest.raises(DataError, match=r"counts from the folder where the command runs, '.*/a', not from"):
        names("1.csw")
    with pytest.raises(DataError) as error:
        names(f"{folder}/a/1.csw")
    assert "counts from" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("{}/c", DataError, "cannot read"),
        ("{}/a/2.csv", DataError, "did you mean 1.csv"),
        ("{}/*.parquet", DataError, "no file matches"),
        ("{}/notes.md", ConfigError, "cannot tell the format"),
        ("nosuchprotocol://x", DataError, "nosuchprotocol"),
        (("{}/a/1.csv", "memory://somewhere/z.csv"), DataError, "z.csv"),
        ((), ConfigError, "empty list"),
        ("{}/table.xlsx", ConfigError, "a spreadsheet; save its table as CSV"),
        (
            "{}/texts",
            DataError,
            r"others by their endings: .txt \(2\), .md \(1\); write a text per file into one table",
        ),
        ("{}/cafe\u0301.csv", DataError, r"another form of Unicode, as 'caf\\xe9.csv'"),
    ],
)
def test_paths_that_lead_nowhere(folder, path, error, message):
    (folder / "table.xlsx").write_bytes(b"PK")
    (folder / "caf\u00e9.csv").write_text("text,label\n")
    (folder / "texts").mkdir()
    for name in ("1.txt", "2.txt", "about.md"):
        (folder / "texts" / name).write_text("a pan")
    path = tuple(p.format(folder) for p in path) if isinstance(path, tuple) else path.format(folder)
    with pytest.raises(error, match=message):
        names(path)


def test_mixed_formats_and_unknown_built_ins(folder):
    (folder / "a" / "1.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match=r"several formats \(\.csv, \.jsonl\)"):
        names(str(folder))
    with pytest.raises(ConfigError, match="did you mean bbc_news"):
        names("bbc_new", format="builtin")
    assert names(f"{folder}/notes.md", format="csv") == ["notes.md"]


def source(*sizes):
    files = tuple(SourceFile(f"{i:05}", f"{i:05}", size) for i, size in enumerate(sizes))
    return Source("data", "csv", "train", files)


def test_a_thousand_small_files_are_a_few_pieces():
    pieces = cut_into_pieces([source(*[1000] * 1000)])
    assert len(pieces) == -(-1000 // PIECE_FILES)
    assert [s.file.name for p in pieces for s in p.segments] == [f"{i:05}" for i in range(1000)]
    assert [p.index for p in pieces] == list(range(len(pieces)))


def test_large_files_are_pieces_of_their_own_in_order():
    pieces = cut_into_pieces([source(10, PIECE_BYTES + 1, 10, 10, PIECE_BYTES - 5, 1)])
    assert [[s.file.name[-1] for s in p.segments] for p in pieces] == [["0"], ["1"], ["2", "3"], ["4", "5"]]


def test_pieces_go_on_counting_over_roles():
    dev = Source("dev", "csv", "train", (SourceFile("d", "d", 1),))
    assert [(p.name, p.source.role) for p in cut_into_pieces([source(1), dev])] == [
        ("part-00000", "data"),
        ("part-00001", "dev"),
    ]


def test_saved_huggingface_folder_is_recognised(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]}).save_to_disk(str(tmp_path / "saved"))
    (found,) = find_sources(DatasetConfig(path=str(tmp_path / "saved")))
    assert (found.format, found.files[0].name, found.files[0].size) == ("huggingface", "saved", sys.maxsize)
    with pytest.raises(DataError, match="save_to_disk"):
        find_sources(DatasetConfig(path=str(tmp_path), format="huggingface"))
