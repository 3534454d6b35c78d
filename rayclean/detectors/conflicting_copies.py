"""Copies of a text with different labels: at least one of them is wrong, whatever any model thinks.

Two examples are copies if their texts are equal but for case, blanks and the form of their Unicode
(`hashing.text_group`), or if the cosine of their features is at least `similarity`. All pairs of shards are searched
exactly (`rayclean.functional.neighbours`), which takes N^2 D multiplications, spread over shards; `similarity = "equal"`
compares no features and takes no time to speak of. In the state are 20 bytes for each pair of an example that has
copies and a label that they have.

Measured with MiniLM's features at the default of .95: at least 96 % of the pairs of copies have the same true label, and
near-equal texts tell as much as equal ones, so each counts for one copy. Of the labels that it votes against, 9 of 13
are wrong on youtube_weak (14 % of all labels), 43 of 77 on trec_weak (46 %); the suggestion is right for 9 and 32.
Copies that agree tell little where a rule wrote the labels, since they are wrong together: .45 of theirs are wrong on
trec_weak, .46 of those without copies. So agreement is no merit: ranking it above a lack of copies cost .02 of ROC-AUC
in a mean of ranks with `posterior`. As it is, that ranking does not gain either (.953 to .951 and .765 to .762), for
the expert `neighbours` has the same knowledge: the detector's use is evidence that a person believes at a glance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rayclean.detectors.base import Detector, DetectorBatch, DetectorShard, Mapper
from rayclean.detectors.confident_joint import mapped
from rayclean.detectors.knn_vote import comparable
from rayclean.functional.neighbours import CANDIDATE_ROWS, DIGITS, ONE, QUERY_ROWS, near_pairs
from rayclean.functional.types import Ids, Ints
from rayclean.plugins import Options

_Votes = tuple[Ids, Ints, Ints]
"""Example, label and number of its copies that have the label, [E] each."""
_NOTHING: _Votes = (np.zeros(0, dtype=np.int64),) * 3


@dataclass(frozen=True)
class CopiesState:
    """The labels of every example's copies, as one row per example and label that occurs among them."""

    ids: npt.NDArray[np.int64]
    """[E] examples in rising order; those without copies do not occur."""
    labels: npt.NDArray[np.int32]
    """[E] labels, in rising order for each example."""
    counts: npt.NDArray[np.int64]
    """[E] how many copies of the example, itself aside, have the label."""
    groups: int
    """Number of texts that occur more than once."""
    copies: int
    """Number of examples that have a copy."""
    conflicts: int
    """Number of examples that have a copy with another label."""

    def of(self, ids: Ids) -> tuple[Ints, Ints]:
        """The rows [F] of the state that belong to some examples [B], and their positions [F] among these."""
        first = np.searchsorted(self.ids, ids, side="left")
        number = np.searchsorted(self.ids, ids, side="right") - first
        position = np.repeat(np.arange(len(ids)), number)
        before = np.cumsum(number) - number
        return np.repeat(first - before, number) + np.arange(len(position)), position


