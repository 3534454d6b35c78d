"""Sets of classes and tags per token: every way to write them gives the same labels, and what is unusable has a reason."""

import csv
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.config import DatasetConfig, parse_config
from rayclean.datasets.base import FileSegment, SourceFile
from rayclean.datasets.class_sets import ClassSets
from rayclean.datasets.conll import Conll
from rayclean.datasets.label_forms import InjectedNoise, label_form
from rayclean.datasets.parquet import Parquet
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.single_class import SingleClass
from rayclean.datasets.tag_sequences import TagSequences
from rayclean.errors import ConfigError, DataError
from rayclean.functional.bio import bio_tags, is_tag, to_bio
from rayclean.functional.set_noise import added_share, corrupt_sets
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.verbs import load


def loaded(folder, task, **dataset):
    """text -> names (of classes or tags) of its given label, by a whole `load`; and the metrics."""
    config = parse_config({"task": {"name": task}, "dataset": dataset, "output": str(folder), "name": "run"})
    run = Run(str(folder / "run"))
    load.validate(config, run)
    out = run.begin("load", "test")
    metrics = load.run(config, run, out)
    names = LabelSet.from_json(out.read_text("labels.json")).names
    names = bio_tags(names) if task == "tagging" else names
    rows = [row for shard in out.shards("examples") for row in out.read_table("examples", shard).to_pylist()]
    for row in rows:
        assert task != "tagging" or row["text"].split(" ") == [
            token.replace(" ", "\xa0") for token in row["tokens"]
        ]
    return {row["text"]: [names[index] for index in row["given_label"]] for row in rows}, metrics


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def save_huggingface(path, rows, column, names):
    datasets = pytest.importorskip("datasets")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    features = {
        name: datasets.Sequence(
            datasets.ClassLabel(names=names) if name == column else datasets.Value("string")
        )
        if isinstance(values[0], list)
        else datasets.Value("string")
        for name, values in columns.items()
    }
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    data.save_to_disk(str(path))


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}

CLASSES = ["anger", "fear", "joy"]
SETS = {
    "a": ["joy", "anger"],
    "b": ["joy"],
    "c": [],
    "d": ["fear", "joy", "fear"],
    "e": ["anger"],
    "f": ["joy"],
}
SORTED = {"a": ["anger", "joy"], "b": ["joy"], "c": [], "d": ["fear", "joy"], "e": ["anger"], "f": ["joy"]}
NUMBERS = {text: [CLASSES.index(name) for name in names] for text, names in SETS.items()}


def bits(one, zero):
    return [
        {"text": text, **{f"is_{name}": one if name in names else zero for name in CLASSES}}
        for text, names in SETS.items()
    ]


COLUMNS = {"label": [f"is_{name}" for name in CLASSES], "labels": CLASSES}


def cells(write):
    return [{"text": text, "label": write(names)} for text, names in SETS.items()]


WAYS_OF_SETS = {
    "lists of strings": (("jsonl", "parquet"), cells(list), {}),
    "lists of integers": (
        ("jsonl", "parquet"),
        [{"text": text, "label": numbers} for text, numbers in NUMBERS.items()],
        {"labels": CLASSES},
    ),
    "JSON in a cell": (("csv", "jsonl", "parquet"), cells(json.dumps), {}),
    "integers in JSON in a cell": (
        ("csv",),
        [{"text": text, "label": json.dumps(numbers)} for text, numbers in NUMBERS.items()],
        {"labels": CLASSES},
    ),
    "divided texts": (("csv", "jsonl", "parquet"), cells(lambda names: " | ".join(names) or "|"), {"label_separator": "|"}),
    "divided digits": (
        ("csv",),
        [{"text": text, "label": ";".join(map(str, numbers)) or ";"} for text, numbers in NUMBERS.items()],
        {"label_separator": ";", "labels": CLASSES},
    ),
    "columns of 1 and 0": (("csv", "jsonl", "parquet"), bits(1, 0), COLUMNS),
    "columns of true and false": (("csv", "jsonl", "parquet"), bits(True, False), COLUMNS),
    "columns of 1.0 and 0.0": (("jsonl", "parquet"), bits(1.0, 0.0), COLUMNS),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS_OF_SETS)
