"""A doubted unit as an auditor sees it: its text, the label it was given, and the one that detection suggests."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotators.query_builder import read_texts
from rayclean.hashing import digest
from rayclean.run import Run
from rayclean.schema import Candidate
from rayclean.tasks.base import Task, unit_ids

_COLUMNS = ("unit_id", "example_id", "given_label", "suggested_label", "given_value", "suggested_value")


@dataclass(frozen=True)
class DoubtedUnit:
    """A unit that an auditor is or was asked about."""

    unit_id: int
    example_id: int
    text: str
    given_label: int
    """Number of the answer that the data set gives."""
    suggested_label: int
    """Number of the answer that detection suggests instead."""
    suggested_value: str | None
    """The suggested answer as JSON, where its number does not say it."""
    given: Candidate
    suggested: Candidate
    part: str = ""
    """What of the example it is, by the name of a class; empty where the example is the unit."""

    @property
    def text_hash(self) -> str:
        """Hash of the text: an answer about another text says nothing about this one."""
        return digest(self.text)

    def answer(self, value: str, task: Task) -> tuple[int, str | None] | None:
        """Number and JSON value of the answer that an auditor gave by its content (`Candidate.value`).

        Returns:
            None if there is no such answer any more, because detection suggests another one or the class is gone.
        """
        if value == self.given.value:
            return self.given_label, None
        if value == self.suggested.value:
            return self.suggested_label, self.suggested_value
        if task.candidates_are_labels:
            for number in task.further([self.given_label, self.suggested_label]):
                if task.answers.candidate(number).value == value:
                    return number, None
        return None

    def further(self, task: Task) -> list[Candidate]:
        """The unit's answers beside the given and the suggested one; none where answers are texts of their own."""
        numbers = task.further([self.given_label, self.suggested_label]) if task.candidates_are_labels else []
        return [task.answers.candidate(number) for number in numbers]


def read_units(run: Run, task: Task, ids: Iterable[int]) -> dict[int, DoubtedUnit]:
    """The units with some ids; ids that detection does not know are left out."""
    wanted = pa.array(np.fromiter(sorted(ids), dtype=np.int64))
    load, detect = run.require("load"), run.require("detect")
    rows = []
    for shard in detect.shards("findings") if len(wanted) else []:
        hit = pc.is_in(detect.read_table("findings", shard, columns=["unit_id"])["unit_id"], wanted)
        if pc.any(hit).as_py():
            rows += detect.read_table("findings", shard, columns=_COLUMNS).filter(hit).to_pylist()
    texts = read_texts(load.url("examples"), np.unique([row["example_id"] for row in rows]).astype(np.int64))
    found = {}
    for row in rows:
        text = texts[row["example_id"]]
        found[row["unit_id"]] = DoubtedUnit(
            row["unit_id"],
            row["example_id"],
            text,
            row["given_label"],
            row["suggested_label"],
            row["suggested_value"],
            task.candidate(row["given_label"], row["given_value"], text),
            task.candidate(row["suggested_label"], row["suggested_value"], text),
            _part(task, row["example_id"], row["unit_id"]),
        )
    return found


def units_of(task: Task, example_ids: Sequence[int], part: str) -> list[int]:
    """Ids of the units of some examples that are this part of them; none where there is no such class any more."""
    if task.units_are_examples:
        return [*example_ids] if not part else []
    index = task.labels.index(part)
    if index is None or not example_ids:
        return []
    every = unit_ids(np.array(example_ids, dtype=np.int64), len(task.labels))
    return [int(each) for each in every[:, index]]


def _part(task: Task, example_id: int, unit_id: int) -> str:
    if task.units_are_examples:
        return ""
    ids = unit_ids(np.array([example_id], dtype=np.int64), len(task.labels))[0].tolist()
    return task.labels[ids.index(unit_id)].name


def shown_answer(answer: Candidate, task: Task) -> str:
    """An answer as an auditor reads it: the name of a label, or the text in which an answer that is no label is marked."""
    return label_name(answer.value) if task.candidates_are_labels else answer.word


def label_name(value: str) -> str:
    """The content of an answer for people: the name of a class, or the JSON text itself.

    >>> label_name('"SPAM"'), label_name('[[0, 1]]')
    ('SPAM', '[[0, 1]]')
    """
    content = json.loads(value)
    return content if isinstance(content, str) else value
