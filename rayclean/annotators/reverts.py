"""Reverts of label changes by users, which can be undone.

A revert says that the given label of a text is right, whatever is suggested instead now or later. It is tied to what it is
about and never to a place in a file: to the user's key where the data have one (`dataset.id`), as long as text and given
label are the same, and otherwise to the text and the given label. So it follows the text when rows are sorted, added,
removed or put into other files. Identical texts with the same given label cannot be told apart without a key: a revert of
one is a revert of all.

Each call atomically writes a separate segment to `ledger/reverts/`, so several users may revert at the same time. Segments
are replayed in order of time; of several about the same change the last one counts.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rayclean.fingerprints import fingerprint
from rayclean.hashing import digest
from rayclean.run import Run

_FOLDER = ("ledger", "reverts")
_VERSION = 2
EXCERPT = 60
"""Characters of a text by which people recognise it."""

_Content = tuple[str, str]
"""Hash of a text, and the given label of one of its units by name (or as JSON, where a name does not say it)."""


@dataclass(frozen=True)
class Change:
    """A change of the answer of one unit; in classification, of an example's label."""

    unit_id: int
    text_hash: str
    given: str
    """Name of the given label, or the answer as JSON where a name does not say it."""
    final: str
    """Name of the new label, or the answer as JSON."""
    excerpt: str = ""
    """The beginning of the text."""
    place: str = ""
    """The user's key, or file and row."""

    @property
    def content(self) -> _Content:
        """What the change is about, without its example."""
        return self.text_hash, self.given

    @property
    def described(self) -> str:
        """The change for people: where it was, its text, and its labels."""
        shown = f"{self.excerpt!r}" if self.excerpt else f"text {self.text_hash[:8]}"
        at = f"{self.place} " if self.place else ""
        labels = " → ".join(each if each.isprintable() else repr(each) for each in (self.given, self.final))
        return f"{at}{shown} ({labels})"

    @classmethod
    def of(cls, unit_id: int, text: str, given: str, final: str, place: str = "") -> "Change":
        """The change of an example with a text."""
        short = " ".join(text[: 2 * EXCERPT].split())
        excerpt = short if len(short) <= EXCERPT else f"{short[:EXCERPT]}…"
        return cls(unit_id, digest(text), given, final, excerpt, place)


@dataclass(frozen=True)
class Reverts:
    """All recorded reverts, replayed."""

    of_content: dict[_Content, dict[int | None, tuple[bool, Change]]]
    """By content: unit, or None for all units with it -> whether the change is reverted, and the change as recorded."""

    def undoes(self, change: Change) -> bool:
        """Whether a present change is reverted."""
        recorded = self.of_content.get(change.content, {})
        undone, _ = recorded.get(change.unit_id) or recorded.get(None) or (False, change)
        return undone

    def active(self) -> list[tuple[int | None, Change]]:
        """Every revert that counts: its unit (None: all units with its content), and the change as recorded."""
        return [
            (unit_id, change)
            for recorded in self.of_content.values()
            for unit_id, (undone, change) in recorded.items()
            if undone
        ]

    @classmethod
    def read(cls, run: Run, keyed: bool) -> "Reverts":
        """Replay the segments of a run.

        Args:
            run: the run.
            keyed: whether its examples have keys of the user now.
        """
        found: dict[_Content, dict[int | None, tuple[bool, Change]]] = defaultdict(dict)
        for name in _segments(run):
            record = run.read_json(*_FOLDER, name)
            by_key = keyed and record.get("keyed", False)
            for change in map(_recorded, record["changes"]):
                of_content = found[change.content]
                if not by_key:  # what was said of single units before is overridden
                    of_content.clear()
                of_content[change.unit_id if by_key else None] = record["action"] == "revert", change
        return cls(dict(found))


def write_reverts(run: Run, changes: Iterable[Change], *, undo: bool, keyed: bool) -> None:
    """Record that changes are reverted, or applied again (`undo`).

    Args:
        run: the run.
        changes: what is reverted.
        undo: whether they are applied again.
        keyed: whether the ids of their units come from keys of the user.
    """
    names = ("unit_id", "text_hash", "given", "final", "excerpt", "place")
    record = {
        "v": _VERSION,
        "time": round(time.time(), 3),
        "action": "apply" if undo else "revert",
        "keyed": keyed,
        "changes": [[getattr(each, name) for name in names] for each in changes],
    }
    run.write_json(record, *_FOLDER, f"segment-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json")


def recorded_reverts(run: Run, keyed: bool, change: Change) -> list[tuple[float, bool]]:
    """Unix time of every segment that counts for a change, in order of time, and whether it reverts the change or applies it
    again.

    Args:
        run: the run.
        keyed: whether its examples have keys of the user now.
        change: its unit, its text and its given label.
    """
    found = []
    for name in _segments(run):
        record = run.read_json(*_FOLDER, name)
        by_key = keyed and record.get("keyed", False)
        of_content = [each for each in map(_recorded, record["changes"]) if each.content == change.content]
        if any(not by_key or each.unit_id == change.unit_id for each in of_content):
            found.append((float(record["time"]), record["action"] == "revert"))
    return found


def _recorded(row: list[Any]) -> Change:
    """A change of a segment; those of version 1 have neither excerpt nor place, and count as without a key."""
    return Change(*row)


def reverts_fingerprint(run: Run) -> str:
    """A fingerprint of all recorded reverts; empty if there are none."""
    return reverts_fingerprints(run)[-1]


def reverts_fingerprints(run: Run) -> list[str]:
    """`reverts_fingerprint` as it was before the first call and after each one, the last of which is that of now."""
    names = _segments(run)
    return ["", *(fingerprint(names[:count]) for count in range(1, len(names) + 1))]


def has_reverts(run: Run) -> bool:
    """Whether any revert was ever recorded."""
    return bool(_segments(run))


def _segments(run: Run) -> list[str]:
    """Names of the segments, the oldest first."""
    names = run.names(*_FOLDER)
    return [name for name in names if name.startswith("segment-") and name.endswith(".json")]
