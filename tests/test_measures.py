"""Declarations that contradict themselves, and that evaluation and verbs know no method."""

import re

import pytest
from pydantic import ValidationError

from rayclean.measures import (
    EPOCH_FIGURES,
    AnswerColumn,
    EpochFigure,
    Histogram,
    Measures,
    SubsetColumn,
)
from rayclean.methods import METHODS
from tests.modules import PACKAGE, constants

BLIND = [
    path
    for package in ("evaluation", "verbs")
    for path in sorted((PACKAGE / package).rglob("*"))
    if path.suffix in {".py", ".jinja", ".css"}
]
SHARED = {
    *EPOCH_FIGURES,
    "answer",  # also what `relabel` is told, and its tokens
    "clean",  # also labels that are right, which harm is a share of
    "confidence",  # also that of an annotator's answer
}
"""Names of columns or figures that mean something without a method, too."""


def histogram(**options: object) -> Histogram:
    return Histogram(title="", means="", axis="", **{"columns": ("a",), **options})


@pytest.mark.parametrize("name", ["loss", "epoch", "answered", "hard"])
def test_names_are_distinct(name: str) -> None:
    subsets = SubsetColumn(column="part", values={"hard": 0})
    with pytest.raises(ValidationError, match=rf"names of their own, got again: {name}"):
        Measures(subsets=subsets, figures={name: EpochFigure(title="")})


def test_answers_replace_labels_of_subsets() -> None:
    with pytest.raises(ValidationError, match="got purified; subsets: none"):
        Measures(answers=AnswerColumn(column="answer", replace=("purified",)))


def test_a_ratio_is_of_two_columns() -> None:
    with pytest.raises(ValidationError, match="a ratio is of two columns, got a"):
        histogram(combine="ratio")
    with pytest.raises(ValidationError, match="at least 1 item"):
        histogram(columns=())
    with pytest.raises(ValidationError, match="'mean' or 'ratio'"):
        histogram(combine="os.system")


def test_columns_are_named_once() -> None:
    shown = Measures(
        histograms={"x": histogram(columns=("a", "b")), "y": histogram()},
        subsets=SubsetColumn(column="b", values={"hard": 0}), answers=AnswerColumn(column="answer"),
    )  # fmt: skip
    assert shown.columns == ("a", "b", "answer")
    assert Measures.model_validate_json(shown.model_dump_json()) == shown


def method_words() -> tuple[set[str], set[str]]:
    """Names and classes of the methods; names of their columns, subsets and figures."""
    names = {*METHODS, *(METHODS.resolve(name).__name__ for name in METHODS)}
    words: set[str] = set()
    for name in METHODS:
        cls = METHODS.resolve(name)
        method = cls(cls.Config(), 3)
        shown = method.measures()
        subsets = set(shown.subsets.values) if shown.subsets else set()
        words |= {*method.state(), *subsets, *shown.figures, *(set(shown.histograms) - subsets)}
    return names, words - SHARED


def test_evaluation_and_verbs_name_no_method() -> None:
    names, _ = method_words()
    assert {"noiseal", "Lane", "AUM"} <= names
    names.remove("cross_entropy")  # no method: how networks are trained for predictions and comparisons
    pattern = re.compile(rf"\b({'|'.join(names)})\b", re.IGNORECASE)
    found = {str(path.relative_to(PACKAGE)): pattern.findall(path.read_text()) for path in BLIND}
    assert {path: hits for path, hits in found.items() if hits} == {}


def test_evaluation_and_verbs_name_no_column_of_a_method() -> None:
    _, words = method_words()
    assert {"label_probability_strong", "subset", "purified", "weight_sum", "negative_margins"} <= words
    found = {}
    for path in BLIND:
        if path.suffix == ".py":
            hits = words & constants(path)
            hits |= {word for word in words if "_" in word and word in path.read_text()}
        else:
            hits = {word for word in words if re.search(rf"\.{word}\b", path.read_text())}
        if hits:
            found[str(path.relative_to(PACKAGE))] = hits
    assert found == {}
