"""load, end to end: the same labels are the same classes in every format, whatever numbers and spellings the files use."""

import csv
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.config import parse_config
from rayclean.datasets.class_label import names_in_metadata
from rayclean.errors import ConfigError, DataError
from rayclean.functional.bio import bio_tags
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.verbs import load


def loaded(folder, task="classification", **dataset):
    """Metrics, text -> name of the given label, text -> name of the true label, and reasons for rejecting."""
    config = parse_config({"task": {"name": task}, "dataset": dataset, "output": str(folder), "name": "run"})
    run = Run(str(folder / "run"))
    load.validate(config, run)
    out = run.begin("load", "test")
    metrics = load.run(config, run, out)
    names = LabelSet.from_json(out.read_text("labels.json")).names
    names = bio_tags(names) if task == "tagging" else names

    def rows(part):
        return [row for name in out.shards(part) for row in out.read_table(part, name).to_pylist()]

    def named(label):
        return (
            None if label is None else names[label] if isinstance(label, int) else [names[i] for i in label]
        )

    examples = {row["example_id"]: row for row in rows("examples") + rows("test")}
    given = {row["text"]: named(row["given_label"]) for row in examples.values()}
    truth = {examples[row["example_id"]]["text"]: named(row["true_label"]) for row in rows("truth")}
    return metrics, given, truth, Counter(row["reason"] for row in rows("rejected"))


def write_csv(path, labels, texts=None, **columns):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", *columns])
        writer.writerows(
            zip(texts or [f"t{i}" for i in range(len(labels))], labels, *columns.values(), strict=True)
        )
    return str(path)


def write_jsonl(path, labels):
    path.write_text(
        "".join(json.dumps({"text": f"t{i}", "label": label}) + "\n" for i, label in enumerate(labels))
    )
    return str(path)


def write_parquet(path, labels, metadata=None):
    labels = labels if isinstance(labels, pa.Array) else pa.array(labels)
    first = "u" if Path(path).stem == "test" else "t"  # test files hold other texts than the data
    texts = [f"{first}{i}" for i in range(len(labels))]
    table = pa.table({"text": texts, "label": labels})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


def save_to_disk(path, names, numbers, **columns):
    """A folder of `datasets.Dataset.save_to_disk`; columns: name -> (names, numbers) of further columns of `ClassLabel`."""
    datasets = pytest.importorskip("datasets")
    columns = {"label": (names, numbers), **columns}
    features = {name: datasets.ClassLabel(names=each) for name, (each, _) in columns.items()}
    content = {name: values for name, (_, values) in columns.items()}
    texts = [f"{path.name} {i}" for i in range(len(numbers))]
    data = datasets.Dataset.from_dict(
        {"text": texts, **content}, features=datasets.Features({"text": datasets.Value("string"), **features})
    )
    data.save_to_disk(str(path))
    return str(path)


NUMBERS = [0, 1, 0, 1, -1, 0, 1, 0, 1, 0]

