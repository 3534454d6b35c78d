"""Exact neighbours: as defined, whatever the blocks, the order and the number of searchers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional import neighbours
from rayclean.functional.neighbours import DIGITS, ONE, NearestNeighbours, Points, fixed_point, near_pairs


def by_definition(queries, groups, features, ids, candidate_groups, count):  # type: ignore[no-untyped-def]
    """One query at a time: exact integers, rounded, sorted by cosine and id."""
    left, right = fixed_point(queries).astype(np.int64), fixed_point(features).astype(np.int64)
    found = []
    for vector, group in zip(left, groups, strict=True):
        steps = np.rint((right @ vector) / (ONE / 10**DIGITS))
        order = np.lexsort((ids, -steps))
        order = order[candidate_groups[order] != group][:count]
        found.append((ids[order].tolist(), (steps[order] / 10**DIGITS).tolist()))
    return found


def found_by(search: NearestNeighbours) -> list[tuple[list[int], list[float]]]:
    rows = zip(search.ids, search.cosines, strict=True)
    return [(ids[ids != -1].tolist(), cosines[ids != -1].tolist()) for ids, cosines in rows]


def test_golden_numbers() -> None:
    angles = np.radians([0, 10, 21, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [100], [0.01], [7]]
    search = NearestNeighbours(np.array([[2.0, 0.0]]), np.array([5]), 3)
    search.add(features, np.array([5, 6, 7, 8]))
    assert search.ids.tolist() == [[6, 7, 8]]
    assert search.cosines.tolist() == [[0.98481, 0.93358, 0.0]]
    assert fixed_point(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[10066330.0, 13421773.0], [0.0, 0.0]]


def test_no_candidates_and_no_queries() -> None:
    search = NearestNeighbours(np.zeros((0, 3)), np.zeros(0, np.int64), 2)
    search.add(np.eye(3), np.arange(3))
    assert search.ids.shape == (0, 2)
    search = NearestNeighbours(np.eye(3), np.arange(3), 2)
    search.add(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert (search.ids == -1).all()
    assert (search.cosines == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["random", "copies", "collapsed"]),
    rows=st.integers(1, 90),
    count=st.integers(1, 12),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 40)),
    data=st.data(),
)
def test_neither_shards_nor_blocks_nor_order_nor_workers_decide(seed, kind, rows, count, sizes, data) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    features = {
        "random": lambda: rng.normal(size=(rows, 12)),
        "copies": lambda: rng.integers(-1, 2, (rows, 3)).astype(float),
        "collapsed": lambda: rng.normal(size=(1, 12)) + 1e-4 * rng.normal(size=(rows, 12)),
    }[kind]()
    ids = rng.choice(2**62, rows, replace=False) - 2**61  # example ids are hashes: half of them are negative
    groups = rng.integers(0, 2 * rows, rows)  # some texts occur twice
    chosen = rng.integers(0, rows, 15)
    expected = by_definition(features[chosen], groups[chosen], features, ids, groups, count)
    edges = sorted(data.draw(st.lists(st.integers(0, rows), max_size=4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "QUERY_ROWS", sizes[0])
        patch.setattr(neighbours, "CANDIDATE_ROWS", sizes[1])
        searches = [NearestNeighbours(features[chosen], groups[chosen], count) for _ in range(2)]
        for part in np.split(rng.permutation(rows), edges):
            searches[int(rng.integers(2))].add(features[part], ids[part], groups[part])
        searches[0].merge(searches[1].ids, searches[1].steps)
    assert found_by(searches[0]) == expected


@pytest.mark.parametrize("dimensions", [1, 8, 700])
def test_no_pair_is_missed_by_the_rough_comparison(dimensions: int) -> None:
    """Features that differ by less than float32 resolves: only exact cosines tell which are the nearest."""
    rng = np.random.default_rng(dimensions)
    features = rng.normal(size=(1, dimensions)) + 1e-7 * rng.normal(size=(400, dimensions))
    points = Points(fixed_point(features), np.arange(400))
    exact = points.vectors.astype(np.int64) @ points.vectors.astype(np.int64).T
    np.fill_diagonal(exact, -(2**62))
    row, column, cosine = near_pairs(points, points, np.full(400, -np.inf), 5)
    assert (cosine == exact[row, column]).all()
    needed = exact >= np.sort(exact, axis=1)[:, -5:-4]
    assert needed.sum() == needed[row, column].sum()


def test_only_some_queries_are_compared() -> None:
    features = np.random.default_rng(0).standard_normal((30, 4))
    ids = np.arange(30)
    nearest, all_of_them = NearestNeighbours(features, ids, 3), NearestNeighbours(features, ids, 3)
    all_of_them.add(features, ids)
    nearest.add(features[:10], ids[:10], rows=np.array([4, 20]))
    nearest.add(features[10:], ids[10:], rows=np.array([20, 4, 5]))
    np.testing.assert_array_equal(nearest.ids[[4, 20]], all_of_them.ids[[4, 20]])
    assert (nearest.ids[5] >= 10).all()
    assert (np.delete(nearest.ids, [4, 5, 20], axis=0) == -1).all()
