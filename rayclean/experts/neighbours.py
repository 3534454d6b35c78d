"""The expert "neighbours": the labels of the k examples whose features are most similar to an example's.

    labels = GivenLabels(ids, given_labels, num_classes)
    for queries in read():  # each an item of work on its own, anywhere
        probabilities = neighbour_votes(queries, read(), labels)

where `read()` yields all examples, a block of `FeatureRows` at a time. Each neighbour votes for its label with
weight softmax(cosine / `VOTE_TEMPERATURE`). Examples of the same group, such as copies of a text, are no neighbours
of each other, since a copy would only repeat its label. The votes are mixed with the classes' shares, so that no
probability is 0; an example without neighbours gets these shares.

The search is exact (`rayclean.functional.neighbours`), or, where `cell_count(N)` is not 0, restricted to cells of
similar examples (`rayclean.functional.cells`), so that its time grows in proportion to N:

    centres = fit_centres((sample_for_cells(rows, N) for rows in read()), N)
    rows = in_cells(rows, centres)  # every block, before it is a query or a candidate; kept beside the features

Whatever the order of examples, the division into blocks, and the number of workers, the result is the same.

N examples, D features, K classes, k neighbours, Q queries, C cells, P probes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rayclean.functional.cells import fit_cells, nearest_cells
from rayclean.functional.hashing import mix
from rayclean.functional.lookup import lookup
from rayclean.functional.neighbours import NearestNeighbours
from rayclean.functional.types import Doubles, Ids, Ints, Labels, Probabilities

NEIGHBOURS = 20
"""k."""
VOTE_TEMPERATURE = 0.1
"""A neighbour whose cosine is lower by so much has a weight that is lower by a factor e."""
PRIOR_WEIGHT = 1 / NEIGHBOURS
"""Weight of the classes' shares beside the neighbours' votes: that of one average neighbour more."""
EXACT_BELOW = 1 << 15
"""With fewer examples, all pairs are compared in less time than cells save."""
CELL_ROWS = 256
"""Examples in a cell, on average."""
PROBES = 32
"""P, the cells that are searched for the neighbours of an example: about 8,000 candidates."""
MOST_CELLS = 4096
"""More cells would take longer to choose than they save; beyond a million examples cells grow instead."""
BLOCK_ROWS = 1 << 16
"""Examples in a block of queries or candidates, where cells are searched. In smaller blocks, few members of a cell
are compared at once, which takes longer: about twice as long with an eighth of it."""
SAMPLE_PER_CELL = 32
"""Examples, on average, from which the centre of a cell is learnt."""


@dataclass(frozen=True)
class FeatureRows:
    """Some examples: queries, candidates, or both."""

    ids: Ids
    """[n] example ids."""
    groups: Ids
    """[n] examples of the same group are no neighbours; an example's id where it is alone."""
    features: npt.NDArray[np.float32]
    """[n, D] of any length; finite."""
    cells: npt.NDArray[np.int32] | None = None
    """[n, P] from `in_cells`; None: all pairs are compared."""

    def __getitem__(self, rows: Ints | npt.NDArray[np.bool_]) -> "FeatureRows":
        cells = None if self.cells is None else self.cells[rows]
        return FeatureRows(self.ids[rows], self.groups[rows], self.features[rows], cells)

    @classmethod
    def joined(cls, parts: "Sequence[FeatureRows]") -> "FeatureRows":
        """The examples of some blocks, one after another."""
        cells = [part.cells for part in parts if part.cells is not None]
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.groups for part in parts]),
            np.concatenate([part.features for part in parts]),
            np.concatenate(cells) if cells else None,
        )


class GivenLabels:
    """The given labels of all examples, by id: 12 bytes for each.

    Args:
        ids: [N] in any order.
        labels: [N] in [0, K); -1: the example has none, and is nobody's neighbour.
        num_classes: K.
    """

    def __init__(self, ids: Ids, labels: Labels, num_classes: int):
        order = np.argsort(ids, kind="stable")
        self.ids, self.labels = ids[order], labels[order].astype(np.int32)
        if len(labels) and not (self.labels.min() >= -1 and self.labels.max() < num_classes):
            raise ValueError(
                f"labels are from {labels.min()} to {labels.max()}, expected [-1, {num_classes})"
            )
        self.num_classes = num_classes
        self.counts = np.bincount(self.labels[self.labels >= 0], minlength=num_classes)
        """[K] examples of each class."""

    def of(self, ids: Ids) -> npt.NDArray[np.int32]:
        """Label of each id, of any shape; -1 where there is none."""
        if not len(self.ids):
            return np.full(ids.shape, -1, dtype=np.int32)
        position, hit = lookup(self.ids, ids)
        return np.where(hit, self.labels[position], np.int32(-1))

    def shares_without(self, ids: Ids) -> Doubles:
        """Shares of the classes among all examples but the one itself [n, K], none of which is 0 (Laplace's rule):
        (examples of the class + 1) / (examples + K).
        """
        own = self.of(ids)
        counts = np.tile(self.counts + 1.0, (len(ids), 1))
        counts[np.flatnonzero(own >= 0), own[own >= 0]] -= 1
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def neighbour_votes(
    queries: FeatureRows, candidates: Iterable[FeatureRows], labels: GivenLabels, neighbours: int = NEIGHBOURS
) -> Probabilities:
    """Class probabilities [Q, K] of some examples by the labels of their nearest neighbours.

    Args:
        queries: Q examples.
        candidates: blocks of examples, together all that can be neighbours, the queries among them; one block is
            in memory at a time. Where queries have cells, these have them, too; the search in cells is the
            faster the more examples a block has (`BLOCK_ROWS` queries and candidates, or more).
        labels: of all candidates.
        neighbours: k; fewer where there are fewer.
    """
    labelled = (block if (known := labels.of(block.ids) >= 0).all() else block[known] for block in candidates)
    nearest = search_neighbours(queries, labelled, neighbours)
    voters = np.where(nearest.ids >= 0, labels.of(nearest.ids), -1)
    return mix_votes(voters, nearest.cosines, labels.shares_without(queries.ids))