def test_every_way_to_write_sets_gives_the_same_sets(tmp_path, way):
    formats, rows, options = WAYS_OF_SETS[way]
    for format_ in formats:
        folder = tmp_path / format_
        folder.mkdir()
        WRITERS[format_](folder / f"a.{format_}", rows)
        found, metrics = loaded(folder, "multi_label", path=str(folder / f"a.{format_}"), **options)
        assert found == SORTED, format_
        assert metrics["per_class"] == {"anger": 2, "fear": 1, "joy": 4}
        assert metrics["classes_per_example"] == pytest.approx(7 / 6, abs=1e-4)
        assert metrics["empty_share"] == pytest.approx(1 / 6, abs=1e-4)


def test_columns_of_bits_name_the_classes_themselves(tmp_path):
    write_csv(tmp_path / "a.csv", bits("TRUE", "0"))
    found, metrics = loaded(tmp_path, "multi_label", path=str(tmp_path / "a.csv"), label=COLUMNS["label"])
    assert list(metrics["per_class"]) == ["is_anger", "is_fear", "is_joy"]
    assert found == {text: [f"is_{name}" for name in names] for text, names in SORTED.items()}


def test_sets_of_a_hugging_face_data_set(tmp_path):
    rows = [{"text": text, "label": numbers} for text, numbers in NUMBERS.items()]
    save_huggingface(tmp_path / "saved", rows, "label", CLASSES)
    assert loaded(tmp_path, "multi_label", path=str(tmp_path / "saved"))[0] == SORTED


NAMES = st.lists(st.sampled_from(["a", "b c", "d"]), max_size=4)


@settings(max_examples=30, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=20).filter(lambda sets: any(sets)))
def test_lists_texts_json_and_bits_are_staged_alike(sets):
    config = DatasetConfig(path="x")
    classes = ["a", "b c", "d"]
    divided = ClassSets(DatasetConfig(path="x", label_separator="|"))
    columns = ClassSets(DatasetConfig(path="x", label=tuple(classes)))
    for names in sets:
        found = {
            ClassSets(config).parse(names, ()),
            ClassSets(config).parse(json.dumps(names), ()),
            divided.parse("|".join(names) or "|", ()),
            columns.parse(tuple(name in names for name in classes), ()),
        }
        assert found == {json.dumps(sorted({f"s:{name}" for name in names}))}
    staged = pa.chunked_array([[ClassSets(config).parse(names, ()) for names in sets] + [None]])
    stored = ClassSets(config).store(staged, {f"s:{name}": index for index, name in enumerate(classes)})
    expected = [sorted({classes.index(name) for name in names}) for names in sets]
    assert stored.values.to_pylist() == [*expected, None]
    assert not stored.unknown.any()


@settings(max_examples=8, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=20).filter(lambda sets: any(sets)), st.data())
def test_random_sets_are_the_same_examples_however_they_are_written(tmp_path_factory, sets, data):
    classes = ["a", "b c", "d"]
    ways = {
        "lists": ([{"label": names} for names in sets], {}),
        "texts": ([{"label": ";".join(names) or ";"} for names in sets], {"label_separator": ";"}),
        "JSON": ([{"label": json.dumps(names)} for names in sets], {}),
        "bits": ([{name: int(name in names) for name in classes} for names in sets], {"label": classes}),
    }
    found = {}
    for way, (rows, options) in ways.items():
        format_ = data.draw(st.sampled_from(["jsonl", "parquet"] if way == "lists" else list(WRITERS)))
        folder = tmp_path_factory.mktemp("way")
        WRITERS[format_](folder / "a", [{"text": f"t{row}", **labels} for row, labels in enumerate(rows)])
        options |= {"path": str(folder / "a"), "format": format_, "labels": classes}
        found[way], _ = loaded(folder, "multi_label", rows_per_shard=7, **options)
    assert found["lists"] == {f"t{row}": sorted(set(names)) for row, names in enumerate(sets)}
    assert all(each == found["lists"] for each in found.values())


