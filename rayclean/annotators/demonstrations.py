"""Demonstrations of a query: labelled examples that are no suspects, either the nearest ones or random ones.

The search for the nearest is exact: cosine in the features of `predict`, one shard of the data in memory at a time, the
best of every shard merged. Suspects, the query itself and exact duplicates of its text are left out (labels of
duplicates would give the answer away, right or wrong). The most similar demonstration is the last, next to the text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotators.base import Demonstration
from rayclean.folder import Folder
from rayclean.functional.hashing import mix
from rayclean.schema import matrix

SPARE = 16
"""Neighbours fetched beyond the number asked for, since some turn out to be duplicates."""
MOST_FETCHED = 2048
"""Most neighbours that are fetched for a query (48 KiB of memory)."""
RANDOM_POOL = 1024
"""Number of examples from which `random` draws; they are chosen by a hash of their ids."""
DIGITS = 5
"""Digits to which cosines are compared, ties by id: their last digits depend on the machine."""


@dataclass(frozen=True)
class DemonstrationSources:
    """URLs of the finished folders that demonstrations come from."""

    load: str
    predict: str
    detect: str

    def shards(self) -> list[str]:
        """Names of the shards."""
        return Folder(self.load).shards("examples")

    def examples(
        self, shard: str, columns: Sequence[str] = ("example_id", "text", "given_label")
    ) -> pa.Table:
        """Examples of a shard that are no suspects."""
        findings = Folder(self.detect).read_table("findings", shard, columns=["example_id", "suspect"])
        suspects = findings.filter(findings["suspect"])["example_id"].to_numpy()
        table = Folder(self.load).read_table("examples", shard, columns=columns)
        return table.filter(pa.array(~np.isin(table["example_id"].to_numpy(), suspects)))

    def features(self, shard: str, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Unit features [len(ids), D] of the examples of a shard with these ids, in their order."""
        table = Folder(self.predict).read_table("features", shard)
        order = np.argsort(table["example_id"].to_numpy(), kind="stable")
        sorted_ids = table["example_id"].to_numpy()[order]
        rows = order[np.searchsorted(sorted_ids, ids)]
        assert (table["example_id"].to_numpy()[rows] == ids).all()  # predict ends by checking the set of ids
        vectors = np.asarray(matrix(table["features"]), dtype=np.float32)[rows]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.ascontiguousarray(vectors / np.maximum(norms, 1e-12))


@dataclass
class _Hits:
    """The best examples so far of each of Q queries."""

    score: npt.NDArray[np.float64]
    """[Q, M] Rounded cosines, descending; -inf where there is no example."""
    id: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int64]

    def merge(self, score: Any, ids: Any, shard: int) -> None:
        score = np.concatenate([self.score, np.round(score.astype(np.float64), DIGITS)], axis=1)
        ids = np.concatenate([self.id, ids], axis=1)
        shards = np.concatenate(
            [self.shard, np.full((len(ids), ids.shape[1] - self.id.shape[1]), shard)], axis=1
        )
        best = np.lexsort((ids, -score), axis=1)[:, : self.score.shape[1]]
        self.score, self.id, self.shard = (np.take_along_axis(x, best, axis=1) for x in (score, ids, shards))


def nearest_demonstrations(
    sources: DemonstrationSources,
    ids: npt.NDArray[np.int64],
    texts: Sequence[str],
    features: npt.NDArray[np.float32],
    count: int,
) -> list[tuple[Demonstration, ...]]:
    """The `count` most similar demonstrations per query, the most similar last.

    There are fewer where the data hold no more, or where the nearest `MOST_FETCHED` are all duplicates (a text that
    occurs thousands of times). Examples whose cosines are equal to `DIGITS` digits come in the order of their ids, if
    there are at most `MOST_FETCHED` of them.

    Args:
        sources: folders of examples, features and suspects.
        ids: [Q] example ids of the queries.
        texts: Q texts of the queries.
        features: [Q, D] unit features of the queries.
        count: number of demonstrations, at least 1.
    """
    chosen: list[tuple[Demonstration, ...]] = [()] * len(ids)
    rows, fetch = np.arange(len(ids)), count + SPARE
    while len(rows):
        hits = _search(sources, features[rows], fetch)
        known = _read(sources, hits)
        for place, row in enumerate(rows.tolist()):
            chosen[row] = _pick(hits, place, known, int(ids[row]), texts[row], count)
        more = np.isfinite(hits.score).all(axis=1)  # there may be others behind what was fetched
        last = zip(rows, hits.score[:, -1], strict=True)
        undecided = np.array([not _settled(chosen[row], count, score) for row, score in last])
        rows, fetch = rows[more & undecided & (fetch < MOST_FETCHED)], min(4 * fetch, MOST_FETCHED)
    return chosen


