"""Compressed files, and the bounds of what is unpacked and read."""

import bz2
import gzip
import lzma

import pyarrow as pa
import pytest

from rayclean.config import DatasetConfig
from rayclean.datasets import text_files
from rayclean.datasets.first_pass import too_long
from rayclean.datasets.sources import find_sources
from rayclean.errors import ConfigError, DataError

from .staged import Staged

CONTENT = "text,label\n" + "".join(f"barrel {n},{'ab'[n % 2]}\n" for n in range(1000))


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_files(tmp_path, ending):
    pack = PACKERS[ending]
    half = CONTENT.index("\n", len(CONTENT) // 2) + 1
    packed = {
        "whole": pack(CONTENT.encode()),
        "members": pack(CONTENT[:half].encode()) + pack(CONTENT[half:].encode()),
    }
    for name, content in packed.items():
        path = tmp_path / f"{name}.CSV.{ending}"
        path.write_bytes(content)
        assert len(Staged(tmp_path / f"out-{name}", path).pairs) == 1000, name
    path.write_bytes(packed["whole"][: len(packed["whole"]) // 2])
    with pytest.raises(DataError, match=rf"members\.CSV\.{ending}: cannot be read"):
        Staged(tmp_path / "cut", path)
    path.write_bytes(b"text,label\na,b\n")
    with pytest.raises(DataError, match=rf"members\.CSV\.{ending}: cannot be read"):
        Staged(tmp_path / "plain", path)


@pytest.mark.parametrize("name", ["a.csv.zip", "a.tar.gz", "a.tgz", "a.tar"])
def test_archives_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ConfigError, match=f"'{name}' is an archive; unpack it"):
        find_sources(DatasetConfig(path=str(tmp_path / name)))


@pytest.mark.parametrize("ending", PACKERS)
def test_a_file_that_unpacks_to_far_too_much(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(text_files, "_FREE_BYTES", 1 << 20)
    path = tmp_path / f"a.csv.{ending}"
    path.write_bytes(PACKERS[ending](CONTENT.encode() + b"a" * (16 << 20)))
    with pytest.raises(DataError, match=rf"a\.csv\.{ending}: .* bytes unpack to more than"):
        Staged(tmp_path / "out", path)


def test_a_file_that_packs_well_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_FREE_BYTES", 1 << 10)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(CONTENT.encode()))
    assert len(Staged(tmp_path / "out", path).pairs) == 1000


def test_a_line_that_would_fill_the_memory(tmp_path, monkeypatch):
    for module in ("text_files", "csv_dialect", "csv_expectation"):
        monkeypatch.setattr(f"rayclean.datasets.{module}.MAX_LINE", 1000)
    path = tmp_path / "a.csv"
    path.write_text(f"{CONTENT}{'a' * 50_000},a\nbarrel,b\n")
    found = Staged(tmp_path / "out", path)
    assert len(found.pairs) == 1001
    assert "a record longer than 1,000 characters" in found.rejected[0][2]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_texts_that_are_too_long_are_rejected(tmp_path, name):
    rows = [("fine", "x"), ("long " * 100, "x"), ("also fine", "l" * 400)]
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    if name == "a.parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, tmp_path / name)
    elif name == "a.csv":
        (tmp_path / name).write_text("text,label\n" + "".join(",".join(row) + "\n" for row in rows))
    else:
        table.to_pandas().to_json(tmp_path / name, orient="records", lines=True)
    found = Staged(tmp_path / "out", tmp_path / name, max_characters=300)
    assert found.pairs == [("fine", "x")]
    assert [reason for _, reason, _ in found.rejected] == ["longer than dataset.max_characters"] * 2
    assert found.rejected[0][2].startswith("500 characters: long long")


def test_sentences_that_are_too_long_are_rejected():
    assert too_long([["ab", "cd"], None, 7], 4) == [["ab", "cd"], None, 7]
    assert too_long([["ab", "cde"]], 4).value == "5 characters: ab"