def reason(form, value, tokens=()):
    found = form.parse(value, tokens)
    return (found.reason, found.value) if isinstance(found, RejectedRow) else found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (math.nan, None),
        ("  ", None),
        ([], "[]"),
        ("[]", "[]"),
        ([3.0, 3, 1], '["i:1", "i:3"]'),
        (["x", 1], ("list mixes names and numbers", "['x', 1]")),
        (["x", ["y"]], ("list inside a list", "['x', ['y']]")),
        (["x", None], ("null inside a list", "['x', None]")),
        (["x", " "], ("null inside a list", "['x', ' ']")),
        ([1.5], '["s:1.5"]'),
        ([{}], ("label is neither a string nor a number", "dict: {}")),
        (["\ud800"], ("not valid Unicode", "\\ud800")),
        ("joy", ("label is no list", "joy")),
        (7, ("label is no list", "7")),
        ("['joy']", '["s:joy"]'),  # as pandas writes lists into a CSV
        (" ['anger', \"it's joy\",] ", '["s:anger", "s:it\'s joy"]'),
        ("['joy' 'anger']", ("label is no list", "['joy' 'anger']")),  # NumPy; Python would make one of two
        ("[joy]", ("label is no list", "[joy]")),
        ({"a": 1}, ("label is no list", "{'a': 1}")),
        (-1, '["i:-1"]'),  # unlabelled
    ],
)
def test_what_a_cell_of_a_set_holds(value, expected):
    assert reason(ClassSets(DatasetConfig(path="x", unlabelled=(-1,))), value) == expected


def test_with_a_separator_a_list_is_refused():
    form = ClassSets(DatasetConfig(path="x", label_separator="|"))
    assert reason(form, ["joy"]) == ("label is no text with the separator", "['joy']")
    assert reason(form, "joy") == '["s:joy"]'
    assert reason(form, "[joy]|x") == '["s:[joy]", "s:x"]'


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ((1, "0"), '["s:a"]'),
        ((False, 0.0), "[]"),
        ((None, math.nan), None),
        (("", " "), None),
        ((1, None), ("null label", "column b")),
        ((0, 2), ("label column holds neither 0 nor 1", "b: 2")),
        ((0, "yes"), ("label column holds neither 0 nor 1", "b: yes")),
        ((0, [1]), ("label column holds neither 0 nor 1", "b: [1]")),
    ],
)
def test_what_columns_of_bits_hold(cells, expected):
    assert reason(ClassSets(DatasetConfig(path="x", label=("a", "b"))), cells) == expected


def test_unknown_labels_inside_a_list_cost_their_row(tmp_path):
    rows = [{"text": str(i), "label": ["joy", "anger"]} for i in range(30)]
    rows[4]["label"] = ["joy", "angre", "fare"]
    write_jsonl(tmp_path / "a.jsonl", rows)
    found, metrics = loaded(tmp_path, "multi_label", path=str(tmp_path / "a.jsonl"), labels=CLASSES)
    assert len(found) == 29
    assert metrics["rejected"] == {"unknown label": 1}
    with pytest.raises(
        DataError, match=r"1 of 30 rows \(3.3%\).*\n.*1 x unknown label, for example .*a.jsonl row 4"
    ):
        loaded(tmp_path / "2", "multi_label", path=str(tmp_path / "a.jsonl"), labels=CLASSES, max_rejected=0)


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        (
            "joy",
            {},
            r"a\.jsonl row 150: label is no list: 'joy'; write every label as a list, or set dataset\.label_sep",
        ),
        (3, {}, r"a\.jsonl row 150: label is no list: '3'"),
        (
            ["joy"],
            {"label_separator": "|"},
            r"row 150: label is no text .*\['joy'\].*remove dataset\.label_separator",
        ),
    ],
)
def test_lists_and_plain_labels_mixed_stop_the_load(tmp_path, bad, options, message):
    usual = "joy|anger" if options else ["joy", "anger"]
    rows = [{"text": str(i), "label": usual} for i in range(300)]
    rows[150]["label"] = bad  # beyond the rows that are looked at first
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=message):
        loaded(tmp_path, "multi_label", path=str(tmp_path / "a.jsonl"), **options)
    write_jsonl(tmp_path / "a.jsonl", rows[148:])
    with pytest.raises(DataError, match=message.replace("150", "2")):
        loaded(tmp_path / "2", "multi_label", path=str(tmp_path / "a.jsonl"), **options)


SENTENCES = [
    (["EU", "rejects", "German", "call"], ["B-ORG", "O", "B-MISC", "O"]),
    (["Peter", "Blackburn"], ["B-PER", "I-PER"]),
    (["New", "York", "Paris"], ["B-LOC", "I-LOC", "B-LOC"]),
    (["nothing"], ["O"]),
]
TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
EXPECTED = {" ".join(tokens): tags for tokens, tags in SENTENCES}


