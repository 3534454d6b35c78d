"""Which examples two runs do not both have, and of which labels they think differently."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.functional.types import Ids

_Order = Sequence[tuple[str, str]]
_BY_ID: _Order = (("example_id", "ascending"), ("part", "ascending"))
_SUREST: _Order = (("surest", "descending"), *_BY_ID)


@dataclass(frozen=True)
class PairCount:
    """How often the first run says one thing where the second one says another."""

    a: str | None
    b: str | None
    count: int


@dataclass(frozen=True)
class Tally:
    """The units of which two runs say different things."""

    count: int
    labels: tuple[PairCount, ...]
    """By both labels (the given ones where those differ, else the final ones), the most frequent first."""
    sources: tuple[PairCount, ...]
    """By both sources (`relabel/labels/`), the most frequent first."""
    first: pa.Table
    """The first of them, with the columns of `side_by_side`."""


@dataclass(frozen=True)
class LabelDifferences:
    """The difference of the labels of two runs. A unit is an example, or a class of one, as the task says."""

    both: int
    """Examples that are in both runs."""
    only_a: int
    only_b: int
    first_only_a: Ids
    """Ids of the first examples that are in the first run alone."""
    first_only_b: Ids
    splits: tuple[PairCount, ...]
    """Examples of both runs that are of another split, by both splits."""
    given: Tally
    """Units with different given labels."""
    final: Tally
    """Units with different final labels, the surest first."""
    decision: Tally
    """Units with the same final label for different reasons (`relabel/labels/`, column `source`)."""


def label_differences(tables: Iterable[pa.Table], limit: int) -> LabelDifferences:
    """Compare the labels of two runs.

    Args:
        tables: of `joining.side_by_side`.
        limit: most units and examples of a kind that are returned; all are counted.
    """
    both, splits = 0, Counter[tuple[str | None, str | None]]()
    only: dict[str, tuple[int, Ids]] = dict.fromkeys("ab", (0, np.zeros(0, dtype=np.int64)))
    given, final, decision = (_Counted(name, order, limit) for name, order in (
        ("given_name", _BY_ID), ("final_name", _SUREST), ("final_name", _BY_ID)
    ))  # fmt: skip
    for table in tables:
        ids = table["example_id"].to_numpy()
        in_a, in_b = (np.unique(ids[np.asarray(table[name].is_valid())]) for name in ("split", "split_b"))
        both += len(np.intersect1d(in_a, in_b, assume_unique=True))
        for name, one, other in (("a", in_a, in_b), ("b", in_b, in_a)):
            alone = np.setdiff1d(one, other, assume_unique=True)
            count, first = only[name]
            only[name] = count + len(alone), np.sort(np.concatenate([first, alone]))[:limit]
        shared = table.filter(pc.and_(table["split"].is_valid(), table["split_b"].is_valid()))
        moved = shared.filter(pc.not_equal(shared["split"], shared["split_b"]))
        examples = moved.group_by(["example_id", "split", "split_b"]).aggregate([])
        splits += _pairs(examples, "split")
        given.add(
            shared.filter(pc.not_equal(*(pc.fill_null(shared[name], "") for name in ("given", "given_b"))))
        )
        decided = shared.filter(pc.and_(shared["final"].is_valid(), shared["final_b"].is_valid()))
        same = pc.equal(decided["final"], decided["final_b"])
        final.add(decided.filter(pc.invert(same)))
        other_source = pc.not_equal(decided["source"], decided["source_b"])
        decision.add(decided.filter(pc.and_(same, other_source)))
    return LabelDifferences(
        both=both,
        only_a=only["a"][0],
        only_b=only["b"][0],
        first_only_a=only["a"][1],
        first_only_b=only["b"][1],
        splits=_sorted(splits),
        given=given.tally(),
        final=final.tally(),
        decision=decision.tally(),
    )


class _Counted:
    """Counts units of which two runs say different things, and keeps the first of them."""

    def __init__(self, label: str, order: _Order, limit: int):
        self.label, self.order, self.limit = label, order, limit
        self.count = 0
        self.labels, self.sources = (
            Counter[tuple[str | None, str | None]](),
            Counter[tuple[str | None, str | None]](),
        )
        self.first: pa.Table | None = None

    def add(self, rows: pa.Table) -> None:
        surest = pc.max_element_wise(rows["confidence"], rows["confidence_b"])
        rows = rows.append_column("surest", pc.fill_null(surest, 0.0))
        self.count += len(rows)
        self.labels += _pairs(rows, self.label)
        self.sources += _pairs(rows, "source")
        every = rows if self.first is None else pa.concat_tables([self.first, rows])
        self.first = every.sort_by([*self.order]).slice(0, self.limit)

    def tally(self) -> Tally:
        first = pa.table({}) if self.first is None else self.first
        return Tally(self.count, _sorted(self.labels), _sorted(self.sources), first)


def _pairs(rows: pa.Table, column: str) -> Counter[tuple[str | None, str | None]]:
    """How often each pair of values occurs in a column of both runs."""
    names = [column, f"{column}_b"]
    counted = rows.group_by(names).aggregate([([], "count_all")])
    columns = (counted[name].to_pylist() for name in (*names, "count_all"))
    return Counter({(a, b): count for a, b, count in zip(*columns, strict=True)})


def _sorted(counts: Counter[tuple[str | None, str | None]]) -> tuple[PairCount, ...]:
    pairs = (PairCount(a, b, count) for (a, b), count in counts.items())
    return tuple(sorted(pairs, key=lambda each: (-each.count, each.a or "", each.b or "")))
