"""Sets of classes and tags through all six verbs: what a user finds in the metrics, in the report and in the data that come
back, and that a run goes on where it was killed.
"""

import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.folder import Folder
from rayclean.results import RunResults
from rayclean.run import VERBS
from rayclean.run_status import status

CLASSES = ("sea", "food", "<art>")
WORDS = {
    "sea": "ship tide dock sail".split(),
    "food": "oven sauce dough soup".split(),
    "<art>": "paint song dance play".split(),
}
PLAIN = "the a <b> some old & new".split()
NAMES = {"PER": "anna bob carla dario".split(), "LOC": "rome lima oslo paris".split()}
STRANGE = {"PER": "zoe yann xenia".split(), "LOC": "ulm york zug".split()}
"""Names that are only in the development sentences, where the network errs about them."""
ROWS, CHECKED, TESTED = 150, 40, 30
"""Examples that are cleaned, development sentences with right tags, and test examples."""
NOISE = 0.15
TASKS = ["multi_label", "tagging"]


def set_row(rng: np.random.Generator, part: str) -> dict[str, Any]:
    """A text with three words of every class that applies; of some classes the given label is wrong."""
    true = [name for name in CLASSES if rng.random() < 0.5]
    given = [name for name in CLASSES if (name in true) != (rng.random() < NOISE)]
    words = [*rng.choice(PLAIN, 3), *(word for name in true for word in rng.choice(WORDS[name], 3))]
    return {"text": " ".join(rng.permutation(words)), "label": given, "truth": true}


def tags_row(rng: np.random.Generator, part: str) -> dict[str, Any]:
    """A sentence with a person and a place; the tag of some names is lost."""
    words, tags = list(map(str, rng.choice(PLAIN, 5))), ["O"] * 5
    places = rng.choice(5, 2, replace=False)
    for place, kind in zip(places, NAMES, strict=True):
        names = STRANGE if part == "dev" and rng.random() < 0.7 else NAMES
        words[place], tags[place] = str(rng.choice(names[kind])), f"B-{kind}"
    given = ["O" if rng.random() < NOISE else tag for tag in tags]
    return {"tokens": words, "label": given, "truth": tags}


