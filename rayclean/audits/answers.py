"""Auditors' answers in the ledger: who said what of which unit and when, for ever.

Every reading of a form adds one segment to `<run>/ledger/audit/`, whole or not at all; nothing is ever changed or removed.
An answer is tied to the text of its unit, and to the user's key where the data have one, and names the right label by its
content: so it outlives a new detection, another annotator, another order of the classes or of the rows, but not a new text
(`following.py`).

The last answer of an auditor counts, so a slip is mended by another form. Answers of one reading that differ, or of two
auditors, are a conflict: such a unit is listed and counts as not answered until the auditors agree.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder

if TYPE_CHECKING:
    from rayclean.audits.units import DoubtedUnit

NEITHER_LABEL, UNSURE = "neither", "unsure"
"""Answers beside a label: both labels of the form are wrong and the right one is not named; the auditor cannot say."""
ORACLE = "oracle (reads the true labels)"
"""Name of the auditor of experiments, wherever it appears."""
AUDIT, CERTIFICATE = "audit", "certificate"
"""What a form is for, with which its name begins. Answers of an audit refit the probabilities, those of a certificate do not,
so that the order of the proposals does not depend on what is answered about them."""
_FOLDER = ("ledger", "audit")
_VERSION = 2


@dataclass(frozen=True)
class AuditAnswer:
    """What an auditor said of a unit."""

    unit_id: int
    text_hash: str
    said: str
    """`label`, `NEITHER_LABEL` or `UNSURE`."""
    value: str | None
    """The right answer by its content (`Candidate.value`); None unless `said` is `label`."""
    auditor: str = ""
    time: float = 0.0
    """Unix time of the reading."""
    form: str = ""
    """Name of the form that the answer came with."""
    part: str = ""
    """What of the example the unit is, by the name of a class; empty where the example is the unit."""

    @property
    def content(self) -> tuple[str, str | None]:
        """The answer without who gave it."""
        return self.said, self.value


@dataclass(frozen=True)
class AuditAnswers:
    """The answers that count now."""

    settled: Mapping[int, AuditAnswer]
    """The answer by unit, of units about which nobody disagrees."""
    conflicts: Mapping[int, tuple[AuditAnswer, ...]]
    """Differing answers by unit."""
    audited: frozenset[int]
    """Units that an audit asked about; the others were asked about for a certificate alone."""

    @property
    def auditors(self) -> list[str]:
        """Everybody who answered."""
        return sorted({answer.auditor for answer in self.settled.values()})

    def about(self, units: Mapping[int, "DoubtedUnit"]) -> "AuditAnswers":
        """Those about units that are still there with the same text."""
        hashes = {unit_id: unit.text_hash for unit_id, unit in units.items()}
        return AuditAnswers(
            {key: each for key, each in self.settled.items() if hashes.get(key) == each.text_hash},
            {key: both for key, both in self.conflicts.items() if hashes.get(key) == both[0].text_hash},
            self.audited & hashes.keys(),
        )

    @property
    def units(self) -> set[int]:
        """Ids of all units with an answer."""
        return {*self.settled, *self.conflicts}


def record_answers(run: Folder, answers: Iterable[AuditAnswer], auditor: str, form: str) -> None:
    """Add the answers of one reading to the ledger."""
    record = {
        "v": _VERSION,
        "time": time.time(),
        "auditor": auditor,
        "form": form,
        "answers": [[each.unit_id, each.text_hash, each.said, each.value, each.part] for each in answers],
    }
    run.write_json(record, *_FOLDER, f"segment-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json")


def recorded_readings(run: Folder) -> list[list[AuditAnswer]]:
    """The answers of every reading as they were recorded, in order of time; those of version 1 do not know the part."""
    readings = []
    for name in _segments(run):
        record = run.read_json(*_FOLDER, name)
        auditor, at, form = record["auditor"], record["time"], record["form"]
        rows = ([*row, ""] if record["v"] == 1 else row for row in record["answers"])
        readings.append(
            [
                AuditAnswer(unit, text, said, value, auditor, at, form, part)
                for unit, text, said, value, part in rows
            ]
        )
    return readings


def read_answers(run: Folder, places: Mapping[tuple[int, str], int] | None = None) -> AuditAnswers:
    """All answers that count, by replay of the segments in order of time.

    Args:
        run: the run folder.
        places: the unit that an answer is about now, by its unit and text as recorded; others are left out. None: answers
            are about the units that were recorded.
    """
    latest: dict[int, dict[str, set[AuditAnswer]]] = defaultdict(dict)
    audited = set[int]()
    for reading in recorded_readings(run):
        told: dict[int, set[AuditAnswer]] = defaultdict(set)
        for answer in reading:
            recorded = answer.unit_id, answer.text_hash
            unit_id = answer.unit_id if places is None else places.get(recorded)
            if unit_id is not None:
                told[unit_id].add(replace(answer, unit_id=unit_id))
                latest[unit_id][answer.auditor] = told[unit_id]
                if answer.form.startswith(AUDIT):
                    audited.add(unit_id)
    settled, conflicts = {}, {}
    for unit_id, by_auditor in latest.items():
        every = sorted(
            (each for told_by in by_auditor.values() for each in told_by),
            key=lambda each: (each.time, each.auditor, each.said, each.value or ""),
        )
        sure = [each for each in every if each.said != UNSURE] or every
        if len({each.content for each in sure}) == 1:
            settled[unit_id] = sure[-1]
        else:
            conflicts[unit_id] = tuple(sure)
    return AuditAnswers(settled, conflicts, frozenset(audited))


def answers_fingerprint(run: Folder) -> str:
    """A fingerprint of all answers; empty if there are none."""
    return answers_fingerprints(run)[-1]


def answers_fingerprints(run: Folder) -> list[str]:
    """`answers_fingerprint` as it was before the first reading and after each one, the last of which is that of now."""
    names = _segments(run)
    return ["", *(fingerprint(names[:count]) for count in range(1, len(names) + 1))]


def _segments(run: Folder) -> list[str]:
    names = run.names(*_FOLDER)
    return [name for name in names if name.startswith("segment-") and name.endswith(".json")]
