"""JSON: lines, arrays, objects one after another, nested columns, and tables that are refused."""

import json

import pytest

from rayclean.errors import DataError

from .staged import Staged

ROWS = [(f"note {n}", "xy"[n % 2]) for n in range(300)]
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]


def stage(folder, content, name="a.json", **options):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return Staged(folder / "out", folder / name, **options)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("chunk", [7, 64 * 1024])
def test_three_ways_to_write_objects(tmp_path, name, chunk, monkeypatch):
    monkeypatch.setattr("rayclean.datasets.jsonl._CHUNK", chunk)
    lines = "".join(json.dumps(each) + "\n" for each in OBJECTS)
    several = "\n".join(json.dumps(each, indent=2) for each in OBJECTS)
    for content in (
        lines,
        OBJECTS,
        json.dumps(OBJECTS, indent=1),
        several,
        f"\n {lines}",
        json.dumps(OBJECTS[:1]),
    ):
        assert stage(tmp_path, content, name).pairs == ROWS[: 1 if len(content) == 34 else None]
    assert stage(tmp_path, "[]", name).summaries[0].empty == [name]


def test_numbers_that_only_python_writes(tmp_path):
    found = stage(tmp_path, [*OBJECTS, {"text": "a", "label": float("nan")}])
    assert found.pairs == ROWS
    assert [reason for _, reason, _ in found.rejected] == ["null label"]


def test_elements_that_are_no_objects_cost_themselves(tmp_path):
    found = stage(tmp_path, [*OBJECTS, 7, None, [1]])
    assert found.pairs == ROWS
    assert [(row, reason) for row, reason, _ in found.rejected] == [
        (n, "malformed JSON") for n in (300, 301, 302)
    ]


BROKEN = {
    "cut": (json.dumps(OBJECTS)[:-30], "row 299: malformed JSON"),
    "cut after an element": (json.dumps(OBJECTS)[:-1], "row 300: malformed JSON"),
    "a fault": (json.dumps(OBJECTS).replace('"note 7"', "note 7"), "row 7: malformed JSON"),
    "two arrays": (json.dumps(OBJECTS) * 2, "after the end of its array"),
    "too deep": (f'{json.dumps(OBJECTS)[:-1]}, {{"a": {"[" * 100_000}', "row 300: nested too deeply"),
    "rows without names": (json.dumps(ROWS), "no JSON object"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_array_is_an_error_that_names_the_row(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"a\.json.*{message}"):
        stage(tmp_path, content)


def test_lines_cost_themselves(tmp_path):
    lines = [json.dumps(each) for each in OBJECTS]
    lines[3:5] = ["{", "[" * 100_000]
    found = stage(tmp_path, "\n".join(lines), "a.jsonl")
    assert found.pairs == ROWS[:3] + ROWS[5:]
    assert [(row, reason) for row, reason, _ in found.rejected] == [
        (n, "malformed JSON line") for n in (3, 4)
    ]


def test_a_line_that_would_fill_the_memory(tmp_path, monkeypatch):
    for module in ("text_files", "jsonl"):
        monkeypatch.setattr(f"rayclean.datasets.{module}.MAX_LINE", 1000)
    lines = [json.dumps(each) for each in OBJECTS]
    lines[3] = json.dumps({"text": "a" * 5000, "label": "x"})
    found = stage(tmp_path, "\n".join(lines), "a.jsonl")
    assert found.pairs == ROWS[:3] + ROWS[4:]
    assert [(row, value[:29]) for row, _, value in found.rejected] == [(3, "longer than 1,000 characters:")]


def test_pandas_tables_are_refused_with_the_way_out(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(OBJECTS)
    for orient in ("columns", "index", "split", "table"):
        with pytest.raises(DataError, match=r'a\.json.*orient="records", lines=True'):
            stage(tmp_path, frame.to_json(orient=orient))
    assert stage(tmp_path, frame.to_json(orient="records")).pairs == ROWS
    assert stage(tmp_path, frame.to_json(orient="records", lines=True), "a.jsonl").pairs == ROWS


def test_rows_inside_of_an_object_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"rows in 'data'.*jq -c '\.data\[\]'"):
        stage(tmp_path, {"version": 1, "data": OBJECTS})
    assert stage(tmp_path, {"text": "a", "label": "x", "notes": [{"a": 1}, {"a": 2}]}).pairs == [("a", "x")]


NESTED = [
    {
        "data": {"text": text, "a.b": n},
        "turns": [{"label": [label]}, {"label": "other"}],
        "x.y": f"flat {n}",
        "x": {"y": "deep"},
    }
    for n, (text, label) in enumerate(ROWS)
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
def test_columns_inside_of_columns(tmp_path, name):
    path = tmp_path / name
    if name == "a.parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [{**each, "turns": [{"label": turn["label"][0]} for turn in each["turns"]]} for each in NESTED]
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, NESTED)) if name == "a.jsonl" else json.dumps(NESTED))
    assert Staged(tmp_path / "out", path, text="data.text", label="turns.0.label").pairs == ROWS
    flat = Staged(tmp_path / "out2", path, text="x.y", label="turns.0.label")
    assert flat.texts[:2] == ["flat 0", "flat 1"], "a column of the very name comes first"
    with pytest.raises(DataError, match=r"no column 'data\.txet'; did you mean data\.text"):
        Staged(tmp_path / "out3", path, text="data.txet", label="turns.0.label")


def test_columns_inside_of_saved_data_sets(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"data": {"text": text}, "turns": [{"label": label}]} for text, label in ROWS]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    found = Staged(tmp_path / "out", tmp_path / "saved", text="data.text", label="turns.0.label")
    assert found.pairs == ROWS
    with pytest.raises(DataError, match=r"no column 'data\.txet'"):
        Staged(tmp_path / "out2", tmp_path / "saved", text="data.txet", label="turns.0.label")


def test_a_path_that_few_rows_have(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y", "meta": {"truth": "x"}}]
    found = stage(tmp_path, "\n".join(map(json.dumps, rows)), "a.jsonl", truth="meta.truth")
    assert found.summaries[0].known_truths == 1


@pytest.mark.parametrize(
    "content",
    [
        '{"text": "a pan", "label": "x", "label": "y"}\n{"text": "a pot", "label": "x"}\n',
        '[\n{"text": "a pan",\n"label": "x", "label": "y"}\n]',
        '{"text": "a pan",\n"label": "x", "label": "y"}\n{"text": "a pot",\n"label": "y"}',
    ],
)
def test_a_column_that_is_there_twice_is_refused(tmp_path, content):
    """Python keeps the last of two equal keys, and other readers the first."""
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"its objects hold \['label'\] more than once"):
        Staged(tmp_path / "out", tmp_path / "a.json")
    (tmp_path / "a.json").write_text(
        content.replace('"label": "x", "label"', '"note": "x", "note": "z", "label"')
    )
    assert Staged(tmp_path / "out", tmp_path / "a.json").pairs[0] == ("a pan", "y")


def test_rows_that_are_no_objects_show_why(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"text": "caf\u00e9", "label": "x"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"\(not UTF-8: .*caf\\xe9.*set dataset.encoding"):
        Staged(tmp_path / "out", tmp_path / "a.jsonl")
