import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.detectors import knn_vote
from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.knn_vote import KnnVote
from rayclean.errors import DataError
from rayclean.functional.neighbours import fixed_point
from tests.detectors.cases import backwards, cut, in_process


def batch_of(features: np.ndarray, labels: np.ndarray, ids: np.ndarray | None = None) -> DetectorBatch:
    rows = len(labels)
    p = np.full((rows, 3), 1 / 3, dtype=np.float32)
    ids = np.arange(rows) if ids is None else ids
    return DetectorBatch(
        ids, labels.astype(np.int32), np.zeros(rows, np.int32), p, features.astype(np.float32)
    )


def vote(batch: DetectorBatch, k: int, edges: list[int] | None = None) -> np.ndarray:
    detector = KnnVote(KnnVote.Config(neighbours=k), 3)
    shards = cut(batch, edges or [])
    state = detector.fit(shards, in_process)
    return np.concatenate([detector.score(shard.batch, state)[0] for shard in shards])


def test_golden_numbers() -> None:
    angles = np.radians([0, 10, 21, 90])
    batch = batch_of(np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 0, 1, 1]))
    # nearest two: of 0: {10, 21} -> 1/2; of 10: {0, 21} -> 1/2; of 21: {10, 0} -> 0; of 90: {21, 10} -> 1/2
    assert vote(batch, 2).tolist() == [0.5, 0.5, 0.0, 0.5]
    # length does not matter: the similarity is a cosine
    assert vote(batch_of(batch.features * [[1], [100], [0.01], [7]], batch.given_label), 2).tolist() == [
        0.5,
        0.5,
        0.0,
        0.5,
    ]


def test_ties_for_the_last_places_count_in_part() -> None:
    # three copies, labels 0, 0, 1, and one other: the neighbours of the first are both copies, k = 1: 1/2
    batch = batch_of(np.array([[1, 0], [1, 0], [1, 0], [0, 1]]), np.array([0, 0, 1, 0]))
    assert vote(batch, 1).tolist() == pytest.approx([0.5, 0.5, 0.0, 2 / 3])


def test_only_the_example_itself_is_left_out() -> None:
    batch = batch_of(np.array([[1, 0], [1, 0]]), np.array([0, 1]))
    assert vote(batch, 5).tolist() == [0, 0]  # the copy is the only neighbour
    assert vote(batch_of(np.array([[1, 0]]), np.array([0])), 5).tolist() == [1]  # nobody to ask


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 80),
    k=st.integers(1, 12),
    copies=st.booleans(),
    data=st.data(),
)
def test_exact_for_any_cut_and_order(seed: int, rows: int, k: int, copies: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    features = rng.integers(-2, 3, (rows, 3)) if copies else rng.normal(size=(rows, 16))
    batch = batch_of(features, rng.integers(0, 3, rows), rng.choice(2**62, rows, replace=False))
    edges = data.draw(st.lists(st.integers(0, rows), max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn_vote, "QUERY_ROWS", 7)
        patch.setattr(knn_vote, "CANDIDATE_ROWS", 11)
        found = vote(batch, k, edges)
    assert found.tolist() == vote(batch, k).tolist()  # the same bits
    assert found == pytest.approx(reference(batch, k), abs=1e-6)
    order = rng.permutation(rows)
    detector = KnnVote(KnnVote.Config(neighbours=k), 3)
    state = detector.fit(cut(batch, edges, order), backwards)
    assert (detector.score(batch, state)[0] == found).all()


def reference(batch: DetectorBatch, k: int) -> np.ndarray:
    """The definition, one example at a time."""
    vectors = fixed_point(batch.features).astype(np.float64)
    quality = []
    for row in range(len(vectors)):
        others = np.delete(np.arange(len(vectors)), row)
        similarity = vectors[others] @ vectors[row]
        agree = batch.given_label[others] == batch.given_label[row]
        if not len(others):
            quality.append(1.0)
            continue
        places = min(k, len(others))
        last = np.sort(similarity)[::-1][places - 1]
        above, tied = similarity > last, similarity == last
        share = (places - above.sum()) / tied.sum()
        quality.append((agree[above].sum() + share * agree[tied].sum()) / places)
    return np.array(quality)


def test_agrees_with_brute_force_in_floats_where_nothing_ties() -> None:
    rng = np.random.default_rng(0)
    batch = batch_of(rng.normal(size=(500, 32)), rng.integers(0, 3, 500))
    unit = batch.features / np.linalg.norm(batch.features, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    others = np.argsort(-cosine, axis=1)[:, :10]
    expected = (batch.given_label[others] == batch.given_label[:, None]).mean(axis=1)
    assert vote(batch, 10, [100, 333]) == pytest.approx(expected, abs=1e-6)


def test_zero_vectors_and_infinities() -> None:
    batch = batch_of(np.array([[0, 0], [1, 0], [1, 1]]), np.array([0, 0, 1]))
    assert np.isfinite(vote(batch, 2)).all()
    broken = batch_of(np.array([[0, 0], [np.nan, 0]]), np.array([0, 0]), np.array([70, 71]))
    with pytest.raises(DataError, match="71"):
        vote(broken, 2)