def sentences(write_tokens=list, write_tags=list):
    return [{"tokens": write_tokens(tokens), "label": write_tags(tags)} for tokens, tags in SENTENCES]


def as_numbers(tags):
    return [TAGS.index(tag) for tag in tags]


WAYS_OF_TAGS = {
    "lists": (("jsonl", "parquet"), sentences(), {}),
    "texts": (("csv", "jsonl", "parquet"), sentences(" ".join, " ".join), {}),
    "JSON in a cell": (("csv",), sentences(json.dumps, json.dumps), {}),
    "a text of tokens, a list of tags": (("jsonl",), sentences(" ".join, list), {}),
    "integers": (("jsonl", "parquet"), sentences(list, as_numbers), {"labels": TAGS}),
    "digits": (("csv",), sentences(" ".join, lambda tags: " ".join(map(str, as_numbers(tags)))), {"labels": TAGS}),
    "integers of entity classes": (
        ("jsonl",), sentences(list, as_numbers), {"labels": ["PER", "ORG", "LOC", "MISC"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS_OF_TAGS)
def test_every_way_to_write_tags_gives_the_same_tags(tmp_path, way):
    formats, rows, options = WAYS_OF_TAGS[way]
    for format_ in formats:
        folder = tmp_path / format_
        folder.mkdir()
        WRITERS[format_](folder / f"a.{format_}", rows)
        found, metrics = loaded(folder, "tagging", path=str(folder / f"a.{format_}"), **options)
        assert found == EXPECTED, format_
        assert metrics["per_class"] == {"LOC": 2, "MISC": 1, "ORG": 1, "PER": 1}
        assert list(metrics["per_class"]) == (
            ["PER", "ORG", "LOC", "MISC"] if options else ["LOC", "MISC", "ORG", "PER"]
        )
        assert metrics["tokens"] == {"min": 1, "mean": 2.5, "max": 4}
        assert metrics["repaired_tags"] == 0


def test_tags_of_a_hugging_face_data_set(tmp_path):
    save_huggingface(tmp_path / "saved", sentences(list, as_numbers), "label", TAGS)
    assert loaded(tmp_path, "tagging", path=str(tmp_path / "saved"))[0] == EXPECTED


CONLL = {
    "blanks": "\n\n".join("\n".join(map(" ".join, zip(*sentence, strict=True))) for sentence in SENTENCES),
    "tabs": "\n\n".join("\n".join(map("\t".join, zip(*sentence, strict=True))) for sentence in SENTENCES) + "\n\n\n",
    "four columns": "-DOCSTART- -X- -X- O\n\n"
    + "\n\n".join("\n".join(f"{token} NN B-NP {tag}" for token, tag in zip(*sentence, strict=True)) for sentence in SENTENCES),
    "documents": "-DOCSTART- O\n\n\n\n-DOCSTART- O\n"
    + "\n\n-DOCSTART- O\n\n".join("\n".join(map(" ".join, zip(*sentence, strict=True))) for sentence in SENTENCES),
    "Windows": "\ufeff" + "\r\n\r\n".join("\r\n".join(map("\t".join, zip(*sentence, strict=True))) for sentence in SENTENCES),
}  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "way"), [("conll", way) for way in CONLL] + [("iob", "blanks"), ("bio", "tabs")]
)
def test_conll_files(tmp_path, way, ending):
    (tmp_path / f"a.{ending}").write_text(CONLL[way], newline="")
    assert loaded(tmp_path, "tagging", path=str(tmp_path / f"a.{ending}"))[0] == EXPECTED


def test_a_token_of_two_words_stays_one_word_of_its_text(tmp_path):
    """Blanks inside of tokens do not move the brackets by which people and language models see spans."""
    (tmp_path / "a.conll").write_text("Ann\tB-PER\nleft\tO\nNew York\tB-LOC\nat 5\u2009pm\tO\n")
    config = parse_config(
        {
            "task": {"name": "tagging"}, "dataset": {"path": str(tmp_path / "a.conll"), "dev": {"share": 0}},
            "output": str(tmp_path), "name": "run",
        }
    )  # fmt: skip
    run = Run(str(tmp_path / "run"))
    load.validate(config, run)
    load.run(config, run, out := run.begin("load", "test"))
    (row,) = out.read_table("examples", *out.shards("examples")).to_pylist()
    assert row["tokens"] == ["Ann", "left", "New York", "at 5\u2009pm"]
    assert row["text"] == "Ann left New\xa0York at\xa05\u2009pm"
    task = TASKS.build(config.task, LabelSet.from_json(out.read_text("labels.json")))
    assert task.written(row["given_label"], row["text"]) == "[PER Ann] left [LOC New\xa0York] at\xa05\u2009pm"
    place = task.labels.index("LOC")
    assert place is not None
    candidate = task.candidate(3 * place, "[[2, 3]]", row["text"])
    assert candidate.word == "Ann left [LOC New\xa0York] at\xa05\u2009pm"


def test_a_text_file_may_be_named_conll(tmp_path):
    (tmp_path / "a.txt").write_text(CONLL["blanks"])
    assert loaded(tmp_path, "tagging", path=str(tmp_path / "a.txt"), format="conll")[0] == EXPECTED


def read_conll(path, columns):
    file = SourceFile(str(path), path.name, path.stat().st_size)
    return [
        (row, (found.reason, found.value) if isinstance(found, RejectedRow) else found)
        for row, found in Conll().rows(FileSegment(file), columns)
    ]


def test_faults_of_conll_files_stay_in_their_sentence(tmp_path):
    path = tmp_path / "a.conll"
    path.write_bytes(b"a X O\nb Y\n\ncaf\xe9 X O\n\n\" X O\n' X B-P\n\n-DOCSTART-\n\nlast X O")
    assert Conll().columns(SourceFile(str(path), "a", 1)) == ["tokens", "column_2", "label"]
    assert read_conll(path, ["label", "tokens"]) == [
        (0, ("malformed CoNLL line", "2 columns, the first line has 3: b Y")),
        (1, ("not UTF-8", "caf\\xe9 X O")),
        (2, [["O", "B-P"], ['"', "'"]]),
        (3, [["O"], ["last"]]),
    ]
    assert read_conll(path, ["column_2"])[2:] == [(2, [["X", "X"]]), (3, [["X"]])]


def test_a_column_between_may_be_the_truth(tmp_path):
    (tmp_path / "a.conll").write_text("A B-X O\nb O O\n\nc O B-X\n")
    out = truth_of(tmp_path, "tagging", path=str(tmp_path / "a.conll"), truth="column_2", dev={"share": 0})
    assert out == {"A b": [1, 0], "c": [0]}


def truth_of(folder, task, **dataset):
    """text -> true label."""
    config = parse_config({"task": {"name": task}, "dataset": dataset, "output": str(folder), "name": "run"})
    run = Run(str(folder / "run"))
    load.validate(config, run)
    out = run.begin("load", "test")
    load.run(config, run, out)
    texts, truth = {}, {}
    for part, found, column in (("examples", texts, "text"), ("truth", truth, "true_label")):
        for shard in out.shards(part):
            found |= {row["example_id"]: row[column] for row in out.read_table(part, shard).to_pylist()}
    return {text: truth[id_] for id_, text in texts.items() if id_ in truth}


def test_a_file_that_is_no_conll(tmp_path):
    (tmp_path / "a.conll").write_text("text,label\na,x\n")
    with pytest.raises(DataError, match="no token with a tag"):
        loaded(tmp_path, "tagging", path=str(tmp_path / "a.conll"))


@pytest.mark.parametrize(
    ("tags", "bio", "repaired"),
    [
        ("O B-X I-X O", "O B-X I-X O", 0),
        ("I-X I-X O I-Y", "B-X I-X O B-Y", 2),  # IOB1
        ("I-X B-X I-X", "B-X B-X I-X", 1),
        ("B-X I-Y I-Y", "B-X B-Y I-Y", 1),
        ("S-X B-Y I-Y E-Y S-Y", "B-X B-Y I-Y I-Y B-Y", 0),  # IOBES
        ("U-X B-Y L-Y O", "B-X B-Y I-Y O", 0),  # BILOU
        ("B-X E-X I-X", "B-X I-X B-X", 1),  # the span was over
        ("E-X O L-Y", "B-X O B-Y", 2),
        ("", "", 0),
    ],
)
def test_schemes_become_bio(tags, bio, repaired):
    assert to_bio(tags.split()) == (bio.split(), repaired)


TAG = st.sampled_from(["O", *(f"{prefix}-{name}" for prefix in "BIESUL" for name in "XY")])


@given(st.lists(TAG))
def test_bio_is_valid_and_stays_as_it_is(tags):
    bio, _ = to_bio(tags)
    assert len(bio) == len(tags)
    assert all(is_tag(tag) and tag[0] in "OBI" for tag in bio)
    assert [tag[2:] for tag in bio] == [tag[2:] for tag in tags]
    assert all(
        after[0] != "I" or before[2:] == after[2:] for before, after in zip(["O", *bio], bio, strict=False)
    )
    assert to_bio(bio) == (bio, 0)


def test_repaired_tags_are_counted_and_said(tmp_path):
    rows = [{"tokens": ["a", "b"], "label": ["I-X", "I-X"]}, {"tokens": ["c"], "label": ["E-Y"]}]
    write_jsonl(tmp_path / "a.jsonl", [*rows, {"tokens": ["d"], "label": ["O"]}])
    found, metrics = loaded(tmp_path, "tagging", path=str(tmp_path / "a.jsonl"))
    assert found == {"a b": ["B-X", "I-X"], "c": ["B-Y"], "d": ["O"]}
    assert metrics["repaired_tags"] == 2
    assert "2 tags were repaired: I-X without a B-X or I-X before it became B-X" in metrics["warnings"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        (["B-X", "O"], '0 ["B-X", "O"]'),
        (["I-X", "I-X"], '1 ["B-X", "I-X"]'),
        (["O"], ("tags and tokens of different length", "1 tags, 2 tokens: ['O']")),
        ([], ("tags and tokens of different length", "0 tags, 2 tokens: []")),
        (["O", None], ("null tag", "tag 1 is null")),
        (["X", "O"], ("tag is neither O nor has a prefix", "tag 0 is 'X'")),
        (["o", "O"], ("tag is neither O nor has a prefix", "tag 0 is 'o'")),
        (["O", "B-"], ("tag is neither O nor has a prefix", "tag 1 is 'B-'")),
        (["O", 1.5], ("tag is neither a string nor an integer", "tag 1 is 1.5")),
        (["O", 1], ("integer tags without names", "tag 1 is 1")),
        (7, ("tags are no list", "int: 7")),
    ],
)
def test_what_a_cell_of_tags_holds(value, expected):
    assert reason(TagSequences(DatasetConfig(path="x")), value, ["a", "b"]) == expected