class ConflictingCopies(Detector):
    """Quality = 2 (a + 1/2) / (n + 1), at most 1, where a of n copies have the example's own label.

    So it is 1 where at least half of the copies agree, and where there are none: a label that is not contradicted is
    neither better nor worse than one of which nothing is known.

    It votes against a label that is not the most frequent one among the example and its copies; where several are the
    most frequent, against all of them. Where copies have other labels, it suggests the most frequent of these; named
    before `posterior`, it does so in its place, and leaves all other examples to it.
    """

    class Config(Options):
        """Options beside `name`."""

        similarity: Annotated[float, Field(gt=0, le=1)] | Literal["equal"] = 0.95
        """Cosine of the features above which different texts count as copies; `equal`: only equal texts do. Where
        many pairs of texts with nothing in common come near it, the encoder is too coarse for near-equal texts."""

    config: Config
    needs_groups = True

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        self.needs_features = config.similarity != "equal"

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> CopiesState:
        """Find the copies of every example and count their labels."""
        read = [_NOTHING, *mapped(mapper, _labels, shards)]
        ids, groups, labels = (np.concatenate(column) for column in zip(*read, strict=True))
        found, repeated = _equal_votes(ids, groups, labels)
        parts = [found]
        if self.config.similarity != "equal":
            search = partial(
                _near_votes, shards=tuple(shards), least=self.config.similarity, num_classes=self.num_classes
            )
            parts += mapped(mapper, search, shards)
        owner, label, count = _summed(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        order = np.argsort(ids)
        own = labels[order][np.searchsorted(ids[order], owner)]
        conflicts = len(np.unique(owner[label != own]))
        return CopiesState(
            owner, label.astype(np.int32), count.astype(np.int64), repeated, len(np.unique(owner)), conflicts
        )

    def score(
        self, batch: DetectorBatch, state: CopiesState
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality and vote [B]."""
        row, position = state.of(batch.unit_id)
        same = state.labels[row] == batch.given_label[position]
        size = len(batch.unit_id)
        agreeing = np.bincount(position[same], state.counts[row[same]], minlength=size)
        copies = np.bincount(position, state.counts[row], minlength=size)
        most = np.zeros(size)
        np.maximum.at(most, position[~same], state.counts[row[~same]])
        quality = np.minimum(2 * (agreeing + 0.5) / (copies + 1), 1.0)
        return quality.astype(np.float32), most >= agreeing + 1

    def answer_probabilities(self, batch: DetectorBatch, state: CopiesState) -> npt.NDArray[np.floating[Any]]:
        """The labels of an example and its copies as shares [B, K], with the model's probabilities as one more copy; NaN
        for examples whose copies have no other label.
        """
        row, position = state.of(batch.unit_id)
        rows = np.arange(len(batch.unit_id))
        values = batch.probabilities.astype(np.float64)
        values[position, state.labels[row]] += state.counts[row]
        values[rows, batch.given_label] += 1
        values /= values.sum(axis=1, keepdims=True)
        conflicting = np.zeros(len(rows), dtype=np.bool_)
        conflicting[position[state.labels[row] != batch.given_label[position]]] = True
        values[~conflicting] = np.nan
        return values

    def metrics(self, state: CopiesState) -> dict[str, float]:
        """`copy_groups`, texts that occur more than once; `copies`, examples that have an equal or a near-equal text;
        `copies_in_conflict`, those with a copy that has another label.
        """
        return {
            "copy_groups": float(state.groups),
            "copies": float(state.copies),
            "copies_in_conflict": float(state.conflicts),
        }

    def note(self, state: CopiesState) -> str:
        """How many copies were seen, where none contradicts another."""
        if state.conflicts:
            return ""
        near = (
            "" if self.config.similarity == "equal" else f" or a text nearer than {self.config.similarity:g}"
        )
        return (
            f"no copies have different labels ({state.groups:,} texts occur more than once; {state.copies:,} examples "
            f"have an equal text{near})"
        )


def _labels(shard: DetectorShard) -> tuple[Ids, Ids, Ints]:
    """Ids, groups and given labels of a shard."""
    batch = shard.read(groups=True)
    assert batch.group is not None
    return batch.unit_id, batch.group, batch.given_label


def _equal_votes(ids: Ids, groups: Ids, labels: Ints) -> tuple[_Votes, int]:
    """The labels of every example's equal texts, and the number of texts that occur more than once."""
    _, member, size = np.unique(groups, return_inverse=True, return_counts=True)
    some = np.flatnonzero(size[member] > 1)
    ids, member, labels = ids[some], member[some], labels[some]
    cell, count = np.unique(np.stack([member, labels]), axis=1, return_counts=True)
    first = np.searchsorted(cell[0], member, side="left")
    number = np.searchsorted(cell[0], member, side="right") - first
    owner = np.repeat(np.arange(len(ids)), number)
    at = np.repeat(first - (np.cumsum(number) - number), number) + np.arange(len(owner))
    others = count[at] - (cell[1][at] == labels[owner])
    there = others > 0
    return (ids[owner[there]], cell[1][at[there]], others[there]), int((size > 1).sum())


def _near_votes(
    shard: DetectorShard, shards: tuple[DetectorShard, ...], least: float, num_classes: int
) -> _Votes:
    """The labels of the near-equal, but not equal, texts of every example of a shard."""
    batch = shard.read(features=True, groups=True)
    assert batch.group is not None
    queries = comparable(batch, batch.group, "conflicting_copies")
    counts = np.zeros((len(batch.unit_id), num_classes), dtype=np.int32)
    for other in (each.read(features=True, groups=True) for each in shards):
        assert other.group is not None
        candidates = comparable(other, other.group, "conflicting_copies")
        for start in range(0, len(other.unit_id), CANDIDATE_ROWS):
            block = slice(start, start + CANDIDATE_ROWS)
            for first in range(0, len(counts), QUERY_ROWS):
                rows = slice(first, first + QUERY_ROWS)
                limit = np.full(len(counts[rows]), (least - 10.0**-DIGITS) * ONE)
                row, column, cosine = near_pairs(queries[rows], candidates[block], limit, 1)
                # to as many digits as neighbours: features differ beyond them by the batch they were computed with
                near = np.rint(cosine / ONE * 10**DIGITS) >= round(least * 10**DIGITS)
                np.add.at(counts, (first + row[near], other.given_label[block][column[near]]), 1)
    row, label = np.nonzero(counts)
    return batch.unit_id[row], label, counts[row, label].astype(np.int64)


def _summed(ids: Ids, labels: Ints, counts: Ints) -> _Votes:
    """Votes with one row per example and label, in their order."""
    order = np.lexsort((labels, ids))
    ids, labels, counts = ids[order], labels[order], counts[order]
    if not len(ids):
        return ids, labels, counts
    new = np.flatnonzero(np.r_[True, (ids[1:] != ids[:-1]) | (labels[1:] != labels[:-1])])
    return ids[new], labels[new], np.add.reduceat(counts, new)
