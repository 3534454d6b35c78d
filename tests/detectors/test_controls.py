"""Control questions: of every label as many as suspects have, from the better half."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.detectors.suspect_selection import MOST_CONTROLS, control_units


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 600))
def test_controls_have_the_suspects_labels(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    quality, labels = rng.random(rows).astype(np.float32), rng.integers(0, 3, rows)
    ids, suspects = rng.permutation(10 * rows)[:rows], np.array([30, 10, 0])
    found = control_units(quality, ids, labels, suspects, seed=1)
    order = rng.permutation(rows)
    np.testing.assert_array_equal(
        control_units(quality[order], ids[order], labels[order], suspects, 1), found
    )
    assert len(found) == len({*found.tolist()}) <= MOST_CONTROLS
    label_of, quality_of = dict(zip(ids, labels, strict=True)), dict(zip(ids, quality, strict=True))
    for label in np.unique(labels):
        chosen = [quality_of[each] for each in found if label_of[each] == label]
        assert all(each >= np.median(quality[labels == label]) for each in chosen)
    counts = np.cumsum(
        [[label_of[each] == label for label in range(3)] for each in found] or [[0, 0, 0]], axis=0
    )
    pools = [
        int((quality[labels == k] >= np.median(quality[labels == k])).sum()) if (labels == k).any() else 0
        for k in range(3)
    ]
    for count in counts:
        if count[0] < pools[0] and count[1] < pools[1]:  # neither is used up
            assert abs(count[0] - 3 * count[1]) <= 3
            assert count[2] == 0


def test_without_suspects_any_label_will_do() -> None:
    ids = np.arange(100)
    found = control_units(np.ones(100, np.float32), ids, ids % 2, np.zeros(2, np.int64), seed=0)
    assert len(found) == 100
    assert len(control_units(np.ones(0, np.float32), ids[:0], ids[:0], np.zeros(1, np.int64), seed=0)) == 0


def test_what_was_declared_right_comes_first_of_its_label() -> None:
    ids = np.arange(300)
    labels, quality = ids % 3, np.linspace(0, 1, 300, dtype=np.float32)
    declared = (ids < 60) & (labels != 2)  # of the lowest quality; none of label 2
    found = control_units(quality, ids, labels, np.array([10, 10, 10]), 0, declared)
    for label in (0, 1):
        of_label = [bool(declared[each]) for each in found if labels[each] == label]
        assert of_label[:20] == [True] * 20
        assert not any(of_label[20:])
    assert all(quality[each] >= 0.5 for each in found if not declared[each])