def _settled(chosen: Sequence[Demonstration], count: int, last: float) -> bool:
    """Whether nothing that was not fetched could be among the chosen. Shards are cut off by cosines of all digits, so
    that of equals to the last one fetched (`last`: its rounded cosine) some may be missing, which come first by id.
    """
    least = chosen[0].similarity if len(chosen) == count else None
    return least is not None and least > last


def _search(sources: DemonstrationSources, features: npt.NDArray[np.float32], fetch: int) -> _Hits:
    shape = (len(features), fetch)
    hits = _Hits(np.full(shape, -np.inf), np.full(shape, np.iinfo(np.int64).max), np.full(shape, -1))
    for number, shard in enumerate(sources.shards()):
        base = sources.examples(shard, ["example_id"])["example_id"].to_numpy()
        if len(base):
            vectors = sources.features(shard, base)
            score, index = faiss.knn(
                features, vectors, min(fetch, len(base)), metric=faiss.METRIC_INNER_PRODUCT
            )
            hits.merge(score, base[index], number)
    return hits


def _read(sources: DemonstrationSources, hits: _Hits) -> dict[int, tuple[str, int]]:
    """Text and given label of every hit."""
    known: dict[int, tuple[str, int]] = {}
    names = sources.shards()
    for number in np.unique(hits.shard[hits.shard >= 0]):
        table = sources.examples(names[number])
        table = table.filter(pa.array(np.isin(table["example_id"].to_numpy(), hits.id[hits.shard == number])))
        known.update(_rows(table))
    return known


def _rows(table: pa.Table) -> Iterator[tuple[int, tuple[str, int]]]:
    for row in table.to_pylist():
        yield row["example_id"], (row["text"], row["given_label"])


def _pick(
    hits: _Hits, row: int, known: dict[int, tuple[str, int]], own: int, text: str, count: int
) -> tuple[Demonstration, ...]:
    seen = {text.strip()}
    picked: list[Demonstration] = []
    for score, example in zip(hits.score[row], hits.id[row], strict=True):
        if len(picked) == count or not np.isfinite(score):
            break
        if example == own or (found := known[int(example)])[0].strip() in seen:
            continue
        seen.add(found[0].strip())
        picked.append(Demonstration(found[0], found[1], float(score)))
    return tuple(reversed(picked))


def random_pool(sources: DemonstrationSources, seed: int) -> list[tuple[int, str, int]]:
    """Id, text and given label of up to `RANDOM_POOL` examples that are no suspects, the same for any shard layout."""
    pool: dict[int, tuple[str, int]] = {}
    for shard in sources.shards():
        table = sources.examples(shard)
        ids = table["example_id"].to_numpy()
        if len(ids) > RANDOM_POOL:
            keep = np.argsort(mix(ids, seed, "demonstrations"), kind="stable")[:RANDOM_POOL]
            table = table.take(keep)
        pool.update(_rows(table))
        ids = np.fromiter(pool, dtype=np.int64, count=len(pool))
        order = np.argsort(mix(ids, seed, "demonstrations"), kind="stable")[:RANDOM_POOL]
        pool = {int(ids[i]): pool[int(ids[i])] for i in order}
    return [(example, text, label) for example, (text, label) in pool.items()]


def random_demonstrations(
    pool: Sequence[tuple[int, str, int]], example_id: int, text: str, count: int, seed: int
) -> tuple[Demonstration, ...]:
    """`count` demonstrations from the pool, drawn by the query's id; neither itself nor duplicates of its text."""
    order = np.random.default_rng([seed & 0xFFFFFFFF, example_id & 0xFFFFFFFFFFFFFFFF]).permutation(len(pool))
    allowed = (pool[i] for i in order if pool[i][0] != example_id and pool[i][1].strip() != text.strip())
    return tuple(
        Demonstration(text, label) for (_, text, label), _ in zip(allowed, range(count), strict=False)
    )
