"""Encodings: what is recognised, what is said, and what must be named."""

import gzip

import pytest

from rayclean.config import parse_config
from rayclean.datasets.base import FileSegment, SourceFile
from rayclean.datasets.conll import Conll
from rayclean.datasets.encodings import sniff_encoding
from rayclean.errors import ConfigError, DataError

from .staged import Staged

FILE = SourceFile("/a/b.csv", "b.csv", 1)


def table(*texts):
    return "text,label\n" + "".join(f"{text} {n},{'ab'[n % 2]}\n" for n, text in enumerate(texts * 10))


WESTERN = {
    "French": "Le caf\u00e9 est ferm\u00e9, o\u00f9 est la gare \u00e0 gauche ?",
    "German": "Gr\u00fc\u00dfe aus K\u00f6ln, \u00c4rger mit \u00d6l",
    "Spanish": "\u00bfQu\u00e9? \u00a1Ma\u00f1ana! la 2\u00aa vez, el ni\u00f1o",
    "Finnish": "hyv\u00e4\u00e4 p\u00e4iv\u00e4\u00e4 t\u00e4\u00e4ll\u00e4",
    "Danish": "sm\u00f8rrebr\u00f8d p\u00e5 bordet",
    "signs": "it\u2019s \u201cgood\u201d \u2013 \u20ac5 \u2026 20 \u00b0C \u00a9",
    "one word": "a na\u00efve idea",
}


@pytest.mark.parametrize("text", WESTERN.values(), ids=WESTERN)
def test_western_text_is_read_and_said(text):
    encoding, remark = sniff_encoding(FILE, table(text).encode("cp1252"), True)
    assert encoding == "cp1252"
    first = next(word for word in text.replace(",", " ").split() if not word.isascii())
    assert f"for example {first}" in remark
    assert "dataset.encoding" in remark


OTHERS = {
    "Russian": (
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043a\u0430\u043a \u0434\u0435\u043b\u0430",
        "cp1251",
    ),
    "Polish": ("Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144", "cp1250"),
    "Czech": ("P\u0159\u00edli\u0161 \u017elut\u00fd k\u016f\u0148", "cp1250"),
    "Turkish": ("\u0130stasyon de\u011fil, g\u00fcne\u015fli bir g\u00fcn", "cp1254"),
    "Japanese": ("\u4eca\u65e5\u306f\u5929\u6c17\u304c\u3044\u3044\u3067\u3059", "cp932"),
    "Chinese": ("\u4eca\u5929\u5929\u6c14\u5f88\u597d", "gb18030"),
    "Mac": ("Le caf\u00e9 est ferm\u00e9", "mac_roman"),
}


@pytest.mark.parametrize(("text", "encoding"), OTHERS.values(), ids=OTHERS)
def test_other_encodings_must_be_named(tmp_path, text, encoding):
    (tmp_path / "a.csv").write_bytes(table(text).encode(encoding))
    with pytest.raises(DataError, match=r"a\.csv: it is not UTF-8.*dataset\.encoding"):
        Staged(tmp_path / "out", tmp_path / "a.csv")
    found = Staged(tmp_path / "out", tmp_path / "a.csv", encoding=encoding)
    assert all(pair.startswith(text.split(",")[0]) for pair in found.texts) or "," in text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("header", ["text,label\n", '"text","label"\n'])
def test_unicode_with_and_without_a_mark(tmp_path, encoding, header):
    content = header + table("caf\u00e9 \U0001f600").partition("\n")[2]
    (tmp_path / "a.csv").write_bytes(content.encode(encoding))
    found = Staged(tmp_path / "out", tmp_path / "a.csv")
    assert found.texts == [f"caf\u00e9 \U0001f600 {n}" for n in range(10)]
    assert [form["remark"] for form in found.forms.values()] == [""]


