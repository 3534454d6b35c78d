"""knn and simulated: golden votes, determinism, no look at the truth."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from rayclean.annotators.base import Annotator
from rayclean.annotators.knn import KnnAnnotator
from rayclean.annotators.query import Annotation, Demonstration, Query
from rayclean.annotators.simulated import SimulatedAnnotator
from rayclean.folder import Folder
from rayclean.schema import TRUTH
from tests.annotators.queries import CANDIDATES, LABELS, query


def ask(annotator: Annotator, *queries: Query) -> list[Annotation]:
    return asyncio.run(annotator.annotate(queries))


def shown(*pairs: tuple[int, float]) -> tuple[Demonstration, ...]:
    return tuple(Demonstration(f"d{i}", CANDIDATES[label], cosine) for i, (label, cosine) in enumerate(pairs))


def test_votes_weigh_their_cosine() -> None:
    knn = KnnAnnotator(KnnAnnotator.Config(smoothing=0.5), LABELS)
    # label 0: .4 + .5 = .9, label 1: .8, label 2 is no candidate, -.3 counts nothing; total .9 + .8 + 2 x .5
    # = 2.7
    (answer,) = ask(
        knn, replace(query(1), demonstrations=shown((0, 0.4), (0, 0.5), (1, 0.8), (2, 0.9), (1, -0.3)))
    )
    assert answer.choice == 0
    assert math.exp(answer.scores[0]) == pytest.approx(1.4 / 2.7)
    assert math.exp(answer.scores[1]) == pytest.approx(1.3 / 2.7)
    squared = KnnAnnotator(KnnAnnotator.Config(power=2.0), LABELS)  # .16 + .25 < .64
    assert ask(squared, replace(query(1), demonstrations=shown((0, 0.4), (0, 0.5), (1, 0.8))))[0].choice == 1


def test_a_label_that_is_hardly_believed_hardly_votes() -> None:
    """Label 0: 3 doubted neighbours of .9 x .05 = .135; label 1: one of .5 x .95 = .475."""
    knn = KnnAnnotator(KnnAnnotator.Config(), LABELS)
    doubted = tuple(replace(each, probability=0.05) for each in shown((0, 0.9), (0, 0.9), (0, 0.9)))
    believed = replace(shown((1, 0.5))[0], probability=0.95)
    asked = replace(query(1), demonstrations=(*doubted, believed))
    (answer,) = ask(knn, asked)
    assert answer.choice == 1
    assert math.exp(answer.scores[0]) == pytest.approx(0.635 / 1.61)
    (trusted,) = ask(knn, replace(query(1), demonstrations=shown((0, 0.9), (0, 0.9), (0, 0.9), (1, 0.5))))
    assert trusted.choice == 0  # a method says itself whom it trusts
    surer = replace(asked, demonstrations=(*doubted, replace(believed, probability=0.9)))
    as_good = replace(asked, demonstrations=(*doubted, replace(believed, probability=0.95 + 1e-7)))
    assert knn.key(asked) == knn.key(as_good) != knn.key(surer)
    assert not knn.calibrated
    assert [knn.calibration("auto", classes) for classes in (32, 33)] == ["controls", "none"]
    assert knn.calibration("none", 2) == "none"


def test_no_vote_is_an_abstention() -> None:
    knn = KnnAnnotator(KnnAnnotator.Config(), LABELS)
    for demonstrations in ((), shown((2, 0.9)), shown((0, 0.5), (1, 0.5))):
        (answer,) = ask(knn, replace(query(1), demonstrations=demonstrations))
        assert (answer.choice, answer.error) == (None, None)
        assert answer.scores[0] == answer.scores[1] == pytest.approx(math.log(0.5))
    near, far = (replace(query(1), demonstrations=shown((0, cosine))) for cosine in (0.9, 0.1))
    assert knn.key(near) != knn.key(far)
    assert knn.demonstrations(0, "random") == knn.demonstrations(None, "nearest") == (20, "nearest_of_any")


def write_truth(path: Path, truth: dict[int, int | None]) -> str:
    table = pa.table({"example_id": list(truth), "true_label": list(truth.values())}, schema=TRUTH)
    Folder(str(path)).write_table(table, "part-00000.parquet")
    return str(path)


@pytest.mark.parametrize("accuracy", [1.0, 0.8, 0.0])
def test_simulated_accuracy(tmp_path: Path, accuracy: float) -> None:
    truth = write_truth(tmp_path, {n: n % 2 for n in range(2000)} | {5000: None, 5001: 2})
    annotator = SimulatedAnnotator(SimulatedAnnotator.Config(accuracy=accuracy, truth_path=truth), LABELS)
    queries = [query(n, "one text") for n in [*range(2000), 5000, 5001, 6000]]
    answers = ask(annotator, *queries)
    right = sum(a.choice == a.unit_id % 2 for a in answers[:2000]) / 2000
    assert abs(right - accuracy) < 4 * math.sqrt(accuracy * (1 - accuracy) / 2000) + 1e-9
    assert all(
        a.choice in (0, 1) for a in answers
    )  # where the truth is unknown or no candidate: a guess among them
    assert [a.choice for a in ask(annotator, *reversed(queries))] == [a.choice for a in reversed(answers)]


def test_a_dry_run_needs_no_truth_and_depends_on_content_alone() -> None:
    first, same, other = (SimulatedAnnotator(SimulatedAnnotator.Config(seed=s), LABELS) for s in (0, 0, 1))
    queries = [query(n, f"text {n}") for n in range(200)]
    labels = [[a.choice for a in ask(a, *queries)] for a in (first, same, other)]
    assert labels[0] == labels[1] != labels[2]
    assert 60 < sum(label == 1 for label in labels[0]) < 140
    moved = [replace(q, unit_id=q.unit_id + 10**6) for q in queries]
    assert [a.choice for a in ask(first, *moved)] == labels[0]
