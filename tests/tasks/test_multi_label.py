"""Multi-label units: an example is K of them, and comes together again; from doubt to relabelled examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean import schema
from rayclean.annotators.revert_changes import revert_label_changes
from rayclean.config import Config, parse_config
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.run import Run
from rayclean.schema import Label, LabelSet
from rayclean.tasks.multi_label import MultiLabel
from rayclean.verbs import detect, relabel

NAMES = ["joy", "anger", "fear"]
LABELS = LabelSet(Label(i, name, name) for i, name in enumerate(NAMES))
TASK = MultiLabel(MultiLabel.Config(), LABELS)
LISTS = pa.list_(pa.int32())


def test_units_by_hand() -> None:
    table = pa.table(
        {"example_id": [7, 9], "given_label": pa.array([[0, 2], None], LISTS), "split": ["train", "dev"]}
    )
    units = TASK.unit_rows(table)
    assert units["example_id"].to_pylist() == [7, 7, 7, 9, 9, 9]
    assert units["given_label"].to_pylist() == [1, 2, 5, None, None, None]
    assert units["split"].to_pylist() == ["train"] * 3 + ["dev"] * 3
    assert len(set(units["unit_id"].to_pylist())) == 6
    assert TASK.answers.names == ["not joy", "joy", "not anger", "anger", "not fear", "fear"]
    again = TASK.unit_rows(table.take(pa.array([1, 0])))
    assert again["unit_id"].to_pylist() == units["unit_id"].to_pylist()[3:] + units["unit_id"].to_pylist()[:3]


def test_probabilities_of_answers_by_hand() -> None:
    found = TASK.unit_probabilities(pa.table({"probabilities": [[0.9, 0.2, 0.5]]}))
    expected = [[0.1, 0.9, 0, 0, 0, 0], [0, 0, 0.8, 0.2, 0, 0], [0, 0, 0, 0, 0.5, 0.5]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert TASK.predicted_labels(pa.chunked_array([pa.array([[0.9, 0.2, 0.5]])])).to_pylist() == [[0]]


def test_candidates_are_both_answers_of_the_unit() -> None:
    assert TASK.candidates(2, 3, "binary") == TASK.candidates(3, 2, "all") == [3, 2]
    assert TASK.further([3, 2]) == []


@given(st.lists(st.sets(st.integers(0, 2)), min_size=1, max_size=8), st.randoms())
def test_what_is_taken_apart_comes_together(sets: list[set[int]], random: Any) -> None:
    """Whatever the order of the units is within and between examples."""
    lists = [sorted(each) for each in sets]
    table = pa.table({"example_id": np.arange(len(sets)) * 5 - 9, "given_label": pa.array(lists, LISTS)})
    units = TASK.unit_rows(table).rename_columns({"given_label": "final_label"})
    order = list(range(len(units)))
    random.shuffle(order)
    for rows in (list(range(len(units))), order):
        found = TASK.assemble(units.take(pa.array(rows)), table).sort_by("example_id")
        assert found["final_label"].to_pylist() == lists
        assert found["final_label"].type == LISTS


def test_metrics_by_hand() -> None:
    found, truth = pa.array([[0], [1, 2], []], LISTS), pa.array([[0], [1], [2]], LISTS)
    figures = TASK.metrics(found, truth)
    assert figures["accuracy"] == pytest.approx(1 / 3)
    assert figures["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert figures["f1_macro"] == pytest.approx((1 + 1 + 0) / 3)


def make(
    folder: Path,
    rows: int = 120,
    shards: int = 3,
    wrong: float = 0.1,
    detectors: Sequence[str] = ("posterior",),
) -> tuple[Run, Config]:
    """Finished load and predict: some bits of the given labels are flipped, and the model knows most of them."""
    run, rng = Run(str(folder / "run")), np.random.default_rng(0)
    run.write_text(LABELS.to_json(), "load", "labels.json")
    truth = rng.random((rows, 3)) < 0.4
    flipped = rng.random((rows, 3)) < wrong
    given_bits = truth ^ flipped
    p = np.clip(np.where(truth, 0.9, 0.1) + rng.normal(scale=0.05, size=truth.shape), 0.01, 0.99)
    ids = np.arange(rows, dtype=np.int64) * 13 - 500

    def lists(bits: np.ndarray) -> pa.Array:
        return pa.array([np.flatnonzero(row).tolist() for row in bits], LISTS)

    for number, part in enumerate(np.array_split(np.arange(rows), shards)):
        name = f"part-{number:05d}.parquet"
        texts, splits = [f"text {row}" for row in part], ["train"] * len(part)
        examples = {
            "example_id": ids[part],
            "text": texts,
            "given_label": lists(given_bits[part]),
            "split": splits,
        }
        run.write_table(pa.table(examples), "load", "examples", name)
        run.write_table(
            pa.table({"example_id": ids[part], "true_label": lists(truth[part])}), "load", "truth", name
        )
        predictions = {
            "example_id": ids[part], "given_label": lists(given_bits[part]),
            "probabilities": pa.array(p[part].tolist(), pa.list_(pa.float32())),
        }  # fmt: skip
        run.write_table(pa.table(predictions), "predict", "predictions", name)
        features = pa.table(
            [ids[part], schema.list_column(p[part].astype(np.float32))], schema=schema.features(3)
        )
        run.write_table(features, "predict", "features", name)
    for verb in ("load", "predict"):
        manifest = {"verb": verb, "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": {}}
        run.write_json(manifest, verb, "manifest.json")
    config = parse_config({
        "name": "run", "output": str(folder), "task": {"name": "multi_label"}, "dataset": {"path": "unread"},
        "detect": {"budget": 0.15, "detectors": list(detectors)},
    })  # fmt: skip
    return run, config


def do(config: Config, run: Run, verb: Any, name: str) -> dict[str, Any]:
    out = run.begin(name, "f")
    metrics: dict[str, Any] = verb.run(config, run, out)
    run.commit(name, "f", out, 0.0, metrics)
    return metrics


def rows_of(run: Run, *parts: str) -> list[dict[str, Any]]:
    return [row for shard in run.shards(*parts) for row in run.read_table(*parts, shard).to_pylist()]


BOTH = ["confident_learning", "self_confidence"]


@pytest.mark.parametrize(
    ("annotator", "detectors"),
    [("simulated", ["posterior"]), ("simulated", BOTH), ("posterior", BOTH), ("knn", BOTH)],
)
def test_wrong_bits_are_found_asked_about_and_repaired(
    tmp_path: Path, annotator: str, detectors: list[str]
) -> None:
    run, config = make(tmp_path, detectors=detectors)
    found = do(config, run, detect, "detect")
    assert found["examples"] == found["eligible"] == 360  # units
    for row in rows_of(run, "detect", "findings"):  # the other answer of the same unit
        assert row["given_label"] ^ row["suggested_label"] == 1
        assert row["given_probability"] + row["suggested_probability"] == pytest.approx(1)
    truth = {row["example_id"]: set(row["true_label"]) for row in rows_of(run, "load", "truth")}
    given = {row["example_id"]: set(row["given_label"]) for row in rows_of(run, "load", "examples")}
    wrong = sum(len(truth[key] ^ given[key]) for key in truth)
    options = {
        "simulated": {"truth_path": run.path("load", "truth"), "accuracy": 1.0},
        "posterior": {},
        "knn": {"neighbours": 9},
    }
    config = parse_config(
        config.model_dump(mode="json") | {"annotator": {"name": annotator, **options[annotator]}}
    )
    metrics = do(config, run, relabel, "relabel")
    final = {row["example_id"]: set(row["final_label"]) for row in rows_of(run, "relabel", "example_labels")}
    assert final.keys() == truth.keys()
    left = sum(len(truth[key] ^ final[key]) for key in truth)
    assert metrics["suspects"] == found["suspects"] > 0.8 * wrong
    controls = {"simulated": {"asked": 150, "right": 150}}.get(annotator, {"asked": 0, "right": 0})
    assert metrics["judged"][0]["controls"] == controls
    if annotator == "simulated":
        assert left < 0.3 * wrong
    else:  # nobody whose judgement was measured: what is doubted is a person's
        assert left == wrong
        assert metrics["referred"] == metrics["suspects"]
    changed = {
        (row["example_id"], row["final_label"] // 2)
        for row in rows_of(run, "relabel", "labels")
        if row["source"] == "changed"
    }
    assert changed == {(key, bit) for key in truth for bit in given[key] ^ final[key]}
    measured, counts, _ = measure_labels(config, run)
    assert counts.total("known") == 360
    assert measured["noise"]["given"] == pytest.approx(wrong / 360)
    assert measured["noise"]["final"] == pytest.approx(left / 360)
    names = {pair["from"] for pair in measured["confusion"]["given_final"]}
    assert names <= set(TASK.answers.names)


def test_a_revert_of_one_class_leaves_the_others_of_the_example(tmp_path: Path) -> None:
    run, config = make(tmp_path, wrong=0.3)
    do(config, run, detect, "detect")
    simulated = {"name": "simulated", "truth_path": run.path("load", "truth"), "accuracy": 1.0}
    do(parse_config(config.model_dump(mode="json") | {"annotator": simulated}), run, relabel, "relabel")
    before = {row["example_id"]: set(row["final_label"]) for row in rows_of(run, "relabel", "example_labels")}
    result = revert_label_changes(run, TASK, to_label="not joy")
    after = {row["example_id"]: set(row["final_label"]) for row in rows_of(run, "relabel", "example_labels")}
    assert result["reverted"] == sum(before[key] != after[key] for key in before) > 0
    assert all(after[key] - before[key] in ({0}, set()) and before[key] <= after[key] for key in before)
