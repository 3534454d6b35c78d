"""Every example exactly once an epoch, in the same global batches for any number of workers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.training.sampler import MEGA_BATCHES, global_batches, own_share


@settings(deadline=None)
@given(
    count=st.integers(1, 400),
    size=st.integers(1, 40),
    workers=st.integers(1, 5),
    epoch=st.integers(1, 4),
    grouped=st.booleans(),
)
def test_each_position_once_for_any_number_of_workers(
    count: int, size: int, workers: int, epoch: int, grouped: bool
) -> None:
    lengths = np.arange(count) % 7 if grouped else None
    whole = global_batches(count, size, 0, epoch, lengths)
    assert len(whole) == -(-count // size)
    seen = []
    for batch in whole:
        shares = [own_share(batch, rank, workers) for rank in range(workers)]
        assert len({len(mine) for mine in shares}) == 1  # the same number of rows everywhere, so nobody waits
        together = np.concatenate(shares)
        assert sorted(together[together >= 0]) == sorted(batch)
        seen += batch.tolist()
    assert sorted(seen) == list(range(count))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    order = [
        np.concatenate(global_batches(100, 8, seed, epoch)).tolist()
        for seed, epoch in ((0, 1), (0, 2), (1, 1), (0, 1))
    ]
    assert order[0] == order[3]
    assert order[0] != order[1] != order[2] != order[0]


def test_grouping_saves_padding_and_stays_random() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 4000)

    def padded(whole: list[np.ndarray]) -> int:
        return sum(int(lengths[batch].max()) * len(batch) for batch in whole)

    plain, grouped = global_batches(4000, 32, 0, 1), global_batches(4000, 32, 0, 1, lengths)
    assert padded(grouped) < 1.1 * lengths.sum() < padded(plain) / 1.5
    means = [lengths[batch].mean() for batch in grouped[:MEGA_BATCHES]]
    assert np.corrcoef(means, np.arange(len(means)))[0, 1] < 0.5  # short texts do not all come first
