"""The posterior detector: the same for any shards, what it suggests, and that noise of classes is seen."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.confident_joint import confident_joint
from rayclean.detectors.confident_learning import ConfidentLearning
from rayclean.detectors.posterior import Posterior, PosteriorState
from rayclean.functional import confident_learning as cl
from rayclean.functional.posterior import FEW, class_probabilities, posterior, transition
from rayclean.functional.scores import normalized_margin, self_confidence
from tests.detectors.cases import backwards, cut, in_process, noisy_case, take


def built(batch: DetectorBatch, **options: Any) -> Posterior:
    return Posterior(Posterior.Config(**options), batch.probabilities.shape[1])


def fitted(batch: DetectorBatch, edges: Any = (), order: Any = None, mapper: Any = in_process, **options: Any) -> PosteriorState:  # fmt: skip
    state = built(batch, **options).fit(cut(batch, edges, order), mapper)
    return pickle.loads(pickle.dumps(state))


def class_noise(seed: int, rows: int, classes: int, rate: float) -> tuple[DetectorBatch, np.ndarray]:
    """Labels of class k become k + 1 with a rate that falls from `rate` to 0 over the classes; the model predicts the
    labels that would be given. Also whether each label is wrong.
    """
    rng = np.random.default_rng(seed)
    clean = rng.dirichlet(np.full(classes, 0.15), rows)  # P(class | text)
    true = (clean.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(0, classes - 1)
    rates = np.linspace(rate, 0, classes)
    given = np.where(rng.random(rows) < rates[true], (true + 1) % classes, true).astype(np.int32)
    q = clean * (1 - rates) + np.roll(clean * rates, 1, axis=1)
    p = q.astype(np.float32)
    p /= p.sum(axis=1, keepdims=True)
    batch = DetectorBatch(rng.permutation(rows) * 31, given, p.argmax(axis=1).astype(np.int32), p)
    return batch, given != true


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), steps=st.sampled_from([0, 1, 3]), ties=st.booleans())
def test_neither_shards_nor_order_nor_workers_change_anything(
    data: st.DataObject, seed: int, steps: int, ties: bool
) -> None:
    batch = noisy_case(seed, 300, 6, 0.3, 1.5)
    if ties:
        coarse = np.round(batch.probabilities * 8) + 0.125
        coarse = (coarse / coarse.sum(axis=1, keepdims=True)).astype(np.float32)
        batch = DetectorBatch(batch.unit_id, batch.given_label, batch.predicted_label, coarse)
    whole = fitted(batch, em_steps=steps)
    edges = data.draw(st.lists(st.integers(0, 300), max_size=6))
    order = np.random.default_rng(seed).permutation(300)
    parts = fitted(batch, edges, order, backwards, em_steps=steps)
    assert (parts.noise == whole.noise).all()  # the same bits
    assert (parts.joint == whole.joint).all()
    detector = built(batch)
    quality, vote = detector.score(batch, whole)
    values = detector.answer_probabilities(batch, whole)
    for part in cut(batch, edges, order):
        rows = [int(np.flatnonzero(batch.unit_id == each)[0]) for each in part.batch.unit_id]
        found = detector.score(part.batch, whole)
        assert (found[0] == quality[rows]).all()
        assert (found[1] == vote[rows]).all()
        assert (detector.answer_probabilities(part.batch, whole) == values[rows]).all()


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noisy_case(1, 500, 7, 0.3, 1.5)
    state = fitted(batch, em_steps=2)
    quality = built(batch).score(batch, state)[0]
    monkeypatch.setattr(cl, "BLOCK", 33)
    again = fitted(batch, em_steps=2)
    assert (again.noise == state.noise).all()
    assert (built(batch).score(batch, again)[0] == quality).all()


def test_quality_is_the_posterior_of_the_given_label() -> None:
    batch = noisy_case(2, 400, 5, 0.3, 2.0)
    detector, state = built(batch, smoothing=0.1), fitted(batch, smoothing=0.1)
    found = confident_joint(cut(batch, [77]), in_process, 5, FEW)
    assert (state.joint == found.calibrated).all()
    assert (found.counts == np.bincount(batch.given_label, minlength=5)).all()
    noise = transition(found.calibrated, found.counts, 0.1)
    assert (state.noise == noise).all()
    classes = class_probabilities(batch.probabilities, noise)
    answers = detector.answer_probabilities(batch, state)
    assert (answers == posterior(classes, batch.given_label, noise)).all()
    values = posterior(batch.probabilities, batch.given_label, noise)
    quality, vote = detector.score(batch, state)
    assert (quality == values[np.arange(400), batch.given_label].astype(np.float32)).all()
    assert (vote == (quality < 0.5)).all()
    assert (built(batch, threshold=0.9).score(batch, state)[1] == (quality < np.float32(0.9))).all()


def test_a_step_of_em_replaces_the_joint_by_sums_of_posteriors() -> None:
    batch = noisy_case(3, 600, 4, 0.3, 1.5)
    start = fitted(batch)
    counts = np.bincount(batch.given_label, minlength=4)
    noise = start.noise
    for steps in (1, 2, 3):
        soft = np.zeros((4, 4))
        np.add.at(soft, batch.given_label, posterior(batch.probabilities, batch.given_label, noise))
        np.testing.assert_allclose(soft.sum(axis=1), counts)
        noise = transition(soft, counts)
        state = fitted(batch, em_steps=steps)
        np.testing.assert_allclose(state.noise, noise, atol=1e-6)  # sums are in units of 2**-20
        assert (state.joint == start.joint).all()
        noise = state.noise
    assert not np.allclose(state.noise, start.noise, atol=0.01)


def test_em_does_not_lower_the_likelihood() -> None:
    """Without smoothing each step raises sum log P(given) = sum log sum_k q_k T[given, k], as EM does."""
    batch, _ = class_noise(4, 3000, 5, 0.5)
    previous = -np.inf
    for steps in range(6):
        noise = fitted(batch, em_steps=steps, smoothing=1e-9).noise
        each = (batch.probabilities.astype(np.float64) * noise[batch.given_label]).sum(axis=1)
        assert np.log(each).sum() >= previous - 1e-3
        previous = np.log(each).sum()


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_classes_is_seen(seed: int) -> None:
    """Where a class collects the errors of another, a ranking by the model alone is worse."""
    batch, wrong = class_noise(seed, 4000, 4, 0.5)
    quality, _ = built(batch).score(batch, fitted(batch))
    area = roc_auc_score(~wrong, quality)
    for other in (self_confidence, normalized_margin):
        assert area > roc_auc_score(~wrong, other(batch.given_label, batch.probabilities)) + 0.01


def test_most_suggestions_of_wrong_labels_are_the_truth() -> None:
    batch = noisy_case(5, 2000, 6, 0.3, 4.0)
    values = built(batch).answer_probabilities(batch, fitted(batch)).copy()
    values[np.arange(2000), batch.given_label] = -1
    wrong = batch.given_label != batch.predicted_label
    assert (values.argmax(axis=1) == batch.predicted_label)[wrong].mean() > 0.95


def test_estimated_noise_rate_is_that_of_confident_learning() -> None:
    batch = noisy_case(8, 20_000, 10, noise=0.2, sharp=6.0)
    rate = built(batch).metrics(fitted(batch, em_steps=1))["estimated_noise_rate"]
    learning = ConfidentLearning(ConfidentLearning.Config(), 10)
    state = learning.fit(cut(batch, []), in_process)
    assert rate == learning.metrics(state)["estimated_noise_rate"]
    # 20 % are redrawn, a tenth of which draw their own label again: 18 % are wrong
    assert rate == pytest.approx(0.18, abs=0.01)


def test_a_class_of_few_examples_shares_a_threshold() -> None:
    """Nine labels that the model doubts: their own mean is low, and would make everything confidently theirs."""
    batch = noisy_case(9, 400, 3, 0.1, 3.0)
    keep = np.flatnonzero(batch.given_label < 2)
    few = np.flatnonzero(batch.given_label == 2)[: FEW - 1]
    for rows, own in ((np.r_[keep, few], False), (np.arange(400), True)):
        part = take(batch, rows)
        shared = confident_joint(cut(part, []), in_process, 3, FEW).thresholds
        alone = confident_joint(cut(part, []), in_process, 3).thresholds
        assert (shared[:2] == alone[:2]).all()
        assert (shared[2] == alone[2]) == own
        mean = part.probabilities[np.arange(len(rows)), part.given_label].astype(np.float64).mean()
        assert own or shared[2] == pytest.approx(mean, abs=1e-6)


def test_absent_classes_one_label_only_and_empty_shards() -> None:
    batch = noisy_case(11, 500, 8, 0.3)
    absent = np.where(np.isin(batch.given_label, (2, 7)), 0, batch.given_label).astype(np.int32)
    ones = np.ones(500, dtype=np.int32)
    for labels in (absent, ones):
        part = DetectorBatch(batch.unit_id, labels, batch.predicted_label, batch.probabilities)
        for steps in (0, 2):
            state = fitted(part, [0, 0, 100, 500], em_steps=steps)
            quality, _ = built(part).score(part, state)
            assert np.isfinite(state.noise).all()
            assert ((quality >= 0) & (quality <= 1)).all()
            values = built(part).answer_probabilities(part, state)
            np.testing.assert_allclose(values.sum(axis=1), 1)
            # nobody was given these: nothing is known of their noise, so only the model speaks against them
            nobody = np.setdiff1d(np.arange(8), labels)
            assert (values[:, nobody] > 0).all()
            if not steps:
                assert (state.noise[:, nobody] == 1).all()
                assert (values[:, nobody] >= part.probabilities[:, nobody] * (1 - 1e-6)).all()
    empty = take(batch, slice(0, 0))
    quality, vote = built(batch).score(empty, fitted(batch))
    assert quality.shape == vote.shape == (0,)


def test_a_thousand_classes() -> None:
    batch = noisy_case(12, 2000, 1000, 0.3, 9.0)
    quality, _ = built(batch).score(batch, fitted(batch, [500, 501]))
    wrong = batch.given_label != batch.predicted_label
    assert roc_auc_score(~wrong, quality) > 0.95


@pytest.mark.parametrize(
    "options", [{"smoothing": 0}, {"em_steps": -1}, {"em_steps": 51}, {"threshold": 1.5}]
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Posterior.Config(**options)
