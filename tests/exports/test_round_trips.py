"""Whatever a data set holds comes back: every row, every column, in order and with its type; only label columns are new.

`RAYCLEAN_ROUND_TRIPS=200` draws as many tables for each format instead of a few (`make test-slow`).
"""

import csv
import datetime
import decimal
import io
import itertools
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayclean.config.export_section import ADDED_COLUMNS, ExportConfig
from rayclean.exports.export import export_data
from tests.exports.runs import undoubted

TABLES = int(os.environ.get("RAYCLEAN_ROUND_TRIPS", "4"))
SETTINGS = settings(
    max_examples=TABLES, deadline=None, derandomize=TABLES < 50, suppress_health_check=list(HealthCheck)
)
LABELS = ("spam", "ham")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
WORDS = st.text(st.characters(codec="ascii", categories=["L"]), min_size=3, max_size=12)


def export(dataset: dict[str, Any], folder: Path, to: str, **options: Any) -> None:
    """Load a data set and export it again."""
    config, run = undoubted(
        {"text": "text", "label": "label", "max_rejected": 1.0, **dataset}, folder / "runs"
    )
    export_data(config, run, ExportConfig(to=str(folder / to), **options), decided=False)


def values(type_: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a type, some of them null."""
    kinds: dict[pa.DataType, st.SearchStrategy[Any]] = {
        pa.string(): TEXTS,
        pa.large_string(): TEXTS,
        pa.int64(): st.integers(-(2**63), 2**63 - 1),
        pa.uint64(): st.integers(0, 2**64 - 1),
        pa.int8(): st.integers(-128, 127),
        pa.float64(): st.floats(),
        pa.float32(): st.floats(width=32),
        pa.bool_(): st.booleans(),
        pa.binary(): st.binary(max_size=5),
        pa.timestamp("ns"): st.integers(0, 2**62),
        pa.timestamp("us", "Europe/Berlin"): st.datetimes(
            datetime.datetime(1980, 1, 1), datetime.datetime(2060, 1, 1), timezones=st.just(datetime.UTC)
        ),
        pa.date32(): st.dates(),
        pa.decimal128(20, 4): st.decimals(-(10**12), 10**12, places=4).map(decimal.Decimal),
        pa.list_(pa.int32()): st.lists(st.integers(0, 9), max_size=3),
        pa.list_(pa.string()): st.lists(TEXTS | st.none(), max_size=3),
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]): st.fixed_dictionaries(
            {"a": st.integers(-9, 9) | st.none(), "b": st.lists(TEXTS, max_size=2) | st.none()}
        ),
        pa.dictionary(pa.int32(), pa.string()): TEXTS,
        pa.map_(pa.string(), pa.int64()): st.dictionaries(WORDS, st.integers(0, 9), max_size=2).map(
            lambda d: list(d.items())
        ),
    }
    return kinds[type_] | st.none()


TYPES = [
    pa.string(), pa.large_string(), pa.int64(), pa.uint64(), pa.int8(), pa.float64(), pa.float32(), pa.bool_(), pa.binary(),
    pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"), pa.date32(), pa.decimal128(20, 4), pa.list_(pa.int32()),
    pa.list_(pa.string()), pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), pa.dictionary(pa.int32(), pa.string()),
    pa.map_(pa.string(), pa.int64()),
]  # fmt: skip
"""Types that Parquet gives back as they were."""


@st.composite
def tables(draw: st.DrawFn, kinds: list[pa.DataType]) -> pa.Table:
    """A table with texts, labels (some null) and up to three other columns anywhere between them."""
    rows = draw(st.integers(4, 9))
    types = draw(st.lists(st.sampled_from(kinds), max_size=3))
    columns = {
        f"{draw(WORDS)}{number}": pa.array(draw(st.lists(values(type_), min_size=rows, max_size=rows)), type_)
        for number, type_ in enumerate(types)
    }
    # The first four, which have labels, differ: copies are not split, so all of them might go to the development examples.
    columns["text"] = pa.array(
        [f"{draw(WORDS)} {draw(TEXTS)}{row if row < 4 else ''}" for row in range(rows)]
    )
    labels = [LABELS[row % 2] if row < 4 or draw(st.booleans()) else None for row in range(rows)]
    columns["label"] = pa.array(labels)
    order = draw(st.permutations(sorted(columns)))
    return pa.table({name: columns[name] for name in order})


def without_added(table: pa.Table) -> pa.Table:
    """The columns of the data; those that were added come last."""
    names = table.column_names
    assert [name.removeprefix("rayclean_") for name in names[-len(ADDED_COLUMNS) :]] == list(ADDED_COLUMNS)
    return table.select(names[: -len(ADDED_COLUMNS)])


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables are equal, where no number equals no number."""
    return one.schema.equals(other.schema) and all(
        plain(a) == plain(b) for a, b in zip(one.columns, other.columns, strict=True)
    )


def plain(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type) or pa.types.is_floating(column.type):
        return [None if cell is None else repr(cell) for cell in column.cast(pa.string()).to_pylist()]
    return list(column.to_pylist())


@SETTINGS
@given(tables(TYPES), st.integers(1, 3))
def test_parquet(table: pa.Table, files: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        step = math.ceil(len(table) / files)
        for number in range(files):
            pq.write_table(
                table.slice(number * step, step), folder / "data" / f"{number}.parquet", row_group_size=3
            )
        export({"path": str(folder / "data"), "rows_per_shard": 2}, folder, "one.parquet")
        export({"path": str(folder / "data"), "rows_per_shard": 5}, folder, "out")
        whole = pq.read_table(folder / "one.parquet")
        expected = pq.read_table(folder / "data" / "0.parquet").schema
        assert without_added(whole).schema.equals(expected)
        assert same(
            without_added(whole),
            pa.concat_tables([pq.read_table(folder / "data" / f"{n}.parquet") for n in range(files)]),
        )
        for number in range(files):
            parts = pq.read_table(folder / "out" / f"{number}.parquet")
            assert same(without_added(parts), pq.read_table(folder / "data" / f"{number}.parquet"))
        check_labels(table["label"].to_pylist(), whole)


PLAIN = [pa.string(), pa.int64(), pa.float64(), pa.bool_()]
"""Types that every format knows."""


def csv_cell(value: Any) -> str:
    """How a CSV without types writes a value."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or value != value else str(value)


@pytest.mark.parametrize("to", ["csv", "jsonl", "huggingface", "parquet"])
@settings(SETTINGS, max_examples=max(1, TABLES // 2))
@given(tables(PLAIN))
def test_other_formats_hold_the_same_values(to: str, table: pa.Table) -> None:
    """From Parquet, and from JSON to Parquet."""
    rows = [
        {
            key: None if value in (math.inf, -math.inf) or value != value else value
            for key, value in row.items()
        }
        for row in table.to_pylist()
    ]
    table = pa.Table.from_pylist(rows, table.schema)
    names, width = table.column_names, table.num_columns
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if to == "parquet":
            known = [{key: value for key, value in row.items() if value is not None} for row in rows]
            (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in known))
            export({"path": str(folder / "rows.jsonl")}, folder, "out.parquet")
            found = pq.read_table(folder / "out.parquet").to_pylist()
            assert [{key: row.get(key) for key in names} for row in found] == rows
            return
        pq.write_table(table, folder / "rows.parquet")
        if to == "huggingface":
            export({"path": str(folder / "rows.parquet")}, folder, "out", format=to)
            back = datasets.load_from_disk(str(folder / "out")).data.table
            assert without_added(back).to_pylist() == rows
            return
        export({"path": str(folder / "rows.parquet")}, folder, f"out.{to}")
        text = (folder / f"out.{to}").read_bytes().decode()
        if to == "jsonl":
            objects = [json.loads(line) for line in text.split("\n")[:-1]]
            assert [dict(itertools.islice(row.items(), width)) for row in objects] == rows
            return
        lines = list(csv.reader(io.StringIO(text, newline="")))
        assert lines[0][:width] == names
        assert [line[:width] for line in lines[1:]] == [[*map(csv_cell, row.values())] for row in rows]


def check_labels(labels: list[str | None], exported: pa.Table) -> None:
    """Nothing is doubted, so labels are as given, and a row without one is marked."""
    for label, row in zip(labels, exported.to_pylist(), strict=True):
        assert row["label_given"] == row["rayclean_label"] == label
        assert row["label_source"] == ("rejected" if label is None else "given")
        assert (row["label_reason"] or "").startswith("null label") == (label is None)


@st.composite
def records(draw: st.DrawFn, cells: st.SearchStrategy[str]) -> list[list[str]]:
    """The records of a CSV: a text, some other columns, a label."""
    width = draw(st.integers(0, 3))
    rows = draw(st.integers(4, 8))
    header = ["text", *(f"column{number}" for number in range(width)), "label"]
    return [
        header,
        *(
            [f"{draw(WORDS)} {draw(cells)}", *(draw(cells) for _ in range(width)), LABELS[row % 2]]
            for row in range(rows)
        ),
    ]


DIALECTS = [
    {"delimiter": ",", "quoting": csv.QUOTE_ALL},
    {"delimiter": ";", "quoting": csv.QUOTE_MINIMAL},
    {"delimiter": "\t", "quoting": csv.QUOTE_NONNUMERIC},
    {"delimiter": "|", "quoting": csv.QUOTE_ALL, "doublequote": False, "escapechar": "\\"},
    {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None},
    {"delimiter": "|", "quoting": csv.QUOTE_NONE, "quotechar": None, "escapechar": "\\"},
]
CELLS = st.text(
    st.characters(codec="latin-1", exclude_categories=["Cc"])
    | st.sampled_from(["\n", '"', "'", ",", ";", "€"]),
    max_size=10,
)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@settings(SETTINGS, max_examples=max(1, TABLES // len(DIALECTS) // 3 + 1))
@given(st.data())
def test_csv(dialect: dict[str, Any], encoding: str, data: st.DataObject) -> None:
    cells = CELLS if encoding == "cp1252" else TEXTS
    is_plain = dialect["quoting"] == csv.QUOTE_NONE
    if is_plain and "escapechar" not in dialect:
        cells = cells.filter(lambda text: not set("\t\r\n") & set(text))
    table = data.draw(records(cells))
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\r\n", **dialect).writerows(
        table
    )  # which quotes both of them in a field
    content = written.getvalue().encode(encoding, "replace")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.csv").write_bytes(content)
        how = {
            "delimiter": dialect["delimiter"],
            "encoding": encoding,
            "escape": dialect.get("escapechar", ""),
            **({"quote": ""} if is_plain else {}),
        }
        export({"path": str(folder / "in.csv"), **how}, folder, "out.csv")
        export({"path": str(folder / "in.csv"), **how}, folder, "out.parquet")
        found = (folder / "out.csv").read_bytes()
        assert found.startswith(b"\xef\xbb\xbf") == (encoding == "utf-8-sig")
        plainly = {key: value for key, value in dialect.items() if key != "quoting" or is_plain}
        lines = list(csv.reader(io.StringIO(found.decode(encoding), newline=""), **plainly))
        before = list(csv.reader(io.StringIO(content.decode(encoding), newline=""), **plainly))
        assert lines[0] == [*before[0], "label_given", "rayclean_label", *ADDED_COLUMNS[2:]]
        rows = pq.read_table(folder / "out.parquet").to_pylist()
        assert len(lines) == len(before) == len(rows) + 1
        for line, record, row in zip(lines[1:], before[1:], rows, strict=True):
            if row["label_source"] == "rejected":
                assert row["label_reason"]
            else:
                assert line[: len(record)] == record == list(row.values())[: len(record)]
                assert row["label_given"] == record[-1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("form", ["lines", "array"])
@SETTINGS
@given(
    st.lists(
        st.dictionaries(TEXTS.filter(lambda key: key not in ("text", "label")), JSON, max_size=3),
        min_size=4,
        max_size=8,
    )
)
def test_json(form: str, further: list[dict[str, Any]]) -> None:
    rows = [{"text": f"words {n}", **more, "label": LABELS[n % 2]} for n, more in enumerate(further)]
    taken = {key for row in rows for key in row}
    added = [f"rayclean_{key}" if key in taken else key for key in ADDED_COLUMNS]
    content = "".join(f"{json.dumps(row)}\n" for row in rows) if form == "lines" else json.dumps(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "in" / "rows.json").write_text(content)
        for to in ("out", "out.jsonl"):
            export({"path": str(folder / "in" / "rows.json")}, folder, to)
        text = (folder / "out" / "rows.json").read_text()
        found = json.loads(text) if form == "array" else [json.loads(line) for line in text.split("\n")[:-1]]
        assert [json.loads(line) for line in (folder / "out.jsonl").read_text().split("\n")[:-1]] == found
        for row, back in zip(rows, found, strict=True):
            assert dict(itertools.islice(back.items(), len(row))) == row
            assert list(back)[: len(row)] == list(row)
            assert list(back)[len(row) :] == added
