"""The n greatest values of each of many groups, exactly, over data that is never all in one place.

A radix selection by map and reduce. Every value has a 64-bit key that sorts like it; a shard counts, per
group, how many keys fall into each of a few bins of an interval; the sum of all shards' counts tells in which
bin the n-th greatest key lies, and that bin is the interval of the next round. As soon as few keys are left
in all intervals together they are collected and sorted. State: a few numbers per group and at most
`MAX_COUNTERS` counters, whatever the number of examples.

Because counts are integers, and ties are broken by a hash of `example_id`, the result depends neither on how
the data is cut into shards nor on the order in which they come.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rayclean.functional.hashing import mix

MAX_COUNTERS = 1 << 21
"""Greatest number of counters in one round, over all groups (16 MiB)."""
MAX_COLLECTED = 1 << 20
"""Greatest number of keys that are collected and sorted in one place, over all groups (12 MiB)."""
MAX_UNPROBED = 1 << 17
"""Greatest number of keys that are collected without any round of counting, which would not pay."""

UInt64 = npt.NDArray[np.uint64]


def sort_keys(values: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]) -> UInt64:
    """A key per value that sorts like it; among equal values, like a hash of the id.

    The high half holds the bits of the float32 in sortable form, the low half 32 bits of hash: of several
    equal values at the cut, which ones are taken is arbitrary, but the same ones every time.

    Args:
        values: [N] finite.
        ids: [N] example ids.
    """
    bits = (values + np.float32(0)).view(np.uint32)  # + 0 makes -0.0 and 0.0 the same bits
    sortable = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    return (sortable << np.uint64(32)) | (mix(ids, 0, "ties") >> np.uint64(32))


def key_values(keys: UInt64) -> npt.NDArray[np.float32]:
    """The values that keys stand for: inverse of the high half of `sort_keys`.

    >>> key_values(sort_keys(np.array([-0.5, 0.25], dtype=np.float32), np.array([1, 2])))
    array([-0.5 ,  0.25], dtype=float32)
    """
    high = (np.asarray(keys, dtype=np.uint64) >> np.uint64(32)).astype(np.uint32)
    return np.where(high >> 31, high & np.uint32(0x7FFFFFFF), ~high).astype(np.uint32).view(np.float32)


@dataclass
class Selection:
    """The search for the `need` greatest keys of each of G groups.

    Use: while `open`, map `tally` (or, once `collectable`, `pick`) over the shards' keys of `lower`, and hand
    the results to `narrow` (or `finish`). Then `cut` [G] is the smallest key taken of each group.
    """

    need: npt.NDArray[np.int64]
    """[G] number of keys still to be taken from the interval of each group; 1 <= need <= population."""
    population: npt.NDArray[np.int64]
    """[G] number of keys in the interval."""
    low: UInt64
    """[G] lowest key of the interval."""
    high: UInt64
    """[G] highest key of the interval."""
    probe: UInt64
    """[G] lowest key that this round counts; the number of keys below it follows by subtraction."""
    cut: UInt64 = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    """[G] result: the smallest key taken, valid where a group is settled."""
    settled: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """[G] whether the cut of a group is known."""

    @classmethod
    def start(cls, need: npt.NDArray[np.int64], population: npt.NDArray[np.int64], low: float, high: float,
              probe: float) -> "Selection":  # fmt: skip
        """A search among values in [low, high], of which most of those wanted are expected above `probe`.

        Args:
            need: [G] number of keys to take from each group.
            population: [G] number of members of each group.
            low: lower bound of all values.
            high: upper bound of all values.
            probe: the first round looks at the values from here upwards, so that it touches few of them.
        """
        bounds = sort_keys(np.array([low, high, probe], dtype=np.float32), np.zeros(3, dtype=np.int64))
        bounds &= np.uint64(0xFFFFFFFF00000000)
        groups = len(need)
        selection = cls(
            need=np.minimum(need, population).astype(np.int64),
            population=population.astype(np.int64),
            low=np.full(groups, bounds[0]),
            high=np.full(groups, bounds[1] | np.uint64(0xFFFFFFFF)),
            probe=np.full(groups, bounds[2]),
            cut=np.full(groups, np.iinfo(np.uint64).max),
            settled=np.zeros(groups, dtype=np.bool_),
        )
        selection._settle()
        return selection

    @property
    def open(self) -> bool:
        """Whether the cut of some group is not known yet."""
        return not bool(self.settled.all())

    @property
    def collectable(self) -> bool:
        """Whether so few keys are left that they may be sorted in one place."""
        probed = bool((self.probe == self.low)[~self.settled].all())
        return int(self.population[~self.settled].sum()) <= (MAX_COLLECTED if probed else MAX_UNPROBED)

    @property
    def bins(self) -> int:
        """Number of bins per group in this round."""
        return int(np.clip(MAX_COUNTERS // max(1, len(self.need)), 4, 4096))

    @property
    def lower(self) -> UInt64:
        """[G] lowest key that matters in this round; the greatest possible key for settled groups."""
        start = self.low if self.collectable else self.probe
        return np.where(self.settled, np.uint64(np.iinfo(np.uint64).max), start)

    def tally(self, groups: npt.NDArray[np.int64], keys: UInt64) -> npt.NDArray[np.int64]:
        """Index of the counter of every key that lies in its group's interval."""
        inside = (keys >= self.probe[groups]) & (keys <= self.high[groups]) & ~self.settled[groups]
        groups, keys = groups[inside], keys[inside]
        probe = self.probe[groups]
        offset = (keys - probe) // _width(probe, self.high[groups], self.bins)
        return groups * self.bins + offset.astype(np.int64)

    def pick(self, groups: npt.NDArray[np.int64], keys: UInt64) -> tuple[npt.NDArray[np.int32], UInt64]:
        """Groups and keys of those keys that lie in their group's interval."""
        inside = (keys >= self.low[groups]) & (keys <= self.high[groups]) & ~self.settled[groups]
        return groups[inside].astype(np.int32), keys[inside]

    def narrow(self, counts: npt.NDArray[np.int64]) -> None:
        """Descend into the bin that holds the cut of each group.

        Args:
            counts: [G x bins] sum over all shards of the counters of `tally`.
        """
        bins = self.bins
        width = _width(self.probe, self.high, bins)
        from_top = counts.reshape(-1, bins)[:, ::-1].cumsum(axis=1)
        seen = from_top[:, -1]
        whole = (from_top < self.need[:, None]).sum(axis=1)  # bins taken whole, from the top
        rows = np.arange(len(self.need))
        taken = np.where(whole > 0, from_top[rows, np.maximum(whole - 1, 0)], 0)
        down = ~self.settled & (whole == bins)  # the cut lies below the probe
        go = ~self.settled & (whole < bins)
        last = np.minimum(whole, bins - 1)
        low = self.probe + (bins - 1 - last).astype(np.uint64) * width
        high = np.minimum(low + (width - np.uint64(1)), self.high)
        self.population[go] = (from_top[rows, last] - taken)[go]
        self.population[down] -= seen[down]
        self.high[go], self.high[down] = high[go], self.probe[down] - np.uint64(1)
        self.low[go] = low[go]
        self.need[go | down] -= taken[go | down]
        self.probe = self.low.copy()
        self._settle()

    def finish(self, groups: npt.NDArray[np.int32], keys: UInt64) -> None:
        """Take the greatest of the keys that `pick` found in all shards together."""
        order = np.lexsort((~keys, groups))
        groups, keys = groups[order], keys[order]
        todo = np.flatnonzero(~self.settled)
        begin = np.searchsorted(groups, todo)
        self.cut[todo] = keys[begin + self.need[todo] - 1]
        self.settled[todo] = True

    def _settle(self) -> None:
        """Settle the groups of which all keys left are taken, or whose interval is a single key."""
        done = ~self.settled & ((self.need >= self.population) | (self.low == self.high))
        self.cut[done] = self.low[done]
        self.settled |= done


def _width(probe: UInt64, high: UInt64, bins: int) -> UInt64:
    """Number of keys per bin of an interval."""
    return (high - probe) // np.uint64(bins) + np.uint64(1)