def test_integers_go_by_the_names_of_tags():
    form = TagSequences(DatasetConfig(path="x", labels=("O", "I-A", "B-B", "B-A", "I-B")))
    assert form.names == ["A", "B"]
    assert reason(form, [3, 1, 0, 2.0], list("abcd")) == '0 ["B-A", "I-A", "O", "B-B"]'
    assert reason(form, [6], ["a"]) == ("unknown tag", "tag 0 is 6 of 5")
    assert reason(form, [-1], ["a"]) == ("unknown tag", "tag 0 is -1 of 5")
    assert TagSequences(DatasetConfig(path="x")).classes_of(["O", "B-Z", "I-Z", "none"]) == ["Z"]
    with pytest.raises(ConfigError, match=r"holds the tag O and 'PER', which is no tag"):
        TagSequences(DatasetConfig(path="x", labels=("O", "PER")))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (None, ("null tokens", "")),
        ([], ("empty sentence", "[]")),
        ("  ", ("empty sentence", "[]")),
        (["a", 3], ("token is not a string", "token 1 is int: 3")),
        (["a", None], ("token is not a string", "token 1 is NoneType: None")),
        (["a", " "], ("blank token", "token 1 is ' '")),
        (["\ud800"], ("not valid Unicode", "\\ud800")),
        (5, ("tokens are no list", "int: 5")),
    ],
)
def test_unusable_tokens(tmp_path, tokens, expected):
    good = [{"tokens": ["x", "y"], "label": ["B-A", "O"]}] * 9
    write_jsonl(tmp_path / "a.jsonl", [*good, {"tokens": tokens, "label": ["O", "O"]}])
    config = parse_config(
        {"task": {"name": "tagging"}, "dataset": {"path": str(tmp_path / "a.jsonl")}, "output": str(tmp_path)}
    )
    run = Run(str(tmp_path / "run"))
    out = run.begin("load", "test")
    load.run(config, run, out)
    (rejected,) = [r for name in out.shards("rejected") for r in out.read_table("rejected", name).to_pylist()]
    assert (rejected["row"], rejected["reason"], rejected["value"]) == (9, *expected)


