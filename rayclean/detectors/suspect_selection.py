"""From scores to findings: combined quality, suspects under the budget, and the reason for each suspect.

`scores/part-*.parquet` is read a shard at a time; one float32 per detector and example (exact ranks need all
qualities in order) and 12 bytes per eligible example stay in memory.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean import schema
from rayclean.config import DetectConfig
from rayclean.folder import Folder
from rayclean.functional.combine import combine
from rayclean.functional.hashing import mix
from rayclean.functional.lookup import lookup_values
from rayclean.functional.suspect_budget import most_doubtful, suspects_allowed

MOST_CONTROLS = 200
"""Control questions that are drawn; `relabel.controls` says how many of them are asked."""


def id_fingerprint(ids: npt.NDArray[np.int64]) -> int:
    """A hash of a set of ids; the hash of a union of disjoint sets is the sum of theirs modulo 2**64."""
    return int(np.add.reduce(mix(ids, 0, "fingerprint"), dtype=np.uint64))


@dataclass(frozen=True)
class SelectedSuspects:
    """The suspects, and the values that are needed to combine qualities again."""

    kind: str
    """How qualities are combined (`combine`)."""
    ordered: list[npt.NDArray[np.float32]]
    """All qualities of each detector in rising order; empty unless the kind is `mean_rank`."""
    ids: npt.NDArray[np.int64]
    """Ids of the suspects in rising order."""
    ranks: npt.NDArray[np.int64]
    """Their ranks, 0 = most doubtful."""
    limit: int
    """Number of suspects that the budget allows."""
    eligible: int
    """Number of examples that could become suspects."""
    controls: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Ids of the control questions, in their order."""

    def combined(self, table: pa.Table, names: list[str]) -> npt.NDArray[np.float32]:
        """The quality of every row of a table of scores."""
        return combine(self.kind, [table[f"quality_{name}"].to_numpy() for name in names], self.ordered)

    def rank(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rank of each id; -1 for those that are no suspects."""
        return lookup_values(self.ids, self.ranks, ids)

    def control(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Place of each id among the control questions; -1 for the others."""
        return lookup_values(self.controls, np.arange(len(self.controls)), ids)


def select_suspects(
    names: list[str], detectors: list[str], out: Folder, config: DetectConfig, total: int, seed: int
) -> SelectedSuspects:
    """Choose the suspects: the lowest combined qualities among the eligible examples; and the control questions.

    Args:
        names: shards of `scores/`.
        detectors: names of the detectors.
        out: the verb's folder.
        config: how to combine, and the budget.
        total: number of examples.
        seed: seed of the run, by which controls are drawn.
    """
    kind = config.combine if len(detectors) > 1 else "mean"  # a single quality is kept as it is
    ordered = [_ordered(names, key, out, total) for key in detectors] if kind == "mean_rank" else []
    no_ids = np.zeros(0, dtype=np.int64)
    limit = suspects_allowed(config.budget, total)
    scales = SelectedSuspects(kind, ordered, no_ids, no_ids, limit, 0)
    read = ["unit_id", "given_label", "eligible", "declared_right", *(f"quality_{key}" for key in detectors)]
    parts = [
        (np.zeros(0, dtype=np.float32), no_ids, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.bool_))
    ]
    for name in names:
        table = out.read_table("scores", name, columns=read)
        table = table.filter(pc.or_(table["eligible"], table["declared_right"]))
        columns = (table[key].to_numpy() for key in ("unit_id", "given_label", "declared_right"))
        parts.append((scales.combined(table, detectors), *columns))
    values, units, given, declared = map(np.concatenate, zip(*parts, strict=True))
    suspects = most_doubtful(values[~declared], units[~declared], limit)
    order = np.argsort(suspects)
    rest = ~np.isin(units, suspects)
    counts = np.bincount(given[~rest], minlength=int(given.max(initial=0)) + 1)
    controls = control_units(values[rest], units[rest], given[rest], counts, seed, declared[rest])
    eligible = int((~declared).sum())
    return SelectedSuspects(kind, ordered, suspects[order], order.astype(np.int64), limit, eligible, controls)


