"""From answers to labels, and back: replay, revert, apply again.

`annotations/` holds what became of every suspect; `labels/` the label of every example. Labels are never edited, only
replayed: given labels + accepted changes - reverts. `ledger/reverts.jsonl` is append-only like the ledger itself; each
line names changes (example and the label it was changed to) to revert, or to apply again.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup
from rayclean.plugins import did_you_mean
from rayclean.run import Run
from rayclean.schema import LABELS, LabelSet

ANNOTATIONS = pa.schema(
    [
        ("example_id", pa.int64()),
        ("rank", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("chosen_label", pa.int32()),  # by calibrated probability; null: no answer, or a tie
        ("confidence", pa.float32()),  # calibrated probability of chosen_label; null: no answer
        ("decision", pa.string()),  # changed, kept, abstained, error, unasked
        ("accepted", pa.bool_()),  # whether the label changes (before reverts)
        ("candidates", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),  # raw log-probability per candidate; empty without an answer
        ("probabilities", pa.list_(pa.float32())),  # calibrated probability per candidate
        ("error", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("seconds", pa.float32()),
        ("reused", pa.bool_()),  # the answer was paid for by an earlier run
        ("key", pa.string()),  # of the ledger
        ("prompt_hash", pa.string()),
        ("model", pa.string()),
        ("raw", pa.string()),
        ("written", pa.float64()),
    ]
)
"""`relabel/annotations/`: one row per suspect, most doubtful first."""

Change = tuple[int, int]
"""Example and the label that it was changed to."""

REVERTS = ("ledger", "reverts.jsonl")


@dataclass(frozen=True)
class Decisions:
    """What became of all suspects, sorted by id: 21 bytes each."""

    example_id: npt.NDArray[np.int64]
    given: npt.NDArray[np.int32]
    chosen: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    """NaN where there was no answer."""
    decision: npt.NDArray[np.int8]
    """Index into `SOURCES`."""

    SOURCES = ("changed", "kept", "abstained", "error", "unasked")

    @classmethod
    def read(cls, relabel: Folder) -> "Decisions":
        """From `annotations/`."""
        parts: list[tuple[npt.NDArray[Any], ...]] = [
            tuple(np.empty(0, dtype) for dtype in (np.int64, np.int32, np.int32, np.float32, np.int8))
        ]
        for name in relabel.shards("annotations"):
            table = relabel.read_table("annotations", name,
                columns=["example_id", "given_label", "chosen_label", "confidence", "decision"])  # fmt: skip
            decision = table["decision"].combine_chunks().dictionary_encode()
            codes = np.array([cls.SOURCES.index(x) for x in decision.dictionary.to_pylist()], dtype=np.int8)
            parts.append((
                table["example_id"].to_numpy(), table["given_label"].to_numpy(),
                table["chosen_label"].fill_null(-1).to_numpy(),
                table["confidence"].to_numpy(zero_copy_only=False).astype(np.float32),
                codes[decision.indices.to_numpy(zero_copy_only=False)] if len(codes) else np.empty(0, np.int8),
            ))  # fmt: skip
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return cls(*(column[order] for column in columns))

    def changes(self) -> npt.NDArray[np.bool_]:
        """Which suspects' labels change, before reverts."""
        return np.asarray(self.decision == self.SOURCES.index("changed"))


def write_labels(run: Run, out: Folder) -> dict[str, int]:
    """Replay: write `labels/` for every example from `annotations/` in the same folder and the run's reverts.

    Returns:
        Number of examples by source.
    """
    decisions = Decisions.read(out)
    undone = reverted(run)
    is_undone = np.array(
        [
            pair in undone
            for pair in zip(decisions.example_id.tolist(), decisions.chosen.tolist(), strict=True)
        ],
        bool,
    )
    counts = dict.fromkeys(("given", *Decisions.SOURCES, "reverted"), 0)
    changes = decisions.changes()
    examples = run.require("load")
    for shard in examples.shards("examples"):
        table = examples.read_table("examples", shard, columns=["example_id", "given_label", "split"])
        ids, given = table["example_id"].to_numpy(), table["given_label"].to_numpy()
        rows, suspect = lookup(decisions.example_id, ids)
        source = np.full(len(ids), "given", dtype=object)
        final, confidence = given.copy(), np.full(len(ids), np.nan, np.float32)
        at = rows[suspect]
        names = np.array(Decisions.SOURCES, dtype=object)[decisions.decision[at]]
        changed = changes[at] & ~is_undone[at]
        names[changes[at] & is_undone[at]] = "reverted"
        source[suspect] = names
        confidence[suspect] = decisions.confidence[at]
        final[np.flatnonzero(suspect)[changed]] = decisions.chosen[at][changed]
        for name, count in zip(*np.unique(source.astype(str), return_counts=True), strict=True):
            counts[str(name)] += int(count)
        columns = [
            table["example_id"], pa.array(given, pa.int32()), pa.array(final, pa.int32()),
            pa.array(source, pa.string()), pa.array(confidence, pa.float32(), from_pandas=True), table["split"],
        ]  # fmt: skip
        out.write_table(pa.Table.from_arrays(columns, schema=LABELS), "labels", shard)
    return counts


