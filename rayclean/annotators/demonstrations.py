"""Demonstrations of a query: the nearest, or random, labelled examples.

The nearest neighbours are exact, by cosine similarity in the features of `predict`, with one shard in memory
at a time. The query's example and exact duplicates of its text, whose labels would reveal the answer, are excluded. The
most similar demonstration is last, next to the question.

A language model believes what it is shown, so it is shown no suspects, and it prefers the labels that it has just read, so
it is shown the query's candidates alone, each equally often (`balanced_demonstrations`). A vote of the neighbours is one of
all that are near, suspects too (`nearest_demonstrations` with `DemonstrationSources.votes`): each says how probably its label
is right.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.folder import Folder
from rayclean.functional.lookup import lookup_values
from rayclean.functional.neighbours import NearestNeighbours
from rayclean.hashing import text_group
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
    probability: float | None = None
    """Probability that its answer is right, as detection sees it; None where suspects are left out instead."""


@dataclass(frozen=True)
class DemonstrationSources:
    """URLs of the finished folders from which demonstrations are read."""

    load: str
    predict: str
    detect: str
    task: Task
    votes: bool = False
    """Whether the examples vote: then suspects are among them, and each has the probability that its answer is right."""

    def shards(self) -> list[str]:
        """Names of the shards of examples."""
        return Folder(self.load).shards("examples")

    def possible(self, shard: str) -> npt.NDArray[np.int64]:
        """Sorted ids of the examples of a shard that have a unit to show."""
        return np.unique(self.answered(shard)[0])

    def answered(self, shard: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Id of the example, and given answer, of every unit of a shard that may be shown."""
        examples = Folder(self.load).read_table("examples", shard, columns=["example_id", "given_label"])
        units = self._shown(shard, examples)
        return units["example_id"].to_numpy(), units["given_label"].to_numpy().astype(np.int64)

    def units(self, shard: str, ids: npt.NDArray[np.int64]) -> list[LabelledExample]:
        """The units that may be shown, of the examples of a shard with these ids."""
        columns = ["example_id", "text", "given_label"]
        examples = Folder(self.load).read_table("examples", shard, columns=columns)
        examples = examples.filter(pa.array(np.isin(examples["example_id"].to_numpy(), ids)))
        shown = self._shown(shard, examples)
        read = (shown[column].to_pylist() for column in (*columns, "given_value"))
        found = [LabelledExample(*row) for row in zip(*read, strict=True)]
        if not self.votes:
            return found
        findings = Folder(self.detect).read_table("findings", shard, columns=["unit_id", "given_probability"])
        ids = findings["unit_id"].to_numpy()
        rows = lookup_values(ids, np.arange(len(ids)), shown["unit_id"].to_numpy())
        assert (rows >= 0).all()  # detect ends by checking the set of ids
        probability = findings["given_probability"].take(pa.array(rows)).to_pylist()
        return [replace(each, probability=value) for each, value in zip(found, probability, strict=True)]

    def _shown(self, shard: str, examples: pa.Table) -> pa.Table:
        """The units of some examples of a shard that may be shown: all that vote, else those that are no suspects."""
        rows = self.task.unit_rows(examples)
        if self.votes:
            return rows
        findings = Folder(self.detect).read_table("findings", shard, columns=["unit_id", "suspect"])
        suspects = findings.filter(findings["suspect"])["unit_id"].to_numpy()
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
    different text, since one text may occur thousands of times. A copy of those that vote may differ in case and blanks.

    Args:
        sources: folders of examples, features and findings.
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
                replace(unit, similarity=cosine)
                for one, cosine in ranked
                if one != -1
                for unit in found[one]
                if unit.label in answers[row]
            )
            chosen[row] = _different(
                neighbours, texts[row], count, text_group if sources.votes else str.strip
            )
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
        sources: folders of examples, features and findings.
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
    """The nearest examples with a unit that may be shown and has one of some answers, other than the query itself; one
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


def _read(sources: DemonstrationSources, ids: npt.NDArray[np.int64]) -> dict[int, list[LabelledExample]]:
    """The units that may be shown, of the examples with some ids, by these."""
    found: dict[int, list[LabelledExample]] = {}
    for shard in sources.shards():
        for unit in sources.units(shard, ids):
            found.setdefault(unit.example_id, []).append(unit)
    return found


def _different(
    neighbours: Iterable[LabelledExample], text: str, count: int, content: Callable[[str], str | int]
) -> tuple[LabelledExample, ...]:
    """The first `count` neighbours with distinct texts other than the query's, in reverse order; texts of equal `content` are
    copies.
    """
    seen, picked = {content(text)}, []
    for neighbour in neighbours:
        if content(neighbour.text) not in seen:
            seen.add(content(neighbour.text))
            picked.append(neighbour)
            if len(picked) == count:
                break
    return tuple(reversed(picked))
