"""One row, one label: what is usable, and which index it gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import DatasetConfig
from rayclean.datasets.columns import SourceColumns, choose_columns
from rayclean.datasets.example_id import key_id, row_id
from rayclean.datasets.labels import LabelCounts, label_indices, resolve_labels
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.row_validation import RowValidator, label_code
from rayclean.errors import DataError


def parse(values, role="data", **kw):
    columns = SourceColumns(("text",), "label", "truth", "key")
    parsed = RowValidator(DatasetConfig(path="x", **kw), columns, role)(values)
    return parsed.reason if isinstance(parsed, RejectedRow) else parsed


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None, "x", None, "k"], "null text"),
        (["", "x", None, "k"], "empty text"),
        (["\u2003\n\t", "x", None, "k"], "empty text"),
        ([7, "x", None, "k"], "text is not a string"),
        (["\ud800", "x", None, "k"], "not valid Unicode"),
        (["a", None, None, "k"], "null label"),
        (["a", "  ", None, "k"], "null label"),
        (["a", float("nan"), None, "k"], "null label"),
        (["a", float("inf"), None, "k"], "label is neither a string nor a number"),
        (["a", 1e300, None, "k"], "label is neither a string nor a number"),
        (["a", ["x", "y"], None, "k"], "label is neither a string nor a number"),
        (["a", -1, "x", "k"], "no label"),
        (["a", "x", None, None], "null key"),
        (["a", "x", None, 1.5], "key is neither a string nor an integer"),
    ],
)
def test_unusable_rows(values, reason):
    assert parse(values, unlabelled=(-1,)) == reason


def test_control_characters_stay_data():
    assert parse(["\0 a\x1b[31m", "x", None, 1]).text == "\0 a\x1b[31m"


def test_truth_that_is_null_or_unlabelled_is_unknown():
    assert [parse(["a", "x", truth, 1], unlabelled=("-1",)).truth for truth in (None, -1, "-1", [], 2)] == [
        None, None, None, None, "i:2",
    ]  # fmt: skip


def test_a_test_row_may_have_the_truth_alone():
    assert parse(["a", None, "x", 1], role="test").label is None
    assert parse(["a", -1, "x", 1], role="test", unlabelled=(-1,)).label is None
    assert parse(["a", None, None, 1], role="test") == "null label"


def test_several_text_columns_are_joined():
    parser = RowValidator(DatasetConfig(path="x"), SourceColumns(("a", "b"), "label", None, None), "data")
    assert parser(["p", "q", "x"]).text == "p [SEP] q"
    assert parser(["p", None, "x"]).text == "p [SEP] "
    assert parser([None, " ", "x"]).reason == "empty text"


def test_missing_column_lists_the_nearest():
    config = DatasetConfig(path="x", truth="gold")
    with pytest.raises(DataError, match="no column 'label'; did you mean labels"):
        choose_columns(config, "data", ["text", "labels", "gold"], "file")
    with pytest.raises(DataError, match="no column 'gold'"):
        choose_columns(config, "data", ["text", "label"], "file")
    assert choose_columns(config, "dev", ["text", "label"], "file").truth is None
    assert choose_columns(config, "test", ["text", "gold"], "file").label is None
    with pytest.raises(DataError, match="no column 'label'"):
        choose_columns(config, "test", ["text"], "file")


def seen(*codes):
    return {code: LabelCounts(1, "file", row) for row, code in enumerate(codes)}


def indices(codes, given=None, from_file=()):
    found = resolve_labels({"data": seen(*codes)}, given, from_file)
    return found.names, [found.codes["data"].get(code) for code in codes]


def test_label_sets():
    assert indices(["s:b", "s:a"]) == (["a", "b"], [1, 0])
    assert indices(["i:10", "i:9"]) == (["9", "10"], [1, 0])  # by number, not by letter
    assert indices(["s:10", "s:9"]) == (["9", "10"], [1, 0])
    assert indices(["i:1", "i:0"], ("x", "y", "z")) == (["x", "y", "z"], [1, 0])
    assert indices(["i:1", "i:4", "i:0"], ("1", "2", "3", "4"))[1] == [0, 3, None]  # names that are numbers
    assert indices(["s:1", "s:0"], ("x", "y"))[1] == [1, 0]  # a CSV of indices
    assert indices(["s:x", "s:y", "s:1"], ("x", "y"))[1] == [0, 1, None]
    assert indices(["i:0", "i:-1", "i:1", "i:5"], ("x", "y"))[1] == [0, None, 1, None]
    assert indices(["s:yes", "s:no"], from_file=("no", "yes", "rather")) == (["no", "yes", "rather"], [1, 0])


def test_unknown_labels_name_the_nearest():
    found = resolve_labels({"data": seen("s:sports", "s:tech", "s:sprots")}, ("sports", "tech"))
    assert list(found.unknown["data"]) == ["s:sprots"]
    assert found.explain("s:sprots") == "unknown label 'sprots'; did you mean sports? known: sports, tech"


@pytest.mark.parametrize(
    ("codes", "given", "message"),
    [
        (
            ["s:ham", "i:1", "s:spam", "s:0"],
            None,
            r"mixes numbers \(0, 1\) and names \('ham', 'spam'\), as if .* name them all in dataset.labels",
        ),
        (["s:a"], None, "only 'a'"),
        (["s:a"], ("a", "b"), "only 'a'"),
        (["s:q", "s:r"], ("a", "b"), "none of the labels.*'q', 'r'"),
        ([], None, "none"),
    ],
)
def test_labels_that_make_no_classification(codes, given, message):
    with pytest.raises(DataError, match=message):
        resolve_labels({"data": seen(*codes)}, given)


def test_truth_is_read_like_labels():
    found = resolve_labels({"data": seen("i:0", "i:1")}, ("x", "y"))
    assert label_indices(["i:1", "i:5"], found.classes, found.positions, "truth") == {"i:1": 1}
    found = resolve_labels({"data": seen("s:a", "s:b")}, None)
    assert label_indices(["s:b\u200b", "i:0"], found.classes, found.positions, "truth") == {"s:b\u200b": 1}


def test_ids_are_stable_and_typed():
    assert key_id("1") != key_id(1)
    assert key_id("1") == -1227777692984573623  # written into run folders: must never change
    assert row_id("data", "a.csv", 0) != row_id("test", "a.csv", 0)
    assert row_id("data", "a.csv", 1) != row_id("data", "a.csv", 0)


@given(st.one_of(st.text(), st.integers()))
def test_ids_are_int64_and_never_the_padding(key):
    assert -(2**63) <= key_id(key) < 2**63
    assert key_id(key) != -1


@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.integers())))
def test_any_label_value_is_a_code_a_null_or_a_fault(value):
    code = label_code(value)
    assert code is None or isinstance(code, RejectedRow) or code[:2] in ("s:", "i:")
