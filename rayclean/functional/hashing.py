"""Hashes of `example_id`: randomness that belongs to an example and not to its position.

Everything drawn per example (its fold, its split, whether its label is flipped) is a function of (seed,
purpose, id), and does not depend on shards, order or number of workers.
"""

import numpy as np
import numpy.typing as npt

from rayclean.hashing import uint32

_STEP = np.uint64(0x9E3779B97F4A7C15)
"""What SplitMix64 adds to its state before every number."""


def mix(ids: npt.NDArray[np.int64], seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    """A 64-bit hash per id (two rounds of splitmix64), independent between seeds and purposes.

    Args:
        ids: [N] example ids.
        seed: the run's seed.
        purpose: a name such as "fold"; other purposes give unrelated values.

    Returns:
        [N] uint64, uniform.

    Reference: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    salt = np.uint64(((seed & 0xFFFFFFFF) << 32) | uint32(purpose))
    with np.errstate(over="ignore"):
        return _splitmix(_splitmix(np.asarray(ids).astype(np.uint64) ^ _splitmix(salt)))


def uniform(ids: npt.NDArray[np.int64], seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per id.

    >>> uniform(np.array([1, 2, 3]), seed=0, purpose="split").round(3)
    array([0.143, 0.975, 0.845])
    """
    return _unit(mix(ids, seed, purpose))


def counted_uniform(
    seeds: npt.NDArray[np.uint64], counters: npt.NDArray[np.uint64] | np.uint64
) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per seed and counter: the one of that number in the sequence that SplitMix64 draws from the seed.

    >>> counted_uniform(np.array([7, 7, 8], dtype=np.uint64), np.array([0, 1, 0], dtype=np.uint64)).round(3)
    array([0.39 , 0.017, 0.619])
    """
    with np.errstate(over="ignore"):
        return _unit(_splitmix(seeds + counters * _STEP))


def folds(ids: npt.NDArray[np.int64], seed: int, count: int) -> npt.NDArray[np.int16]:
    """The fold of each id, in [0, count)."""
    return (mix(ids, seed, "fold") % np.uint64(count)).astype(np.int16)


def _unit(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix(values: npt.NDArray[np.uint64] | np.uint64) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = np.asarray(values, dtype=np.uint64) + _STEP
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
