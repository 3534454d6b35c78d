"""Demonstrations of a query: the nearest, or random, labelled examples that are not suspects.

The nearest neighbours are exact, by cosine similarity in the features of `predict`, with one shard in memory
at a time. Suspects, the query's example and exact duplicates of its text, whose labels would reveal the
answer, are excluded. The most similar demonstration is last, next to the question.

A language model prefers the labels that it has just read. So it is shown the query's candidates alone, each equally
often (`balanced_demonstrations`); a vote of the neighbours is one of all that are near (`nearest_demonstrations`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.folder import Folder
from rayclean.functional.lookup import lookup_values
from rayclean.functional.neighbours import NearestNeighbours
from rayclean.schema import matrix
from rayclean.tasks.base import Task

SPARE = 16
"""Number of additional neighbours to fetch, since some may be duplicates."""
CONFLICTING = 2
"""Number of additional demonstrations to find for each candidate, since some texts may be found with both."""
MOST_FETCHED = 2048
"""Most neighbours fetched for a query (32 KiB of memory)."""


@dataclass(frozen=True)
class LabelledExample:
    """A labelled example that serves as a demonstration."""

    example_id: int
    text: str
    label: int
    """Index of the given answer of one of its units."""
    value: str | None
    """The answer itself as JSON, where its index does not say it."""
    similarity: float | None = None
    """Cosine similarity to the query's text; None if not measured."""


