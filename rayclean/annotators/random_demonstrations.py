"""Demonstrations that are drawn at random: the same for a query whatever the shards, and equally many of each candidate."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rayclean.annotators.demonstrations import DemonstrationSources, LabelledExample
from rayclean.functional.hashing import mix

RANDOM_POOL = 1024
"""Number of examples from which the selector `random` draws; they are selected by a hash of their ids."""


def random_pool(sources: DemonstrationSources, seed: int) -> list[LabelledExample]:
    """The units, which are no suspects, of up to `RANDOM_POOL` examples, the same for any shard layout."""
    pool: list[LabelledExample] = []
    for shard in sources.shards():
        first = _first(sources.possible(shard), seed)
        pool += sources.units(shard, np.array([*first], dtype=np.int64))
        kept = _first(np.unique([each.example_id for each in pool]).astype(np.int64), seed)
        pool = sorted(
            (each for each in pool if each.example_id in kept), key=lambda each: kept[each.example_id]
        )
    return pool


def _first(ids: npt.NDArray[np.int64], seed: int) -> dict[int, int]:
    """The `RANDOM_POOL` ids that come first in the order of their hashes, each with its place."""
    order = np.argsort(mix(ids, seed, "demonstrations"), kind="stable")[:RANDOM_POOL]
    return {int(ids[row]): place for place, row in enumerate(order)}


def random_demonstrations(
    pool: Sequence[LabelledExample],
    example_id: int,
    text: str,
    count: int,
    seed: int,
    answers: frozenset[int],
) -> tuple[LabelledExample, ...]:
    """`count` demonstrations from the pool, drawn by the query's id, in the order drawn; none is the query or has its text.

    Every answer is shown equally often and, if some are left over, the first of the rest; where one has fewer, all have as few.
    Of more answers than demonstrations, whichever are drawn.
    """
    order = np.random.default_rng([seed & 0xFFFFFFFF, example_id & 0xFFFFFFFFFFFFFFFF]).permutation(len(pool))
    drawn = (pool[place] for place in order if pool[place].label in answers)
    others = (each for each in drawn if each.example_id != example_id and each.text.strip() != text.strip())
    if count < len(answers):
        return tuple(itertools.islice(others, count))
    of_each: dict[int, list[tuple[int, LabelledExample]]] = {answer: [] for answer in answers}
    for place, each in enumerate(others):
        of_each[each.label].append((place, each))
    most = min(count // len(answers), *(len(found) for found in of_each.values()))
    chosen = sorted(
        (found for several in of_each.values() for found in several[:most]), key=lambda found: found[0]
    )
    if most == count // len(answers):
        rest = sorted(
            (found for several in of_each.values() for found in several[most:]), key=lambda found: found[0]
        )
        chosen = sorted([*chosen, *rest[: count - len(chosen)]], key=lambda found: found[0])
    return tuple(each for _, each in chosen)