def test_integer_tags_without_names_stop_the_load(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"tokens": ["a"], "label": [0]}] * 5)
    with pytest.raises(
        DataError, match=r"row 0: integer tags without names: 'tag 0 is 0'; set dataset\.labels"
    ):
        loaded(tmp_path, "tagging", path=str(tmp_path / "a.jsonl"))


def test_lists_with_bytes_that_are_not_utf8_cost_their_row(tmp_path):
    raw = pa.array([b"caf\xe9", b"fine"])
    broken = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), broken)
    pq.write_table(pa.table({"tokens": lists}), tmp_path / "a.parquet")
    file = SourceFile(str(tmp_path / "a.parquet"), "a.parquet", 1)
    (_, first), (_, second) = Parquet().rows(FileSegment(file), ["tokens"])
    assert first == RejectedRow("not UTF-8", "caf\\xe9")
    assert second == [["fine"]]


@pytest.mark.parametrize(
    ("task", "value", "fix"),
    [
        ("classification", ["joy", "fear"], "multi_label"),
        ("classification", [3, 5], "multi_label"),
        ("classification", [], "multi_label"),
        ("classification", '["joy", "fear"]', "multi_label"),
        ("classification", ["O", "B-PER"], "tagging"),
        ("multi_label", "joy", "classification"),
        ("multi_label", 3, "classification"),
        ("tagging", "joy and anger", "classification"),
        ("tagging", 1.5, "classification"),
        ("tagging", ["joy"], "multi_label"),
    ],
)
def test_labels_of_another_task_are_refused_before_anything_is_read(tmp_path, task, value, fix):
    rows = [{"text": "a", "tokens": ["a"], "label": label} for label in (None, value, value)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    config = parse_config({"task": {"name": task}, "dataset": {"path": str(tmp_path / "a.jsonl")}})
    with pytest.raises(ConfigError, match=r"a\.jsonl row 1: dataset\.label = 'label' holds ") as error:
        load.validate(config, Run(str(tmp_path / "run")))
    assert f"the task '{task}' reads " in str(error.value)
    assert f'set task = {{ name = "{fix}" }}' in str(error.value)


def test_a_list_among_classes_is_one_bad_row(tmp_path):
    rows = [{"text": str(i), "label": "ab"[i % 2]} for i in range(30)]
    rows[0]["label"] = ["a", "b"]
    write_jsonl(tmp_path / "a.jsonl", rows)
    _, metrics = loaded_classes(tmp_path)
    assert metrics["rejected"] == {"label is neither a string nor a number": 1}


def test_a_list_of_one_is_a_class(tmp_path):
    """Tools in which a person may choose several labels write one as a list; as a text, too, in a CSV."""
    rows = [{"text": str(i), "label": [["a"], "b", '["a"]', "['b']"][i % 4]} for i in range(40)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    _, metrics = loaded_classes(tmp_path)
    assert metrics["per_class"] == {"a": 20, "b": 20}


@pytest.mark.parametrize("before", [["a"], '["a"]', "['a']", "a"])
def test_another_class_is_written_like_the_one_before(before):
    form = SingleClass(DatasetConfig(path="x"))
    written = form.rewritten(before, 1, ["s:a", "s:b"], ())
    assert written == (["b"] if isinstance(before, list) else before.replace("a", "b"))
    assert form.parse(written, ()) == "s:b"


def test_one_longer_list_among_lists_of_one_is_another_task(tmp_path):
    rows = [{"text": str(i), "label": ["ab"[i % 2]]} for i in range(30)]
    rows[20]["label"] = ["a", "b"]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(ConfigError, match=r"row 20: .*multi_label"):
        loaded_classes(tmp_path)


def loaded_classes(folder):
    config = parse_config({"dataset": {"path": str(folder / "a.jsonl")}, "output": str(folder)})
    run = Run(str(folder / "run"))
    load.validate(config, run)
    out = run.begin("load", "test")
    return out, load.run(config, run, out)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("classification", {"label": ["a", "b"]}, r'dataset\.label names several columns: that is .*task = \{ name = "multi_label" \}'),
        ("classification", {"tokens": "words"}, r"dataset\.tokens is for labels that are a tag per token"),
        ("classification", {"label_separator": "|"}, r"dataset\.label_separator is for rows with several classes"),
        ("tagging", {"unlabelled": ["x"]}, r"where labels are tags, dataset\.unlabelled can only be"),
        ("tagging", {"noise": {}}, r"'sym' does not exist where labels are a tag per token; there is none: remove"),
        ("multi_label", {"noise": {"kind": "asym"}}, r"'asym' does not exist where labels are a set .*; there is sym"),
        ("multi_label", {"noise": {"exact": True}}, r"exact is for labels that are one class"),
        ("multi_label", {"label": ["a", "b"], "labels": ["x", "y", "z"]}, r"names 2 columns of 0 and 1 for the 3 classes"),
        ("multi_label", {"label": ["a", "b"], "truth": ["c"]}, r"dataset\.truth names 1 columns"),
        ("multi_label", {"truth": ["a", "b"]}, r"dataset\.truth names columns of 0 and 1: name their classes"),
        ("multi_label", {"label": ["a", "text"]}, r"dataset\.label = .* is also a text column"),
        ("tagging", {"label": "tokens"}, r"dataset\.label = 'tokens' is also a text column"),
    ],
)  # fmt: skip
def test_options_that_a_form_does_not_have(tmp_path, task, options, message):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    config = parse_config({"task": {"name": task}, "dataset": {"path": str(tmp_path / "a.jsonl"), **options}})
    with pytest.raises(ConfigError, match=message):
        load.validate(config, Run(str(tmp_path / "run")))


