"""load: rows of the roles are other rows, what is left out of each is said, and a classifier scores rows without labels."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.config import Config, Plugin, parse_config
from rayclean.errors import ArtifactError, ConfigError, DataError
from rayclean.folder import Folder
from rayclean.models.loading import build_encoder, load_encoder
from rayclean.run import Run
from rayclean.verb_fingerprints import fingerprints
from rayclean.verbs import load

CLASSES = ["ebb", "flood"]


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"gauge {row} reads", "label": CLASSES[row % 2]} for row in range(first, first + count)]


def write(path: Path, content: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return str(path)


def config_of(folder: Path, predict: dict[str, Any] | None = None, **dataset: Any) -> Config:
    values = {"output": str(folder), "name": "run", "dataset": dataset, "predict": predict or {}}
    return parse_config(values)


def loaded(
    folder: Path, predict: dict[str, Any] | None = None, **dataset: Any
) -> tuple[Folder, dict[str, Any]]:
    config = config_of(folder, predict, **dataset)
    run = Run(str(folder / "run"))
    load.validate(config, run)
    out = run.begin("load", "test")
    return out, load.run(config, run, out)


def texts(out: Folder, part: str) -> dict[int, str]:
    tables = [out.read_table(part, shard, columns=["example_id", "text"]) for shard in out.shards(part)]
    return {row["example_id"]: row["text"] for table in tables for row in table.to_pylist()}


# the same rows as data and test


@pytest.mark.parametrize("role", ["dev", "test"])
def test_the_same_file_in_two_roles_is_refused(tmp_path: Path, role: str) -> None:
    path = write(tmp_path / "a.csv", rows(40))
    with pytest.raises(
        ConfigError, match=rf"dataset\.{role}: '.*a\.csv' is also read as data: .*dataset\.{role}\.share"
    ):
        loaded(tmp_path, path=path, **{role: {"path": path}})


def test_a_copy_under_another_path_is_refused(tmp_path: Path) -> None:
    path, copy = write(tmp_path / "a.csv", rows(40)), write(tmp_path / "held" / "out.csv", rows(40))
    with pytest.raises(
        ConfigError, match=r"out\.csv' is also read as data, as '.*a\.csv', which has the same content"
    ):
        loaded(tmp_path, path=path, test={"path": copy})


def test_a_folder_that_holds_the_test_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.csv", rows(40))
    test = write(tmp_path / "data" / "test.csv", rows(10, 100))
    with pytest.raises(ConfigError, match=r"test\.csv' is also read as data"):
        loaded(tmp_path, path=str(tmp_path / "data"), test={"path": test})


def test_the_same_content_in_another_format_and_order_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows(40))
    pq.write_table(pa.Table.from_pylist(rows(40)[::-1]), tmp_path / "b.parquet")
    other = write(tmp_path / "c.csv", [{**row, "text": row["text"].upper()} for row in rows(40)])
    for number, (role, held_out) in enumerate((("test", str(tmp_path / "b.parquet")), ("dev", other))):
        with pytest.raises(
            DataError, match=rf"the {role} files hold the same texts as the data \(40 {role} examples\)"
        ):
            loaded(tmp_path / str(number), path=path, **{role: {"path": held_out}})


# splits of Hugging Face data sets


@pytest.fixture
def saved(tmp_path: Path) -> str:
    parts = {"train": rows(60), "validation": rows(20, 60), "test": rows(30, 80)}
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(part) for name, part in parts.items()})
    saved.save_to_disk(str(tmp_path / "saved"))
    return str(tmp_path / "saved")


def test_splits_of_one_data_set_are_the_roles(tmp_path: Path, saved: str) -> None:
    out, metrics = loaded(tmp_path, path=saved, dev={"split": "validation"}, test={"split": "test"})
    assert (metrics["train"], metrics["dev"], metrics["test"]) == (60, 20, 30)
    assert set(texts(out, "test").values()) == {row["text"] for row in rows(30, 80)}
    assert not out.exists("shared")
    out, metrics = loaded(
        tmp_path / "2", path=saved, hf_split="validation", test={"path": saved, "split": "train"}
    )
    assert metrics["test"] == 60


def test_one_split_for_two_roles_is_refused(tmp_path: Path, saved: str) -> None:
    with pytest.raises(ConfigError, match=r"the split 'train' of .*another split in dataset\.test\.split"):
        loaded(tmp_path, path=saved, test={"path": saved})
    with pytest.raises(ConfigError, match="the split 'test' of"):
        loaded(tmp_path, path=saved, hf_split="test", test={"split": "test"})
    with pytest.raises(DataError, match=r"no split 'tset' .*did you mean test"):
        loaded(tmp_path, path=saved, test={"split": "tset"})


def test_a_split_of_data_without_splits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows(40))
    with pytest.raises(ConfigError, match=r"dataset\.test\.split = 'test': '.*a\.csv' has no splits"):
        loaded(tmp_path, path=path, test={"split": "test"})
    datasets.Dataset.from_list(rows(20)).save_to_disk(str(tmp_path / "single"))
    with pytest.raises(ConfigError, match=r"single' has no splits"):
        loaded(tmp_path, path=str(tmp_path / "single"), test={"split": "test"})


# texts that roles share


def test_shared_texts_are_counted_said_and_listed(tmp_path: Path) -> None:
    """Copies differ in case and blanks; whatever the shards."""
    path = write(tmp_path / "a.csv", rows(60))
    test = write(tmp_path / "t.csv", [*rows(20, 55), {"text": "  GAUGE 3  reads", "label": "ebb"}])
    dev = write(tmp_path / "d.csv", rows(10, 58) + rows(10, 300))
    for number, size in enumerate((8192, 7)):
        out, metrics = loaded(
            tmp_path / str(number), path=path, dev={"path": dev}, test={"path": test}, rows_per_shard=size
        )
        shared = {
            row
            for shard in out.shards("shared")
            for row in out.read_table("shared", shard)["example_id"].to_pylist()
        }
        expected = {f"gauge {row} reads" for row in range(55, 60)} | {"  GAUGE 3  reads"}
        assert {text for key, text in texts(out, "test").items() if key in shared} == expected
        assert {text for key, text in texts(out, "examples").items() if key in shared} == {
            "gauge 58 reads",
            "gauge 59 reads",
        }
        assert (metrics["texts"]["shared_test"], metrics["texts"]["shared_dev"]) == (6, 2)
        said = "\n".join(metrics["warnings"])
        assert (
            "test examples whose text is in the training data: 6 of 21; they are left out of the headline"
            in said
        )
        assert "development examples whose text is in the training data: 2 of 20" in said


def test_a_test_file_of_nothing_but_training_texts_is_an_alarm(tmp_path: Path) -> None:
    path, test = write(tmp_path / "a.csv", rows(60)), write(tmp_path / "t.csv", rows(20, 30))
    _, metrics = loaded(tmp_path, path=path, test={"path": test})
    (alarm,) = metrics["alarms"]
    assert alarm.startswith("the texts of all 20 test examples are in the training data")


def test_texts_of_development_and_test_files_are_compared(tmp_path: Path) -> None:
    dev, test = write(tmp_path / "d.csv", rows(20, 100)), write(tmp_path / "t.csv", rows(20, 110))
    _, metrics = loaded(
        tmp_path, path=write(tmp_path / "a.csv", rows(60)), dev={"path": dev}, test={"path": test}
    )
    assert any(
        "test examples whose text is in the development files: 10 of 20" in warning
        for warning in metrics["warnings"]
    )
    assert metrics["alarms"] == []


def test_copies_and_their_labels_are_counted(tmp_path: Path) -> None:
    content = rows(50) + [rows(50)[0]] * 3 + [{"text": "Gauge 1 READS", "label": "ebb"}] * 2
    _, metrics = loaded(tmp_path, path=write(tmp_path / "a.csv", content), rows_per_shard=20)
    found = metrics["texts"]
    # text 0 four times with one label; text 1 three times, once "flood": at least one label is wrong
    assert (found["examples"], found["distinct"], found["repeated"], found["copies"]) == (55, 50, 2, 7)
    assert (found["conflicting"], found["least_wrong"], found["most_frequent"]) == (1, 1, 4)
    assert any(
        "texts that occur more than once: 2 (7 examples), of which 1 with different labels: at least 1 labels"
        in each
        for each in metrics["warnings"]
    )


def test_one_text_in_all_or_most_rows_is_an_alarm(tmp_path: Path) -> None:
    content = [
        {"text": ["To be done", "to be  done"][row % 2], "label": CLASSES[row % 2]} for row in range(30)
    ]
    _, metrics = loaded(tmp_path, path=write(tmp_path / "a.csv", content))
    assert metrics["alarms"] == [
        "all 30 examples have the same text, from which no label can be learnt: check dataset.text"
    ]
    placeholder = [*rows(40), *({"text": "n/a", "label": CLASSES[row % 2]} for row in range(60))]
    _, metrics = loaded(tmp_path / "2", path=write(tmp_path / "b.csv", placeholder))
    assert metrics["alarms"] == [
        "60 of 100 examples have one and the same text: check dataset.text, and remove rows that hold a placeholder"
    ]


# rows that are left out


def test_what_is_left_out_is_said_by_role(tmp_path: Path) -> None:
    content = [{"id": row, **each} for row, each in enumerate(rows(100))]
    content[7]["id"] = content[8]["id"] = 6
    content[9]["text"] = " "
    test = [{"id": 500 + row, **each} for row, each in enumerate(rows(30, 200))]
    test[3]["label"] = ""
    dataset = {
        "path": write(tmp_path / "a.csv", content),
        "test": {"path": write(tmp_path / "t.csv", test)},
        "id": "id",
    }
    _, metrics = loaded(tmp_path, **dataset)
    assert metrics["left_out"] == {
        "data": {"rows": 100, "reasons": {"duplicate key": 2, "empty text": 1}},
        "test": {"rows": 30, "reasons": {"null label": 1}},
    }
    assert metrics["warnings"][:2] == [
        "data: 3 of 100 rows left out: duplicate key 2, empty text 1 (load/rejected/ lists them)",
        "test: 1 of 30 rows left out: null label 1 (load/rejected/ lists them)",
    ]


def test_the_largest_share_of_unusable_rows_holds_for_each_role(tmp_path: Path) -> None:
    """4 of 10 test rows are no tenth of all 210, and still too many."""
    test = rows(10, 500)
    for row in test[:4]:
        row["text"] = ""
    dataset = {
        "path": write(tmp_path / "a.csv", rows(200)),
        "test": {"path": write(tmp_path / "t.csv", test)},
    }
    with pytest.raises(DataError, match=r"4 of 10 rows of the test files \(40.0%\) cannot be used"):
        loaded(tmp_path, **dataset)
    _, metrics = loaded(tmp_path / "2", max_rejected=0.4, **dataset)
    assert metrics["test"] == 6


def test_biased_losses_are_said(tmp_path: Path) -> None:
    """All rows with half of a surrogate pair, and one class without keys; both losses are below a tenth."""
    content = [
        {**row, "text": row["text"] + " \ud83d" * (number < 12)} for number, row in enumerate(rows(200))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    _, metrics = loaded(tmp_path, path=str(tmp_path / "a.jsonl"))
    assert metrics["left_out"]["data"]["reasons"] == {"not valid Unicode": 12}
    said = "data: 12 of the 12 rows with characters beyond ASCII (100%) are left out, and 0 of the 188 others (0%)"
    assert any(warning.startswith(said) for warning in metrics["warnings"])
    keyed = [
        {"id": "" if number < 32 and row["label"] == "ebb" else f"k{number}", **row}
        for number, row in enumerate(rows(200))
    ]
    _, metrics = loaded(tmp_path / "2", path=write(tmp_path / "b.csv", keyed), id="id")
    assert metrics["left_out"]["data"]["reasons"] == {"null key": 16}
    said = "data: 16 of the 100 rows of the class 'ebb' (16%) are left out, and 0 of the 100 others (0%)"
    assert any(warning.startswith(said) for warning in metrics["warnings"])


def test_duplicate_keys_of_one_file_are_a_biased_loss(tmp_path: Path) -> None:
    first = [{"id": row, **each} for row, each in enumerate(rows(300))]
    second = [{"id": row if row < 20 else 1000 + row, **each} for row, each in enumerate(rows(60, 400))]
    write(tmp_path / "data" / "a.csv", first)
    write(tmp_path / "data" / "b.csv", second)
    for number, size in enumerate((8192, 50)):
        _, metrics = loaded(tmp_path / str(number), path=str(tmp_path / "data"), id="id", rows_per_shard=size)
        assert metrics["left_out"]["data"] == {"rows": 360, "reasons": {"duplicate key": 20}}
        assert metrics["warnings"][1].startswith(
            "data: 20 of the 60 rows of the file 'b.csv' (33%) are left out, and 0 of the 300 others (0%)"
        )


# rows that a classifier scores


@pytest.fixture
def model(tmp_path: Path) -> str:
    network = build_encoder(Plugin(name="bag_of_words", buckets=100), 2, seed=1).eval()
    network.save(tmp_path / "model", CLASSES)
    return str(tmp_path / "model")


UNLABELLED = {
    "no column": [{"text": row["text"]} for row in rows(20)],
    "blank": [{**row, "label": ["", " "][number % 2]} for number, row in enumerate(rows(20))],
    "some": [{**row, "label": row["label"] if number < 5 else ""} for number, row in enumerate(rows(20))],
    "one class": [{**row, "label": "flood"} for row in rows(20)],
    "one row": [{"text": "gauge"}],
}


@pytest.mark.parametrize("kind", UNLABELLED)
def test_a_classifier_scores_rows_without_labels(tmp_path: Path, model: str, kind: str) -> None:
    path = write(tmp_path / "new.csv", UNLABELLED[kind])
    out, metrics = loaded(tmp_path, {"mode": "model", "model": model}, path=path)
    expected = [row.get("label", "").strip() for row in UNLABELLED[kind]]
    assert metrics["examples"] == len(expected)
    assert metrics["without_label"] == expected.count("")
    assert [label["name"] for label in json.loads(out.read_text("labels.json"))] == CLASSES
    found = [row for shard in out.shards("examples") for row in out.read_table("examples", shard).to_pylist()]
    by_text = {row["text"]: row["given_label"] for row in found}
    labels = [CLASSES.index(label) if label else None for label in expected]
    assert [by_text[row["text"]] for row in UNLABELLED[kind]] == labels
    assert metrics["left_out"] == {"data": {"rows": len(expected), "reasons": {}}}


def test_the_folder_of_a_run_stands_for_the_classifier_that_it_trained(tmp_path: Path, model: str) -> None:
    run, path = tmp_path / "other" / "run", write(tmp_path / "new.csv", UNLABELLED["no column"])
    shutil.copytree(model, run / "train" / "model")
    out, _ = loaded(tmp_path, {"mode": "model", "model": str(run)}, path=path)
    assert [label["name"] for label in json.loads(out.read_text("labels.json"))] == CLASSES
    assert load_encoder(str(run)).num_classes == 2
    config = parse_config({"dataset": {"path": path}, "predict": {"mode": "model", "model": str(run)}})
    found = [fingerprints(config, Run(str(tmp_path / "mine")))["predict"]]
    (run / "metrics.json").write_text("{}")  # what else the run holds is no input
    found.append(fingerprints(config, Run(str(tmp_path / "mine")))["predict"])
    (run / "train" / "model" / "more.json").write_text("{}")
    found.append(fingerprints(config, Run(str(tmp_path / "mine")))["predict"])
    assert found[0] == found[1] != found[2]
    with pytest.raises(ArtifactError, match="give the folder of a run that was trained"):
        loaded(tmp_path, {"mode": "model", "model": str(tmp_path)}, path=path)


def test_without_a_classifier_labels_are_needed_and_the_way_to_score_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", UNLABELLED["no column"])
    with pytest.raises(DataError, match=r"no column 'label'.*rayclean predict CONFIG --model"):
        loaded(tmp_path, path=path)


def test_labels_that_the_classifier_does_not_know_are_left_out(tmp_path: Path, model: str) -> None:
    content = rows(30)
    content[4]["label"] = "slack"
    _, metrics = loaded(
        tmp_path, {"mode": "model", "model": model}, path=write(tmp_path / "new.csv", content)
    )
    assert metrics["left_out"]["data"]["reasons"] == {"unknown label": 1}
