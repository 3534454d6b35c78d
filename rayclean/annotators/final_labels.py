"""The final label of every example: computed from the decisions, with an auditor's answers and reverts of changes.

`annotations/` holds the decision on every suspect, `labels/` the label of every example. Labels are never
edited, only recomputed: given labels + accepted changes + what auditors said of single units (`audited.parquet`, suspects
or not) - reverts (`reverts.py`).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotations import AUDITED, DECISIONS, SuspectRanking
from rayclean.annotators.query_builder import read_texts
from rayclean.annotators.reverts import Change, Reverts, has_reverts
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup
from rayclean.hashing import digest
from rayclean.origins import Origins
from rayclean.run import Run
from rayclean.schema import LABELS
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
    origins = Origins(run.require("load"))
    if has_reverts(run):
        reverts = Reverts.read(run, origins.keyed)
        changes = label_changes(run, suspects, suspects.decided("changed"), task)
        is_undone = np.isin(suspects.unit_id, [each.unit_id for each in changes if reverts.undoes(each)])
    is_changed = suspects.decided("changed") & ~is_undone
    sources = np.array(DECISIONS, dtype=object)[suspects.decision]
    sources[is_undone] = "reverted"
    audited = (
        out.read_table("audited.parquet") if out.exists("audited.parquet") else AUDITED.empty_table()
    ).sort_by("unit_id")
    names = pa.array(task.answers.names, pa.string())
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
        origin = origins.shard(shard, units["example_id"])
        columns = [
            units["unit_id"], units["example_id"], pa.array(given, pa.int32()), pa.array(final, pa.int32()),
            pa.array(value, pa.string()), pa.array(source, pa.string()), pa.array(confidence, pa.float32(), from_pandas=True),
            pa.array(annotator, pa.string()), units["split"],
        ]  # fmt: skip
        labels = pa.Table.from_arrays(columns, schema=LABELS)
        for name in ("key", "file", "row"):
            labels = labels.append_column(name, origin[name])
        for name, numbers in (("given", given), ("final", final)):
            labels = labels.append_column(f"{name}_name", names.take(pa.array(numbers)))
        out.write_table(labels, "labels", shard)
        if not task.units_are_examples:
            out.write_table(task.assemble(labels, table), EXAMPLE_LABELS, shard)
    return counts


def label_changes(
    run: Run, suspects: SuspectRanking, selected: npt.NDArray[np.bool_], task: Task
) -> list[Change]:
    """The changes of the selected suspects, with their content."""
    names = task.answers.names
    load = run.require("load")
    texts = read_texts(load.url("examples"), suspects.example_id[selected])
    origins = Origins(load).of(np.unique(suspects.example_id[selected]).tolist())
    columns = zip(
        suspects.unit_id[selected].tolist(),
        suspects.example_id[selected].tolist(),
        [answer_name(names, *each) for each in _pairs(suspects.given, suspects.given_value, selected)],
        [
            answer_name(names, *each)
            for each in _pairs(suspects.suggested, suspects.suggested_value, selected)
        ],
        strict=True,
    )
    return [
        Change.of(unit, texts[example], given, final, str(origins.get(example, "")))
        for unit, example, given, final in columns
    ]


def lost_reverts(run: Run, task: Task) -> list[Change]:
    """The reverts without effect, as they were recorded: no example has their text with their given label any more, or the
    example with their key has not.
    """
    load = run.require("load")
    if not has_reverts(run):
        return []
    left = Reverts.read(run, Origins(load).keyed).active()
    names = task.answers.names
    for shard in load.shards("examples"):
        wanted = {change.text_hash for _, change in left}
        if not wanted:
            break
        table = load.read_table("examples", shard, columns=["example_id", "text", "given_label"])
        hashes = np.array([digest(text) for text in table["text"].to_pylist()], dtype=object)
        found = np.array([each in wanted for each in hashes], dtype=bool)
        if not found.any():
            continue
        units = task.unit_rows(table.append_column("hash", pa.array(hashes)).filter(pa.array(found)))
        present = {
            (row["unit_id"], row["hash"], answer_name(names, row["given_label"], row["given_value"]))
            for row in units.select(["unit_id", "hash", "given_label", "given_value"]).to_pylist()
        }
        contents = {(text_hash, given) for _, text_hash, given in present}
        left = [
            (unit, change)
            for unit, change in left
            if (change.content not in contents if unit is None else (unit, *change.content) not in present)
        ]
    return [change for _, change in left]


def _pairs(
    numbers: npt.NDArray[np.int64], values: npt.NDArray[np.object_], selected: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, str | None]]:
    return zip(numbers[selected].tolist(), values[selected].tolist(), strict=True)


def answer_name(names: list[str], number: int, value: str | None) -> str:
    """An answer as reverts name it: by its name, and by its content as JSON where the name does not say it."""
    return names[number] if value is None else f"{names[number]} {value}"