def write_rows(folder: Path, task: str) -> list[dict[str, Any]]:
    """Files of rows to be cleaned, and of development and test examples, whose labels are right; returns the rows."""
    rng = np.random.default_rng(4)
    make = set_row if task == "multi_label" else tags_row
    parts = {
        part: [{"key": f"{part}-{number}", **make(rng, part)} for number in range(count)]
        for part, count in (("rows", ROWS), ("dev", CHECKED), ("test", TESTED))
    }
    for part, rows in parts.items():
        if part != "rows":
            rows[:] = [row | {"label": row["truth"]} for row in rows]
        (folder / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return parts["rows"]


def config_of(folder: Path, task: str, name: str = "run") -> rayclean.Config:
    """A run in this process, with an annotator who is right about 95 questions of 100."""
    training = {"epochs": 8, "batch_size": 16, "learning_rate": 0.1 if task == "tagging" else 0.02}
    truth = folder / "runs" / name / "load" / "truth"
    truth.mkdir(parents=True, exist_ok=True)  # is written by the run itself
    values = {
        "name": name,
        "output": str(folder / "runs"),
        "task": {"name": task},
        "dataset": {
            "path": str(folder / "rows.jsonl"),
            "id": "key",
            "truth": "truth",
            "test": {"path": str(folder / "test.jsonl")},
            "rows_per_shard": 40,
        },
        "encoder": {"name": "bag_of_words", "buckets": 2000},
        "predict": {"folds": 2, "training": training},
        "train": training,
        "detect": {"budget": 0.25},
        "evaluate": {"top_changes": 100},
        "annotator": {"name": "simulated", "accuracy": 0.95, "truth_path": str(truth)},
    }
    if task == "tagging":
        values["encoder"] = {"name": "bilstm", "buckets": 2000, "embedding": 8, "hidden": 8, "max_length": 10}
        # Only where the network errs about right tags can it be measured how often the annotator is right: the more epochs, the
        # fewer such tags.
        values["predict"]["training"] = training | {"epochs": 5}
        values["dataset"]["dev"] = {"path": str(folder / "dev.jsonl"), "clean": True}
    return rayclean.parse_config(values)


@dataclass(frozen=True)
class Cleaned:
    """A run of all verbs that nothing disturbed."""

    task: str
    folder: Path
    rows: list[dict[str, Any]]
    """Those of the file that was cleaned."""
    run: RunResults


@pytest.fixture(scope="module", params=TASKS)
def cleaned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cleaned:
    folder = tmp_path_factory.mktemp(request.param)
    rows = write_rows(folder, request.param)
    return Cleaned(request.param, folder, rows, rayclean.clean(config_of(folder, request.param)))


def units_of(task: str, label: list[str]) -> list[Any]:
    """What is doubted of a label, one by one: whether each class applies; where each class of names stands."""
    if task == "multi_label":
        return [name in label for name in CLASSES]
    return [[place for place, tag in enumerate(label) if tag == f"B-{kind}"] for kind in NAMES]


def differing(task: str, pairs: Iterable[tuple[Any, Any]]) -> int:
    """Number of units in which labels differ."""
    each = [zip(units_of(task, one), units_of(task, other), strict=True) for one, other in pairs]
    return sum(one != other for units in each for one, other in units)


def test_the_metrics_say_what_the_rows_show(cleaned: Cleaned) -> None:
    task, run = cleaned.task, cleaned.run
    assert [row.state for row in status(run.config)] == ["done"] * len(VERBS)
    metrics, frame = run.read_json("metrics.json"), run.to_pandas()
    truth = [row["truth"] for row in cleaned.rows]
    given = [row["label"] for row in cleaned.rows]
    final = list(frame.rayclean_label)[:ROWS]
    checked = CHECKED if task == "tagging" else 0
    units = (ROWS + checked) * len(units_of(task, []))
    wrong = {"given": differing(task, zip(given, truth, strict=True))}
    wrong["final"] = differing(task, zip(final, truth, strict=True))
    assert wrong["final"] < 0.5 * wrong["given"]
    assert metrics["noise"]["estimated"] is None, "the model's scores of such labels are no probabilities"
    assert {name: metrics["noise"][name] for name in wrong} == {
        name: pytest.approx(count / units) for name, count in wrong.items()
    }
    counts = metrics["counts"]
    assert (counts["wrong_given"], counts["wrong_final"]) == (wrong["given"], wrong["final"])
    assert wrong["final"] == wrong["given"] - counts["repaired"] + counts["harmed"]
    assert counts["changed"] == differing(task, zip(given, final, strict=True))
    assert counts["examples"] == counts["known"] == counts["train"] + counts["dev"] == units
    outcomes = ("changed", "kept", "referred", "abstained", "error", "unasked")
    assert counts["suspects"] == sum(counts[name] for name in outcomes)
    assert counts["test"] == counts["tested"] + counts["test_shared"] == TESTED
    splits = metrics["noise"]["by_split"].values()
    assert sum(each["examples"] for each in splits) == units
    assert sum(each["examples"] * each["final"] for each in splits) == pytest.approx(wrong["final"])
    classes = metrics["classes"]
    assert sum(each["before"] for each in classes) == sum(each["after"] for each in classes) == units
    assert sum(each["out"] for each in classes) == sum(each["into"] for each in classes) == counts["changed"]
    assert all(0 < value <= 1 for value in metrics["accuracy"].values())
    assert (
        metrics["units"]
        == {"multi_label": "classes of examples", "tagging": "entity classes of sentences"}[task]
    )


def test_the_report_shows_what_changed(cleaned: Cleaned) -> None:
    page = cleaned.run.read_text("report.html")
    assert not re.search("<art>|<b>( |<)", page), "a text or the name of a class is taken for HTML"
    shown = re.findall(r"<s>(.*?)</s> → (.*?)</span>", page)
    counts = cleaned.run.read_json("metrics.json")["counts"]
    assert len(shown) == counts["changed"] + counts["harmed"] > 20  # those that did harm are shown again
    if cleaned.task == "multi_label":
        pairs = {frozenset([f"not {html.escape(name)}", html.escape(name)]) for name in CLASSES}
        assert {frozenset(pair) for pair in shown} == pairs
        return
    expected = set()
    for row in cleaned.run.changes().to_dict("records"):
        for kind in NAMES:
            before, after = (
                html.escape(
                    " ".join(
                        f"[{kind} {word}]" if tag == f"B-{kind}" else word
                        for word, tag in zip(row["tokens"], row[column], strict=True)
                    )
                )
                for column in ("label", "rayclean_label")
            )
            expected |= {(before, after)} if before != after else set()
    assert set(shown) <= expected


def test_the_rows_come_back_with_their_labels(cleaned: Cleaned, tmp_path: Path) -> None:
    run = cleaned.run
    run.export(str(tmp_path / "beside.parquet"))
    run.export(str(tmp_path / "inside.jsonl"), in_place_column=True)
    table = pq.read_table(tmp_path / "beside.parquet")
    assert table.schema.field("rayclean_label").type.equals(table.schema.field("label").type)
    inside = [json.loads(line) for line in (tmp_path / "inside.jsonl").read_text().splitlines()]
    beside = table.to_pylist()
    assert [row["key"] for row in beside] == [row["key"] for row in inside]
    assert [{name: row[name] for name in cleaned.rows[0]} for row in beside[:ROWS]] == cleaned.rows
    changed = 0
    for row, whole in zip(beside, inside, strict=True):
        said = units_of(cleaned.task, row["rayclean_label"])
        assert whole["label"] == (row["rayclean_label"] if row["label_source"] == "changed" else row["label"])
        assert (said != units_of(cleaned.task, row["label"])) == (row["label_source"] == "changed")
        changed += row["label_source"] == "changed"
        if cleaned.task == "tagging":
            assert len(row["rayclean_label"]) == len(row["tokens"])
            assert {*row["rayclean_label"]} <= {"O", "B-PER", "B-LOC", "I-PER", "I-LOC"}
        else:
            assert {*row["rayclean_label"]} <= {*CLASSES}
    assert changed > 20
    assert changed == len(run.changes())


class Died(BaseException):
    """The end of a process."""


def die_at(pattern: str) -> Callable[..., None]:
    """What takes the place of `Folder._pipe`: the first file whose path matches is not written."""
    write = Folder._pipe

    def pipe(folder: Folder, path: str, *rest: Any) -> None:
        if re.search(pattern, path):
            raise Died(path)
        write(folder, path, *rest)

    return pipe


def results(run: RunResults) -> dict[str, Any]:
    """What a user gets, without times."""
    metrics = run.read_json("metrics.json")
    names = ("noise", "counts", "accuracy", "f1_macro", "detection", "classes", "notes")
    return {name: metrics[name] for name in names} | {"rows": run.to_pandas().to_json(orient="records")}


def test_a_run_that_died_in_every_verb_ends_with_the_same_labels(
    cleaned: Cleaned, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(cleaned.folder, cleaned.task, "died")
    for pattern in (
        "/load-[^/]+/examples/part-00000-0002",
        "/predict-[^/]+/predictions/part-00000-0001",
        "/detect-[^/]+/findings/part-00000-0001",
        "/relabel-[^/]+/annotations/",
        "/relabel-[^/]+/example_labels/part-00000-0001",
        "/train-[^/]+/epochs/epoch-004",
        "/evaluate-[^/]+/metrics.json",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "_pipe", die_at(pattern))
            with pytest.raises(Died, match=pattern):
                rayclean.clean(config)
    assert results(rayclean.clean(config)) == results(cleaned.run)
