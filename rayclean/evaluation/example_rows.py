"""The few rows that the report shows with their texts, read without the texts of all others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.annotations import SuspectRanking
from rayclean.config import parse_config
from rayclean.evaluation.counts import UNKNOWN, RunCounts
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.folder import Folder
from rayclean.origins import Origins
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task

MAX_REJECTED = 20
"""Most rejected rows that are shown."""


def changed_rows(
    run: Run, suspects: SuspectRanking, counts: RunCounts, task: Task, limit: int, *, harmful: bool
) -> list[dict[str, Any]]:
    """Changes with their texts: the surest first, of equal ones the most doubtful label.

    Args:
        run: holds texts, findings and answers.
        suspects: all suspects, with their true labels.
        counts: of the run; holds which changes were reverted.
        task: of the run; says an answer in words.
        limit: largest number of rows.
        harmful: whether only changes that made a right label wrong are wanted.
    """
    kept = suspects.decided("changed") & ~np.isin(suspects.unit_id, list(counts.reverted))
    if harmful:
        kept &= (suspects.truth == suspects.given) & (suspects.truth >= 0)
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((suspects.rank[rows], -suspects.certainty[rows]))][:limit]
    wanted = suspects.unit_id[rows]
    texts = _rows_of(run.require("load"), "examples", suspects.example_id[rows], ["text"], "example_id")
    origins = Origins(run.require("load")).of(suspects.example_id[rows].tolist())
    findings = _rows_of(run.require("detect"), "findings", wanted, ["quality", "reason"], "unit_id")
    answers = _rows_of(run.require("relabel"), "annotations", wanted, ["raw", "model"], "unit_id")
    shown = []
    for row in rows:
        key, example = int(suspects.unit_id[row]), int(suspects.example_id[row])
        given, final, truth = (
            int(each[row]) for each in (suspects.given, suspects.suggested, suspects.truth)
        )
        values = {int(suspects.rival[row]): suspects.suggested_value[row], given: suspects.given_value[row]}
        said = {
            answer: task.answer_written(answer, values.get(answer), texts[example]["text"])
            for answer in {given, final, truth} - {UNKNOWN}
        }
        shown.append({
            **texts[example], **findings[key], **answers[key],
            "example_id": example,
            "origin": origins.get(example),
            "given": said[given],
            "final": said[final],
            "true": said.get(truth),
            "confidence": float(suspects.certainty[row]),
        })  # fmt: skip
    return shown


def disagreement_rows(run: Run, task: Task, limit: int) -> list[dict[str, Any]]:
    """Labels that no detector doubted and an annotator denies (`relabel.beyond`), with their texts: the most probably wrong
    first.

    Args:
        run: holds texts, findings and answers.
        task: of the run; says an answer in words.
        limit: largest number of rows.
    """
    relabel = run.require("relabel")
    rows = [
        row for name in relabel.shards("beyond") for row in relabel.read_table("beyond", name).to_pylist()
    ]
    rows = sorted(
        (row for row in rows if row["vote"]), key=lambda row: (row["quality"], row["unit_id"])
    )[:limit]  # fmt: skip
    examples, units = (np.array([row[f"{of}_id"] for row in rows], np.int64) for of in ("example", "unit"))
    texts = _rows_of(run.require("load"), "examples", examples, ["text"], "example_id")
    origins = Origins(run.require("load")).of(examples.tolist())
    columns = ["quality", "given_value", "suggested_value"]
    findings = _rows_of(run.require("detect"), "findings", units, columns, "unit_id")
    shown = []
    for row in rows:
        found, text = findings[row["unit_id"]], texts[row["example_id"]]["text"]
        values = {row[f"{of}_label"]: found[f"{of}_value"] for of in ("suggested", "given")}
        given, chosen = (
            task.answer_written(answer, values.get(answer), text)
            for answer in (row["given_label"], row["chosen_label"])
        )
        shown.append({
            "text": text, "given": given, "chosen": chosen, "quality": row["quality"], "annotator": row["annotator"],
            "detected": found["quality"], "example_id": row["example_id"], "origin": origins.get(row["example_id"]),
        })  # fmt: skip
    return shown


def changed_examples(run: Run, limit: int) -> list[dict[str, Any]]:
    """The changes of labels that matter most, with their texts."""
    config = parse_config(run.read_json("config.json"))
    task = TASKS.build(config.task, LabelSet.from_json(run.require("load").read_text("labels.json")))
    _, tally, suspects = measure_labels(config, run)
    rows = changed_rows(run, suspects, tally, task, limit, harmful=False)
    return [{key: row[key] for key in ("example_id", "text", "given", "final", "confidence")} for row in rows]


def _rows_of(
    folder: Folder, part: str, ids: npt.NDArray[np.int64], columns: Sequence[str], key: str
) -> dict[int, dict[str, Any]]:
    """A few rows by id."""
    tables = folder.rows_with(part, key, ids.tolist(), columns=[key, *columns])
    return {row.pop(key): row for _, table in tables for row in table.to_pylist()}


def rejected_rows(load: Folder) -> list[dict[str, Any]]:
    """The first rows of `load/rejected/`."""
    rows: list[dict[str, Any]] = []
    for shard in load.shards("rejected"):
        if len(rows) >= MAX_REJECTED:
            break
        rows += load.read_table("rejected", shard).slice(0, MAX_REJECTED - len(rows)).to_pylist()
    return rows