def reverted(run: Run) -> set[Change]:
    """The changes that are reverted now, by replay of `ledger/reverts.jsonl`."""
    undone: set[Change] = set()
    if run.exists(*REVERTS):
        for line in run.read_text(*REVERTS).splitlines():
            record = json.loads(line)
            changes = {(int(example), int(label)) for example, label in record["changes"]}
            undone = undone | changes if record["action"] == "revert" else undone - changes
    return undone


def replay_reverts(
    config: Config,
    run: Run,
    *,
    example_ids: list[int] | None = None,
    below: float | None = None,
    from_label: str | None = None,
    to_label: str | None = None,
    everything: bool = False,
    undo: bool = False,
) -> dict[str, Any]:
    """Take changes of labels back, or (`undo`) apply reverted ones again; the labels are replayed.

    Criteria narrow each other: a change is selected if it meets all that are given.

    Args:
        config: of the run.
        run: with a finished relabel.
        example_ids: only these examples.
        below: only changes with a confidence below this.
        from_label: only changes away from this given label (its name).
        to_label: only changes to this label.
        everything: all changes; needed where no other criterion is given.
        undo: apply again what the selection reverted.

    Returns:
        `reverted`: labels that this call reverted (or applied again); `changed`: changes that remain.

    Raises:
        ConfigError: nothing is selected, or an example or label does not exist.
    """
    if not everything and all(criterion is None for criterion in (example_ids, below, from_label, to_label)):
        raise ConfigError(
            "say what to revert: example ids, a confidence, a label to or from which, or everything (--all)"
        )
    relabel = run.require("relabel")
    decisions = Decisions.read(relabel)
    names = LabelSet.from_json(run.require("load").read_text("labels.json"))
    selected = decisions.changes()
    if example_ids is not None:
        strangers = sorted(set(example_ids) - set(decisions.example_id[selected].tolist()))
        if strangers:
            raise ConfigError(
                f"example {strangers[0]}: no label was changed there (see {relabel.url('annotations')})"
            )
        selected &= np.isin(decisions.example_id, example_ids)
    if below is not None:
        selected &= decisions.confidence < below
    if from_label is not None:
        selected &= decisions.given == _index(names, from_label)
    if to_label is not None:
        selected &= decisions.chosen == _index(names, to_label)
    undone = reverted(run)
    pairs = zip(decisions.example_id[selected].tolist(), decisions.chosen[selected].tolist(), strict=True)
    changes = [list(pair) for pair in pairs if (pair in undone) == undo]
    if changes:
        record = {"time": round(time.time(), 3), "action": "apply" if undo else "revert", "changes": changes}
        before = run.read_text(*REVERTS) if run.exists(*REVERTS) else ""
        run.write_text(f"{before}{json.dumps(record)}\n", *REVERTS)
        write_labels(run, relabel)
    return {"reverted": len(changes), "changed": sum(1 for _ in _remaining(decisions, reverted(run)))}


def _remaining(decisions: Decisions, undone: set[Change]) -> Iterator[Change]:
    at = decisions.changes()
    for pair in zip(decisions.example_id[at].tolist(), decisions.chosen[at].tolist(), strict=True):
        if pair not in undone:
            yield pair


def _index(labels: LabelSet, name: str) -> int:
    index = labels.index(name)
    if index is None:
        raise ConfigError(f"unknown label {name!r}: {did_you_mean(name, labels.names)}")
    return index
