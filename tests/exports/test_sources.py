"""Data sets of several files and forms come back file by file, or as one."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.config.export_section import ExportConfig
from rayclean.errors import ConfigError, DataError
from rayclean.exports.export import export_data
from rayclean.pipeline import resolved_config, run_verbs
from rayclean.results import RunResults
from rayclean.run import VERBS
from rayclean.runtime.engines import Engines
from tests import toy
from tests.exports.runs import undoubted

LABELS = ["spam", "ham"]


def export(dataset: dict[str, Any], folder: Path, to: str, **options: Any) -> None:
    config, run = undoubted({"max_rejected": 1.0, **dataset}, folder / "runs")
    export_data(config, run, ExportConfig(to=str(folder / to), **options), decided=False)


def test_columns_in_the_names_of_folders(tmp_path: Path) -> None:
    for number, label in enumerate(LABELS):
        part = tmp_path / "data" / f"label={label}" / f"year={2020 + number}"
        part.mkdir(parents=True)
        (part / "rows.csv").write_text("".join(["text\n", *(f"{label} words {n}\n" for n in range(5))]))
    export({"path": str(tmp_path / "data")}, tmp_path, "out")
    found = tmp_path / "out" / "label=spam" / "year=2020" / "rows.csv"
    assert list(pd.read_csv(found).columns[:2]) == ["text", "label_given"]  # the folder says the label
    assert set(pd.read_csv(found).label_given) == {"spam"}
    export({"path": str(tmp_path / "data")}, tmp_path, "one.csv")
    one = pd.read_csv(tmp_path / "one.csv")
    assert list(one.columns[:4]) == ["text", "label", "year", "label_given"]
    assert list(one.label) == list(one.label_given) == ["ham"] * 5 + ["spam"] * 5


def test_labels_in_the_names_of_folders_are_not_written_in_place(tmp_path: Path) -> None:
    for label in LABELS:
        part = tmp_path / "data" / f"label={label}"
        part.mkdir(parents=True)
        (part / "rows.csv").write_text("".join(["text\n", *(f"{label} words {n}\n" for n in range(5))]))
    with pytest.raises(ConfigError, match=r"label=\.\.\..*export to one file"):
        export({"path": str(tmp_path / "data")}, tmp_path, "out", in_place_column=True)
    assert not (tmp_path / "out").exists()
    export({"path": str(tmp_path / "data")}, tmp_path, "one.csv", in_place_column=True)
    assert list(pd.read_csv(tmp_path / "one.csv").label) == ["ham"] * 5 + ["spam"] * 5


def test_files_with_other_columns(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = {"text": ["a b", "c d", "e f", "g h"], "label": LABELS * 2}
    pq.write_table(pa.table({**rows, "x": [1, 2, 3, 4]}), tmp_path / "data" / "0.parquet")
    pq.write_table(pa.table({"y": ["p", "q", "r", "s"], **rows}), tmp_path / "data" / "1.parquet")
    pq.write_table(pa.table({**rows, "x": [1.5, 2, 3, 4]}), tmp_path / "data" / "2.parquet")
    export({"path": str(tmp_path / "data")}, tmp_path, "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names[:4] == ["text", "label", "x", "y"]
    assert found["x"].to_pylist() == [1, 2, 3, 4, None, None, None, None, 1.5, 2, 3, 4]
    pq.write_table(pa.table({**rows, "x": ["1", "2", "3", "4"]}), tmp_path / "data" / "2.parquet")
    with pytest.raises(ConfigError, match=r"export to a folder"):
        export({"path": str(tmp_path / "data")}, tmp_path, "other.parquet")
    export({"path": str(tmp_path / "data")}, tmp_path, "folder")
    assert pq.read_table(tmp_path / "folder" / "2.parquet")["x"].to_pylist() == ["1", "2", "3", "4"]


def test_what_stands_in_a_csv_is_no_quote_and_no_line_end(tmp_path: Path) -> None:
    lines = [f'say "hi" {n}\t{LABELS[n % 2]}' for n in range(6)]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *lines, "too\tmany\tfields"]) + "\n")
    plain = {"path": str(tmp_path / "rows.tsv"), "quote": ""}
    export(plain, tmp_path, "out.tsv")
    found = (tmp_path / "out.tsv").read_text().splitlines()
    assert [line[: len(own)] for line, own in zip(found[1:], lines, strict=False)] == lines
    assert {line.count("\t") for line in found} == {7}  # those of the added reason are blanks
    (tmp_path / "second.tsv").write_text("text,label\na\tb,ham\n")
    with pytest.raises(DataError, match=r"'a\\tb' in the column 'text' cannot be a field"):
        export(
            {**plain, "path": [str(tmp_path / "rows.tsv"), str(tmp_path / "second.tsv")]}, tmp_path, "one.tsv"
        )
    broken = [f'"a\rb {n}",{LABELS[n % 2]}' for n in range(6)]
    folder = tmp_path / "returns"
    folder.mkdir()
    (folder / "rows.csv").write_bytes("\n".join(["text,label", *broken, ""]).encode())
    export({"path": str(folder / "rows.csv")}, folder, "out.csv")
    text = (folder / "out.csv").read_bytes().decode()
    assert [line.rpartition('",')[0] for line in text.split("\n")[1:-1]] == [f'"a\rb {n}' for n in range(6)]


def test_a_key_that_comes_late_is_not_overwritten(tmp_path: Path) -> None:
    rows = [{"text": f"words {n}", "label": LABELS[n % 2]} for n in range(1200)]
    rows[1100]["label_reason"] = "mine"
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(DataError, match=r"'label_reason'.*--name label_reason=NAME"):
        export({"path": str(tmp_path / "rows.jsonl")}, tmp_path, "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    export({"path": str(tmp_path / "rows.jsonl")}, tmp_path, "out.jsonl", names={"label_reason": "why"})
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found[1100]["label_reason"] == "mine"


def test_a_data_set_of_the_hugging_face_library(tmp_path: Path) -> None:
    features = datasets.Features({
        "text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS), "other": [datasets.Value("int64")],
    })  # fmt: skip
    data = datasets.Dataset.from_dict(
        {"text": [f"words {n}" for n in range(8)], "label": [0, 1] * 4, "other": [[n] for n in range(8)]},
        features=features,
    )
    data.save_to_disk(tmp_path / "saved")
    export({"path": str(tmp_path / "saved")}, tmp_path, "out")
    found = datasets.load_from_disk(str(tmp_path / "out"))
    assert {name: found.features[name] for name in features} == features
    assert found["label"] == data["label"]
    assert list(found["label_given"]) == LABELS * 4
    assert list(found["rayclean_label"]) == LABELS * 4


def test_tags_come_back(tmp_path: Path) -> None:
    sentences = ["EU B-ORG\nsays O\nso O\n", "Ann B-PER\nSmith I-PER\nleft O\n"] * 4
    (tmp_path / "rows.conll").write_text("\n".join(sentences))
    config, run = undoubted(
        {"path": str(tmp_path / "rows.conll"), "label": "label", "tokens": "tokens"},
        tmp_path / "runs",
        task="tagging",
    )
    export_data(config, run, ExportConfig(to=str(tmp_path / "out.jsonl")), decided=False)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[1]["tokens"] == ["Ann", "Smith", "left"]
    assert rows[1]["label"] == rows[1]["label_given"] == rows[1]["rayclean_label"] == ["B-PER", "I-PER", "O"]


def test_broken_lines_come_back_marked(tmp_path: Path) -> None:
    lines = [
        "text,label",
        "first words,spam",
        "second words,ham",
        "too,many,fields",
        "third words,spam",
        "fourth words,ham",
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    export({"path": str(tmp_path / "rows.csv")}, tmp_path, "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    assert len(found) == 5
    assert found.label_source[2] == "rejected"
    for line, row in zip(lines[1:], found.to_dict("records"), strict=True):
        if row["label_source"] == "rejected":
            assert line in row["label_reason"]
        else:
            assert line == f"{row['text']},{row['label']}"


@pytest.mark.ray
def test_workers_change_no_byte(tmp_path: Path, ray_embedded: None) -> None:
    folder = toy.write(tmp_path / "data", rows=300, files=3)
    dataset = {"path": str(folder), "id": "key", "rows_per_shard": 40}
    config, run = undoubted(dataset, tmp_path / "runs")
    for to, engines in (("here", Engines()), ("ray", Engines(on_ray=True))):
        export_data(config, run, ExportConfig(to=str(tmp_path / f"{to}.parquet")), engines, decided=False)
        export_data(config, run, ExportConfig(to=str(tmp_path / f"{to}.csv")), engines, decided=False)
    for ending in ("parquet", "csv"):
        assert (tmp_path / f"here.{ending}").read_bytes() == (tmp_path / f"ray.{ending}").read_bytes()


def test_a_killed_export_leaves_nothing_that_looks_whole_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(16):
        rows = [{"text": f"words {number} {n} " + "x" * 200, "label": LABELS[n % 2]} for n in range(1500)]
        (tmp_path / "data" / f"{number:02d}.jsonl").write_text(
            "".join(f"{json.dumps(row)}\n" for row in rows)
        )
    values = {"path": str(tmp_path / "data"), "rows_per_shard": 500}
    _, run = undoubted(values, tmp_path / "runs")
    code = f"""