def test_forms_are_found_by_name():
    config = DatasetConfig(path="x")
    found = [type(label_form(name, config)) for name in ("class", "classes", "tags")]
    assert found == [SingleClass, ClassSets, TagSequences]


def test_noise_in_sets_by_hand():
    """Class 0 applies to half of the examples: eta 0.5 / 0.5 = eta of the others get it. Class 1 applies to nobody, class 2
    to all: of those without it, none, all would get it."""
    assert added_share(np.array([0.5, 0.0, 1.0, 0.8]), 0.5).tolist() == [0.5, 0.0, 1.0, 1.0]
    ids = np.arange(10_000)
    applies = np.stack([ids % 2 == 0, ids < 0, ids >= 0], axis=1)
    noisy = corrupt_sets(ids, applies, applies.mean(axis=0), 0.5, seed=3)
    dropped, added = applies & ~noisy, noisy & ~applies
    assert dropped.sum(axis=0) / applies.sum(axis=0).clip(1) == pytest.approx([0.5, 0.0, 0.5], abs=0.03)
    assert added[:, 0].sum() / 5000 == pytest.approx(0.5, abs=0.03)
    assert added[:, 1:].sum() == 0
    assert (corrupt_sets(ids, applies, applies.mean(axis=0), 0.0, seed=3) == applies).all()
    order = np.random.default_rng(0).permutation(10_000)
    shuffled = corrupt_sets(ids[order], applies[order], applies.mean(axis=0), 0.5, seed=3)
    assert (shuffled == noisy[order]).all()


