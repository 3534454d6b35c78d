"""The cleaned data set: labels by name, before and after, for every form of labels, and `datasets` reads it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.config import Plugin
from rayclean.exports.shard_labels import SOURCE_SUSPECT, SOURCES_BY_IMPORTANCE
from rayclean.publishing.cleaned_dataset import write_cleaned_dataset
from rayclean.run import Run
from rayclean.schema import LABEL_TYPES, Label, LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task

NAMES = ("PER", "LOC")
UNITS = {
    "classification": [(1, 1, "changed", 0.9), (2, 0, "given", None)],
    # two units each, in any order: the source that says most, and the least confidence
    "multi_label": [
        (2, 0, "given", None), (1, 1, "kept", 0.8), (1, 2, "changed", 0.7), (2, 2, "given", None),
    ],
    "tagging": [(1, 0, "referred", 0.6), (2, 0, "given", None), (1, 3, "audited", 1.0), (2, 3, "given", None)],
}  # fmt: skip
"""example_id, answer, source, confidence of each unit."""
GIVEN: dict[str, Any] = {"classification": [0, 0], "multi_label": [[0, 1], []], "tagging": [[0, 1, 2], [0]]}
FINAL: dict[str, Any] = {"classification": [1, 0], "multi_label": [[0], []], "tagging": [[0, 3, 4], [0]]}
EXPECTED: dict[str, list[Any]] = {
    "classification": ["PER", "LOC", "changed", 0.9],
    "multi_label": [["PER", "LOC"], ["PER"], "changed", 0.7],
    "tagging": [["O", "B-PER", "I-PER"], ["O", "B-LOC", "I-LOC"], "audited", 0.6],
}
"""label_given, label, label_source and label_confidence of example 1."""


def run_with(folder: Path, task: Task, name: str) -> Run:
    """A run with two examples, whose final labels are in another order than the examples."""
    run, type_ = Run(str(folder / "run")), LABEL_TYPES[task.label_form]
    examples = pa.table(
        {
            "example_id": [1, 2],
            "text": ["see anna smith", "tea"],
            "given_label": pa.array(GIVEN[name], type_),
            "split": ["train", "dev"],
        }
    )
    if name == "tagging":
        examples = examples.add_column(2, "tokens", [[["see", "anna", "smith"], ["tea"]]])
    run.write_table(examples, "load", "examples", "part-00000.parquet")
    ids, answers, sources, confidence = (list(column) for column in zip(*UNITS[name], strict=True))
    labels = {
        "example_id": ids, "final_label": pa.array(answers, pa.int32()), "source": sources,
        "confidence": pa.array(confidence, pa.float32()),
    }  # fmt: skip
    run.write_table(pa.table(labels), "relabel", "labels", "part-00000.parquet")
    whole = pa.table({"example_id": [2, 1], "final_label": pa.array(FINAL[name][::-1], type_)})
    run.write_table(whole, "relabel", "example_labels", "part-00000.parquet")
    for verb in ("load", "relabel"):
        run.write_json(
            {"verb": verb, "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": {}},
            verb,
            "manifest.json",
        )
    return run


@pytest.mark.parametrize("name", list(UNITS))
def test_labels_before_and_after_by_name(name: str, tmp_path: Path) -> None:
    labels = LabelSet(Label(index, each, each) for index, each in enumerate(NAMES))
    task = TASKS.build(Plugin(name=name), labels)
    assert write_cleaned_dataset(run_with(tmp_path, task, name), task, tmp_path / "out") == 2
    table = pq.read_table(tmp_path / "out" / "data" / "part-00000.parquet")
    first, second = table.to_pylist()
    given, final, source, confidence = EXPECTED[name]
    assert (first["label_given"], first["label"], first["label_source"]) == (given, final, source)
    assert first["label_confidence"] == pytest.approx(confidence)
    assert (second["label_source"], second["label_confidence"]) == ("given", None)
    assert (
        second["label"]
        == second["label_given"]
        == {"classification": "PER", "multi_label": [], "tagging": ["O"]}[name]
    )
    assert [first["split"], second["split"]] == ["train", "dev"]
    assert ("tokens" in table.column_names) == (name == "tagging")


def test_datasets_reads_what_is_written(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    labels = LabelSet(Label(index, each, each) for index, each in enumerate(NAMES))
    task = TASKS.build(Plugin(name="multi_label"), labels)
    write_cleaned_dataset(run_with(tmp_path, task, "multi_label"), task, tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["label"][0] == ["PER"]


def test_every_source_of_a_label_has_a_rank() -> None:
    from rayclean.annotations import DECISIONS

    assert set(SOURCES_BY_IMPORTANCE) == {"given", *DECISIONS, "audited", "reverted", SOURCE_SUSPECT}
