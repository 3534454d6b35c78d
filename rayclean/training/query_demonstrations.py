"""Demonstrations of a method's queries: the nearest, or random, training examples of a pool from the method.

The search for neighbours is exact, in the current features of the first network: every worker reads its share
of the pool in blocks and keeps the best of each query, and the results of all workers are merged.

Of the pool's examples with the same text only the first can be a demonstration, and never of the same text.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from rayclean.functional.hashing import mix, uniform
from rayclean.functional.neighbours import NearestNeighbours
from rayclean.training.collectives import Collectives
from rayclean.training.worker import EVALUATION_ROWS, Worker

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float32]


def first_of_each(texts: _Ints, pool: _Ints) -> _Ints:
    """The first position of each text in the pool, where `pool` is in ascending order."""
    _, first = np.unique(texts[pool], return_index=True)
    return pool[np.sort(first)]


def nearest_in_pool(
    read: "TextReader",
    ids: _Ints,
    texts: _Ints,
    rows: _Ints,
    pool: _Ints,
    count: int,
    collectives: Collectives,
) -> tuple[_Ints, _Floats]:
    """The `count` nearest members of the pool for each query, excluding its text.

    They are ordered by rounded cosine similarity, then by position, so that ties are independent of blocks
    and workers.

    Args:
        read: returns the unit features of positions.
        ids: [N] sorted example ids.
        texts: [N] hashes of the texts.
        rows: [Q] positions of the queries.
        pool: [P] positions of possible neighbours, with distinct texts.
        count: number of neighbours M.
        collectives: workers that share the search.

    Returns:
        Positions [Q, M], the most similar first, -1 if the pool has no more; cosine similarities [Q, M], 0
        for -1.
    """
    rank, world_size = collectives.rank, collectives.world_size
    own_rows = rows[rank::world_size]
    padded = np.full(-(-len(rows) // world_size), -1, dtype=np.int64)
    padded[: len(own_rows)] = own_rows
    gathered, columns = collectives.gather(padded, {"features": read(np.maximum(padded, 0))})
    queries = columns["features"][np.searchsorted(gathered, rows)]
    nearest = NearestNeighbours(queries, texts[rows], count)
    share = pool[rank::world_size]
    for start in range(0, len(share), EVALUATION_ROWS):
        block = share[start : start + EVALUATION_ROWS]
        nearest.add(read(block), block, texts[block])
    if world_size > 1:
        found = (nearest.ids, nearest.steps)
        every = [
            collectives.gather_rows(torch.from_numpy(part).to(read.device)).cpu().numpy() for part in found
        ]
        for other in range(world_size):
            if other != rank:
                part = slice(other * len(rows), (other + 1) * len(rows))
                nearest.merge(every[0][part], every[1][part])
    return nearest.ids, nearest.cosines.astype(np.float32)


def draw_from_pool(
    ids: _Ints, texts: _Ints, rows: _Ints, pool: _Ints, count: int, seed: int, epoch: int
) -> _Ints:
    """Draw up to `count` members of the pool per query [Q, M] by its id, excluding its text; -1 if there are
    no more.
    """
    drawn = np.full((len(rows), count), -1, dtype=np.int64)
    for query, hashed in enumerate(mix(ids[rows], seed, f"demonstrations of epoch {epoch}")):
        size = min(count + 1, len(pool))
        chosen = pool[np.random.default_rng(int(hashed)).choice(len(pool), size, replace=False)]
        chosen = chosen[texts[chosen] != texts[rows[query]]][:count]
        drawn[query, : len(chosen)] = chosen
    return drawn


def mislabelled(ids: _Ints, labels: _Ints, num_classes: int, share: float, seed: int) -> _Ints:
    """Draw wrong labels for a share of the examples, by id, so that an example always has the same label;
    returns [N].
    """
    if not share:
        return labels
    wrong = uniform(ids, seed, "corrupted demonstrations") < share
    others = mix(ids, seed, "labels of corrupted demonstrations") % np.uint64(max(num_classes - 1, 1))
    return np.where(wrong, (labels + 1 + others.astype(np.int64)) % num_classes, labels)


def no_neighbours(queries: int, count: int) -> tuple[_Ints, _Floats]:
    """Empty positions (-1) and cosine similarities (0) [queries, count]."""
    return np.full((queries, count), -1, dtype=np.int64), np.zeros((queries, count), dtype=np.float32)


class TextReader:
    """Reader of unit features of training examples by a network in evaluation mode."""

    def __init__(self, worker: Worker, name: str):
        self.worker, self.name, self.device = worker, name, worker.device
        worker.networks[name].eval()

    @torch.no_grad()
    def __call__(self, positions: _Ints) -> npt.NDArray[np.float32]:
        """Unit features [len(positions), D] of the examples at these positions."""
        parts = [np.zeros((0, 0), dtype=np.float32)]
        for start in range(0, len(positions), EVALUATION_ROWS):
            chosen = positions[start : start + EVALUATION_ROWS]
            inputs, _ = self.worker.read(self.worker.data.train, chosen, [self.name])
            features = self.worker.forward(self.name, inputs[self.name]).features.float()
            parts.append(F.normalize(features, dim=1).cpu().numpy())
        return np.ascontiguousarray(np.concatenate(parts[1:] or parts))
