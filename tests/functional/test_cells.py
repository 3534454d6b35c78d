import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from rayclean.functional.cells import fit_cells, nearest_cells
from rayclean.functional.neighbours import fixed_point


def features(rows: int, seed: int = 0, dimension: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


@given(
    rows=st.integers(1, 30), cells=st.integers(1, 12), probes=st.integers(1, 12), coarse=st.booleans(), seed=st.integers(0, 50)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_nearest_cells_are_those_of_exact_cosines(
    rows: int, cells: int, probes: int, coarse: bool, seed: int
) -> None:
    x, centres = features(rows, seed, 3), features(cells, seed + 100, 3)
    if coarse:  # many cosines are equal
        x, centres = np.rint(x), np.rint(centres)
    centres, probes = fixed_point(centres), min(probes, cells)
    cosines = fixed_point(x).astype(np.int64) @ centres.astype(np.int64).T
    for row, found in enumerate(nearest_cells(x, centres, probes)):
        expected = sorted(range(cells), key=lambda cell: (-cosines[row, cell], cell))[:probes]
        assert found[0] == expected[0]
        assert list(found[1:]) == sorted(expected[1:])


def test_blocks_and_order_do_not_matter() -> None:
    x = features(5000)
    centres = fit_cells(x[:800], 40)
    order = np.random.default_rng(1).permutation(5000)
    found = nearest_cells(x, centres, 5)
    assert_array_equal(nearest_cells(x[order], centres, 5), found[order])
    assert_array_equal(nearest_cells(x[7:8], centres, 5), found[7:8])
    beyond = 40 + np.random.default_rng(2).permutation(760)  # the first 40 are the first centres
    assert_array_equal(fit_cells(x[np.r_[:40, beyond]], 40), centres)


def test_centres_are_the_means_of_clusters() -> None:
    rng = np.random.default_rng(0)
    directions = np.eye(4, 16) * 10
    cluster = np.r_[0:4, rng.integers(0, 4, 196)]  # one example of each cluster comes first
    sample = directions[cluster] + 0.1 * rng.standard_normal((200, 16))
    centres = fit_cells(sample, 4)
    assert_array_equal(nearest_cells(sample, centres, 1)[:, 0], cluster)
    np.testing.assert_allclose(centres / 2**24, np.eye(4, 16), atol=0.01)


def test_equal_centres_and_zeros() -> None:
    centres = fit_cells(np.ones((5, 3)), 3)
    assert_array_equal(centres[0], centres[2])
    assert_array_equal(nearest_cells(np.array([[1.0, 1, 1], [0, 0, 0]]), centres, 2), [[0, 1], [0, 1]])


def test_the_number_of_cells_is_checked() -> None:
    with pytest.raises(ValueError, match="got 4 cells for a sample of 3"):
        fit_cells(features(3), 4)
