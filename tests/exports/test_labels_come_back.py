"""What an export says of each row, and labels that are written in place."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.config.export_section import ADDED_COLUMNS, ExportConfig
from rayclean.errors import ArtifactError, ConfigError
from rayclean.exports.export import export_data
from rayclean.results import RunResults
from rayclean.run_actions import export_configured
from tests import toy
from tests.exports.runs import QUICK, relabelled

NAMES = ["garden", "harbour", "kitchen"]


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A table with wrong labels, and a row without one."""
    folder = toy.write(tmp_path_factory.mktemp("toy"), rows=240, noise=0.15)
    found: pd.DataFrame = pq.read_table(folder).to_pandas()
    found.loc[7, "label"] = None
    return found


@pytest.fixture(scope="module")
def made(
    frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, rayclean.Config, RunResults]:
    """A run in which an annotator who is always right has changed labels."""
    folder = tmp_path_factory.mktemp("made")
    frame.to_parquet(folder / "rows.parquet")
    return folder, *relabelled(
        {"path": str(folder / "rows.parquet"), "id": "key", "truth": "truth", "test": {"share": 0.1}, "rows_per_shard": 50},
        folder / "runs",
        perfect=True,
    )  # fmt: skip


def test_every_row_says_where_its_label_comes_from(
    made: tuple[Path, rayclean.Config, RunResults], frame: pd.DataFrame
) -> None:
    _, _, run = made
    rows = run.to_pandas()
    pd.testing.assert_frame_equal(rows[frame.columns], frame)
    assert list(rows.columns[len(frame.columns) :]) == ["label_given", "rayclean_label", *ADDED_COLUMNS[2:]]
    load, relabel = run.require("load"), run.require("relabel")
    tables = [relabel.read_table("labels", shard) for shard in relabel.shards("labels")]
    labels = {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}
    tested = {
        row["example_id"]
        for shard in load.shards("test")
        for row in load.read_table("test", shard).to_pylist()
    }
    assert tested
    sources = set()
    for row in rows.to_dict("records"):
        known = labels.get(row["key"])
        sources.add(row["label_source"])
        if known is None:
            assert row["label_source"] == ("rejected" if pd.isna(row["label"]) else "test")
            assert [row["rayclean_label"], row["label_given"]] == [row["label"]] * 2 or pd.isna(row["label"])
            continue
        assert (row["label_given"], row["rayclean_label"]) == (known["given_name"], known["final_name"])
        assert row["label_source"] == known["source"]
        assert 0 < row["label_confidence"] <= 1
        assert isinstance(row["label_reason"], str) == (known["source"] != "given")
    assert {"given", "changed", "rejected", "test"} <= sources
    changed = rows[rows.label_source == "changed"]
    assert (changed.label_annotator == "simulated").all()
    assert (changed.rayclean_label != changed.label).all()
    assert changed.label_reason.str.contains("simulated chose").all()
    assert rows.label_reason[7].startswith("null label")


def test_llm_disagreement_is_a_reason_of_a_label_that_stays(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "rows.parquet")
    _, run = relabelled(
        {"path": str(tmp_path / "rows.parquet"), "id": "key", "rows_per_shard": 50},
        tmp_path,
        annotator={"name": "simulated", "accuracy": 0.5, "truth_path": None},
        relabel={"beyond": 20, "controls": 20},
    )
    relabel = run.require("relabel")
    (shard,) = relabel.shards("beyond")
    denied = {
        row["example_id"]: row for row in relabel.read_table("beyond", shard).to_pylist() if row["vote"]
    }
    assert 0 < len(denied) < 20
    rows = run.to_pandas()
    told = rows[rows.label_reason.str.startswith("LLM disagreement", na=False)]
    assert len(told) == len(denied)
    assert (told.label_source == "given").all()
    assert (told.label_given == told.rayclean_label).all()
    chosen = told.label_reason.str.extract(
        r"simulated chose (\w+) rather than (\w+), quality (?:\.\d\d|1\.00)$"
    )
    assert (chosen[1] == told.label_given).all()
    assert (chosen[0] != chosen[1]).all()