WAYS = {
    "csv of integers": lambda folder: write_csv(folder / "a.csv", NUMBERS),
    "csv of floats": lambda folder: write_csv(folder / "a.csv", [float(n) for n in NUMBERS]),
    "csv of both": lambda folder: write_csv(folder / "a.csv", [f"{n}.0" if i % 3 else n for i, n in enumerate(NUMBERS)]),
    "jsonl of integers": lambda folder: write_jsonl(folder / "a.jsonl", NUMBERS),
    "jsonl of all types": lambda folder: write_jsonl(
        folder / "a.jsonl", [(n, float(n), str(n), f"{n}.00")[i % 4] for i, n in enumerate(NUMBERS)]
    ),
    "parquet of int8": lambda folder: write_parquet(folder / "a.parquet", pa.array(NUMBERS, pa.int8())),
    "parquet of float32": lambda folder: write_parquet(folder / "a.parquet", pa.array(NUMBERS, pa.float32())),
    "parquet of strings": lambda folder: write_parquet(folder / "a.parquet", [f"{n}.0" for n in NUMBERS]),
    "parquet of decimals": lambda folder: write_parquet(
        folder / "a.parquet", pa.array([Decimal(f"{n}.00") for n in NUMBERS], pa.decimal128(6, 2))
    ),
    "parquet of a dictionary of strings": lambda folder: write_parquet(
        folder / "a.parquet", pa.array([f"{n}" for n in NUMBERS]).dictionary_encode()
    ),
    "parquet of a dictionary of integers": lambda folder: write_parquet(
        folder / "a.parquet", pa.array(NUMBERS).dictionary_encode()
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("unlabelled", [-1, "-1.0"])
def test_numbers_are_the_same_classes_in_every_format(tmp_path, way, unlabelled):
    path = WAYS[way](tmp_path)
    metrics, given, _, rejected = loaded(tmp_path, path=path, unlabelled=[unlabelled])
    assert metrics["per_class"] == {"0": 5, "1": 4}
    assert given == {f"t{i}": str(n) for i, n in enumerate(NUMBERS) if n >= 0}
    assert rejected == {"no label": 1}
    assert not any("unlabelled" in warning for warning in metrics["warnings"])
    metrics, given, _, _ = loaded(tmp_path / "named", path=path, unlabelled=[-1], labels=["no", "yes"])
    assert given == {f"t{i}": ("no", "yes")[n] for i, n in enumerate(NUMBERS) if n >= 0}


def test_ratings_are_the_same_classes_in_every_format(tmp_path):
    ratings = [1.0, 1.5, 2.0, 1.1, 1.5]
    paths = [
        write_csv(tmp_path / "a.csv", ratings),
        write_jsonl(tmp_path / "a.jsonl", ratings),
        *(
            write_parquet(tmp_path / f"{kind}.parquet", pa.array(ratings, kind))
            for kind in (pa.float64(), pa.float32())
        ),
        write_parquet(
            tmp_path / "d.parquet",
            pa.array([Decimal(f"{each:.2f}") for each in ratings], pa.decimal128(6, 2)),
        ),
        write_parquet(tmp_path / "h.parquet", pa.array([*ratings, None], pa.float16())),
    ]
    for number, path in enumerate(paths):
        metrics, *_ = loaded(tmp_path / str(number), path=path, unlabelled=[""])
        assert metrics["per_class"] == {"1": 1, "1.1": 1, "1.5": 2, "2": 1}, path


BOOLEANS = [True, False, False, True, True]


def test_booleans_are_the_same_classes_in_every_format(tmp_path):
    expected = {f"t{i}": str(value).lower() for i, value in enumerate(BOOLEANS)}
    for number, path in enumerate((
        write_csv(tmp_path / "a.csv", ["True", "false", "FALSE", "TRUE", "true"]),
        write_jsonl(tmp_path / "a.jsonl", [True, "False", False, "true", True]),
        write_parquet(tmp_path / "a.parquet", BOOLEANS),
    )):  # fmt: skip
        assert loaded(tmp_path / str(number), path=path)[1] == expected
        given = loaded(tmp_path / f"{number} named", path=path, labels=["True", "False"])[1]
        assert given == {text: name.capitalize() for text, name in expected.items()}


def test_names_are_cleaned_in_every_format_and_what_was_merged_is_told(tmp_path):
    labels = [
        "credit card",
        "credit  card",
        "credit\u00a0card",
        "cafe\u0301",
        "caf\u00e9",
        "\ufeffcaf\u00e9",
        "NA",
        "NA ",
    ]
    for write in (write_csv, write_jsonl, write_parquet):
        path = write(tmp_path / f"a.{write.__name__.removeprefix('write_')}", labels)
        metrics, given, _, _ = loaded(tmp_path / write.__name__, path=path)
        assert metrics["per_class"] == {"NA": 2, "caf\u00e9": 3, "credit card": 3}
        assert given["t1"] == "credit card"
        assert metrics["label_ways"]["caf\u00e9"] == {
            r"'cafe\u0301'": 1,
            "'caf\u00e9'": 1,
            "'\\ufeffcaf\u00e9'": 1,
        }
        assert metrics["warnings"][:1] == [
            "class 'NA' is written in 2 ways, which count as one: 'NA' 1, 'NA\\x20' 1"
        ]
        assert sum("written in 3 ways" in warning for warning in metrics["warnings"]) == 2


def test_blank_labels_are_unlabelled_where_that_is_declared(tmp_path):
    labels = ["a", "b", "", " ", "\u200b", "a", "b", "a"]
    nulls = ["a", "b", None, "", None, "a", "b", "a"]
    for name, path in (
        ("csv", write_csv(tmp_path / "a.csv", labels)),
        ("jsonl", write_jsonl(tmp_path / "a.jsonl", nulls)),
        ("parquet", write_parquet(tmp_path / "a.parquet", nulls)),
    ):
        metrics, given, _, rejected = loaded(tmp_path / name, path=path, unlabelled=[""])
        assert (len(given), rejected) == (5, {"no label": 3})
        assert not any("unlabelled" in warning for warning in metrics["warnings"])
        with pytest.raises(DataError, match=r"3 of 8 rows .*\n  3 x null label"):
            loaded(tmp_path / f"{name} undeclared", path=path)
    whole = write_csv(tmp_path / "whole.csv", ["a", "b"])
    metrics, *_ = loaded(tmp_path / "whole", path=whole, unlabelled=["", "none"])
    assert [warning for warning in metrics["warnings"] if "unlabelled" in warning] == [
        "dataset.unlabelled names '', which no label column holds",
        "dataset.unlabelled names 'none', which no label column holds",
    ]


def test_blank_sets_and_tags_are_unlabelled_where_that_is_declared(tmp_path):
    path = write_jsonl(tmp_path / "sets.jsonl", [["a"], ["b"], None, "", -1.0, []])
    _, given, _, rejected = loaded(tmp_path, "multi_label", path=path, unlabelled=["", "-1"])
    assert (given, rejected) == ({"t0": ["a"], "t1": ["b"], "t5": []}, {"no label": 3})
    tags = tmp_path / "tags.csv"
    write_csv(tags, ["B-X O", ""], tokens=["a b", "c"])
    _, given, _, rejected = loaded(tmp_path / "tags", "tagging", path=str(tags), unlabelled=[""])
    assert (list(given), rejected) == (["a b"], {"no label": 1})
    with pytest.raises(ConfigError, match=r"where labels are tags, dataset.unlabelled can only be \[\"\"\]"):
        loaded(tmp_path / "tags", "tagging", path=str(tags), unlabelled=["", "x"])


def test_numbers_of_class_labels_go_by_the_names_of_their_own_file(tmp_path):
    train = save_to_disk(
        tmp_path / "train",
        ["boat", "cake", "tree"],
        [0, 1, 2, 0],
        gold=(["tree", "boat", "cake"], [1, 2, 0, 1]),
    )
    dev = save_to_disk(tmp_path / "dev", ["tree", "cake", "boat"], [2, 1, 0])
    test = save_to_disk(tmp_path / "test", ["cake", "boat"], [0, 1, 1])
    options = {"path": train, "dev": {"path": dev}, "test": {"path": test}, "truth": "gold"}
    expected = {
        **{f"train {i}": name for i, name in enumerate(["boat", "cake", "tree", "boat"])},
        **{f"dev {i}": name for i, name in enumerate(["boat", "cake", "tree"])},
        **{f"test {i}": name for i, name in enumerate(["cake", "boat", "boat"])},
    }
    metrics, given, truth, _ = loaded(tmp_path, **options)
    assert list(metrics["per_class"]) == ["boat", "cake", "tree"]
    assert given == expected
    assert truth == {text: name for text, name in expected.items() if text.startswith("train")}
    metrics, given, _, _ = loaded(tmp_path / "2", labels=["tree", "boat", "cake"], **options)
    assert list(metrics["per_class"]) == ["tree", "boat", "cake"]
    assert given == expected
    with pytest.raises(
        ConfigError, match=r"\['tree', 'boat'\], but the files themselves .*\['boat', 'cake', 'tree'\]"
    ):
        loaded(tmp_path / "3", labels=["tree", "boat"], **options)


def features(names):
    return {
        "huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
    }


def test_names_in_parquet_files_of_the_hub_and_in_several_files_of_one_source(tmp_path):
    (tmp_path / "train").mkdir()
    write_parquet(tmp_path / "train" / "0.parquet", [0, 1, 1], features(["no", "yes"]))
    write_parquet(tmp_path / "train" / "1.parquet", [0, 1, 2], features(["yes", "no", "rather"]))
    test = write_parquet(tmp_path / "test.parquet", [0, 0, -1], features(["rather", "no", "yes"]))
    metrics, *_ = loaded(tmp_path, path=str(tmp_path / "train"), test={"path": test}, unlabelled=[-1])
    assert metrics["per_class"] == {"no": 2, "yes": 3, "rather": 1}
    assert metrics["per_class_test"] == {"no": 0, "yes": 0, "rather": 2}
    with pytest.raises(ConfigError, match="the files themselves name"):
        loaded(tmp_path / "2", path=str(tmp_path / "train"), labels=["no", "yes"])


def test_numbers_of_a_class_label_that_count_from_1_stop_the_load(tmp_path):
    names = features(["no", "yes", "rather"])
    path = write_parquet(tmp_path / "a.parquet", [1, 2] * 20 + [3], names)
    with pytest.raises(DataError, match=r"holds the number 3 and never 0 \('no'\)"):
        loaded(tmp_path, path=path)
    path = write_parquet(tmp_path / "b.parquet", [0, 1, 2] * 20 + [3], names)
    assert loaded(tmp_path / "b", path=path)[3] == {"unknown label '3'; known: no, rather, yes": 1}


def test_a_category_of_the_file_may_be_no_label(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [0, 1, 2, 2], features(["no", "yes", "unsure"]))
    metrics, *_ = loaded(tmp_path, path=path, unlabelled=["unsure"], labels=["yes", "no"])
    assert metrics["per_class"] == {"yes": 1, "no": 1}
    assert metrics["rejected"] == {"no label": 2}
    with pytest.raises(ConfigError, match=r"names the number 2, but the files name .* write 'unsure'"):
        loaded(tmp_path / "2", path=path, unlabelled=[2])


def test_dictionaries_in_another_order_are_the_same_names(tmp_path):
    train = write_parquet(
        tmp_path / "train.parquet", pa.DictionaryArray.from_arrays([0, 1, 0], ["low", "high"])
    )
    test = write_parquet(
        tmp_path / "test.parquet", pa.DictionaryArray.from_arrays([0, 0, 1], ["high", "low"])
    )
    metrics, *_ = loaded(tmp_path, path=train, test={"path": test}, labels=["low", "high"])
    assert metrics["per_class"] == {"low": 2, "high": 1}
    assert metrics["per_class_test"] == {"low": 1, "high": 2}


def test_counting_from_1_stops_every_form_until_it_is_said(tmp_path):
    names = ["low", "middle", "high"]
    path = write_csv(tmp_path / "a.csv", [1, 2, 3, 2, 1])
    with pytest.raises(DataError, match=r"from 1 to 3, never 0.*dataset\.first_label = 1"):
        loaded(tmp_path, path=path, labels=names)
    assert loaded(tmp_path / "2", path=path, labels=names, first_label=1)[0]["per_class"] == {
        "low": 2,
        "middle": 2,
        "high": 1,
    }
    sets = write_jsonl(tmp_path / "sets.jsonl", [[1, 3], [2], [3]])
    with pytest.raises(DataError, match="from 1 to 3, never 0"):
        loaded(tmp_path / "3", "multi_label", path=sets, labels=names)
    assert loaded(tmp_path / "4", "multi_label", path=sets, labels=names, first_label=1)[1]["t0"] == [
        "low",
        "high",
    ]
    tags = write_csv(tmp_path / "tags.csv", ["1 2 3 1", "1 1 2 1"], tokens=["a b c d", "e f g h"])
    options = {"path": tags, "labels": ["O", "B-X", "I-X"]}
    with pytest.raises(
        DataError, match=r"row 0: the number of a tag is the number of names.*dataset\.first_label = 1"
    ):
        loaded(tmp_path / "5", "tagging", **options)
    metrics, _given, _, _ = loaded(tmp_path / "6", "tagging", first_label=1, **options)
    assert metrics["per_class"] == {"X": 2}
    shifted = write_csv(tmp_path / "shifted.csv", ["1 2", "1 1"], tokens=["a b", "e f"])
    metrics, *_ = loaded(tmp_path / "7", "tagging", path=shifted, labels=["O", "B-X", "I-X"])
    assert any("no token is outside of all spans" in warning for warning in metrics["warnings"])


def test_test_labels_add_no_class_and_their_rows_are_told(tmp_path):
    train = write_csv(tmp_path / "train.csv", ["sports", "tech"] * 20)
    few = write_csv(tmp_path / "few.csv", ["sports", "tech"] * 10 + ["weather"])
    metrics, _given, _, rejected = loaded(tmp_path, path=train, test={"path": few})
    assert list(metrics["per_class"]) == ["sports", "tech"]
    assert (metrics["test"], rejected) == (20, {"unknown label 'weather'; known: sports, tech": 1})
    assert (
        "rows of the test files whose label is not in the training data are left out: 'weather' 1"
        in metrics["warnings"]
    )
    many = write_csv(tmp_path / "many.csv", ["sports", "tech"] * 3 + ["weather"])
    with pytest.raises(
        DataError,
        match=r"1 of 7 rows of the test files .14\.3%. carry labels .*\n  'weather' 1\n  known: sports, tech",
    ):
        loaded(tmp_path / "2", path=train, test={"path": many})
    spelled = write_csv(tmp_path / "spelled.csv", ["SPORTS"] * 2 + ["tech"] * 40)
    with pytest.raises(
        DataError,
        match=r"'SPORTS' .2 times, first in spelled\.csv row 0. and never the class 'sports'.*merge_labels",
    ):
        loaded(tmp_path / "3", path=train, test={"path": spelled})
    metrics, *_ = loaded(tmp_path / "4", path=train, test={"path": spelled}, merge_labels=True)
    assert metrics["per_class_test"] == {"sports": 2, "tech": 40}


def test_unknown_classes_in_sets_of_test_files(tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", [["a", "b"], ["b"], ["a"]] * 5)
    test = write_jsonl(tmp_path / "test.jsonl", [["a ", "b"], ["b", "c", "d"]] + [["a"]] * 18)
    metrics, _given, _, _ = loaded(tmp_path, "multi_label", path=train, test={"path": test})
    assert metrics["per_class_test"] == {"a": 19, "b": 1}
    assert any("left out: 'c' 1; 'd' 1" in warning for warning in metrics["warnings"])
    with pytest.raises(DataError, match=r"1 of 20 rows of the test files .5\.0%. carry labels"):
        loaded(tmp_path / "2", "multi_label", path=train, test={"path": test}, max_rejected=0.04)


def test_merged_names_in_sets_and_tags(tmp_path):
    path = write_jsonl(
        tmp_path / "sets.jsonl", [["Joy", "joy"], ["joy"], ["joy", "fear"], ["FEAR"], ["fear"]]
    )
    metrics, given, _, _ = loaded(tmp_path, "multi_label", path=path, merge_labels=True)
    assert metrics["per_class"] == {"fear": 3, "joy": 3}
    assert given["t0"] == ["joy"]
    tags = write_csv(
        tmp_path / "tags.csv",
        ["B-PER I-Per O", "B-PER\u200b I-PER O", "O O O"],
        tokens=["a b c", "d e f", "g h i"],
    )
    metrics, given, _, _ = loaded(tmp_path / "tags", "tagging", path=tags, merge_labels=True)
    assert (metrics["per_class"], metrics["repaired_tags"]) == ({"PER": 2}, 0)
    metrics, *_ = loaded(tmp_path / "apart", "tagging", path=tags)
    assert metrics["per_class"] == {"PER": 2, "Per": 1}


def test_true_labels_are_read_like_given_ones(tmp_path):
    labels = ["ham", "spam"] * 20
    gold = ["ham ", "spam\u00ad"] * 19 + ["ham", "both"]
    _, _, truth, _ = loaded(tmp_path, path=write_csv(tmp_path / "a.csv", labels, gold=gold), truth="gold")
    assert truth == {f"t{i}": name for i, name in enumerate(labels) if i < 39}
    (summary,) = (tmp_path / "run").rglob("truth/summary.json")
    assert json.loads(summary.read_text()) == {
        "known": 39,
        "outside_label_set": 1,
        "most_frequent_outside": {"both": 1},
    }
    path = write_csv(tmp_path / "b.csv", labels, gold=["HAM", "spam"] * 20)
    with pytest.raises(
        DataError,
        match=r"20 of 40 true labels .50\.0%. are none of the classes.*\n  'HAM' 20 .did you mean 'ham'",
    ):
        loaded(tmp_path / "2", path=path, truth="gold")
    assert loaded(tmp_path / "3", path=path, truth="gold", merge_labels=True)[2]["t0"] == "ham"


def test_words_and_definitions_name_classes_as_people_write_them(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["1.0", "2.0", "caf\u00e9"])
    options = {"words": {"1": "one", "2.0": "two"}, "definitions": {"Cafe": "coffee"}}
    loaded(tmp_path, path=path, **options)
    config = parse_config({"dataset": {"path": path, **options}})
    (labels,) = (tmp_path / "run").rglob("labels.json")
    found = LabelSet.from_json(labels.read_text()).described(config.dataset.words, config.dataset.definitions)
    assert [(label.word, label.definition) for label in found] == [
        ("one", ""),
        ("two", ""),
        ("caf\u00e9", "coffee"),
    ]
    with pytest.raises(ConfigError, match=r"dataset\.words: two of \['1', '1.0'\] are one class"):
        found.described({"1": "x", "1.0": "y"}, {})


def test_files_and_rows_in_another_order_give_the_same_classes(tmp_path):
    labels = ["Ham", "ham", "spam", "SPAM", "spam ", "1", "1.0", "eggs"] * 3
    texts = [f"text {i}" for i in range(len(labels))]
    results = []
    for name, step in (("forward", 1), ("backward", -1)):
        folder = tmp_path / name
        folder.mkdir()
        pairs = list(zip(labels, texts, strict=True))[::step]
        for number in range(3):
            part = pairs[number * 8 : number * 8 + 8]
            write_csv(folder / f"{number}.csv", [label for label, _ in part], [text for _, text in part])
        for size in (3, 1000):
            metrics, given, _, _ = loaded(
                folder / str(size), path=str(folder / "*.csv"), merge_labels=True, rows_per_shard=size
            )
            results.append((metrics["per_class"], metrics["label_ways"], given))
    assert all(result == results[0] for result in results)
    assert results[0][0] == {"1": 6, "Ham": 6, "eggs": 3, "spam": 9}


def test_class_labels_inside_structs():
    """Paths to them are known, so that a reader of nested fields finds their names."""
    label = {"_type": "ClassLabel", "names": ["no", "yes"]}
    features = {
        "a": {"b": label, "c": {"d": {"feature": label, "_type": "List"}}},
        "e": {"_type": "Value", "dtype": "string"},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    assert names_in_metadata(metadata) == {"a.b": ["no", "yes"], "a.c.d": ["no", "yes"]}
    for broken in (b"{", b"[]", b'{"info": null}', b'{"info": {"features": ["x"]}}', b"\xff"):
        assert names_in_metadata({b"huggingface": broken}) == {}