import sys
from tests.exports.test_sources import killed_run
killed_run({str(run.url())!r}, {str(tmp_path / "out.csv")!r})
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    partial = Path(run.path(".partial"))
    deadline = time.monotonic() + 120
    while (
        not list(partial.glob("export-*/part-*.tmp"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out.csv").exists()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".csv")]
    killed_run(run.url(), str(tmp_path / "out.csv"))
    assert len(pd.read_csv(tmp_path / "out.csv")) == 16 * 1500
    assert not list(partial.glob("export-*"))


def killed_run(url: str, to: str) -> None:
    """Export a run; called in a process that is killed."""

    export_data(resolved_config(url), RunResults(url), ExportConfig(to=to), decided=False)


def test_the_config_asks_for_an_export(tmp_path: Path) -> None:
    values = toy.config(toy.write(tmp_path / "data", rows=120), tmp_path / "runs")
    values |= {
        "export": str(tmp_path / "cleaned.csv"),
        "train": {"epochs": 1},
        "evaluate": {"compare": False, "report": False},
    }
    values["cluster"] = {"ray": False}
    rayclean.clean(rayclean.parse_config(values))
    first = (tmp_path / "cleaned.csv").read_bytes()
    stamp = (tmp_path / "cleaned.csv").stat().st_mtime_ns
    rayclean.clean(rayclean.parse_config(values))
    assert (tmp_path / "cleaned.csv").stat().st_mtime_ns == stamp  # nothing has changed
    rayclean.clean(rayclean.parse_config(values, ["detect.budget=0.05"]))  # its own file is replaced
    assert (tmp_path / "cleaned.csv").read_bytes() != first
    (tmp_path / "cleaned.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"there already"):
        rayclean.clean(rayclean.parse_config(values))
    assert (tmp_path / "cleaned.csv").read_text() == "mine"


def test_runs_in_folders_of_their_own_share_no_target(tmp_path: Path) -> None:
    """As the trials of a sweep, which have one config."""
    values = toy.config(toy.write(tmp_path / "data", rows=120), tmp_path / "runs")
    values |= {
        "export": str(tmp_path / "cleaned.csv"),
        "train": {"epochs": 1},
        "evaluate": {"compare": False, "report": False},
    }
    values["cluster"] = {"ray": False}
    config = rayclean.parse_config(values)
    for name in ("one", "two"):
        run_verbs(config, VERBS, run=RunResults(str(tmp_path / "trials" / name)))
    assert not (tmp_path / "cleaned.csv").exists()


SENTENCES = [
    (["Ada", "Lovelace", "wrote", "."], ["B-PER", "I-PER", "O", "O"]),
    (["Back", "in", "London"], ["O", "O", "B-LOC"]),
    (["nothing", "here"], ["O", "O"]),
    (["Éva", "met", "Bob"], ["B-PER", "O", "B-PER"]),
]


@pytest.mark.parametrize("delimiter", [" ", "\t"])
def test_conll_comes_back_as_conll(tmp_path: Path, delimiter: str) -> None:
    """Its columns as they were, and the final tags last; with tags in their place, it is the same file."""
    lines = [
        "\n".join(
            delimiter.join([token, f"POS{n}", tag]) for n, (token, tag) in enumerate(zip(*each, strict=True))
        )
        + "\n\n"
        for each in SENTENCES
    ]
    (tmp_path / "data.conll").write_text("".join(lines), encoding="utf-16")
    config, run = undoubted({"path": str(tmp_path / "data.conll")}, tmp_path / "runs", task="tagging")
    export_data(config, run, ExportConfig(to=str(tmp_path / "out.conll")), decided=False)
    tags = [tag for _, each in SENTENCES for tag in each]
    found = (tmp_path / "out.conll").read_text(encoding="utf-16")
    given = "".join(lines).splitlines()
    last = iter(tags)
    assert found.splitlines() == [f"{line}{delimiter}{next(last)}" if line else "" for line in given]
    in_place = ExportConfig(to=str(tmp_path / "same.conll"), in_place_column=True)
    export_data(config, run, in_place, decided=False)
    assert (tmp_path / "same.conll").read_text(encoding="utf-16") == "".join(lines)


def test_tags_of_other_formats_become_conll(tmp_path: Path) -> None:
    tokens, tags = map(list, zip(*SENTENCES, strict=True))
    tokens, tags = (
        [*tokens, ["too", "few", ""]],
        [*tags, ["O"]],
    )  # load rejects it, and it comes back all the same
    about = {"source": ["web"] * 5, "topics": [["x"], [], ["y", "z"], None, ["x"]]}
    table = pa.table({"tags": tags, **about, "tokens": tokens})
    pq.write_table(table, tmp_path / "data.parquet")
    config, run = undoubted(
        {"path": str(tmp_path / "data.parquet"), "label": "tags", "max_rejected": 0.5},
        tmp_path / "runs",
        task="tagging",
    )
    export_data(
        config, run, ExportConfig(to=str(tmp_path / "out.conll.gz"), in_place_column=True), decided=False
    )
    found = gzip.decompress((tmp_path / "out.conll.gz").read_bytes()).decode()
    assert found.endswith("too\tO\nfew\t_\n_\t_\n\n")
    assert found.startswith("Ada\tB-PER\nLovelace\tI-PER\nwrote\tO\n.\tO\n\nBack\tO\n")


def test_what_is_no_conll_is_said(tmp_path: Path) -> None:
    rows = {"text": ["a b", "c d", "e f", "g h"], "label": LABELS * 2}
    pq.write_table(pa.table(rows), tmp_path / "data.parquet")
    with pytest.raises(ConfigError, match="no column 'tokens' with a list of tags"):
        export({"path": str(tmp_path / "data.parquet")}, tmp_path, "out.conll")
    wrong = pa.table(
        {"tokens": [["New York", "is"], ["a", "b\nc"]] * 2, "label": [["B-LOC", "O"], ["O", "O"]] * 2}
    )
    pq.write_table(wrong, tmp_path / "tags.parquet")
    config, run = undoubted(
        {"path": str(tmp_path / "tags.parquet")}, tmp_path / "runs", name="tags", task="tagging"
    )
    with pytest.raises(DataError, match=r"'b\\nc' cannot be a field"):
        export_data(config, run, ExportConfig(to=str(tmp_path / "out.conll")), decided=False)
