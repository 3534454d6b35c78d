"""Units of tag sequences: spans of one entity class, taken apart, doubted, asked about and put together again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean import schema
from rayclean.annotators.query_builder import read_chunk
from rayclean.config import Config, parse_config
from rayclean.evaluation.example_rows import changed_examples, changed_rows
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.exports.reasons import unit_reasons
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import Candidate, Label, LabelSet
from rayclean.tasks.base import LOWEST_LOGIT
from rayclean.tasks.tagging import Tagging
from rayclean.verbs import detect, relabel
from tests.tasks.test_multi_label import do, rows_of

LABELS = LabelSet([Label(0, "LOC", "LOC"), Label(1, "PER", "PER")])
TASK = Tagging(Tagging.Config(), LABELS)
LISTS = pa.list_(pa.int32())
OUT, B_LOC, I_LOC, B_PER, I_PER = range(5)


def test_units_by_hand() -> None:
    table = pa.table(
        {"example_id": [5, 6], "given_label": pa.array([[B_PER, I_PER, OUT, B_LOC], None], LISTS)}
    )
    units = TASK.unit_rows(table)
    assert units["given_label"].to_pylist() == [0, 3, None, None]
    assert units["given_value"].to_pylist() == ["[[3, 4]]", "[[0, 2]]", None, None]
    assert TASK.answers.names[:3] == ["LOC as given", "LOC as predicted", "other LOC"]


def test_candidates_are_marked_texts() -> None:
    text = "Ada Lovelace met Babbage"
    assert TASK.candidate(4, "[[0, 2], [3, 4]]", text) == Candidate(
        "[[0, 2], [3, 4]]", "[PER Ada Lovelace] met [PER Babbage]"
    )
    assert TASK.candidate(0, "[]", text).word == text
    assert TASK.candidates(3, 4, "all") == [3, 4]


def test_probabilities_by_hand() -> None:
    """PER is predicted otherwise than given: q of the two tokens of either; LOC agrees: q of being no LOC."""
    p = [[0.7, 0.1, 0.1, 0.05, 0.05], [0.1, 0.1, 0.0, 0.8, 0.0], [1.0, 0, 0, 0, 0]]
    table = pa.table({
        "example_id": [1], "given_label": pa.array([[B_PER, OUT, OUT]], LISTS),
        "probabilities": pa.array([p], pa.list_(pa.list_(pa.float32()))),
    })  # fmt: skip
    found = TASK.unit_probabilities(table)
    per = (0.05 * 0.1) ** (1 / 2)
    loc = (0.8 * 0.9 * 1.0) ** (1 / 3)
    np.testing.assert_allclose(found[1, 3:5], [per / 2, 1 - per / 2], atol=1e-6)
    np.testing.assert_allclose(found[0, :2], [(1 + loc) / 2, (1 - loc) / 2], atol=1e-6)
    assert TASK.suggested_values(table).to_pylist() == ["[]", "[[1, 2]]"]


def test_what_the_network_does_not_read_stays_as_given() -> None:
    """The last two tokens are behind the end of what it reads: their spans are neither doubted nor suggested away."""
    p = [[0.1, 0.0, 0.0, 0.9, 0.0], [1.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0]]
    table = pa.table({
        "example_id": [1], "given_label": pa.array([[B_PER, B_LOC, I_LOC]], LISTS),
        "probabilities": pa.array([p], pa.list_(pa.list_(pa.float32()))),
    })  # fmt: skip
    assert TASK.suggested_values(table).to_pylist() == ["[[1, 3]]", "[[0, 1]]"]
    found = TASK.unit_probabilities(table)
    assert found.argmax(axis=1).tolist() == [0, 3]


def test_a_network_that_is_sure_has_read() -> None:
    """exp(-60) is lost beside 1: a spurious name about which the network is surest is still doubted. What was not read has
    `LOWEST_LOGIT` for all tags but O.
    """
    logits = np.array([[30, -30, -30, -30, -30]] * 2 + [[0, *[LOWEST_LOGIT] * 4]], dtype=np.float32)
    p = TASK.probabilities(logits)
    assert (p[:, 0] == 1).tolist() == [False, False, True]
    table = pa.table({
        "example_id": [1], "given_label": pa.array([[B_PER, OUT, B_LOC]], LISTS),
        "probabilities": TASK.probability_column(p, np.array([0, 3])),
    })  # fmt: skip
    assert TASK.suggested_values(table).to_pylist() == ["[[2, 3]]", "[]"]
    assert TASK.unit_probabilities(table).argmax(axis=1).tolist() == [0, 4]
    assert TASK.unread(table["probabilities"]).tolist() == [True]


def test_the_true_answer_is_known_by_its_spans() -> None:
    table = pa.table({"example_id": [5], "given_label": pa.array([[B_PER, OUT, B_LOC]], LISTS)})
    units = TASK.unit_rows(table)
    findings = pa.table({
        "unit_id": units["unit_id"], "given_value": units["given_value"], "suggested_value": ["[]", "[[0, 2]]"]
    })  # fmt: skip
    for truth, expected in (
        ([B_PER, I_PER, B_LOC], [0, 4]),
        ([B_PER, OUT, OUT], [1, 3]),
        ([OUT, B_PER, B_LOC], [0, 5]),
    ):
        rows = pa.table({"example_id": [5], "true_label": pa.array([truth], LISTS)})
        assert TASK.true_answers(rows, findings)["given_label"].to_pylist() == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [B_PER, I_PER, OUT, B_LOC]),
        ({1: [[0, 3]]}, [B_PER, I_PER, I_PER, B_LOC]),
        ({1: []}, [OUT, OUT, OUT, B_LOC]),
        ({1: [[2, 4]]}, [B_PER, I_PER, OUT, B_LOC]),  # overlaps the LOC that stays: PER keeps what was given
        ({1: [[3, 4]], 0: []}, [OUT, OUT, OUT, B_PER]),  # the other class makes room
        ({1: [[3, 4]], 0: [[3, 4]]}, [B_PER, I_PER, OUT, B_LOC]),
    ],
)
def test_classes_come_together_without_overlap(changes: dict[int, list[Any]], expected: list[int]) -> None:
    examples = pa.table({"example_id": [9], "given_label": pa.array([[B_PER, I_PER, OUT, B_LOC]], LISTS)})
    units = TASK.unit_rows(examples).to_pylist()
    rows = {
        "example_id": [9, 9],
        "final_label": [row["given_label"] + (row["given_label"] // 3 in changes) for row in units],
        "final_value": [
            json.dumps(changes[c]) if c in changes else row["given_value"] for c, row in enumerate(units)
        ],
    }
    assert TASK.assemble(pa.table(rows), examples)["final_label"].to_pylist() == [expected]


def make(
    folder: Path, rows: int = 150, shards: int = 3, *, clean: int = 0, accuracy: float = 1.0
) -> tuple[Run, Config]:
    """Sentences of ten words with names and places; some given spans are dropped, grown, or of the other class. After them come
    `clean` development sentences with true tags, in most of which the model errs.
    """
    run, rng = Run(str(folder / "run")), np.random.default_rng(0)
    run.write_text(LABELS.to_json(), "load", "labels.json")
    truths, given = [], []
    for row in range(rows + clean):
        tags = [OUT] * 10
        start = int(rng.integers(0, 4))
        tags[start : start + 2] = [B_PER, I_PER]
        if rng.random() < 0.5:
            tags[int(rng.integers(6, 10))] = B_LOC
        truths.append(tags)
        noisy = list(tags)
        if rng.random() < (0.25 if row < rows else 0.9):
            kind = rng.integers(3)
            if kind == 0:
                noisy[start : start + 2] = [OUT, OUT]
            elif kind == 1:
                noisy[start + 1] = OUT
            else:
                noisy[start : start + 2] = [B_LOC, I_LOC]
        given.append(noisy)
    believed = [*truths[:rows], *given[rows:]]
    given[rows:] = truths[rows:]
    p = np.full((rows + clean, 10, 5), 0.02)
    for row, tags in enumerate(believed):
        p[row, np.arange(10), tags] = 0.92
    ids = np.arange(rows + clean, dtype=np.int64) * 17 - 900
    for number, part in enumerate(np.array_split(np.arange(rows + clean), shards)):
        name = f"part-{number:05d}.parquet"
        tokens = [[f"w{row}-{place}" for place in range(10)] for row in part]
        run.write_table(pa.table({
            "example_id": ids[part], "text": [" ".join(words) for words in tokens], "tokens": tokens,
            "given_label": pa.array([given[row] for row in part], LISTS), "split": ["train" if row < rows else "dev" for row in part],
        }), "load", "examples", name)  # fmt: skip
        truth = pa.array([truths[row] for row in part], LISTS)
        run.write_table(pa.table({"example_id": ids[part], "true_label": truth}), "load", "truth", name)
        run.write_table(pa.table({
            "example_id": ids[part], "given_label": pa.array([given[row] for row in part], LISTS),
            "probabilities": pa.array(p[part].tolist(), pa.list_(pa.list_(pa.float32()))),
        }), "predict", "predictions", name)  # fmt: skip
        vectors = schema.list_column(np.ones((len(part), 2), np.float32))
        run.write_table(
            pa.table([ids[part], vectors], schema=schema.features(2)), "predict", "features", name
        )
    for verb in ("load", "predict"):
        manifest = {"verb": verb, "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": {}}
        run.write_json(manifest, verb, "manifest.json")
    simulated = {"name": "simulated", "truth_path": run.path("load", "truth"), "accuracy": accuracy}
    config = parse_config({
        "name": "run", "output": str(folder), "task": {"name": "tagging"}, "dataset": {"path": "unread", "dev": {"path": "unread too", "clean": True}},
        "detect": {"budget": 0.3, "detectors": ["self_confidence"]}, "annotator": simulated,
    })  # fmt: skip
    return run, config


def test_wrong_spans_are_found_asked_about_and_repaired(tmp_path: Path) -> None:
    run, config = make(tmp_path, clean=60)
    found = do(config, run, detect, "detect")
    assert found["examples"] == 420  # units
    findings = rows_of(run, "detect", "findings")
    differ = [row for row in findings if row["suggested_value"] != row["given_value"]]
    assert (
        40 < found["eligible"] < len(differ) < 420
    )  # where the model suggests what is given there is nothing to ask
    assert {row["unit_id"] for row in findings if row["suspect"]} <= {row["unit_id"] for row in differ}
    metrics = do(config, run, relabel, "relabel")
    truth = {row["example_id"]: row["true_label"] for row in rows_of(run, "load", "truth")}
    given = {row["example_id"]: row["given_label"] for row in rows_of(run, "load", "examples")}
    final = {row["example_id"]: row["final_label"] for row in rows_of(run, "relabel", "example_labels")}
    wrong = sum(truth[key] != given[key] for key in truth)
    assert metrics["suspects"] >= wrong > 20
    assert sum(truth[key] != final[key] for key in truth) == 0
    measured, _, _ = measure_labels(config, run)
    assert measured["noise"]["given"] > 0.05
    assert measured["noise"]["final"] == 0
    assert measured["harm"] == 0
    _, queries = read_chunk(
        Folder(run.path("relabel", "queries", "annotator-00")), run.url("load", "examples"), 0, TASK
    )
    orders = [[candidate.value for candidate in query.candidates] for query in queries]
    assert all(order == sorted(order) for order in orders)  # nothing tells which candidate is the given one
    assert len({query.candidates.index(query.given) for query in queries}) == 2
    assert all("[" in query.candidates[0].word or "[" in query.candidates[1].word for query in queries)


def test_beyond_the_suspects_nobody_is_asked_to_choose_between_equal_spans(tmp_path: Path) -> None:
    run, config = make(tmp_path, clean=60)
    values = config.model_dump(mode="json")
    values["detect"]["budget"] = 20
    config = parse_config(values | {"relabel": {"beyond": 6}})
    do(config, run, detect, "detect")
    metrics = do(config, run, relabel, "relabel")
    findings = {row["unit_id"]: row for row in rows_of(run, "detect", "findings")}
    asked = rows_of(run, "relabel", "beyond")
    assert len(asked) == metrics["judged"][0]["beyond"]["asked"] == 6
    for row in asked:
        found = findings[row["unit_id"]]
        assert not found["suspect"]
        assert found["given_value"] != found["suggested_value"]
        assert row["chosen_label"] is not None


@pytest.mark.parametrize(
    ("selector", "count"), [("nearest", 1), ("nearest", 3), ("random", 1), ("random", 3)]
)
def test_demonstrations_show_the_spans_of_their_own_text(tmp_path: Path, selector: str, count: int) -> None:
    run, config = make(tmp_path)
    values = {"relabel": {"demonstrations": count, "selector": selector}}
    config = parse_config(config.model_dump(mode="json") | values)
    do(config, run, detect, "detect")
    do(config, run, relabel, "relabel")
    examples = {row["text"]: row["given_label"] for row in rows_of(run, "load", "examples")}
    _, queries = read_chunk(
        Folder(run.path("relabel", "queries", "annotator-00")), run.url("load", "examples"), 0, TASK
    )
    assert len(queries) > 20
    for query in queries:
        assert len(query.demonstrations) == count
        for shown in query.demonstrations:
            given = pa.table({"example_id": [0], "given_label": pa.array([examples[shown.text]], LISTS)})
            possible = zip([0, 3], TASK.unit_rows(given)["given_value"].to_pylist(), strict=True)
            assert shown.answer in [TASK.candidate(number, value, shown.text) for number, value in possible]


def test_neighbours_have_no_vote_on_spans(tmp_path: Path) -> None:
    """That another sentence has a name at the same place, or none, says nothing: knn abstains, and the run says so."""
    run, config = make(tmp_path, clean=60)
    values = {"annotator": {"name": "knn"}, "relabel": {"ask_all": True}}
    config = parse_config(config.model_dump(mode="json") | values)
    do(config, run, detect, "detect")
    metrics = do(config, run, relabel, "relabel")
    assert metrics["abstained"] == metrics["suspects"] > 20
    assert "knn decides by the labels of the nearest examples" in metrics["warnings"][0]
    _, queries = read_chunk(
        Folder(run.path("relabel", "queries", "annotator-00")), run.url("load", "examples"), 0, TASK
    )
    assert not any(query.demonstrations for query in queries)


def test_changes_of_spans_are_shown_in_the_text(tmp_path: Path) -> None:
    """The report and the table of W&B show which words were marked, and which are."""
    run, config = make(tmp_path, clean=60)
    run.write_text(config.model_dump_json(), "config.json")
    for verb, module in (("detect", detect), ("relabel", relabel)):
        do(config, run, module, verb)
    decided = rows_of(run, "relabel", "annotations")
    changes = changed_examples(run, 5)
    assert len(changes) == 5
    for change in changes:
        given = [
            TASK.candidate(row["given_label"], row["given_value"], change["text"]).word
            for row in decided
            if row["example_id"] == change["example_id"] and row["decision"] == "changed"
        ]
        assert change["given"] in given
        assert change["final"] != change["given"]
        assert change["final"].replace("[LOC ", "").replace("[PER ", "").replace("]", "") == change["text"]
    _, tally, suspects = measure_labels(config, run)
    rows = changed_rows(run, suspects, tally, TASK, 5, harmful=False)
    assert [row["true"] for row in rows] == [row["final"] for row in rows]


def test_the_reason_of_an_export_shows_the_spans() -> None:
    units = pa.table({
        "example_id": [5], "source": ["changed"], "annotator": ["served"], "given_label": [3], "suggested_label": [4],
        "given_value": ["[]"], "suggested_value": ["[[0, 2]]"], "given_probability": [0.1], "suggested_probability": [0.8],
        "reason": ["posterior"],
    })  # fmt: skip
    assert unit_reasons(units, TASK, {5: "Ada Lovelace met Babbage"}).to_pylist() == [
        "posterior: PER as given (Ada Lovelace met Babbage) .10, suggested PER as predicted ([PER Ada Lovelace] met Babbage) "
        ".80; served chose PER as predicted"
    ]


@pytest.mark.parametrize(("clean", "accuracy"), [(0, 1.0), (60, 0.5)])
def test_spans_change_only_by_an_annotator_that_has_earned_it(
    tmp_path: Path, clean: int, accuracy: float
) -> None:
    """The model's scores of spans only rank: without control questions, or where they show a guesser, a person is asked."""
    run, config = make(tmp_path, clean=clean, accuracy=accuracy)
    do(config, run, detect, "detect")
    metrics = do(config, run, relabel, "relabel")
    assert metrics["referred"] == metrics["suspects"] > 20
    assert (
        metrics["judged"][0]["controls"]["asked"] == 0
        if clean == 0
        else metrics["judged"][0]["controls"]["asked"] > 30
    )


def test_the_default_detectors_doubt_wrong_spans(tmp_path: Path) -> None:
    run, config = make(tmp_path)
    values = config.model_dump(mode="json")
    config = parse_config(values | {"detect": {"budget": 20}})
    do(config, run, detect, "detect")
    findings = rows_of(run, "detect", "findings")
    right = [row["quality"] for row in findings if row["suggested_value"] == row["given_value"]]
    assert all(row["quality"] < min(right) for row in findings if row["suspect"])
    for row in findings:  # as given, and as predicted
        assert row["suggested_label"] // 3 == row["given_label"] // 3
