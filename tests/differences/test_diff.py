"""Two runs side by side: every count and every row against a comparison by hand."""

import contextlib
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import rayclean
from rayclean.config import Config, parse_config
from rayclean.differences import runs as differences
from rayclean.differences.joining import side_by_side
from rayclean.differences.labels import label_differences
from rayclean.differences.sides import Side
from rayclean.run import Run
from rayclean.run_lookup import config_of
from rayclean.verbs import detect, relabel
from tests.command import run_command
from tests.csv_runs import cleaned, config, toy_rows, write
from tests.tasks import test_multi_label, test_tagging
from tests.tasks.test_multi_label import do

EVIL = "[red]\x1b[2Jevil\u202e"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run, and one of a later state of its data: rows gone, new, sorted otherwise and with other labels, in other shards."""
    folder = tmp_path_factory.mktemp("diff")
    rows = toy_rows(folder / "toy")
    with contextlib.chdir(folder):
        write(folder / "a.csv", rows)
        one = config("a.csv", id="key", rows_per_shard=64, dev={"share": 0.1})
        later = [dict(row) for row in rows[5:]][::-1]
        for number, row in enumerate(later):
            if number % 30 == 0:
                row["label"] = "harbour" if row["label"] != "harbour" else "garden"
        later += [
            {"key": f"new-{number}", "text": f"{EVIL} anchor {number}", "label": "harbour"}
            for number in range(3)
        ]
        write(folder / "b.csv", later)
        values = config("b.csv", id="key", rows_per_shard=37, dev={"share": 0.1}).model_dump(
            mode="json", exclude_none=True
        )
        values |= {"name": "other", "seed": 3, "relabel": {"accept": 0.8}}
        return tuple(Run(cleaned(each).url()) for each in (one, parse_config(values)))  # type: ignore[return-value]


def by_hand(run: Run) -> dict[str, dict[str, Any]]:
    """What a run says of every example, by key."""
    names = [each["name"] for each in run.read_json("load", "labels.json")]
    keys = {row["example_id"]: row["key"] for row in rows_of(run, "load", "origins")}
    reasons = {row["example_id"]: row["reason"] for row in rows_of(run, "detect", "findings")}
    found = {
        row["key"]: {
            "final": names[row["final_label"]], "source": row["source"], "confidence": row["confidence"],
            "decided_by": row["annotator"], "reason": reasons[row["example_id"]],
        }
        for row in rows_of(run, "relabel", "labels")
    }  # fmt: skip
    for part in ("examples", "test"):
        for row in rows_of(run, "load", part):
            nothing = dict.fromkeys(("final", "source", "confidence", "decided_by", "reason"))
            said = found.setdefault(keys[row["example_id"]], nothing)
            said |= {"given": names[row["given_label"]], "split": row["split"], "text": row["text"]}
    return found


def rows_of(run: Run, *parts: str) -> list[dict[str, Any]]:
    return [row for shard in run.shards(*parts) for row in run.read_table(*parts, shard).to_pylist()]


def test_every_difference_is_found(two: tuple[Run, Run]) -> None:
    a, b = (by_hand(run) for run in two)
    both = a.keys() & b.keys()
    found = rayclean.diff(*two, limit=1000)
    examples = found.examples
    assert (examples.both, examples.only_a, examples.only_b) == (
        len(both),
        len(a) - len(both),
        len(b) - len(both),
    )
    assert {each.name for each in examples.shown_only_a} == a.keys() - both
    assert {each.name for each in examples.shown_only_b} == b.keys() - both == {"new-0", "new-1", "new-2"}
    assert {each.text for each in examples.shown_only_b} == {
        b[f"new-{number}"]["text"] for number in range(3)
    }
    moved = Counter((a[key]["split"], b[key]["split"]) for key in both if a[key]["split"] != b[key]["split"])
    assert {(each.a, each.b): each.count for each in examples.splits} == moved
    assert sum(moved.values()) > 5

    def check(part: Any, label: str, keys: set[str]) -> None:
        assert part.count == len(keys) == len(part.shown) > 0
        assert {each.name for each in part.shown} == keys
        assert {(each.a, each.b): each.count for each in part.labels} == Counter(
            (a[k][label], b[k][label]) for k in keys
        )
        assert {(each.a, each.b): each.count for each in part.sources} == Counter(
            (a[key]["source"], b[key]["source"]) for key in keys
        )
        for each in part.shown:
            assert each.text == a[each.name]["text"]
            for side, said in ((each.a, a), (each.b, b)):
                told = {
                    name: said[each.name][name]
                    for name in ("given", "final", "source", "confidence", "decided_by", "reason")
                }
                assert vars(side) == told

    check(found.given, "given", {key for key in both if a[key]["given"] != b[key]["given"]})
    ended = {key for key in both if a[key]["final"] is not None and b[key]["final"] is not None}
    other = {key for key in ended if a[key]["final"] != b[key]["final"]}
    check(found.final, "final", other)
    sure = [max(each.a.confidence or 0, each.b.confidence or 0) for each in found.final.shown]
    assert sure == sorted(sure, reverse=True)
    check(found.decision, "final", {key for key in ended - other if a[key]["source"] != b[key]["source"]})
    json.dumps(found.to_json(), allow_nan=False)


def test_a_limit_shows_fewer_and_counts_all(two: tuple[Run, Run]) -> None:
    whole, cut = rayclean.diff(*two, limit=1000), rayclean.diff(*two, limit=2)
    for name in ("given", "final", "decision"):
        one, other = getattr(whole, name), getattr(cut, name)
        assert (other.count, other.labels, other.sources) == (one.count, one.labels, one.sources)
        assert other.shown == one.shown[:2]
    assert cut.examples.only_a == whole.examples.only_a
    assert len(cut.examples.shown_only_a) == 2
    assert rayclean.diff(*two, limit=0).final.shown == ()


def test_shards_and_parts_change_nothing(two: tuple[Run, Run]) -> None:
    """Whether all is joined at once, in many parts on disk, or shard by shard."""
    sides = [Side(run, config_of(run)) for run in two]
    expected = label_differences(side_by_side(*sides), 10)
    for rows in (1, 7, 100):
        found = label_differences(side_by_side(*sides, rows=rows), 10)
        for name in ("both", "only_a", "only_b", "splits"):
            assert getattr(found, name) == getattr(expected, name)
        for name in ("given", "final", "decision"):
            one, other = getattr(found, name), getattr(expected, name)
            assert (one.count, one.labels, one.sources) == (other.count, other.labels, other.sources)
            assert one.first.to_pylist() == other.first.to_pylist()


def test_memory_holds_one_part_at_a_time(two: tuple[Run, Run]) -> None:
    sides = [Side(run, config_of(run)) for run in two]
    tables = [*side_by_side(*sides, rows=30)]
    assert len(tables) == 8
    assert max(map(len, tables)) < 60
    ids = [each for table in tables for each in table["example_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == len({*by_hand(two[0]), *by_hand(two[1])})
    same = [
        *side_by_side(sides[0], sides[0], rows=30)
    ]  # the same shards: each by itself, and nothing is written
    shards = len(sides[0].shards)
    assert [len(table) for table in same[shards:]] == [0] * (len(same) - shards)


def test_a_run_and_itself(two: tuple[Run, Run]) -> None:
    found = rayclean.diff(two[0], two[0].url())
    assert found.config == ()
    assert (found.examples.only_a, found.examples.only_b, found.examples.splits) == (0, 0, ())
    assert found.given.count == found.final.count == found.decision.count == 0
    assert found.examples.both == len(by_hand(two[0]))


def test_configs(two: tuple[Run, Run]) -> None:
    found = {each.key: (each.a, each.b) for each in rayclean.diff(*two, limit=0).config}
    assert found["seed"] == (0, 3)
    assert found["relabel.accept"] == (0.6, 0.8)
    assert found["dataset.rows_per_shard"] == (64, 37)
    assert found["dataset.path"] == ("a.csv", "b.csv")
    assert {*found} == {"seed", "relabel.accept", "dataset.rows_per_shard", "dataset.path"}


def test_options_of_plugins_that_are_left_out_are_their_defaults() -> None:
    def made(**values: Any) -> Config:
        return parse_config({"dataset": {"path": "x.csv"}, **values})

    plain = made(annotator="knn", detect={"detectors": ["posterior"]})
    same = made(annotator={"name": "knn", "neighbours": 20}, detect={"detectors": [{"name": "posterior"}]})
    assert differences.config_differences(plain, same) == ()
    other = made(annotator={"name": "knn", "neighbours": 5}, detect={"detectors": ["posterior", "knn_vote"]})
    found = {each.key: (each.a, each.b) for each in differences.config_differences(plain, other)}
    assert found["annotator.neighbours"] == (20, 5)
    assert found["detect.detectors.knn_vote.name"] == (None, "knn_vote")


@pytest.mark.parametrize(
    "make", [test_multi_label.make, partial(test_tagging.make, clean=60)], ids=["multi_label", "tagging"]
)
def test_units_of_other_tasks(tmp_path: Path, make: Any) -> None:
    found = []
    for name, accuracy in (("a", None), ("b", 0.95)):
        run, values = make(tmp_path / name)
        simulated = {"name": "simulated", "accuracy": accuracy, "truth_path": run.url("load", "truth")}
        annotator = {"name": "posterior"} if accuracy is None else simulated
        asking = {"controls": 60, "accept": 1.0 if accuracy is None else 0.6}
        settings = parse_config(values.model_dump(mode="json") | {"annotator": annotator, "relabel": asking})
        run.write_text(settings.model_dump_json(), "config.json")
        for verb, module in (("detect", detect), ("relabel", relabel)):
            do(settings, run, module, verb)
        found.append(run)
    both = rayclean.diff(*found, limit=500)
    one, other = (
        {
            row["unit_id"]: (row["final_label"], row["final_value"], row["source"])
            for row in rows_of(run, "relabel", "labels")
        }
        for run in found
    )
    assert one.keys() == other.keys()
    assert both.final.count == sum(one[unit][:2] != other[unit][:2] for unit in one) > 0
    assert both.decision.count == sum(
        one[unit][:2] == other[unit][:2] and one[unit][2] != other[unit][2] for unit in one
    )
    assert both.given.count == 0
    assert {each.part for each in both.final.shown} <= {
        row["name"] for row in found[0].read_json("load", "labels.json")
    }
    assert both.units != "examples"


def test_labels_of_two_tasks_are_not_compared(tmp_path: Path) -> None:
    found = []
    for name, make in (("a", test_multi_label.make), ("b", test_tagging.make)):
        run, settings = make(tmp_path / name)
        run.write_text(settings.model_dump_json(), "config.json")
        found.append(run)
    both = rayclean.diff(*found)
    assert not both.comparable
    assert both.given.count == both.final.count == 0
    one, other = ({row["example_id"] for row in rows_of(run, "load", "examples")} for run in found)
    assert (both.examples.both, both.examples.only_a) == (len(one & other), len(one - other))
    assert ("task.name" in [each.key for each in both.config]) is True


def test_a_class_more_is_no_difference_of_the_others(tmp_path: Path) -> None:
    """Answers are compared by name: numbers are of a label set."""
    run, settings = test_multi_label.make(tmp_path / "a")
    run.write_text(settings.model_dump_json(), "config.json")
    more, _ = test_multi_label.make(tmp_path / "b")
    more.write_text(settings.model_dump_json(), "config.json")
    labels = more.read_json("load", "labels.json")
    more.write_json(
        [{**row, "index": index} for index, row in enumerate([{**labels[0], "name": "new"}, *labels])],
        "load",
        "labels.json",
    )
    for shard in more.shards("load", "examples"):
        table = more.read_table("load", "examples", shard)
        moved = pa.array(
            [[index + 1 for index in row] for row in table["given_label"].to_pylist()],
            table["given_label"].type,
        )
        more.write_table(table.set_column(2, "given_label", moved), "load", "examples", shard)
    both = rayclean.diff(run, more)
    assert both.classes_only_b == ("new",)
    assert both.given.count == 0
    assert both.examples.both == 120


def test_the_command(
    two: tuple[Run, Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(run_command, "diff", *(each.url() for each in two), capsys=capsys, monkeypatch=monkeypatch)
    done = run("--json", "--limit", "3")
    assert (done.code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(rayclean.diff(*two, limit=3).to_json()))
    shown = run("--limit", "5")
    assert shown.code == 0
    found = rayclean.diff(*two, limit=5)
    assert "relabel.accept" in shown.stdout
    assert f"{found.examples.both:,} in both, 5 in A alone, 3 in B alone" in shown.stdout
    assert f"final labels differ: {found.final.count:,} examples" in shown.stdout
    for each in (*found.final.shown, *found.given.shown):
        assert each.name in shown.stdout
    assert r"[red]\x1b[2Jevil\u202e" in shown.stdout
    assert "\x1b[2J" not in shown.stdout
    nothing = run_command("diff", two[0].url(), two[0].url("load"), capsys=capsys, monkeypatch=monkeypatch)
    assert (nothing.code, nothing.stdout) == (2, "")
    assert "no run folder" in nothing.stderr
