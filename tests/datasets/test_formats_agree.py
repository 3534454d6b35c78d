"""The same table in every format, dialect and encoding gives the same examples, labels and ids."""

import csv
import io
import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .staged import Staged

DIALECTS = {
    "comma": {"delimiter": ",", "quotechar": '"'},
    "semicolon": {"delimiter": ";", "quotechar": '"', "quoting": csv.QUOTE_ALL},
    "backslash": {"delimiter": "\t", "quotechar": '"', "escapechar": "\\", "doublequote": False},
    "single": {"delimiter": "|", "quotechar": "'", "quoting": csv.QUOTE_NONNUMERIC},
}
ENCODINGS = ("utf-8-sig", "utf-16", "cp1252")

HOSTILE = "abc xyz'\";,\t|\\\n\r\u00e9\u00fc\u20ac\u201c=#[{N0"
texts = st.text(st.sampled_from(HOSTILE), min_size=1, max_size=20).filter(str.strip)
tables = st.lists(
    st.tuples(texts, st.sampled_from(["dog", "fi sh", "a/b=c", "10 %", "caf\u00e9"])), min_size=1, max_size=12
)


def as_csv(rows, dialect, encoding):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, **DIALECTS[dialect])
    writer.writerow(["key", "text", "label"])
    writer.writerows([f"k{number}", *row] for number, row in enumerate(rows))
    return buffer.getvalue().encode(encoding)


def given_dialect(dialect, encoding):
    """The options that say what `as_csv` does."""
    written = DIALECTS[dialect]
    escape = written.get("escapechar", "")
    return {
        "delimiter": written["delimiter"],
        "quote": written["quotechar"],
        "escape": escape,
        "encoding": encoding,
    }


def write_others(folder, rows):
    """The table as JSON Lines, JSON, Parquet and folders; returns a path for each."""
    objects = [{"key": f"k{n}", "text": text, "label": label} for n, (text, label) in enumerate(rows)]
    (folder / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in objects))
    (folder / "array.json").write_text(json.dumps(objects, ensure_ascii=False), "utf-8-sig")
    (folder / "pretty.json").write_text("\n".join(json.dumps(each, indent=1) for each in objects))
    pq.write_table(pa.Table.from_pylist(objects), folder / "a.parquet")
    for number, each in enumerate(objects):
        part = folder / "hive" / f"label={quote(each['label'], safe='')}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{number}.jsonl").write_text(json.dumps({"key": each["key"], "text": each["text"]}))
    return [folder / name for name in ("a.jsonl", "array.json", "pretty.json", "a.parquet", "hive")]


@given(tables, st.sampled_from(sorted(DIALECTS)), st.sampled_from(ENCODINGS))
@settings(max_examples=25, deadline=None)
@example([('"', "dog"), ("\\N", "dog"), ('x"\n,', "caf\u00e9"), ("\\", "10 %")], "backslash", "utf-16")
def test_the_same_examples_whatever_the_format(rows, dialect, encoding):
    folder = Path(mkdtemp())
    try:
        first, *others = write_others(folder, rows)
        expected = Staged(folder / "out", first, id="key").examples
        assert len(expected) == len(rows)
        for number, path in enumerate(others):
            assert Staged(folder / f"out{number}", path, id="key").examples == expected, path.name
        path = folder / "a.csv"
        path.write_bytes(as_csv(rows, dialect, encoding))
        options = given_dialect(dialect, encoding)
        assert Staged(folder / "csv", path, id="key", **options).examples == expected
    finally:
        shutil.rmtree(folder)


WORDS = "the heron waits by the ferry while an old pilot reads of storms".split()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dialect_and_encoding_are_recognised(tmp_path, dialect, encoding):
    marks = [
        "plain",
        'said "no"',
        "a; b, c | d",
        "two\nlines",
        "caf\u00e9 \u201cM\u00fcller\u201d",
        "it's",
        "C:\\new",
    ]
    rows = [
        (f"{WORDS[i % 12]} {WORDS[i * 5 % 12]} {marks[i % 7]} {i}", ["dog", "fi sh"][i % 2])
        for i in range(70)
    ]
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(rows, dialect, encoding))
    found = Staged(tmp_path / "out", path, id="key")
    assert found.pairs == rows
    assert found.rejected == []
    ((words, form),) = found.forms.items()
    assert form["files"] == 1
    assert (form["remark"] == "") == (dialect == "comma" and encoding != "cp1252"), words
