"""Why a label is what it is, in a line that a person reads beside the row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.tasks.base import Task

_OUTCOMES = {
    "changed": "{who} chose {suggested}",
    "kept": "{who} chose {given}",
    "referred": "undecided, a person should look",
    "abstained": "{who} made no choice",
    "error": "{who} gave no answer",
    "unasked": "nobody was asked",
    "audited": "{who} judged it",
    "reverted": "the change to {suggested} was undone",
    "suspect": "",
}
"""Source of a label (`schema.LABELS`) -> what became of the doubt."""


def unit_reasons(units: pa.Table, task: Task, texts: Mapping[int, str]) -> pa.Array:
    """The reason [U] of each unit's label; null of labels that were never doubted.

    Args:
        units: `example_id`, `source` and `annotator` of U units, and what detection found: `given_label`, `suggested_label`,
            `given_value`, `suggested_value`, the probabilities of both labels, and `reason`.
        task: says an answer in words.
        texts: of the examples by id; may be empty where the numbers of all answers say them.

    >>> from rayclean.schema import Label, LabelSet
    >>> from rayclean.tasks.classification import Classification
    >>> task = Classification(None, LabelSet([Label(0, "ham", "ham"), Label(1, "spam", "spam")]))
    >>> units = pa.table({"example_id": [5, 6], "source": ["given", "changed"], "annotator": [None, "served"],
    ...     "given_label": [0, 0], "suggested_label": [1, 1], "given_value": [None, None], "suggested_value": [None, None],
    ...     "given_probability": [.9, .1], "suggested_probability": [.1, .8], "reason": [None, "posterior"]})
    >>> unit_reasons(units, task, {}).to_pylist()
    [None, 'posterior: ham .10, suggested spam .80; served chose spam']
    """
    doubted = np.flatnonzero(pc.not_equal(units["source"], "given").to_numpy(zero_copy_only=False))
    reasons: list[str | None] = [None] * len(units)
    read = (
        "example_id",
        "source",
        "annotator",
        "given_label",
        "suggested_label",
        "given_value",
        "suggested_value",
        "given_probability",
        "suggested_probability",
        "reason",
    )
    names = task.answers.names
    for row, unit in zip(doubted, units.select(read).take(pa.array(doubted)).to_pylist(), strict=True):
        reasons[row] = _reason(unit, names, task, texts.get(unit["example_id"], ""))
    return pa.array(reasons, pa.string())


def disagreement_reasons(units: pa.Table, beyond: pa.Table, task: Task, texts: Mapping[int, str]) -> pa.Array:
    """What an annotator says [U] against labels that were never doubted (`relabel.beyond`); null of all others.

    Args:
        units: as in `unit_reasons`, with `unit_id`.
        beyond: `unit_id`, `chosen_label`, `vote`, `quality` and `annotator` of those that it was asked about.
        task: says an answer in words.
        texts: of the examples by id; may be empty where the numbers of all answers say them.
    """
    at = pc.index_in(beyond["unit_id"], value_set=units["unit_id"].combine_chunks()).to_pylist()
    reasons: list[str | None] = [None] * len(units)
    names = task.answers.names
    for row, said in zip(at, beyond.to_pylist(), strict=True):
        if not said["vote"]:
            continue
        (unit,) = units.slice(row, 1).to_pylist()
        chosen = said["chosen_label"]
        content = (
            _content(unit, "suggested", task, texts.get(unit["example_id"], ""))
            if chosen == unit["suggested_label"]
            else ""
        )
        reasons[row] = (
            f"LLM disagreement: {said['annotator']} chose {names[chosen]}{content} rather than {names[unit['given_label']]}, "
            f"quality {_short(said['quality'])}"
        )
    return pa.array(reasons, pa.string())


def _reason(unit: dict[str, Any], names: Sequence[str], task: Task, text: str) -> str:
    given, suggested = (
        "no label" if unit[label] is None else names[unit[label]]
        for label in ("given_label", "suggested_label")
    )
    doubt = f"{given}{_content(unit, 'given', task, text)} {_short(unit['given_probability'])}"
    if suggested != given:
        content = _content(unit, "suggested", task, text)
        doubt += f", suggested {suggested}{content} {_short(unit['suggested_probability'])}"
    outcome = _OUTCOMES.get(unit["source"], unit["source"])
    said = outcome.format(who=unit["annotator"] or "nobody", given=given, suggested=suggested)
    return f"{unit['reason'] or 'not doubted'}: {doubt}{'; ' if said else ''}{said}"


def _content(unit: dict[str, Any], which: str, task: Task, text: str) -> str:
    """What an answer says, behind its name, where the name does not say it."""
    value = unit[f"{which}_value"]
    return "" if value is None else f" ({task.answer_written(unit[f'{which}_label'], value, text)})"


def _short(probability: float | None) -> str:
    """A probability with two places."""
    return "?" if probability is None else f"{probability:.2f}".removeprefix("0")
