import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from rayclean.annotations import DECISIONS, SuspectRanking
from rayclean.evaluation import metrics
from rayclean.evaluation.counts import RunCounts


def suspects(given=(), chosen=(), truth=(), confidence=(), suggested=(), decision=()) -> SuspectRanking:
    count = len(given)
    pairs = (
        np.stack([np.array(given, np.int64), np.array(suggested, np.int64)], axis=1)
        if count
        else np.zeros((0, 2), int)
    )
    return SuspectRanking(
        unit_id=np.arange(count), example_id=np.arange(count), rank=np.arange(count), given=np.array(given, np.int64),
        suggested=np.array(suggested, np.int64), rival=np.array(suggested, np.int64), chosen=np.array(chosen, np.int64),
        confidence=np.array(confidence, np.float32), probability=np.full(count, 0.5), log_odds=np.zeros(count),
        decision=np.array([DECISIONS.index(d) for d in decision], np.int8),
        annotator=np.full(count, "knn", object), given_value=np.full(count, None, object),
        suggested_value=np.full(count, None, object), candidates=pairs,
        truth=np.array(truth, np.int64), error_kinds=Counter(),
    )  # fmt: skip


def test_roc_auc_of_the_paper_check() -> None:
    # noise scores .1 .4 .35 .8 with labels 0 0 1 1: of 4 pairs 3 are in order
    assert metrics.roc_auc(-np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75


@pytest.mark.parametrize("wrong", [[False, False], [True, True], []])
def test_roc_auc_of_one_class_is_null(wrong: list[bool]) -> None:
    assert metrics.roc_auc(np.linspace(0, 1, len(wrong)), np.array(wrong, bool)) is None


def test_average_precision_by_hand() -> None:
    # in order of doubt: wrong, right, wrong -> precision 1 at recall 1/2, 2/3 at recall 1: 1/2 * 1 + 1/2 * 2/3
    value = metrics.average_precision(np.array([0.1, 0.2, 0.3]), np.array([True, False, True]))
    assert value == pytest.approx(0.5 + 1 / 3)
    assert metrics.average_precision(np.array([0.1]), np.array([False])) is None


def test_precision_at_counts_ties_in_proportion() -> None:
    # 2 of 3 places go to the tied ones at .5, of which half are wrong: (1 + 2/4 * 2) / 3
    quality = np.array([0.1, 0.5, 0.5, 0.5, 0.5])
    wrong = np.array([True, True, True, False, False])
    assert metrics.precision_at(quality, wrong, 3) == pytest.approx(2 / 3)
    assert metrics.precision_at(quality, wrong, 0) is None
    assert metrics.precision_at(quality, wrong, 99) == pytest.approx(3 / 5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 30),
    st.randoms(),
)
def test_precision_at_does_not_depend_on_order(rows, count, random) -> None:
    other = list(rows)
    random.shuffle(other)

    def value(rows):
        return metrics.precision_at(
            np.array([q for q, _ in rows], float), np.array([w for _, w in rows]), count
        )

    assert value(rows) == pytest.approx(value(other))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data())
def test_interval_holds_its_tails(trials: int, data) -> None:
    # Clopper-Pearson inverts the binomial test: at each end the observed count lies in a tail of exactly 2.5 %
    hits = data.draw(st.integers(0, trials))
    low, high = metrics.binomial_interval(hits, trials)
    assert low <= hits / trials <= high
    assert low == 0 if hits == 0 else math.isclose(binom.sf(hits - 1, trials, low), 0.025, rel_tol=1e-6)
    assert high == 1 if hits == trials else math.isclose(binom.cdf(hits, trials, high), 0.025, rel_tol=1e-6)


def test_reliability_bins_by_hand() -> None:
    rows = metrics.reliability_curve(
        np.array([0.55, 0.65, 0.6, 1.0], np.float32), np.array([True, False, True, True])
    )
    assert [(row["low"], row["count"], row["accuracy"]) for row in rows] == [
        (0.5, 1, 1.0),
        (0.6, 2, 0.5),
        (0.9, 1, 1.0),
    ]
    assert rows[1]["confidence"] == pytest.approx(0.625)


def test_annotator_metrics_by_hand() -> None:
    # right; wrong though the truth is a candidate; truth is no candidate; no answer; truth unknown
    asked = suspects(
        given=(0, 0, 0, 0, 0), suggested=(1, 1, 1, 1, 1), truth=(1, 0, 2, 1, -1), chosen=(1, 1, 1, -1, 1),
        confidence=(0.9, 0.9, 0.9, np.nan, 0.9), decision=("changed", "changed", "changed", "error", "changed"),
    )  # fmt: skip
    found = metrics.compute({"judged": asked, "suspects": asked})
    assert found["annotator"]["accuracy"] == 1 / 2
    assert found["annotator"]["accuracy_all"] == 1 / 3
    assert found["annotator"]["truth_among_candidates"] == 3 / 4
    assert found["annotator"]["ece"] == pytest.approx(0.4)  # says .9, is right half the time
    assert found["annotator"]["outcomes"] == {
        "changed": 4,
        "kept": 0,
        "referred": 0,
        "abstained": 0,
        "error": 1,
        "unasked": 0,
    }


def test_missing_facts_give_null() -> None:
    found = metrics.compute({"counts": RunCounts(suspects()), "suspects": suspects()})
    assert found["noise"]["given"] is None
    assert found["harm"] is None
    assert found["annotator"]["accuracy"] is None
    assert set(found["intervals"].values()) == {None}
    assert all(
        metrics.get_metric(found, name) is None
        for name, metric in metrics.METRICS.items()
        if "truth" in metric.needs
    )


def test_confusions_leave_the_diagonal_out() -> None:
    pairs = {(0, 0): 99, (0, 1): 2, (1, 0): 5, (2, 1): 2}
    assert metrics.confusions(pairs, ["a", "b", "c"], limit=2) == [
        {"from": "b", "to": "a", "count": 5}, {"from": "a", "to": "b", "count": 2},
    ]  # fmt: skip


def test_curve_ends_at_everything_and_has_the_area_of_the_auc() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(3000) < 0.3
    quality = (rng.random(3000) - 0.3 * wrong).astype(np.float32)
    curve = metrics.detection_curves(quality, wrong)
    assert len(curve["recall"]) <= 200
    assert curve["recall"][-1] == curve["false_positive_rate"][-1] == 1
    assert curve["precision"][-1] == pytest.approx(wrong.mean())
    area = np.trapezoid([0, *curve["recall"]], [0, *curve["false_positive_rate"]])
    assert area == pytest.approx(metrics.roc_auc(quality, wrong), abs=2e-3)