def test_a_damaged_utf8_file_is_still_utf8(tmp_path):
    content = table("gr\u00fc\u00df").encode() + b"caf\xe9,a\n"
    (tmp_path / "a.csv").write_bytes(content)
    found = Staged(tmp_path / "out", tmp_path / "a.csv")
    assert len(found.texts) == 10
    assert found.rejected == [(10, "not UTF-8", "caf\\xe9")]


def test_bytes_that_a_named_encoding_lacks_reject_their_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\nfine,a\nb\x81d,a\n")
    found = Staged(tmp_path / "out", tmp_path / "a.csv", encoding="cp1252")
    assert found.texts == ["fine"]
    assert found.rejected == [(1, "not cp1252", "b\\x81d")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_with_a_mark(tmp_path, encoding, name):
    lines = '{"text": "caf\u00e9", "label": "a"}\n{"text": "b", "label": "c"}'
    content = f"[{lines.replace(chr(10), ',')}]" if name == "a.json" else lines
    (tmp_path / name).write_text(content, encoding)
    assert Staged(tmp_path / "out", tmp_path / name).pairs == [("caf\u00e9", "a"), ("b", "c")]


def test_a_character_cut_at_the_end_of_the_sample(tmp_path, monkeypatch):
    content = ("text,label\n" + "na\u00efve,a\n" * 50).encode()
    (tmp_path / "a.csv").write_bytes(content)
    for size in range(60, 80):
        monkeypatch.setattr("rayclean.datasets.text_files._SAMPLE_BYTES", size)
        assert len(Staged(tmp_path / f"out{size}", tmp_path / "a.csv").texts) == 50


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (gzip.compress(b"text,label", mtime=0), r"gzip; let its name end in \.gz"),
        (b"PK\x03\x04\x14", "an Excel workbook or a zip archive; save it as CSV"),
        (b"PAR1\x15", 'set dataset.format = "parquet"'),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
            "Git LFS; .* git lfs pull",
        ),
        (b"\n<!DOCTYPE html>\n<title>Sign in, please</title>", "a web page; download the file itself"),
        (bytes(range(256)), "not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.conll", "a.parquet"])
def test_files_that_are_no_text(tmp_path, content, advice, name):
    (tmp_path / name).write_bytes(content)
    if name == "a.parquet":
        advice = (
            "not a whole Parquet file" if content[:4] in (b"PAR1", bytes(range(4))) else advice.split(";")[0]
        )
    if "UTF-8" in advice:
        others = {"a.conll": "is this a CoNLL file in UTF-8", "a.jsonl": "no JSON object in its first rows"}
        advice = others.get(name, advice)
    with pytest.raises(DataError, match=rf"{name}: .*{advice}"):
        Staged(tmp_path / "out", tmp_path / name)


def test_json_in_utf16_without_a_mark(tmp_path):
    lines = "".join(f'{{"text": "a pan {n}", "label": "{"xy"[n % 2]}"}}\n' for n in range(20))
    (tmp_path / "a.jsonl").write_bytes(lines.encode("utf-16-le"))
    assert len(Staged(tmp_path / "out", tmp_path / "a.jsonl").pairs) == 20


@pytest.mark.parametrize("encoding", ["utf-9", "rot13", "base64"])
def test_encodings_that_are_none(encoding):
    with pytest.raises(ConfigError, match=r"dataset\.encoding.*Python knows no encoding"):
        parse_config({"dataset": {"path": "a.csv", "encoding": encoding}})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tagged_tokens_with_a_mark(tmp_path, encoding):
    (tmp_path / "a.conll").write_text("caf\u00e9 B-LOC\nis O\n\nnice O\n", encoding)
    file = SourceFile(str(tmp_path / "a.conll"), "a.conll", 1)
    assert Conll().columns(file) == ["tokens", "label"]
    rows = [values for _, values in Conll().rows(FileSegment(file), ["tokens", "label"])]
    assert rows == [[["caf\u00e9", "is"], ["B-LOC", "O"]], [["nice"], ["O"]]]