def search_neighbours(
    queries: FeatureRows, candidates: Iterable[FeatureRows], neighbours: int
) -> NearestNeighbours:
    """The nearest k candidates of each query, exact or in cells; arguments as in `neighbour_votes`."""
    nearest = NearestNeighbours(queries.features, queries.groups, neighbours)
    search = _search_all if queries.cells is None else _CellSearch(queries.cells)
    for block in candidates:
        search(nearest, block)
    return nearest


def mix_votes(voters: Labels, cosines: Doubles, shares: Doubles) -> Probabilities:
    """Weighted votes of neighbours, mixed with the classes' shares.

    w_m = softmax_m(cosine_m / VOTE_TEMPERATURE); votes_j = sum of w_m over the neighbours m with label j;
    p = (votes + PRIOR_WEIGHT shares) / (1 + PRIOR_WEIGHT).

    Args:
        voters: [Q, k] labels of the neighbours; -1: there is none.
        cosines: [Q, k].
        shares: [Q, K], each row sums to 1.

    Returns:
        [Q, K]; the shares where an example has no neighbour.

    >>> mix_votes(np.array([[0, 1], [-1, -1]]), np.array([[0.9, 0.9], [0, 0]]), np.array([[0.2, 0.8]] * 2)).round(3)
    array([[0.486, 0.514], [0.2  , 0.8  ]], dtype=float32)
    """
    there = voters >= 0
    weights = np.where(there, np.exp((cosines - 1) / VOTE_TEMPERATURE), 0.0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    row, column = np.nonzero(there)
    num_classes = shares.shape[1]
    flat = np.bincount(row * num_classes + voters[row, column], weights[row, column], minlength=shares.size)
    mixed = flat.reshape(shares.shape) + PRIOR_WEIGHT * shares
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True), dtype=np.float32)


def cell_count(examples: int) -> int:
    """C for so many examples; 0: compare all pairs.

    >>> cell_count(20_000), cell_count(300_000), cell_count(10_000_000)
    (0, 1172, 4096)
    """
    return 0 if examples < EXACT_BELOW else min(round(examples / CELL_ROWS), MOST_CELLS)


def sample_for_cells(rows: FeatureRows, examples: int) -> FeatureRows:
    """The part of some examples, chosen by a hash of the id, from which `fit_centres` learns; `examples`: number of
    all.
    """
    share = min(cell_count(examples) * SAMPLE_PER_CELL / max(examples, 1), 1.0)
    return rows[np.flatnonzero(_rank(rows.ids) < share * 2.0**64)]


def fit_centres(samples: Iterable[FeatureRows], examples: int) -> npt.NDArray[np.float32]:
    """Centres [C, D] of cells, learnt from the samples of all blocks."""
    parts = list(samples)
    ids = np.concatenate([part.ids for part in parts])
    order = np.lexsort((ids, _rank(ids)))
    features = np.concatenate([part.features for part in parts])[order]
    return fit_cells(features, min(cell_count(examples), len(features)))


def in_cells(rows: FeatureRows, centres: npt.NDArray[np.float32]) -> FeatureRows:
    """The examples with their nearest cells; a candidate lies in the first of them."""
    return replace(rows, cells=nearest_cells(rows.features, centres, min(PROBES, len(centres))))


def _rank(ids: Ids) -> npt.NDArray[np.uint64]:
    return mix(ids, 0, "cells")


def _search_all(nearest: NearestNeighbours, candidates: FeatureRows) -> None:
    nearest.add(candidates.features, candidates.ids, candidates.groups)


class _CellSearch:
    """Compares each query with the candidates in its cells [Q, P]."""

    def __init__(self, cells: npt.NDArray[np.int32]):
        # The nearest cell of every query comes first: few examples of the others then come near enough.
        self._rounds = [_Members(cells[:, :1]), _Members(cells[:, 1:])]

    def __call__(self, nearest: NearestNeighbours, candidates: FeatureRows) -> None:
        assert candidates.cells is not None, "queries have cells, and these candidates have none"
        members = _Members(candidates.cells[:, :1])
        for probing in self._rounds:
            for cell in np.intersect1d(members.cells, probing.cells):
                here = candidates[members.of(cell)]
                nearest.add(here.features, here.ids, here.groups, rows=probing.of(cell))


class _Members:
    """The rows that have a cell among their cells [n, any number]."""

    def __init__(self, cells: npt.NDArray[np.int32]):
        flat = cells.reshape(-1)
        order = np.argsort(flat, kind="stable")
        self._rows = order // max(cells.shape[1], 1)
        self.cells, self._first = np.unique(flat[order], return_index=True)

    def of(self, cell: np.int32) -> Ints:
        """Rows in rising order."""
        at = int(np.searchsorted(self.cells, cell))
        last = self._first[at + 1] if at + 1 < len(self._first) else len(self._rows)
        return np.asarray(self._rows[self._first[at] : last])
