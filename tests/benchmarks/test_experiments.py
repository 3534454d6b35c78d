"""What the experiments keep and how they count, without training anything but a toy."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import common, experiment_measures, experiments  # noqa: E402
from benchmarks import experiment_tables as tables  # noqa: E402
from rayclean.folder import Folder  # noqa: E402
from rayclean.schema import Label, LabelSet  # noqa: E402
from tests.annotators.test_between_epochs import asked  # noqa: E402
from tests.training.toys import write_examples  # noqa: E402

NOISE = {"kind": "sym", "rate": 0.4}


def experiment(**options: Any) -> dict[str, Any]:
    return {
        "sets": [{"name": "trec6", "noise": NOISE}, {"name": "hausa_news"}], "arms": {"CE": {"name": "cross_entropy"}},
        "encoder": {"name": "bag_of_words"}, "epochs": 2, **options,
    }  # fmt: skip


def test_the_hash_of_the_sources_follows_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.py").write_text("1\n")
    before = common.sources(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert common.sources(tmp_path) == before
    (tmp_path / "inner" / "one.py").write_text("2\n")
    found = [before, common.sources(tmp_path)]
    (tmp_path / "inner" / "one.py").rename(tmp_path / "inner" / "two.py")
    found.append(common.sources(tmp_path))
    (tmp_path / "annotators" / "templates").mkdir(parents=True)
    (tmp_path / "annotators" / "templates" / "prompt.jinja").write_text("Which label?")
    found.append(common.sources(tmp_path))
    found.append(common.sources(tmp_path, [tmp_path / "notes.txt"]))
    assert len(set(found)) == 5


def test_a_task_carries_the_code() -> None:
    task = experiments._task(experiment(), 0, "CE", 0, {"trec6": "somewhere"})
    assert task["code"] == common.sources(
        further=[REPOSITORY / "benchmarks" / name for name in ("experiments.py", "experiment_measures.py")]
    )


def test_questions_are_those_paid_and_those_that_the_ledger_answered() -> None:
    lines = [
        {"epoch": 1},
        {"asked": 10.0, "from_ledger": 2, "tokens": 500},
        {"asked": 0, "from_ledger": 3, "tokens": 0},
    ]
    assert experiment_measures.questions_of(lines) == {"questions": 15, "tokens_paid": 500}


def test_a_run_keeps_the_specification_of_its_noise() -> None:
    described = experiment()
    runs = {
        experiments._key(described, number, "CE", 0): {
            "noise_realised": share,
            "auc_epochs": [share / 3, None],
        }
        for number, share in ((0, 0.41), (1, 0.5))
    }
    run_of = experiments._reader(described, runs)
    found = tables.runs_of(described, run_of, [0])
    assert [run["noise"] for run in found] == [NOISE, None]
    assert [run["noise_realised"] for run in found] == [0.41, 0.5]
    assert [run["auc_epochs"] for run in found] == [[0.1367, None], [0.1667, None]]
    rows = tables.summary(described, run_of, [0])
    assert [row["noise_realised"] for row in rows] == [[0.41, 0.0], [0.5, 0.0]]
    assert tables.seeds_of({"runs": found}) == [0]


MEASURED = {
    (0, "A"): [0.875, 0.1], (1, "A"): [0.75, 0.3], (2, "A"): [0.75, 0.5],
    (0, "B"): [0.75, 0.0], (1, "B"): [0.5, 0.0], (2, "B"): [0.625, 0.0],
}  # fmt: skip
"""(Set, arm) -> accuracy, noise of P: the gain of A is .125, .25, .125 where the noise is .1, .3, .5."""


def judged(claim: dict[str, Any], sets: int = 3) -> dict[str, Any]:
    described = {
        "sets": [{"name": "trec6"}] * sets,
        "arms": {"A": {}, "B": {}},
        "claims": [{"text": "", **claim}],
    }

    def run_of(number: int, arm: str, seed: int) -> dict[str, float] | None:
        return (
            dict(zip(("accuracy", "noise"), MEASURED[number, arm], strict=True))
            if (number, arm) in MEASURED
            else None
        )

    return tables.judge(described, run_of, [0])[0]


def test_claims_by_hand() -> None:
    greater = judged({"greater": "A.accuracy", "smaller": "B.accuracy"})
    assert (round(greater["mean_difference"], 6), greater["agree"], greater["pairs"]) == (0.166667, 3, 3)
    assert greater["reproduced"]
    assert not judged({"greater": "A.accuracy", "smaller": "B.accuracy", "by": 0.2})["reproduced"]
    elsewhere = judged({"greater": "C.accuracy", "smaller": "B.accuracy"})
    assert (elsewhere["mean_difference"], elsewhere["pairs"], elsewhere["reproduced"]) == (None, 0, False)


def test_a_claim_of_growth_by_hand() -> None:
    """Gains where the noise is greater, minus those where it is less: .125, 0, -.125."""
    growth = {"grows": ["A.accuracy", "B.accuracy"], "along": "A.noise"}
    found = judged(growth)
    assert (round(found["mean_difference"], 6), found["agree"], found["pairs"]) == (0.0, 1, 3)
    assert not found["reproduced"]
    upwards = judged({**growth, "sets": [0, 1]})
    assert (round(upwards["mean_difference"], 6), upwards["agree"], upwards["pairs"]) == (0.125, 1, 1)
    assert upwards["reproduced"]


def test_a_set_may_have_arms_of_its_own() -> None:
    described = experiment(arms={"CE": {"name": "cross_entropy"}, "SCE": {"name": "symmetric_cross_entropy"}})
    described["sets"][1]["arms"] = ["CE"]
    assert [tables.arms_of(described, number) for number in (0, 1)] == [["CE", "SCE"], ["CE"]]
    runs = {
        experiments._key(described, number, arm, 0): {"accuracy": 0.5}
        for number, arm in ((0, "CE"), (0, "SCE"), (1, "CE"))
    }
    run_of = experiments._reader(described, runs)
    assert run_of(0, "SCE", 0) == {"accuracy": 0.5}
    assert run_of(1, "SCE", 0) is None
    assert [(row["set"], row["arm"]) for row in tables.summary(described, run_of, [0])] == [
        ("trec6 sym 0.4", "CE"), ("trec6 sym 0.4", "SCE"), ("hausa_news", "CE"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.stem for path in experiments.HERE.glob("*.toml")))
def test_claims_name_arms_and_sets_that_are_there(name: str) -> None:
    described = tomllib.loads((experiments.HERE / f"{name}.toml").read_text())
    for one in described["claims"]:
        sides = [*one["grows"], one["along"]] if "grows" in one else [one["greater"], one["smaller"]]
        arms = {side.partition(".")[0] for side in sides if isinstance(side, str)}
        numbers = one.get("sets", range(len(described["sets"])))
        assert any(arms <= set(tables.arms_of(described, number)) for number in numbers), one["text"]


def test_the_committed_results_can_be_merged() -> None:
    known = experiments._known()
    assert known
    assert all(isinstance(one["commit"], list) for one in known.values())
    assert all(not isinstance(run["noise"], float) for one in known.values() for run in one["runs"])
    assert tables.markdown(known)
    assert all(tables.seeds_of(one) for one in known.values())


def test_curves_take_one_line_and_stay_what_they_are(tmp_path: Path) -> None:
    figures = {"curve": [0.5, -1e-05, None], "text": "[1,  2]", "nested": [[1, 2], {"a": []}]}
    path = common.write_result(__file__, {}, 0, figures, [], True, tmp_path / "out.json")
    assert json.loads(path.read_text())["figures"] == figures
    assert '"curve": [ 0.5, -1e-05, null ]' in path.read_text()


@pytest.fixture
def toy_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Folder with a set of 60 examples of two classes, each in words of its own."""
    monkeypatch.setitem(experiments.SETS, "toy", {"label": "label"})
    monkeypatch.setattr(experiments, "WORK", tmp_path / "work")
    rng = np.random.default_rng(0)
    words = np.array([["red", "blue", "green"], ["one", "two", "three"]])
    (tmp_path / "toy").mkdir()
    for split, rows in (("train", 60), ("test", 20)):
        labels = np.arange(rows) % 2
        texts = [f"{' '.join(rng.choice(words[label], 5))} {split} {row}" for row, label in enumerate(labels)]
        table = pa.table({"text": texts, "label": [("colour", "number")[label] for label in labels]})
        pq.write_table(table, tmp_path / "toy" / f"{split}.parquet")
    return str(tmp_path)