def test_changes_and_suspects(made: tuple[Path, rayclean.Config, RunResults], frame: pd.DataFrame) -> None:
    _, _, run = made
    everything = run.to_pandas()
    changes = run.changes()
    expected = everything[everything.label_source == "changed"]
    assert list(changes.key) == list(expected.key)
    suspects = run.suspects()
    assert list(suspects.label_rank) == list(range(len(suspects)))
    assert set(changes.key) <= set(suspects.key)
    assert (suspects.label_suggested != suspects.label_given).any()
    assert suspects.label_quality.is_monotonic_increasing
    found = run.summary()
    assert f"{len(changes):,} labels changed" in found
    page = run._repr_html_()
    assert "<table" in page
    assert max(len(cell) for cell in re.findall("<td>(.*?)</td>", page, re.DOTALL)) <= 80


def test_without_relabel_there_are_suspects_and_labels_as_given(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rayclean.find_label_errors(
        frame,
        text="text",
        label="label",
        id="key",
        output=str(tmp_path),
        **{**QUICK, "detect": {"budget": 0.1}},
    )
    assert list(run.suspects().columns[-5:]) == [
        "label_given", "label_suggested", "label_quality", "label_rank", "label_reason",
    ]  # fmt: skip
    run.export(str(tmp_path / "found.csv"))
    suspects = run.suspects()
    assert len(suspects)
    assert f"{len(suspects):,} rows are marked as suspects" in capsys.readouterr().err
    for rows in (run.to_pandas(), pd.read_csv(tmp_path / "found.csv")):
        assert list(rows.rayclean_label.fillna("")) == list(frame.label.fillna(""))
        assert set(rows.key[rows.label_source == "suspect"]) == set(suspects.key)
        assert list(rows.label_source[7:8]) == ["rejected"]
    for ask in (run.changes, lambda: run.export(str(tmp_path / "changed.csv"), only="changed")):
        with pytest.raises(ArtifactError, match=r"relabel is missing.*rayclean clean"):
            ask()


@pytest.mark.parametrize("only", ["changed", "suspects", "referred"])
def test_parts(only: str, made: tuple[Path, rayclean.Config, RunResults], tmp_path: Path) -> None:
    _, _, run = made
    rows = run.to_pandas()
    run.export(str(tmp_path / "part.csv"), only=only)
    keys = [row["key"] for row in csv.DictReader((tmp_path / "part.csv").open())]
    expected = {
        "changed": rows.key[rows.label_source == "changed"],
        "referred": rows.key[rows.label_source.isin(["referred", "abstained"])],
        "suspects": rows.key[rows.key.isin(run.suspects().key)],
    }[only]
    assert keys == list(expected)


def test_a_relabel_again_makes_an_export_stale(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits under the same fingerprint, and the annotator may answer otherwise."""
    frame.to_parquet(tmp_path / "rows.parquet")
    config, run = relabelled(
        {"path": str(tmp_path / "rows.parquet"), "id": "key", "truth": "truth"},
        tmp_path / "runs",
        perfect=True,
        export=str(tmp_path / "cleaned.csv"),
    )

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # all parts are written, and the file is not
        patched.setattr("rayclean.exports.export.put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            export_configured(config)
    relabel_otherwise(config, run, 1)
    export_configured(config)  # no part of before is in it
    first = list(pd.read_csv(tmp_path / "cleaned.csv").rayclean_label.fillna(""))
    assert first == list(run.to_pandas().rayclean_label.fillna(""))
    stamp = (tmp_path / "cleaned.csv").stat().st_mtime_ns
    export_configured(config)
    assert (tmp_path / "cleaned.csv").stat().st_mtime_ns == stamp
    relabel_otherwise(config, run, -1)
    export_configured(config)
    second = list(pd.read_csv(tmp_path / "cleaned.csv").rayclean_label.fillna(""))
    assert first != second == list(run.to_pandas().rayclean_label.fillna(""))


def relabel_otherwise(config: rayclean.Config, run: RunResults, shift: int) -> None:
    """Run `relabel --again` after the annotator has changed its mind."""
    before = run.manifest("relabel")
    truth = run.sub("load", "truth")
    for shard in truth.shards():
        table = truth.read_table(shard)
        other = pa.array(
            [(label + shift) % len(NAMES) for label in table["true_label"].to_pylist()], pa.int32()
        )
        truth.write_table(
            table.set_column(table.schema.get_field_index("true_label"), "true_label", other), shard
        )
    run.remove("ledger")
    rayclean.relabel(config, again=True)
    after = run.manifest("relabel")
    assert before is not None
    assert after is not None
    assert before.fingerprint == after.fingerprint


def test_changed_data_or_config_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "rows.parquet")
    config, run = relabelled({"path": str(tmp_path / "rows.parquet"), "id": "key"}, tmp_path / "runs")
    with pytest.raises(ArtifactError, match=r"another config"):
        rayclean.export(config.model_copy(update={"seed": 1}), str(tmp_path / "out.csv"))
    frame.iloc[::-1].to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ArtifactError, match=r"the data have changed since"):
        run.export(str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_names_are_chosen_or_free(made: tuple[Path, rayclean.Config, RunResults], tmp_path: Path) -> None:
    _, _, run = made
    run.export(str(tmp_path / "a.parquet"), names={"label": "final", "label_given": "before"})
    assert pq.read_schema(tmp_path / "a.parquet").names[4:] == ["before", "final", *ADDED_COLUMNS[2:]]
    with pytest.raises(ConfigError, match=r"'truth', and there is a column of that name"):
        run.export(str(tmp_path / "b.parquet"), names={"label": "truth"})
    with pytest.raises(ConfigError, match=r"'labl' is no column that is added"):
        run.export(str(tmp_path / "b.parquet"), names={"labl": "x"})


def test_all_rows_are_all_rows_whatever_the_config_exports(
    made: tuple[Path, rayclean.Config, RunResults], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config, plain = made
    asked = ExportConfig(
        to=str(tmp_path / "changed.csv"),
        only="changed",
        drop_referred=True,
        in_place_column=True,
        names={"label": "final"},
    )
    run = RunResults(plain.url())
    run.config = config.model_copy(update={"export": asked})
    monkeypatch.setattr("rayclean.runtime.ray_data.read_parquet_folder", pq.read_table)
    expected = plain.to_pandas().rename(columns={"rayclean_label": "final"})
    pd.testing.assert_frame_equal(run.to_pandas(), expected)
    pd.testing.assert_frame_equal(run.to_dataset().to_pandas(), expected)
    assert "final" in run.changes().columns
    assert list(run.suspects().key) == list(plain.suspects().key)


def test_what_is_there_stays(made: tuple[Path, rayclean.Config, RunResults], tmp_path: Path) -> None:
    folder, _, run = made
    (tmp_path / "mine.csv").write_text("precious")
    with pytest.raises(ConfigError, match=r"there already.*--overwrite"):
        run.export(str(tmp_path / "mine.csv"))
    assert (tmp_path / "mine.csv").read_text() == "precious"
    run.export(str(tmp_path / "mine.csv"), overwrite=True)
    assert "row-00000" in (tmp_path / "mine.csv").read_text()
    (tmp_path / "out").mkdir()
    run.export(str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"there already"):
        run.export(str(tmp_path / "out"))
    run.export(str(tmp_path / "out"), overwrite=True)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "file").write_text("precious")
    with pytest.raises(ConfigError, match=r"no folder that rayclean exported"):
        run.export(str(tmp_path / "strange"), overwrite=True)
    with pytest.raises(ConfigError, match=r"the data set itself"):
        run.export(str(folder / "rows.parquet"), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "out", "strange"]


def test_formulas_are_defused_where_asked(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": [f"=cmd {n} a" for n in range(12)], "label": ["x", "y"] * 6})
    frame.to_csv(tmp_path / "in.csv", index=False)
    _, run = relabelled({"path": str(tmp_path / "in.csv")}, tmp_path / "runs")
    run.export(str(tmp_path / "plain.csv"))
    run.export(str(tmp_path / "safe.csv"), spreadsheet_safe=True)
    assert next(csv.DictReader((tmp_path / "plain.csv").open()))["text"] == "=cmd 0 a"
    assert next(csv.DictReader((tmp_path / "safe.csv").open()))["text"] == "'=cmd 0 a"


def label_columns() -> dict[str, Any]:
    """The same labels in many types: name of the type -> their column, and the config for it."""

    def of(codes: list[int]) -> dict[str, Any]:
        words = [NAMES[code] for code in codes]
        named = datasets.ClassLabel(names=["kitchen", "garden", "harbour"])
        return {
            "string": pa.array(words),
            "dictionary": pa.array(words).dictionary_encode(),
            "int8": pa.array(codes, pa.int8()),
            "float": pa.array([float(code) for code in codes]),
            "list": pa.array([[word] for word in words]),
            "ClassLabel": pa.array([named.str2int(word) for word in words], pa.int64()),
        }

    return {"of": of}


@pytest.mark.parametrize(
    "kind",
    [
        "int8",
        "ClassLabel",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("string", "dictionary", "float", "list")),
    ],
)
def test_labels_in_place_are_written_as_the_column_writes_them(
    kind: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    known = frame.dropna()
    codes = [NAMES.index(label) for label in known.label]
    column = label_columns()["of"](codes)[kind]
    table = pa.table(
        {
            "text": pa.array(list(known.text)),
            "label": column,
            "truth": label_columns()["of"]([NAMES.index(label) for label in known.truth])[kind],
        }
    )
    dataset: dict[str, Any] = {"path": str(tmp_path / "rows.parquet"), "truth": "truth"}
    if kind == "ClassLabel":
        features = datasets.Features({
            "text": datasets.Value("string"),
            **{name: datasets.ClassLabel(names=["kitchen", "garden", "harbour"]) for name in ("label", "truth")},
        })  # fmt: skip
        datasets.Dataset.from_dict(table.to_pydict(), features=features).to_parquet(dataset["path"])
    else:
        pq.write_table(table, dataset["path"])
    _, run = relabelled(dataset, tmp_path / "runs", perfect=True)
    run.export(str(tmp_path / "out.parquet"), in_place_column=True)
    beside, inside = run.to_pandas(), pq.read_table(tmp_path / "out.parquet")
    assert inside.schema.field("label").equals(pq.read_schema(dataset["path"]).field("label"))
    assert "rayclean_label" not in inside.column_names
    final = list(beside.rayclean_label)
    assert final != list(beside.label_given)
    if kind in ("int8", "float"):
        again = label_columns()["of"]([int(name) for name in final])[kind]
    else:
        again = label_columns()["of"]([NAMES.index(name) for name in final])[kind]
    assert inside["label"].to_pylist() == again.to_pylist()
    assert inside["text"].to_pylist() == list(known.text)


WORDS = {"sea": ["ship", "tide", "dock", "sail"], "food": ["oven", "sauce", "dough", "soup"]}


def set_rows(form: str) -> list[dict[str, Any]]:
    """Texts with sets of classes, a fifth of the bits wrong, in one of the forms that a label column may have."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for number in range(400):
        true = [name for name in WORDS if rng.random() < 0.5]
        text = " ".join(
            rng.choice([word for name in true for word in WORDS[name]] or ["plain", "grey"], size=6)
        )
        given = [name for name in WORDS if (name in true) != (rng.random() < 0.2)]
        for column, names in (("label", given), ("truth", true)):
            written = {"list": names, "json": json.dumps(names), "separator": "|".join(names) or "|"}.get(
                form
            )
            cells = {name if column == "label" else f"true_{name}": int(name in names) for name in WORDS}
            rows = rows if column == "truth" else [*rows, {"text": f"{text} {number}"}]
            rows[-1] |= cells if form == "bits" else {column: written}
    return rows


@pytest.mark.parametrize(
    "form", ["separator", *(pytest.param(form, marks=pytest.mark.slow) for form in ("bits", "list", "json"))]
)
def test_sets_of_classes_come_back_as_they_are_written(form: str, tmp_path: Path) -> None:
    rows = set_rows(form)
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    dataset: dict[str, Any] = {"path": str(tmp_path / "in.jsonl"), "labels": list(WORDS), "truth": "truth"}
    if form == "separator":
        dataset |= {"label_separator": "|"}
    if form == "bits":
        dataset |= {"label": list(WORDS), "truth": [f"true_{name}" for name in WORDS]}
    _, run = relabelled(dataset, tmp_path / "runs", perfect=True, task={"name": "multi_label"})
    beside = run.to_pandas()
    added = "label" if form == "bits" else "rayclean_label"
    changed = np.flatnonzero(beside.label_source == "changed")
    assert len(changed) > 10
    assert all(sorted(beside[added][n]) != sorted(beside.label_given[n]) for n in changed)
    assert all(beside.label_reason[n].count("simulated chose") >= 1 for n in changed)
    run.export(str(tmp_path / "out.jsonl"), in_place_column=True)
    inside = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    def read(row: dict[str, Any]) -> list[str]:
        if form == "bits":
            return [name for name in WORDS if row[name]]
        label = row["label"]
        if form == "separator":
            return [part for part in label.split("|") if part]
        return list(json.loads(label) if form == "json" else label)

    for number, (row, back) in enumerate(zip(rows, inside, strict=True)):
        assert sorted(read(back)) == sorted(beside[added][number])
        untouched = number not in changed
        assert {key: back[key] for key in row if untouched or key == "text"} == {
            key: row[key] for key in row if untouched or key == "text"
        }


def test_rows_that_a_classifier_scored_come_back_with_its_labels(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "rows.parquet")
    training = {"epochs": 8}
    config, run = relabelled(
        {"path": str(tmp_path / "rows.parquet"), "id": "key"}, tmp_path / "runs", train=training
    )
    rayclean.train(config)
    frame[["key", "text"]].to_csv(tmp_path / "new.csv", index=False)
    values = {
        **QUICK,
        "name": "scored",
        "output": str(tmp_path / "runs"),
        "dataset": {"path": str(tmp_path / "new.csv"), "id": "key"},
        "predict": {"mode": "model", "model": run.path("train", "model")},
    }
    scored = rayclean.parse_config(values)
    rayclean.load(scored)
    rayclean.predict(scored)
    rayclean.export(scored, str(tmp_path / "scored.csv"))
    rows = pd.read_csv(tmp_path / "scored.csv")
    assert list(rows.key) == list(frame.key)
    assert (rows.label_source == "predicted").all()
    assert set(rows.label) <= set(NAMES)
    assert (rows.label == frame.truth).mean() > 0.6
    assert rows.label_given.isna().all()


def test_noise_that_was_injected_is_not_written_in_place(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "rows.parquet")
    config, run = relabelled(
        {"path": str(tmp_path / "rows.parquet"), "noise": {"kind": "sym", "rate": 0.2}}, tmp_path / "runs"
    )
    with pytest.raises(ConfigError, match=r"dataset.noise injected"):
        export_data(config, run, ExportConfig(to=str(tmp_path / "out.csv"), in_place_column=True))