@dataclass(frozen=True)
class DemonstrationSources:
    """URLs of the finished folders from which demonstrations are read."""

    load: str
    predict: str
    detect: str
    task: Task

    def shards(self) -> list[str]:
        """Names of the shards of examples."""
        return Folder(self.load).shards("examples")

    def possible(self, shard: str) -> npt.NDArray[np.int64]:
        """Sorted ids of the examples of a shard that have a unit that is no suspect."""
        return np.unique(self.answered(shard)[0])

    def answered(self, shard: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Id of the example, and given answer, of every unit of a shard that is no suspect."""
        examples = Folder(self.load).read_table("examples", shard, columns=["example_id", "given_label"])
        units = self._undoubted(shard, examples)
        return units["example_id"].to_numpy(), units["given_label"].to_numpy().astype(np.int64)

    def units(self, shard: str, ids: npt.NDArray[np.int64]) -> list[tuple[int, str, int, str | None]]:
        """Id and text of the example, and given answer with its value, of the units that are no suspects, of the examples
        of a shard with these ids.
        """
        columns = ["example_id", "text", "given_label"]
        examples = Folder(self.load).read_table("examples", shard, columns=columns)
        examples = examples.filter(pa.array(np.isin(examples["example_id"].to_numpy(), ids)))
        found = self._undoubted(shard, examples)
        read = (found[column].to_pylist() for column in (*columns, "given_value"))
        return list(zip(*read, strict=True))

    def _undoubted(self, shard: str, examples: pa.Table) -> pa.Table:
        findings = Folder(self.detect).read_table("findings", shard, columns=["unit_id", "suspect"])
        suspects = findings.filter(findings["suspect"])["unit_id"].to_numpy()
        rows = self.task.unit_rows(examples)
        return rows.filter(pa.array(~np.isin(rows["unit_id"].to_numpy(), suspects)))

    def features(self, shard: str, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Features [len(ids), D] of the examples of a shard with these ids, in their order."""
        table = Folder(self.predict).read_table("features", shard)
        found = table["example_id"].to_numpy()
        rows = lookup_values(found, np.arange(len(found)), ids)
        assert (rows >= 0).all()  # predict ends by checking the set of ids
        return np.asarray(matrix(table["features"]), dtype=np.float32)[rows]


@dataclass(frozen=True)
class _Nearest:
    """The nearest examples of Q queries."""

    ids: npt.NDArray[np.int64]
    """[Q, M] the nearest first; -1: there are no more."""
    cosines: npt.NDArray[np.float64]
    """[Q, M]"""


def nearest_demonstrations(
    sources: DemonstrationSources,
    ids: npt.NDArray[np.int64],
    texts: Sequence[str],
    features: npt.NDArray[np.float32],
    count: int,
    answers: Sequence[frozenset[int]],
) -> list[tuple[LabelledExample, ...]]:
    """The `count` most similar demonstrations per query, the most similar last.

    There are fewer if the data have no more, or if fewer of the nearest `MOST_FETCHED` examples have a
    different text, since one text may occur thousands of times.

    Args:
        sources: folders of examples, features and suspects.
        ids: [Q] example ids of the queries.
        texts: Q texts.
        features: [Q, D].
        count: K, at least 1.
        answers: Q sets of answers; the units of demonstrations have one of them.
    """
    chosen: list[tuple[LabelledExample, ...]] = [()] * len(ids)
    rows, fetch = np.arange(len(ids)), count + SPARE
    while len(rows):
        nearest = _search(sources, ids[rows], features[rows], fetch, [answers[row] for row in rows.tolist()])
        found = _read(sources, nearest.ids)
        for place, row in enumerate(rows.tolist()):
            ranked = zip(nearest.ids[place].tolist(), nearest.cosines[place].tolist(), strict=True)
            neighbours = (
                LabelledExample(one, text, label, value, cosine)
                for one, cosine in ranked
                if one != -1
                for text, label, value in found[one]
                if label in answers[row]
            )
            chosen[row] = _different(neighbours, texts[row], count)
        lacking = np.array([len(chosen[row]) < count for row in rows]) & (nearest.ids[:, -1] != -1)
        rows, fetch = rows[lacking & (fetch < MOST_FETCHED)], min(4 * fetch, MOST_FETCHED)
    return chosen


def balanced_demonstrations(
    sources: DemonstrationSources,
    ids: npt.NDArray[np.int64],
    texts: Sequence[str],
    features: npt.NDArray[np.float32],
    count: int,
    candidates: Sequence[Sequence[int]],
) -> list[tuple[LabelledExample, ...]]:
    """`count` demonstrations per query, the same number of the nearest ones of each candidate and, if some are left
    over, the nearest of the rest; all together by similarity, the most similar last.

    Where a candidate has fewer, all have as few as it, so that no candidate is shown more often for want of the other.
    A text that is found with two of the candidates is shown with neither. Of more candidates than demonstrations, the
    nearest are shown, whichever they have.

    Args:
        sources: folders of examples, features and suspects.
        ids: [Q] example ids of the queries.
        texts: Q texts.
        features: [Q, D].
        count: K, at least 1.
        candidates: Q sequences of answers.
    """
    requests = [
        (row, answers)
        for row, possible in enumerate(candidates)
        for answers in (
            [frozenset({one}) for one in possible] if len(possible) <= count else [frozenset(possible)]
        )
    ]
    rows = np.array([row for row, _ in requests], dtype=np.int64)
    most = count if not requests else max(
        count - (len(possible) - 1) * (count // len(possible)) for possible in candidates
    )  # fmt: skip
    found = nearest_demonstrations(
        sources, ids[rows], [texts[row] for row in rows.tolist()], features[rows], most + CONFLICTING,
        [answers for _, answers in requests],
    )  # fmt: skip
    lists: list[list[tuple[LabelledExample, ...]]] = [[] for _ in candidates]
    for (row, _), shown in zip(requests, found, strict=True):
        lists[row].append(shown[::-1])
    return [_balanced(each, count) for each in lists]


def _balanced(lists: Sequence[Sequence[LabelledExample]], count: int) -> tuple[LabelledExample, ...]:
    """At most `count` of the examples of each candidate, which come the most similar first; the most similar last."""
    places = Counter(text for each in lists for text in {one.text.strip() for one in each})
    clear = [[one for one in each if places[one.text.strip()] == 1] for each in lists]
    share = min(count // len(clear), *map(len, clear)) if len(clear) > 1 else 0
    shown = [one for each in clear for one in each[:share]]
    if share == count // len(clear) or len(clear) == 1:
        rest = [one for each in clear for one in each[share:]]
        shown += sorted(rest, key=_by_similarity)[: count - len(shown)]
    return tuple(sorted(shown, key=_by_similarity)[::-1])


def _by_similarity(example: LabelledExample) -> tuple[float, int]:
    """Order of demonstrations: the most similar first, equal ones by id."""
    return -(example.similarity or 0.0), example.example_id


def _search(
    sources: DemonstrationSources,
    ids: npt.NDArray[np.int64],
    features: npt.NDArray[np.float32],
    fetch: int,
    answers: Sequence[frozenset[int]],
) -> _Nearest:
    """The nearest examples with a unit that is no suspect and has one of some answers, other than the query itself; one
    shard in memory at a time.
    """
    groups: dict[frozenset[int], list[int]] = {}
    for row, allowed in enumerate(answers):
        groups.setdefault(allowed, []).append(row)
    searches = {key: NearestNeighbours(features[rows], ids[rows], fetch) for key, rows in groups.items()}
    for shard in sources.shards():
        examples, given = sources.answered(shard)
        wanted = {key: np.unique(examples[np.isin(given, list(key))]) for key in groups}
        every = np.unique(np.concatenate([*wanted.values()]))
        vectors = sources.features(shard, every) if len(every) else None
        for key, candidates in wanted.items():
            if vectors is not None and len(candidates):
                searches[key].add(vectors[np.searchsorted(every, candidates)], candidates)
    found = _Nearest(np.empty((len(ids), fetch), np.int64), np.empty((len(ids), fetch)))
    for key, rows in groups.items():
        found.ids[rows], found.cosines[rows] = searches[key].ids, searches[key].cosines
    return found


def _read(
    sources: DemonstrationSources, ids: npt.NDArray[np.int64]
) -> dict[int, list[tuple[str, int, str | None]]]:
    """Text and given answer with its value of the units, which are no suspects, of the examples with some ids."""
    found: dict[int, list[tuple[str, int, str | None]]] = {}
    for shard in sources.shards():
        for example, text, label, value in sources.units(shard, ids):
            found.setdefault(example, []).append((text, label, value))
    return found


def _different(neighbours: Iterable[LabelledExample], text: str, count: int) -> tuple[LabelledExample, ...]:
    """The first `count` neighbours with distinct texts other than the query's, in reverse order."""
    seen, picked = {text.strip()}, []
    for neighbour in neighbours:
        if neighbour.text.strip() not in seen:
            seen.add(neighbour.text.strip())
            picked.append(neighbour)
            if len(picked) == count:
                break
    return tuple(reversed(picked))
