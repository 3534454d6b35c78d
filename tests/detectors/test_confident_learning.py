import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.confident_learning import ConfidentLearning
from rayclean.functional import selection
from rayclean.functional.scores import normalized_margin, self_confidence
from tests.detectors.cases import backwards, cut, in_process, noisy_case, take

RULES = ("prune_by_noise_rate", "prune_by_class", "confident_learning")


def cleanlab_mask(batch: DetectorBatch, rule: str, keep: int = 1) -> np.ndarray:
    """Of the same numbers in double precision: cleanlab's means of single ones are off by 1e-7, and one probability in
    hundreds of thousands lies between the two.
    """
    probabilities = batch.probabilities.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find_label_issues(
            batch.given_label, probabilities, filter_by=rule, n_jobs=1, min_examples_per_class=keep
        )


def our_mask(
    batch: DetectorBatch,
    rule: str,
    keep: int = 1,
    edges: Any = (),
    order: Any = None,
    mapper: Any = in_process,
) -> np.ndarray:
    """The mask by example_id, in the order of the batch."""
    detector = ConfidentLearning(
        ConfidentLearning.Config(rule=rule, min_examples_per_class=keep), batch.probabilities.shape[1]
    )
    shards = cut(batch, edges, order)
    state = pickle.loads(pickle.dumps(detector.fit(shards, mapper)))
    mask = np.zeros(len(batch.unit_id), dtype=np.bool_)
    sorter = np.argsort(batch.unit_id)
    for shard in shards:
        rows = sorter[np.searchsorted(batch.unit_id, shard.batch.unit_id, sorter=sorter)]
        mask[rows] = detector.score(shard.batch, state)[1]
    return mask


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@example(
    seed=43834, rows=296, classes=10, noise=0.1, sharp=2.0, keep=1
)  # a tie in rounding, decided by the order of a sum
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 400), classes=st.integers(2, 15),
    noise=st.sampled_from([0.0, 0.1, 0.5, 1.0]), sharp=st.sampled_from([0.0, 2.0, 6.0]), keep=st.sampled_from([1, 4]),
)  # fmt: skip
def test_mask_is_cleanlabs(
    rule: str, seed: int, rows: int, classes: int, noise: float, sharp: float, keep: int
) -> None:
    batch = noisy_case(seed, rows, classes, noise, sharp)
    if len(set(batch.given_label.tolist())) < 2:
        return  # cleanlab refuses a single class
    assert (our_mask(batch, rule, keep) == cleanlab_mask(batch, rule, keep)).all()


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_mask_depends_neither_on_cuts_nor_on_order(
    rule: str, data: st.DataObject, seed: int, ties: bool
) -> None:
    batch = noisy_case(seed, 300, 6, 0.3, 1.5)
    if ties:  # few distinct values, as a quantised or saturated model gives them
        coarse = np.round(batch.probabilities * 8) + 0.125
        coarse = (coarse / coarse.sum(axis=1, keepdims=True)).astype(np.float32)
        batch = DetectorBatch(batch.unit_id, batch.given_label, batch.predicted_label, coarse)
    whole = our_mask(batch, rule)
    edges = data.draw(st.lists(st.integers(0, 300), max_size=6))
    order = np.random.default_rng(seed).permutation(300)
    assert (our_mask(batch, rule, edges=edges, order=order, mapper=backwards) == whole).all()


