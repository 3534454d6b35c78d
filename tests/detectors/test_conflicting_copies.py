"""The detector of copies with different labels: golden numbers, any shards, and what it leaves to others."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.detectors import conflicting_copies
from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.conflicting_copies import ConflictingCopies, CopiesState
from rayclean.errors import DataError
from rayclean.functional.neighbours import fixed_point
from tests.detectors.cases import backwards, cut, in_process, take

CLASSES = 3
NEAR = np.cos(np.radians(10))  # .985
ALONE = 100
"""Groups from here on have one member each, in these tests."""


def batch_of(labels: list[int] | np.ndarray, groups: Any, angles: Any = None, features: Any = None, ids: Any = None) -> DetectorBatch:  # fmt: skip
    """Examples with angles (in degrees) for features, 40 degrees apart where none are given."""
    rows = len(labels)
    if features is None:
        radians = np.radians(np.arange(rows) * 40 if angles is None else angles)
        features = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    probabilities = np.full((rows, CLASSES), (0.5, 0.3, 0.2), dtype=np.float32)
    return DetectorBatch(
        np.arange(rows) if ids is None else ids, np.array(labels, dtype=np.int32), np.zeros(rows, np.int32), probabilities,
        features=np.asarray(features, dtype=np.float32), group=np.array(groups, dtype=np.int64),
    )  # fmt: skip


def built(**options: Any) -> ConflictingCopies:
    return ConflictingCopies(ConflictingCopies.Config(**options), CLASSES)


def fitted(batch: DetectorBatch, edges: Any = (), order: Any = None, mapper: Any = in_process, **options: Any) -> CopiesState:  # fmt: skip
    return pickle.loads(pickle.dumps(built(**options).fit(cut(batch, edges, order), mapper)))


def scored(batch: DetectorBatch, **options: Any) -> tuple[list[float], list[bool]]:
    quality, vote = built(**options).score(batch, fitted(batch, **options))
    return quality.tolist(), vote.tolist()


def test_golden_numbers() -> None:
    # three copies of one text, of which one is labelled otherwise; two copies that tie; one text without copies
    batch = batch_of([0, 0, 1, 1, 2, 2], [7, 7, 7, 8, 8, ALONE], [0, 0, 0, 60, 60, 120])
    quality, vote = scored(batch)
    # 2 (agreeing + 1/2) / (copies + 1): 3/3, 3/3, 1/3, 1/2, 1/2, 1/1
    assert quality == pytest.approx([1, 1, 1 / 3, 1 / 2, 1 / 2, 1])
    assert vote == [False, False, True, True, True, False]
    state = fitted(batch)
    assert (state.groups, state.copies, state.conflicts) == (2, 5, 5)
    assert built().metrics(state) == {"copy_groups": 2.0, "copies": 5.0, "copies_in_conflict": 5.0}
    assert built().note(state) == ""


def test_near_equal_texts_are_copies_and_equal_ones_count_once() -> None:
    # 0 and 1 have equal texts, 2 is 10 degrees and 3 is 30 degrees away
    batch = batch_of([0, 0, 1, 2], [7, 7, ALONE, ALONE + 1], [0, 0, 10, 30])
    assert scored(batch, similarity=float(NEAR) - 1e-4)[0] == pytest.approx([1, 1, 1 / 3, 1])
    assert scored(batch, similarity=float(NEAR) + 1e-4) == ([1] * 4, [False] * 4)
    assert scored(batch, similarity="equal") == ([1] * 4, [False] * 4)
    # the length of features does not matter, and similarity = 1 finds texts that differ, of equal features
    longer = batch_of([0, 1], [ALONE, ALONE + 1], features=[[0.3, 0.1], [30, 10]])
    assert scored(longer, similarity=1.0)[1] == [True, True]


def test_of_many_copies() -> None:
    labels = [0] * 5 + [1] * 3 + [2]  # 0: 4 of 8 copies agree; 1: 2 of 8; 2: none
    quality, vote = scored(batch_of(labels, [7] * 9), similarity="equal")
    assert quality == pytest.approx([1] * 5 + [5 / 9] * 3 + [1 / 9])
    assert vote == [False] * 5 + [True] * 4
    quality, vote = scored(batch_of([0, 0, 1, 1], [7] * 4), similarity="equal")  # nobody has the majority
    assert quality == [0.75] * 4
    assert vote == [True] * 4


def test_equal_texts_need_no_features() -> None:
    batch = batch_of([0, 1, 1], [7, 7, ALONE])
    detector = built(similarity="equal")
    assert not detector.needs_features
    assert built().needs_features
    bare = DetectorBatch(
        batch.unit_id, batch.given_label, batch.predicted_label, batch.probabilities, group=batch.group
    )
    assert scored(bare, similarity="equal") == ([0.5, 0.5, 1], [True, True, False])


def test_it_suggests_the_label_of_most_copies_and_leaves_the_rest_to_others() -> None:
    batch = batch_of([0, 1, 1, 2, 0, 0, 2], [7, 7, 7, 7, 8, 8, ALONE], [0, 0, 0, 0, 60, 60, 120])
    values = built().answer_probabilities(batch, fitted(batch))
    expected = [(1 + 0.5) / 5, (2 + 0.3) / 5, (1 + 0.2) / 5]  # the labels, and the model as one more copy
    np.testing.assert_allclose(values[:4], [expected] * 4, rtol=1e-6)
    assert np.isnan(values[4:]).all()  # copies that agree, and no copies: nothing better is known


def test_nobody_has_copies() -> None:
    batch = batch_of([0, 1, 2, 0], np.arange(4) + ALONE)
    assert scored(batch) == ([1] * 4, [False] * 4)
    state = fitted(batch)
    assert len(state.ids) == 0
    assert np.isnan(built().answer_probabilities(batch, state)).all()
    said = built().note(state)
    assert (
        "no copies have different labels (0 texts occur more than once; 0 examples have an equal text or"
        in said
    )


def test_all_copies_agree() -> None:
    batch = batch_of([0, 0, 0, 1, 1, 2], [7, 7, 7, 8, 8, ALONE], [0, 0, 0, 60, 60, 120])
    assert scored(batch, similarity="equal") == (
        [1] * 6,
        [False] * 6,
    )  # as good as without copies, and no better
    said = built(similarity="equal").note(fitted(batch, similarity="equal"))
    assert said == (
        "no copies have different labels (2 texts occur more than once; 5 examples have an equal text)"
    )


def test_no_examples_and_empty_shards() -> None:
    nothing = batch_of([], [])
    assert scored(nothing) == ([], [])
    assert (fitted(batch_of([0, 1], [7, 7]), edges=[0, 0, 1, 2]).counts == [1, 1]).all()
    assert built().fit([], in_process).groups == 0


def test_a_feature_that_is_no_number_is_named() -> None:
    batch = batch_of([0, 1], [7, 8], features=[[0, 1], [np.nan, 0]], ids=np.array([70, 71]))
    with pytest.raises(DataError, match=r"71 .* or leave out the detector conflicting_copies"):
        scored(batch)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 60), texts=st.integers(1, 40),
    similarity=st.sampled_from([0.6, 0.95, 1.0, "equal"]), data=st.data(),
)  # fmt: skip
def test_exact_for_any_cut_and_order(
    seed: int, rows: int, texts: int, similarity: Any, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, texts, rows)
    features = rng.integers(-2, 3, (texts, 3))[groups]
    ids = rng.choice(2**62, rows, replace=False) - 2**61
    batch = batch_of(rng.integers(0, CLASSES, rows), groups * 10**12, features=features, ids=ids)
    edges = data.draw(st.lists(st.integers(0, rows), max_size=4))
    whole = fitted(batch, similarity=similarity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conflicting_copies, "QUERY_ROWS", 7)
        patch.setattr(conflicting_copies, "CANDIDATE_ROWS", 11)
        parts = fitted(batch, edges, rng.permutation(rows), backwards, similarity=similarity)
    for name in ("ids", "labels", "counts"):
        assert (getattr(parts, name) == getattr(whole, name)).all(), name
    assert (parts.groups, parts.copies, parts.conflicts) == (whole.groups, whole.copies, whole.conflicts)
    detector = built(similarity=similarity)
    quality, vote = detector.score(batch, whole)
    expected = reference(batch, similarity)
    assert quality.tolist() == np.float32(expected[0]).tolist()
    assert vote.tolist() == expected[1]
    assert parts.conflicts == expected[2]
    some = rng.permutation(rows)[: rows // 2]
    found = detector.score(take(batch, some), whole)
    assert (found[0] == quality[some]).all()
    assert (found[1] == vote[some]).all()


def reference(batch: DetectorBatch, similarity: Any) -> tuple[list[float], list[bool], int]:
    """The definition, one example at a time."""
    vectors = fixed_point(batch.features).astype(np.float64) / 2**24
    quality, vote, conflicts = [], [], 0
    for row in range(len(vectors)):
        copies = batch.group == batch.group[row]
        if similarity != "equal":
            copies |= np.round(vectors @ vectors[row], 5) >= similarity
        copies[row] = False
        counts = np.bincount(batch.given_label[copies], minlength=CLASSES)
        own = batch.given_label[row]
        others = np.delete(counts, own)
        quality.append(min(2 * (counts[own] + 0.5) / (counts.sum() + 1), 1.0))
        vote.append(bool(others.max() >= counts[own] + 1))
        conflicts += bool(others.any())
    return quality, vote, conflicts
