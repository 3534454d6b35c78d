"""What auditors said of the data as they are now: answers follow the texts that they are about.

Without keys of the user (`dataset.id`) an example is known by file and row, which change when rows are sorted, added or put
into other files. An answer whose unit holds another text now is then about an example with its own text, wherever that is:
where there are several, two answers about two of them stay answers about two, the first by their ids. One answer stays one
answer, since an audit is a sample. With keys, the example is the one with the key or none.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from rayclean.audits.answers import AuditAnswer, AuditAnswers, read_answers, recorded_readings
from rayclean.audits.units import DoubtedUnit, read_units, units_of
from rayclean.folder import Folder
from rayclean.hashing import digest
from rayclean.origins import Origins
from rayclean.run import Run
from rayclean.tasks.base import Task

_Recorded = tuple[int, str]
"""Unit and hash of its text as an answer was recorded."""


@dataclass(frozen=True)
class PresentAnswers:
    """The answers about units that are in the data."""

    answers: AuditAnswers
    units: Mapping[int, DoubtedUnit]
    """The units that they are about."""
    lost: int
    """Number of units with answers whose text is not in the data any more."""


def present_answers(run: Run, task: Task) -> PresentAnswers:
    """The answers of a run with a finished detection."""
    recorded, places, units = _present_places(run, task)
    answers = read_answers(run, places)
    present = {unit_id: units[unit_id] for unit_id in places.values()}
    return PresentAnswers(answers, present, len(recorded) - len(places))


def answers_given(run: Run, task: Task, unit_ids: Collection[int]) -> list[AuditAnswer]:
    """All answers that were ever given about some units that are in the data, each with its unit of now, in order of time;
    later ones may have replaced earlier ones.
    """
    _, places, _ = _present_places(run, task)
    return [
        replace(answer, unit_id=place)
        for reading in recorded_readings(run)
        for answer in reading
        if (place := places.get((answer.unit_id, answer.text_hash))) in unit_ids and place is not None
    ]


def _present_places(
    run: Run, task: Task
) -> tuple[dict[_Recorded, str], dict[_Recorded, int], dict[int, DoubtedUnit]]:
    """Of every answer as it was recorded the part of the example that it is about; where it is in the data, its unit now; and
    these units, with others that hold other texts now.
    """
    recorded = {
        (each.unit_id, each.text_hash): each.part for reading in recorded_readings(run) for each in reading
    }
    units = read_units(run, task, {unit_id for unit_id, _ in recorded}) if recorded else {}
    places = {each: each[0] for each in recorded if each[0] in units and units[each[0]].text_hash == each[1]}
    astray = {each: part for each, part in recorded.items() if each not in places}
    load = run.require("load")
    if astray and not Origins(load).keyed:
        elsewhere = _elsewhere(run, task, astray)
        units |= read_units(run, task, elsewhere.values())
        places |= {each: unit_id for each, unit_id in elsewhere.items() if unit_id in units}
    return recorded, places, units


def _elsewhere(run: Run, task: Task, astray: Mapping[_Recorded, str]) -> dict[_Recorded, int]:
    """The units that hold now what some answers are about."""
    manifest = run.manifest("load")
    assert manifest is not None
    hashes = frozenset(text_hash for _, text_hash in astray)
    examples = _examples_with(run.require("load").url(), manifest.fingerprint, hashes)
    found = dict[_Recorded, int]()
    taken = set[int]()
    for each, part in sorted(astray.items()):
        units = sorted(units_of(task, examples.get(each[1], ()), part))
        if units:
            found[each] = next((unit_id for unit_id in units if unit_id not in taken), units[0])
            taken.add(found[each])
    return found


@lru_cache(maxsize=4)
def _examples_with(load: str, fingerprint: str, hashes: frozenset[str]) -> dict[str, tuple[int, ...]]:
    """Ids of the examples by the hash of their text, of these hashes; kept, since one command asks several times.

    Args:
        load: folder of a finished load.
        fingerprint: of the load, by which another one in the same folder is told.
        hashes: of the texts that are looked for.
    """
    folder, found = Folder(load), dict[str, tuple[int, ...]]()
    for shard in folder.shards("examples"):
        table = folder.read_table("examples", shard, columns=["example_id", "text"])
        for example_id, text in zip(table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True):
            if (text_hash := digest(text)) in hashes:
                found[text_hash] = (*found.get(text_hash, ()), example_id)
    return found