@pytest.mark.parametrize("rule", RULES)
def test_many_rounds_give_the_same_mask(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noisy_case(3, 5_000, 12)
    expected = cleanlab_mask(batch, rule)
    monkeypatch.setattr(selection, "MAX_COLLECTED", 50)
    monkeypatch.setattr(selection, "MAX_UNPROBED", 0)
    monkeypatch.setattr(selection, "MAX_COUNTERS", 1000)
    assert expected.sum() > 300
    assert (our_mask(batch, rule, edges=[1, 700, 701, 4_000]) == expected).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_thousand_classes_of_few_examples(rule: str) -> None:
    batch = noisy_case(5, 4_000, 1000, 0.3, 6.0)
    assert np.bincount(batch.given_label, minlength=1000).min() <= 1  # some classes have one example, or none
    assert (our_mask(batch, rule, edges=[1000, 3333]) == cleanlab_mask(batch, rule)).all()


@pytest.mark.parametrize("rule", RULES)
def test_absent_classes_and_a_class_of_one(rule: str) -> None:
    batch = noisy_case(11, 500, 8, 0.3)
    given_label = np.where(np.isin(batch.given_label, (2, 7)), 0, batch.given_label).astype(np.int32)
    given_label[17] = 7
    batch = DetectorBatch(batch.unit_id, given_label, batch.predicted_label, batch.probabilities)
    assert (our_mask(batch, rule) == cleanlab_mask(batch, rule)).all()


def test_number_pruned_per_class_under_massive_ties() -> None:
    """All examples of a class share one margin: exactly as many are flagged as cleanlab flags."""
    p = np.where(np.arange(300)[:, None] < 200, [[0.9, 0.1]], [[0.2, 0.8]]).astype(np.float32)
    given_label = np.r_[np.zeros(150), np.ones(50), np.zeros(30), np.ones(70)].astype(np.int32)
    batch = DetectorBatch(np.arange(300), given_label, p.argmax(axis=1).astype(np.int32), p)
    for rule in RULES:
        ours, theirs = our_mask(batch, rule), cleanlab_mask(batch, rule)
        assert (
            np.bincount(given_label[ours], minlength=2).tolist()
            == np.bincount(given_label[theirs], minlength=2).tolist()
        )


def test_agreeing_labels_are_never_flagged() -> None:
    batch = noisy_case(2, 400, 5, noise=0.0, sharp=30.0)
    for rule in RULES:
        assert not our_mask(batch, rule).any()


def test_empty_shards_and_one_label_only() -> None:
    batch = noisy_case(4, 60, 3)
    ones = DetectorBatch(
        batch.unit_id, np.ones(60, dtype=np.int32), batch.predicted_label, batch.probabilities
    )
    for rule in RULES:
        assert (our_mask(batch, rule, edges=[0, 0, 60]) == our_mask(batch, rule)).all()
        flagged = our_mask(
            ones, rule
        )  # cleanlab refuses this; no other label is ever given, so none is confident
        assert not flagged[batch.predicted_label == 1].any()


def test_quality_is_the_chosen_score() -> None:
    batch = noisy_case(6, 100, 4)
    for name, score in (("normalized_margin", normalized_margin), ("self_confidence", self_confidence)):
        detector = ConfidentLearning(ConfidentLearning.Config(quality=name), 4)
        state = detector.fit(cut(batch, [50]), in_process)
        assert (detector.score(batch, state)[0] == score(batch.given_label, batch.probabilities)).all()


def test_estimated_noise_rate_is_near_the_rate() -> None:
    batch = noisy_case(8, 20_000, 10, noise=0.2, sharp=6.0)
    detector = ConfidentLearning(ConfidentLearning.Config(), 10)
    state = detector.fit(cut(batch, []), in_process)
    # 20 % are redrawn, a tenth of which draw their own label again: 18 % are wrong
    assert detector.metrics(state)["estimated_noise_rate"] == pytest.approx(0.18, abs=0.01)


def test_score_of_one_example_is_that_of_the_whole() -> None:
    batch = noisy_case(9, 200, 4, 0.4)
    detector = ConfidentLearning(ConfidentLearning.Config(), 4)
    state = detector.fit(cut(batch, []), in_process)
    whole = detector.mask(batch, state)
    single = [bool(detector.mask(take(batch, slice(row, row + 1)), state)[0]) for row in range(200)]
    assert whole.any()
    assert single == whole.tolist()
