"""Counting a run shard by shard: what the metrics and the report are computed from. What is counted are units: in
classification the examples.

What stays in memory: counts by split, pairs of labels that occur, 21 bytes and a few numbers per suspect,
and, of examples whose truth is known, one bool and one float32 per quality (the ROC-AUC needs all of them).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotations import SuspectRanking
from rayclean.errors import ArtifactError
from rayclean.functional.lookup import lookup_values
from rayclean.functional.types import Bools, Floats, Ints

UNKNOWN = -1
"""Index that stands for a label that is not known."""
BINS = 200
"""Bins of the histograms; charts draw fewer."""


def aligned(table: pa.Table, ids: Ints, where: str) -> pa.Table:
    """The rows of a table in the order of `ids`.

    Raises:
        ArtifactError: it holds other examples.
    """
    table_ids = table["unit_id"].to_numpy()
    rows = lookup_values(table_ids, np.arange(len(table_ids)), ids)
    if len(table_ids) != len(ids) or (rows < 0).any():
        raise ArtifactError(
            f"{where} holds {len(table_ids)} rows and load/examples {len(ids)} in this shard, or their ids differ: run "
            "'rayclean detect CONFIG --again', then 'rayclean clean CONFIG'"
        )
    return table if np.array_equal(rows, np.arange(len(table_ids))) else table.take(rows)


_COUNTED = ("examples", "known", "wrong_given", "wrong_final", "changed", "harmed", "repaired", "suspects",
          "suspects_known", "suspects_wrong")  # fmt: skip
"""What is counted in every split; `known`: examples of known truth."""


@dataclass
class RunCounts:
    """Counts of all examples; `add` takes the shards in any order."""

    suspects: SuspectRanking
    """All suspects; `add` fills in their true labels."""
    detectors: Sequence[str] = ()
    """Names of the detectors."""
    by_split: dict[str, Counter[str]] = field(default_factory=dict)
    """The counts named in `_COUNTED`, by split."""
    given_final: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Examples by given and final label."""
    given_true: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Examples of known truth by given and true label."""
    given_final_true: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    """Examples of known truth by given, final and true label, of those where not all three agree."""
    votes: dict[str, Counter[str]] = field(default_factory=dict)
    """By detector: number of votes, of those on examples of known truth, of those on wrong labels."""
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, BINS), dtype=np.int64))
    """Examples by quality in [0, 1]: truth unknown, label right, label wrong."""
    cut: float = -np.inf
    """Highest quality of a suspect."""
    reverted: set[int] = field(default_factory=set)
    """Examples whose change was taken back."""
    _wrong: list[Bools] = field(default_factory=list)
    _suspect: list[Bools] = field(default_factory=list)
    _quality: dict[str, list[Floats]] = field(default_factory=dict)

    def add(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Count a shard.

        Args:
            columns: `unit_id`, `given`, `final`, `truth` (`UNKNOWN` where not known), `split`, `source`,
                `quality`, `suspect`, and `quality_<detector>`, `vote_<detector>`, [B] each.
        """
        given, final, truth = columns["given"], columns["final"], columns["truth"]
        known, suspect = truth >= 0, columns["suspect"]
        wrong, wrong_final = known & (given != truth), known & (final != truth)
        flags = {
            "examples": np.ones(len(given), dtype=np.bool_),
            "known": known,
            "wrong_given": wrong,
            "wrong_final": wrong_final,
            "changed": given != final,
            "harmed": known & ~wrong & wrong_final,
            "repaired": wrong & ~wrong_final,
            "suspects": suspect,
            "suspects_known": suspect & known,
            "suspects_wrong": suspect & wrong,
        }
        for split in np.unique(columns["split"]):
            rows = columns["split"] == split
            counter = self.by_split.setdefault(str(split), Counter(dict.fromkeys(_COUNTED, 0)))
            counter.update({name: int((flag & rows).sum()) for name, flag in flags.items()})
        _add_tuples(self.given_final, given, final)
        _add_tuples(self.given_true, given[known], truth[known])
        differ = known & ((given != final) | (given != truth))
        _add_tuples(self.given_final_true, given[differ], final[differ], truth[differ])
        self._add_quality(columns, known, wrong, suspect)
        self.reverted.update(columns["unit_id"][columns["source"] == "reverted"].tolist())
        place = lookup_values(columns["unit_id"], np.arange(len(given)), self.suspects.unit_id)
        self.suspects.truth[place >= 0] = truth[place[place >= 0]]

    def _add_quality(self, columns: Mapping[str, Any], known: Bools, wrong: Bools, suspect: Bools) -> None:
        quality = columns["quality"]
        bins = np.clip((quality * BINS).astype(np.int64), 0, BINS - 1)
        for row, part in enumerate((~known, known & ~wrong, wrong)):
            self.histogram[row] += np.bincount(bins[part], minlength=BINS)
        self.cut = float(max(self.cut, quality[suspect].max(initial=-np.inf)))
        self._wrong.append(wrong[known])
        self._suspect.append(suspect[known])
        names = {"": "quality", **{name: f"quality_{name}" for name in self.detectors}}
        for name, column in names.items():
            self._quality.setdefault(name, []).append(columns[column][known].astype(np.float32))
        for name in self.detectors:
            vote = columns[f"vote_{name}"]
            counter = self.votes.setdefault(name, Counter())
            counter.update(
                votes=int(vote.sum()), known=int((vote & known).sum()), wrong=int((vote & wrong).sum())
            )

    def total(self, name: str) -> int:
        """A count over all splits."""
        return sum(counter[name] for counter in self.by_split.values())

    def totals(self) -> Counter[str]:
        """All counts over all splits."""
        return sum(self.by_split.values(), Counter[str]())

    def of(self, split: str, name: str) -> int:
        """A count of one split."""
        return self.by_split[split][name] if split in self.by_split else 0

    @property
    def wrong(self) -> Bools:
        """[M] Whether the given label is wrong, over examples of known truth."""
        return np.concatenate([np.zeros(0, dtype=np.bool_), *self._wrong])

    @property
    def suspect(self) -> Bools:
        """[M] Whether it is a suspect."""
        return np.concatenate([np.zeros(0, dtype=np.bool_), *self._suspect])

    def quality(self, detector: str = "") -> npt.NDArray[np.float32]:
        """[M] Quality, of the combination or of one detector."""
        return np.concatenate([np.zeros(0, dtype=np.float32), *self._quality.get(detector, [])])


def _add_tuples(counter: Counter[Any], *columns: Ints) -> None:
    found, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    counter.update({tuple(row): int(n) for row, n in zip(found.tolist(), counts, strict=True)})
