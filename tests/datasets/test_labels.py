"""The label set: which values are one class, what numbers stand for, and what is left out or stops the load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import parse_config
from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.label_checks import check_truth_values, check_unknown_labels, label_warnings
from rayclean.datasets.labels import LabelCounts, distinct_names, label_indices, noise_indices, resolve_labels
from rayclean.errors import ConfigError, DataError


def seen(**counts):
    """Role -> code -> counts; numbers are integers of the file, strings are strings."""
    found = {"data": {}, "dev": {}, "test": {}}
    for role, values in counts.items():
        for row, (value, count) in enumerate(values.items()):
            code = f"i:{value}" if isinstance(value, int) else f"s:{value}"
            found[role][code] = LabelCounts(count, f"{role}.csv", row)
    return found


def each_once(*values):
    return seen(data=dict.fromkeys(values, 1))


def dataset(**options):
    return parse_config({"dataset": {"path": "x", **options}}).dataset


def summaries(**rows):
    return [PieceSummary(role, rows=count) for role, count in rows.items()]


def test_however_a_class_is_written_it_is_one():
    found = resolve_labels(seen(data={1: 5, "1": 3, "1.0": 2, "2": 4, "True": 1, "true": 6}), None)
    assert found.names == ["1", "2", "true"]
    assert found.ways == {"1": {"1": 5, "'1'": 3, "'1.0'": 2}, "true": {"'true'": 6, "'True'": 1}}
    told = label_warnings(dataset(), found, [])
    assert "class '1' is written in 3 ways, which count as one: 1 5, '1' 3, '1.0' 2" in told


def test_many_classes_in_several_ways_are_told_in_few_lines():
    values = {f"class {n}{blank}": 1 for n in range(30) for blank in ("", " ")}
    told = label_warnings(dataset(), resolve_labels(seen(data=values), None), [])
    assert len(told) == 11
    assert told[-1] == "20 more classes likewise (load/manifest.json)"


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ((1, 2, 3, 4), "from 1 to 4, never 0"),
        (("1", "2.0", "4"), "from 1 to 4, never 0"),  # as a CSV writes it, a class without rows
        ((0, 1, 2, 3, 4), "from 0 to 4, which are 5 classes or more"),
        ((1, 2, 3), "neither 0 nor 4"),
        ((2,), "neither 0 nor 4"),
    ],
)
def test_numbers_that_may_count_from_1_are_a_question(values, held):
    names = ("river", "bakery", "traffic", "music")
    with pytest.raises(DataError, match=held) as error:
        resolve_labels(each_once(*values), names)
    assert "Counted from 0, 1 is 'bakery', 2 is 'traffic', 3 is 'music', and 4 is no class" in str(
        error.value
    )
    assert "counted from 1, 1 is 'river'" in str(error.value)
    assert "dataset.first_label = 1" in str(error.value)


def test_first_label_answers_the_question():
    names = ("river", "bakery", "traffic", "music")
    counts = seen(data={1: 1, 2: 1, 4: 1}, test={"4": 1, "0": 1})
    one = resolve_labels(counts, names, first_label=1)
    assert one.codes == {"data": {"i:1": 0, "i:2": 1, "i:4": 3}, "dev": {}, "test": {"s:4": 3}}
    zero = resolve_labels(counts, names, first_label=0)
    assert zero.codes == {"data": {"i:1": 1, "i:2": 2}, "dev": {}, "test": {"s:0": 0}}
    with pytest.raises(ConfigError, match=r"dataset\.first_label = 1 says which number the first name"):
        resolve_labels(counts, None, first_label=1)


def test_another_column_may_count_from_1_though_the_training_data_do_not():
    counts = seen(data={0: 1, 1: 1, 2: 1}, test={1: 1, 2: 1, 3: 1})
    with pytest.raises(
        DataError, match="the label column of the test files holds whole numbers, from 1 to 3"
    ):
        resolve_labels(counts, ("a", "b", "c"))
    found = resolve_labels(seen(data={0: 1, 1: 1, 2: 1}, test={1: 1}), ("a", "b", "c"))
    assert found.codes["test"] == {"i:1": 1}
    with pytest.raises(DataError, match="truth holds whole numbers, from 1 to 3"):
        label_indices(["i:1", "i:3"], found.classes, found.positions, "truth")
    by_name = resolve_labels(seen(data={"a": 1, "b": 1, "c": 1}, test={"0": 1, "2": 1}), ("a", "b", "c"))
    assert by_name.codes["test"] == {"s:0": 0, "s:2": 2}
    with pytest.raises(DataError, match="neither 0 nor 3"):
        resolve_labels(seen(data={"a": 1, "b": 1, "c": 1}, test={"1": 1, "2": 1}), ("a", "b", "c"))


def test_numbers_that_are_names_are_no_positions():
    assert resolve_labels(each_once(1, 2, 3), ("1", "2", "3")).codes["data"] == {"i:1": 0, "i:2": 1, "i:3": 2}
    assert resolve_labels(each_once("1.0", "-1"), ("-1", "+1")).codes["data"] == {"s:1.0": 1, "s:-1": 0}
    some = resolve_labels(each_once("1", "2", "0"), ("1", "2", "other"))
    assert some.codes["data"] == {"s:1": 0, "s:2": 1}
    assert resolve_labels(each_once(1, 2), None).names == ["1", "2"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0, 1, "ham", "spam"), None),
        (("1", "2", "3", "a", "b", "c", "d"), None),
        (("911", "Panda", "500"), "some classes are numbers (500, 911) and some are names ('Panda')"),
        (("1", "2", "other"), "some classes are numbers"),
    ],
)
def test_numbers_beside_names(values, told):
    if told is None:
        with pytest.raises(DataError, match="mixes numbers"):
            resolve_labels(each_once(*values), None)
        resolve_labels(each_once(*values), [str(value) for value in values])  # the way out
    else:
        warnings = label_warnings(dataset(), resolve_labels(each_once(*values), None), [])
        assert any(told in each for each in warnings)


def test_numbers_with_a_fraction_are_names_unless_they_measure_something():
    found = resolve_labels(each_once("10.5", "9", "2.0", "1.5"), None)
    assert found.names == ["1.5", "2", "9", "10.5"]
    assert label_warnings(dataset(), found, []) == []
    prices = [f"{n}.5" for n in range(101)]
    with pytest.raises(DataError, match=r"101 different numbers, some with a fraction .0\.5, 1\.5"):
        resolve_labels(each_once(*prices), None)
    assert resolve_labels(each_once(*prices), prices).names == prices
    assert len(resolve_labels(each_once(*prices, "other"), None).names) == 102


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            (0, 1, 2),
            ("1", "2", "3"),
            "test files holds whole numbers from 1 to 3, and the classes are 0 to 2",
        ),
        ((1, 2, 3), (0, 1, 2), "from 0 to 2, and the classes are 1 to 3"),
        ((1, 2, 3, 4, 5), (2, 3, 6), "from 2 to 6"),
        ((0, 1, 2), (0, 1, 2, 3), None),
        ((0, 1, 2), (1, 2), None),
        ((0, 1, 2), (-1, 0, 1), None),  # -1 is no label
        ((1, 2, 5), (2, 3, 6), None),
        (("a", 1, 2), (1, 2, 3), None),
    ],
)
def test_another_column_that_counts_classes_from_another_number(train, test, message):
    counts = seen(data=dict.fromkeys(train, 1), test=dict.fromkeys(test, 1))
    if message:
        with pytest.raises(DataError, match=message):
            resolve_labels(counts, None)
        with pytest.raises(DataError, match=message):
            resolve_labels(counts, [str(name) for name in train])
    else:
        resolve_labels(counts, None)


def test_names_of_files_are_the_label_set_and_dataset_labels_their_order():
    counts = each_once("no", "yes")
    assert resolve_labels(counts, None, ["yes", "no", "rather"]).names == ["yes", "no", "rather"]
    assert resolve_labels(counts, ("no", "yes"), ["yes", "no\u200b"]).codes["data"] == {"s:no": 0, "s:yes": 1}
    for others in (("no", "maybe"), ("no", "yes", "rather"), ("No", "yes")):
        with pytest.raises(
            ConfigError, match=r"dataset.labels = \['(no|No)'.*the files themselves .*\['yes', 'no'\]"
        ):
            resolve_labels(counts, others, ["yes", "no"])
    assert distinct_names(["a", " a", "b", "none "], without={"none"}) == ["a", "b"]


def test_plain_numbers_follow_the_numbers_of_the_files_though_a_name_is_left_out():
    """`none` is one of `dataset.unlabelled`; the numbers behind it do not move."""
    counts = seen(data={"a": 9, "b": 9, "c": 9}, test={0: 4, 2: 4, 3: 1})
    found = resolve_labels(counts, None, ["a", "b", "c"], numberings=[["a", "none", "b", "c"]])
    assert found.codes["test"] == {"i:0": 0, "i:2": 1, "i:3": 2}
    of_none = seen(data={"a": 9, "b": 9, "c": 9}, test={0: 4, 1: 4})
    found = resolve_labels(of_none, None, ["a", "b", "c"], numberings=[["a", "none", "b", "c"]])
    assert list(found.unknown["test"]) == ["i:1"]


@pytest.mark.parametrize(
    ("given", "numberings"),
    [(None, [["a", "b", "c"], ["a", "c", "b"]]), (("a", "c", "b"), [["a", "b", "c"]])],
)
def test_plain_numbers_with_two_names_stop_the_load(given, numberings):
    names = {"a": 9, "b": 9, "c": 9}
    with pytest.raises(DataError, match=r"the test files holds whole numbers.*1 is '(b' or 'c|c' or 'b)'"):
        resolve_labels(seen(data=names, test={0: 4, 1: 2}), given, ["a", "b", "c"], numberings=numberings)
    one_name = resolve_labels(seen(data=names, test={0: 4}), given, ["a", "b", "c"], numberings=numberings)
    assert one_name.names[one_name.codes["test"]["i:0"]] == "a"


def test_classes_come_from_the_training_data_alone():
    found = resolve_labels(seen(data={"a": 9, "b": 9}, dev={"c": 1}, test={"b": 5, "d": 1}), None)
    assert found.names == ["a", "b"]
    assert {role: list(codes) for role, codes in found.unknown.items()} == {
        "data": [],
        "dev": ["s:c"],
        "test": ["s:d"],
    }


def test_names_that_look_alike_are_told_or_made_one():
    counts = seen(
        data={"Ham": 30, "ham": 12, "sp\u0430m": 2, "spam": 7, "eggs": 5},
        test={"HAM": 4, "eggs": 1, "spam": 1},
    )
    found = resolve_labels(counts, None)
    assert len(found.names) == 5
    first, second, *_ = label_warnings(dataset(), found, [])
    assert (
        first
        == "classes 'Ham' (30) and 'ham' (12) differ by case only; dataset.merge_labels = true makes them one"
    )
    assert (
        "'spam' (7) and 'sp\u0430m' (2) differ by characters that look alike (U+0430 CYRILLIC SMALL LETTER A) only"
        in second
    )
    merged = resolve_labels(counts, None, merge=True)
    assert merged.names == ["Ham", "eggs", "spam"]
    assert merged.unknown["test"] == {}
    assert merged.ways["Ham"] == {"'Ham'": 30, "'ham'": 12, "'HAM'": 4}
    tie = resolve_labels(seen(data={"b": 3, "B": 3, "a": 1}), None, merge=True)
    assert tie.names == ["B", "a"]
    assert resolve_labels(counts, None, ["eggs", "spam", "ham"], merge=True).names == ["eggs", "spam", "ham"]


def test_a_rare_name_that_is_a_frequent_one_typed_wrong_is_told():
    values = {"billing": 150, "billling": 3, "shipping": 120, "shiping": 7, "male": 100, "female": 4}
    found = resolve_labels(seen(data=values), None)
    assert label_warnings(dataset(), found, []) == [
        "class 'billling' (3) may be 'billing' (150), typed wrong: mend the data, or name both in dataset.labels if they are two"
    ]  # 'shiping' is no accident of a few rows
    assert label_warnings(dataset(labels=list(values)), found, []) == []


def test_what_may_mean_no_label_is_said_to_be_named():
    counts = seen(data={"ham": 50, "spam": 50}, test={-1: 40, "ham": 1, "N/A": 2})
    found = resolve_labels(counts, None, ["ham", "spam"])
    assert found.explain("i:-1").endswith("set dataset.unlabelled = [-1]")
    with pytest.raises(DataError, match=r"'-1' 40\. If it means no label, set dataset.unlabelled = \[-1\]"):
        check_unknown_labels(dataset(), found, summaries(data=100, test=43))
    assert 'set dataset.unlabelled = ["N/A"]' in found.explain("s:N/A")


def test_names_that_dataset_labels_lists_are_no_accident():
    given = ("Ham", "ham")
    found = resolve_labels(each_once(*given), given)
    assert label_warnings(dataset(labels=list(given)), found, []) == []
    with pytest.raises(ConfigError, match=r"labels names \['Ham', 'ham'\] as classes of their own"):
        dataset(labels=list(given), merge_labels=True)
    with pytest.raises(ConfigError, match=r"'1' and '1.0' both mean '1'"):
        dataset(labels=["1", "1.0"])
    with pytest.raises(ConfigError, match="is blank"):
        dataset(labels=["a", "\u200b"])
    assert dataset(labels=["a ", "b\u00a0 b"]).labels == ("a", "b b")


@pytest.mark.parametrize("role", ["dev", "test"])
def test_few_unknown_labels_are_told_and_many_stop_the_load(role):
    counts = seen(data={"sports": 50, "tech": 50}, **{role: {"sports": 15, "tech": 4, "sprots": 1}})
    found = resolve_labels(counts, None)
    check_unknown_labels(dataset(), found, summaries(data=100, **{role: 20}))
    told = label_warnings(dataset(), found, [])
    assert told == [
        f"rows of the {role} files whose label is not in the training data are left out: 'sprots' 1 (did you mean 'sports'?)"
    ]
    # the other roles' rows do not make it few
    with pytest.raises(
        DataError, match=rf"1 of 9 rows of the {role} files .11.1%.*\n  'sprots' 1 .did you mean 'sports'"
    ):
        check_unknown_labels(dataset(), found, summaries(data=10_000, **{role: 9}))


@pytest.mark.parametrize(
    ("written", "count", "stops"),
    [
        ("SPORTS", 1, "set dataset.merge_labels = true"),
        ("sport", 2, "mend the column; if it is a class of its own"),
        ("sport", 1, None),
        ("class 11", 5, None),
        ("esports", 5, None),
        ("tech  s", 5, None),
        ("weather", 5, None),
    ],
)
def test_a_class_under_another_spelling_stops_the_load(written, count, stops):
    data = {"sports": 50, "tech": 50, "class 1": 9}
    found = resolve_labels(seen(data=data, test={"tech": 900, written: count}), None)
    if stops:
        with pytest.raises(
            DataError,
            match=rf"test files holds '{written}' \({count} times, first in test.csv row 1\).*{stops}",
        ):
            check_unknown_labels(dataset(), found, summaries(data=100, test=905))
    else:
        check_unknown_labels(dataset(), found, summaries(data=100, test=905))
    # a test file that names the class has a slip of the pen
    slip = resolve_labels(
        seen(data=data, test={"tech": 900, "sports": 1, "class 1": 1, written: count}), None
    )
    check_unknown_labels(dataset(), slip, summaries(data=100, test=907))


def test_a_class_of_the_config_under_another_spelling_stops_the_load():
    found = resolve_labels(seen(data={"tech": 50, "games": 50, "Sports": 5}), ("sports", "tech", "games"))
    with pytest.raises(DataError, match="the data files holds 'Sports'"):
        check_unknown_labels(dataset(labels=["sports", "tech", "games"]), found, summaries(data=105))


def truth_check(truths, **options):
    labels = resolve_labels(
        seen(data={"ham": 50, "spam": 50}), None, merge=options.get("merge_labels", False)
    )
    codes = {f"s:{value}": count for value, count in truths.items()}
    piece = PieceSummary("data", rows=100, truths=codes)
    indices = label_indices(codes, labels.classes, labels.positions, "truth")
    check_truth_values(dataset(truth="gold", **options), [piece], {"data": indices}, labels)
    return indices


def test_true_labels_outside_the_label_set():
    assert truth_check({"ham\u200b": 40, "spam": 50, "both": 9}) == {"s:ham\u200b": 0, "s:spam": 1}
    with pytest.raises(
        DataError,
        match=r"dataset.truth = 'gold': 11 of 61 true labels .18.0%.*\n  'hamm' 11 .did you mean 'ham'",
    ):
        truth_check({"ham": 10, "spam": 40, "hamm": 11})
    with pytest.raises(
        DataError, match=r"dataset.truth = 'gold' holds 'HAM' .5 times. and never the class 'ham'"
    ):
        truth_check({"HAM": 5, "spam": 95})
    assert truth_check({"HAM": 5, "spam": 95}, merge_labels=True) == {"s:HAM": 0, "s:spam": 1}


def test_a_value_of_unlabelled_that_occurs_nowhere_is_told():
    labels = resolve_labels(each_once("a", "unknown"), None)
    pieces = [PieceSummary("data", unlabelled=["-1", ""])]
    assert label_warnings(dataset(unlabelled=[-1, "", "Unknown", "-2.0"]), labels, pieces) == [
        "dataset.unlabelled names 'Unknown', which no label column holds; did you mean 'unknown'?",
        "dataset.unlabelled names '-2.0', which no label column holds",
    ]


def test_noise_is_mapped_by_what_names_mean():
    names = ["1", "caf\u00e9", "x"]
    noise = {"rate": 0.1, "kind": "asym_map"}
    found = noise_indices(dataset(noise={**noise, "mapping": {"1.0": "cafe\u0301", "X": "1"}}), names)
    assert found == {0: 1, 2: 0}
    for mapping in ({"x": "X"}, {"x": "1", "X": "caf\u00e9"}):
        with pytest.raises(ConfigError, match="to itself or twice"):
            noise_indices(dataset(noise={**noise, "mapping": mapping}), names)


@given(
    st.dictionaries(
        st.sampled_from(["a", "A", "a ", "1", "1.0", "\u00e1", "b", "B"]), st.integers(1, 9), min_size=3
    ),
    st.randoms(),
)
def test_the_label_set_does_not_depend_on_the_order_of_values(values, random):
    items = list(values.items())
    random.shuffle(items)
    for merge in (False, True):
        try:
            one = resolve_labels(seen(data=values), None, merge=merge, least=1)
        except DataError:
            continue
        other = resolve_labels(seen(data=dict(items)), None, merge=merge, least=1)
        assert one.names == other.names
        assert one.codes == other.codes
        assert {name: sum(ways.values()) for name, ways in one.ways.items()}.items() <= one.counts.items()
