"""Reverts of label changes by users, which can be undone.

Each call atomically writes a separate segment to `ledger/reverts/`, so several users may revert at the same
time. A segment identifies every change by its example and by its content: a hash of the text, and the names
of the given and the final label. If the data are loaded again in another order, a revert follows the content;
if the content has changed, it has no effect.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from rayclean.fingerprints import fingerprint
from rayclean.hashing import digest
from rayclean.run import Run

_FOLDER = ("ledger", "reverts")


@dataclass(frozen=True)
class Change:
    """A change of the answer of one unit; in classification, of an example's label."""

    unit_id: int
    text_hash: str
    given: str
    """Name of the given label."""
    final: str
    """Name of the new label."""

    @property
    def content(self) -> tuple[str, str, str]:
        """The content of the change, without its example."""
        return (self.text_hash, self.given, self.final)

    @classmethod
    def of(cls, unit_id: int, text: str, given: str, final: str) -> "Change":
        """The change of an example with a text."""
        return cls(unit_id, digest(text), given, final)


def write_reverts(run: Run, changes: Iterable[Change], *, undo: bool) -> None:
    """Record that changes are reverted, or applied again (`undo`)."""
    record = {
        "v": 1,
        "time": round(time.time(), 3),
        "action": "apply" if undo else "revert",
        "changes": [[each.unit_id, *each.content] for each in changes],
    }
    run.write_json(record, *_FOLDER, f"segment-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json")


def reverted(run: Run, changes: Iterable[Change]) -> set[Change]:
    """The currently reverted ones among `changes`, by replay of all segments in order of time.

    A revert applies to its example if the content is unchanged, otherwise to another example with this
    content and no recorded revert.
    """
    recorded: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for name in _segments(run):
        record = run.read_json(*_FOLDER, name)
        for unit_id, *content in record["changes"]:
            ids = recorded[tuple(content)]
            if record["action"] == "revert":
                ids.add(unit_id)
            else:
                ids.discard(unit_id)
    current: dict[tuple[str, str, str], list[Change]] = defaultdict(list)
    for change in sorted(changes, key=lambda each: each.unit_id):
        current[change.content].append(change)
    found = set[Change]()
    for content, same in current.items():
        ids = recorded.get(content, set())
        exact = [change for change in same if change.unit_id in ids]
        others = [change for change in same if change.unit_id not in ids]
        found.update(exact, others[: len(ids) - len(exact)])
    return found


def reverts_fingerprint(run: Run) -> str:
    """A fingerprint of all recorded reverts; empty if there are none."""
    names = _segments(run)
    return fingerprint(names) if names else ""


def has_reverts(run: Run) -> bool:
    """Whether any revert was ever recorded."""
    return bool(_segments(run))


def _segments(run: Run) -> list[str]:
    """Names of the segments, the oldest first."""
    try:
        entries = run.fs.ls(run.path(*_FOLDER), detail=False)
    except FileNotFoundError:
        return []
    names = (str(entry).rstrip("/").rpartition("/")[2] for entry in entries)
    return sorted(name for name in names if name.startswith("segment-") and name.endswith(".json"))
