"""The final label of every example: computed from the decisions, with an auditor's answers and reverts of changes.

`annotations/` holds the decision on every suspect, `labels/` the label of every example. Labels are never
edited, only recomputed: given labels + accepted changes + what auditors said of single units (`audited.parquet`, suspects
or not) - reverts (`reverts.py`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotations import AUDITED, DECISIONS, SuspectRanking
from rayclean.annotators.queries import read_texts
from rayclean.annotators.reverts import Change, has_reverts, reverted, write_reverts
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup
from rayclean.plugins import did_you_mean
from rayclean.run import Run
from rayclean.schema import LABELS, LabelSet
from rayclean.tasks.base import Task

EXAMPLE_LABELS = "example_labels"
"""Folder beside `labels/` with the label of every example, put together from its units, where examples are not
units: `example_id` and `final_label` in the form that `load/examples/` has."""


def write_labels(run: Run, out: Folder, task: Task) -> dict[str, int]:
    """Replay: write `labels/` for every unit from `annotations/` in the same folder and the run's reverts, and
    `example_labels/` where units are parts of examples.

    Returns:
        Number of units by source (`given`, the decisions, `audited`, `reverted`).
    """
    suspects = SuspectRanking.read(out)
    is_undone = np.zeros(len(suspects.unit_id), dtype=bool)
    if has_reverts(run):
        changes = label_changes(run, suspects, suspects.decided("changed"), task)
        undone = [change.unit_id for change in reverted(run, changes)]
        is_undone = np.isin(suspects.unit_id, undone)
    is_changed = suspects.decided("changed") & ~is_undone
    sources = np.array(DECISIONS, dtype=object)[suspects.decision]
    sources[is_undone] = "reverted"
    audited = (
        out.read_table("audited.parquet") if out.exists("audited.parquet") else AUDITED.empty_table()
    ).sort_by("unit_id")
    counts = dict.fromkeys(("given", *DECISIONS, "audited", "reverted"), 0)
    examples = run.require("load")
    for shard in examples.shards("examples"):
        table = examples.read_table("examples", shard, columns=["example_id", "given_label", "split"])
        units = task.unit_rows(table)
        ids, given = units["unit_id"].to_numpy(), units["given_label"].to_numpy()
        source = np.full(len(ids), "given", dtype=object)
        final, confidence = given.copy(), np.full(len(ids), np.nan, np.float32)
        position, is_suspect = lookup(suspects.unit_id, ids)
        at = position[is_suspect]
        annotator = np.full(len(ids), None, dtype=object)
        source[is_suspect] = sources[at]
        confidence[is_suspect] = np.where(
            is_changed[at], suspects.probability[at], 1 - suspects.probability[at]
        )
        annotator[is_suspect] = suspects.annotator[at]
        final[is_suspect] = np.where(is_changed[at], suspects.suggested[at], given[is_suspect])
        value = np.array(units["given_value"].to_pylist(), dtype=object)
        value[is_suspect] = np.where(is_changed[at], suspects.suggested_value[at], value[is_suspect])
        position, is_audited = lookup(audited["unit_id"].to_numpy(), ids)
        for row in np.flatnonzero(is_audited & (source != "reverted")):
            said = audited.slice(position[row], 1).to_pylist()[0]
            if said["label"] != given[row]:
                final[row], value[row] = said["label"], said["value"]
            source[row], confidence[row], annotator[row] = "audited", 1.0, said["auditor"]
        for name, count in zip(*np.unique(source.astype(str), return_counts=True), strict=True):
            counts[str(name)] += int(count)
        columns = [
            units["unit_id"], units["example_id"], pa.array(given, pa.int32()), pa.array(final, pa.int32()),
            pa.array(value, pa.string()), pa.array(source, pa.string()), pa.array(confidence, pa.float32(), from_pandas=True),
            pa.array(annotator, pa.string()), units["split"],
        ]  # fmt: skip
        labels = pa.Table.from_arrays(columns, schema=LABELS)
        out.write_table(labels, "labels", shard)
        if not task.units_are_examples:
            out.write_table(task.assemble(labels, table), EXAMPLE_LABELS, shard)
    return counts


def label_changes(
    run: Run, suspects: SuspectRanking, selected: npt.NDArray[np.bool_], task: Task
) -> list[Change]:
    """The changes of the selected suspects, with their content."""
    names = task.answers.names
    texts = read_texts(run.require("load").url("examples"), suspects.example_id[selected])
    columns = zip(
        suspects.unit_id[selected].tolist(),
        suspects.example_id[selected].tolist(),
        suspects.given[selected],
        suspects.suggested[selected],
        strict=True,
    )
    return [
        Change.of(unit, texts[example], names[given], names[chosen])
        for unit, example, given, chosen in columns
    ]


def revert_label_changes(
    run: Run,
    task: Task,
    *,
    example_ids: list[int] | None = None,
    below: float | None = None,
    from_label: str | None = None,
    to_label: str | None = None,
    everything: bool = False,
    undo: bool = False,
) -> dict[str, Any]:
    """Revert changes of labels, or apply reverted ones again (`undo`), and recompute the labels.

    A change is selected if it meets all given criteria.

    Args:
        run: the run, with a finished relabel.
        task: the run's task.
        example_ids: only these examples.
        below: only changes with a confidence below this.
        from_label: only changes away from this given label (its name).
        to_label: only changes to this label.
        everything: whether to select all changes; required without other criteria.
        undo: whether to apply the selected reverted changes again.

    Returns:
        `reverted`: number of labels that this call reverted (or applied again); `changed`: number of
            remaining changes.

    Raises:
        ConfigError: nothing is selected, or an example or label does not exist.
    """
    if not everything and all(criterion is None for criterion in (example_ids, below, from_label, to_label)):
        raise ConfigError(
            "say what to revert: example ids, a confidence, a label to or from which, or everything (--all)"
        )
    relabel = run.require("relabel")
    suspects = SuspectRanking.read(relabel)
    selected = suspects.decided("changed")
    if example_ids is not None:
        unknown = sorted(set(example_ids) - set(suspects.example_id[selected].tolist()))
        if unknown:
            raise ConfigError(
                f"example {unknown[0]}: its label was not changed (see {relabel.url('annotations')})"
            )
        selected &= np.isin(suspects.example_id, example_ids)
    if below is not None:
        selected &= suspects.certainty < below
    if from_label is not None:
        selected &= suspects.given == _index(task.answers, from_label)
    if to_label is not None:
        selected &= suspects.suggested == _index(task.answers, to_label)
    every = label_changes(run, suspects, suspects.decided("changed"), task)
    wanted = set(suspects.unit_id[selected].tolist())
    undone = reverted(run, every)
    changes = [change for change in every if change.unit_id in wanted and (change in undone) == undo]
    if changes:
        write_reverts(run, changes, undo=undo)
        write_labels(run, relabel, task)
    remaining = set(every) - reverted(run, every)
    return {"reverted": len(changes), "changed": len(remaining)}


def _index(labels: LabelSet, name: str) -> int:
    """The index of a label name.

    Raises:
        ConfigError: the label does not exist.
    """
    index = labels.index(name)
    if index is None:
        raise ConfigError(f"unknown label {name!r}: {did_you_mean(name, labels.names)}")
    return index