def features_of(root: str) -> list[float]:
    folder = Folder(root).sub("features", "test")
    return list(folder.read_table(folder.shards()[0])["features"][0].as_py())


@pytest.mark.slow
def test_what_is_kept_is_taken_for_the_same_encoder_and_code_alone(ray_embedded: None, toy_set: str) -> None:
    encoder = {"name": "bag_of_words", "buckets": 500}
    root = experiments.prepare("toy", toy_set, {**encoder, "hidden": 8})
    before = features_of(root)
    encoder["hidden"] = 4
    assert experiments.prepare("toy", toy_set, encoder) == root
    assert (len(before), len(features_of(root))) == (8, 4)
    task = {
        "root": root, "noise": NOISE, "seed": 0, "arm": {"name": "cross_entropy"}, "encoder": encoder, "epochs": 1,
        "training": {}, "code": "first", "commit": "a",
    }  # fmt: skip
    assert experiments.train(task)["commit"] == "a"
    kept = experiments.train({**task, "commit": "b"})
    assert kept["commit"] == "a"
    assert kept["noise_realised"] == pytest.approx(0.4, abs=0.05)
    assert experiments.train({**task, "commit": "b", "code": "second"})["commit"] == "b"
    assert kept["questions"] == kept["tokens_paid"] == 0


@pytest.mark.parametrize(("accuracy", "taken"), [(1.0, 30), (0.5, 0)])
def test_a_simulated_annotator_counts_as_declared(tmp_path: Path, accuracy: float, taken: int) -> None:
    """With an accuracy of 1 every answer is a label, with .5 none: no relabel before it has measured anything."""
    root = tmp_path / "set"
    examples = write_examples(root / "load" / "examples", 30)
    names = LabelSet([Label(i, name, name) for i, name in enumerate("abc")])
    Folder(str(root)).write_text(names.to_json(), "load", "labels.json")
    what = asked(examples, 30)
    right = np.where(np.arange(30) % 3 < 2, what.predicted, what.given)
    truth = pa.table({"example_id": what.ids, "true_label": pa.array(right, pa.int32())})
    Folder(str(tmp_path / "truth")).write_table(truth, "part-00000.parquet")
    plugin = {"name": "simulated", "accuracy": accuracy}
    direct = experiments.Direct(
        plugin, {}, None, str(root), str(tmp_path / "out"), str(tmp_path / "truth"), seed=0
    )
    labels, _ = direct(what)
    direct.runner.close()
    assert (labels == right).sum() == (labels >= 0).sum() == taken