def control_units(
    quality: npt.NDArray[np.float32],
    ids: npt.NDArray[np.int64],
    given: npt.NDArray[np.integer[Any]],
    suspects: npt.NDArray[np.int64],
    seed: int,
    declared: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """Ids of up to `MOST_CONTROLS` units whose labels are as good as known, each label as often as among the suspects; any
    first part of them has these shares, too. Of a label they are first those that were declared right, then those drawn by
    a hash from the better half of the others.

    An annotator may know one class and guess in another, so it must be measured in the classes that it is asked about. Units
    of the very highest quality would be the easiest; nearer to the suspects, too many labels are themselves wrong.

    Args:
        quality: [R] of the units that are no suspects.
        ids: [R].
        given: [R] given labels.
        suspects: [K] number of suspects by given label.
        seed: of the run.
        declared: [R] whether the given label was declared right (clean development examples); None: of none.
    """
    declared = np.zeros(len(ids), dtype=np.bool_) if declared is None else declared
    turn = np.full(len(ids), np.inf)
    hashes = mix(ids, seed, "control")
    for label in np.unique(given):
        rows = np.flatnonzero(given == label)
        known, others = rows[declared[rows]], rows[~declared[rows]]
        if len(others):
            others = others[quality[others] >= np.median(quality[others])]
        rows = np.concatenate([known, others])
        rows = rows[np.lexsort((ids[rows], hashes[rows], ~declared[rows]))]
        # Of labels without suspects last, so that there are controls where nobody is suspected.
        turn[rows] = (np.arange(len(rows)) + 0.5) / max(suspects[label], 1e-6)
    order = np.lexsort((ids, hashes, turn))
    return np.asarray(ids[order[np.isfinite(turn[order])]][:MOST_CONTROLS])


def _ordered(names: list[str], detector: str, out: Folder, total: int) -> npt.NDArray[np.float32]:
    values = np.empty(total, dtype=np.float32)
    start = 0
    for name in names:
        part = out.read_table("scores", name, columns=[f"quality_{detector}"])[0].to_numpy()
        values[start : start + len(part)] = part
        start += len(part)
    values.sort()
    return values


def write_findings(
    names: list[str], detectors: list[str], out: Folder, chosen: SelectedSuspects
) -> dict[str, Any]:
    """Write the findings.

    Returns:
        Numbers of examples and of votes, and the fingerprint of the ids.
    """
    target = schema.findings(detectors)
    totals: dict[str, Any] = {
        "examples": 0,
        "fingerprint": 0,
        "all": 0,
        "any": 0,
        "votes": dict.fromkeys(detectors, 0),
    }
    for name in names:
        table = out.read_table("scores", name)
        ids = table["unit_id"].to_numpy()
        rank = chosen.rank(ids)
        votes = np.stack([table[f"vote_{key}"].to_numpy() for key in detectors])
        columns = {key: table[key] for key in table.column_names if key not in ("eligible", "declared_right")}
        columns |= {
            "quality": pa.array(chosen.combined(table, detectors)),
            "suspect": pa.array(rank >= 0),
            "rank": pa.array(rank),
            "control": pa.array(chosen.control(ids)),
            "reason": pa.array(_reasons(votes, rank >= 0, detectors), pa.string()),
        }
        out.write_table(pa.table(columns).select(target.names).cast(target), "findings", name)
        totals["examples"] += len(ids)
        totals["fingerprint"] = (totals["fingerprint"] + id_fingerprint(ids)) % 2**64
        totals["all"] += int(votes.all(axis=0).sum())
        totals["any"] += int(votes.any(axis=0).sum())
        for key, vote in zip(detectors, votes, strict=True):
            totals["votes"][key] += int(vote.sum())
    return totals


def _reasons(votes: npt.NDArray[np.bool_], suspect: npt.NDArray[np.bool_], detectors: list[str]) -> list[str]:
    """The detectors that vote against each suspect's label; '' for examples that are no suspects."""
    patterns, which = np.unique(votes.T, axis=0, return_inverse=True)
    texts = [
        ", ".join(key for key, vote in zip(detectors, pattern, strict=True) if vote) or "low quality"
        for pattern in patterns
    ]
    return [
        texts[index] if doubted else "" for index, doubted in zip(which.reshape(-1), suspect, strict=True)
    ]