def test_rates_of_noise_in_sets_by_hand():
    """Four examples, two classes. Class 0: applies to 2, dropped from 1, added to 1. Class 1: applies to 1, nothing changes."""
    form = ClassSets(DatasetConfig(path="x"))
    truth = pa.array([[0], [0], [1], []], pa.list_(pa.int32()))
    given = pa.array([[0], [], [0, 1], []], pa.list_(pa.int32()))
    transitions = form.transitions(truth, given, 2)
    assert transitions == [
        [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1], [1, 0, 0, 3], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1],
    ]  # fmt: skip
    noise = InjectedNoise("sym", 0.5, False, 0, 2, {}, (0.5, 0.25))
    rates = form.noise_rates({tuple(key): count for *key, count in transitions}, ["a", "b"], noise)
    assert rates["realised_rate"] == 2 / 8
    assert rates["expected_rate"] == (0.5 + 0.25) / 2  # eta s + (1 - s) eta s / (1 - s) = 2 eta s
    assert rates["per_class"] == {"a": 0.5, "b": 0.0}
    assert (rates["dropped"], rates["added"]) == (1 / 3, 1 / 3)
    assert rates["dropped_per_class"] == rates["added_per_class"] == {"a": 0.5, "b": 0.0}
    assert rates["examples"] == 4
