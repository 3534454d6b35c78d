"""What a run says of the rows of one shard of its data set: labels, where they come from, and why."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.exports.reasons import disagreement_reasons, unit_reasons
from rayclean.folder import Folder
from rayclean.origins import ORIGINS_FOLDER
from rayclean.tasks.base import Task

SOURCE_REJECTED, SOURCE_TEST, SOURCE_PREDICTED, SOURCE_SUSPECT = "rejected", "test", "predicted", "suspect"
"""Values of `label_source` beside those of `schema.LABELS`: a row that load could not use, one that was put aside for testing,
one that has its label from a trained classifier, and a suspect about whom nothing was decided yet.
"""
SOURCES_BY_IMPORTANCE = (
    "audited", "changed", "reverted", "referred", "abstained", "error", "unasked", SOURCE_SUSPECT, "kept", "given",
)  # fmt: skip
"""Sources of units; an example of several units has the first of theirs."""


@dataclass(frozen=True)
class RunShards:
    """The shards of a run that tell of the rows of one piece of its source."""

    load: str
    """URL of the folder `load/`."""
    predict: str | None
    """URL of `predict/` where a trained classifier gave the labels."""
    detect: str | None
    """URL of `detect/`; None where a classifier gave the labels."""
    relabel: str | None
    """URL of `relabel/`; None where nothing was decided yet."""
    names: tuple[str, ...]
    """Shards without their endings, in the order of their rows."""


def said_schema(task: Task) -> pa.Schema:
    """Columns of what is said of rows: where they come from, labels as they are stored, and the reasons."""
    return pa.schema([
        ("file", pa.string()),
        ("row", pa.int64()),
        ("given", task.label_type),
        ("final", task.label_type),
        ("suggested", task.label_type),  # null where nothing is doubted
        ("source", pa.string()),
        ("confidence", pa.float32()),
        ("quality", pa.float32()),  # the lowest of the example's units
        ("rank", pa.int64()),  # the first of the example's units; null where none is a suspect
        ("annotator", pa.string()),
        ("reason", pa.string()),
    ])  # fmt: skip


def valid_rows(shards: RunShards, name: str, task: Task) -> pa.Table:
    """What is said of the rows of a shard that became examples.

    Args:
        shards: the run.
        name: of the shard, without its ending.
        task: of the run.
    """
    load, shard = Folder(shards.load), f"{name}.parquet"
    if not load.exists(ORIGINS_FOLDER, shard):
        return said_schema(task).empty_table()
    origins = load.read_table(ORIGINS_FOLDER, shard, columns=["example_id", "file", "row"]).combine_chunks()
    said = pa.concat_tables(_said(shards, load, shard, task), promote_options="default").combine_chunks()
    said = _aligned(said, origins["example_id"])
    for column in ("file", "row"):
        said = said.append_column(column, origins[column])
    return _in_schema(said, said_schema(task))


def rejected_rows_of(shards: RunShards, name: str, task: Task) -> pa.Table:
    """The rows of a shard that load could not use, with the reason."""
    load, schema = Folder(shards.load), said_schema(task)
    rows = [
        row
        for shard in (f"{name}-read.parquet", f"{name}-label.parquet")
        if load.exists("rejected", shard)
        for row in load.read_table("rejected", shard).to_pylist()
    ]
    said = [
        {
            "file": row["source"],
            "row": row["row"],
            "source": SOURCE_REJECTED,
            "reason": f"{row['reason']}: {row['value']}" if row["value"] else row["reason"],
        }
        for row in rows
    ]
    return pa.Table.from_pylist(said, schema=schema)


def _said(shards: RunShards, load: Folder, shard: str, task: Task) -> Iterator[pa.Table]:
    """What is said of the examples of a shard, and of those that were put aside for testing."""
    if load.exists("examples", shard):
        examples = load.read_table("examples", shard, columns=["example_id", "given_label"]).combine_chunks()
        yield _predicted(shards, shard, task) if shards.predict else _decided(shards, examples, shard, task)
    if load.exists("test", shard):
        test = load.read_table("test", shard, columns=["example_id", "given_label"]).combine_chunks()
        sources = pa.array([SOURCE_TEST] * len(test), pa.string())
        given = test["given_label"]
        yield pa.table({"example_id": test["example_id"], "given": given, "final": given, "source": sources})


def _predicted(shards: RunShards, shard: str, task: Task) -> pa.Table:
    """The labels that a trained classifier gives."""
    table = Folder(str(shards.predict)).read_table("predictions", shard).combine_chunks()
    said = {
        "example_id": table["example_id"],
        "given": table["given_label"],
        "final": task.predicted_labels(table["probabilities"]),
        "source": pa.array([SOURCE_PREDICTED] * len(table), pa.string()),
    }
    if "predicted_probability" in table.column_names:
        said["confidence"] = table["predicted_probability"]
    return pa.table(said)


def _decided(shards: RunShards, examples: pa.Table, shard: str, task: Task) -> pa.Table:
    """What detect found, and what relabel decided if it has run."""
    units = Folder(str(shards.detect)).read_table("findings", shard).combine_chunks()
    if shards.relabel is None:
        sources = pc.if_else(units["suspect"], SOURCE_SUSPECT, "given")
        units = units.append_column("source", sources).append_column(
            "annotator", pa.nulls(len(units), pa.string())
        )
        units = units.append_column("confidence", units["given_probability"])
    else:
        columns = ["unit_id", "final_label", "final_value", "source", "confidence", "annotator"]
        labels = Folder(shards.relabel).read_table("labels", shard, columns=columns).combine_chunks()
        labels = labels.take(_one(pc.index_in(units["unit_id"], value_set=_one(labels["unit_id"]))))
        for column in columns[1:]:
            units = units.append_column(column, labels[column])
        doubted = pc.not_equal(units["source"], "given")
        confidence = pc.if_else(doubted, units["confidence"], units["given_probability"])
        units = units.set_column(units.schema.get_field_index("confidence"), "confidence", confidence)
    texts = dict[int, str]() if task.candidates_are_labels else _texts(Folder(shards.load), shard)
    why = unit_reasons(units, task, texts)
    if shards.relabel is not None and (relabel := Folder(shards.relabel)).exists("beyond"):
        for _, beyond in relabel.rows_with("beyond", "unit_id", units["unit_id"].to_pylist()):
            why = pc.coalesce(why, disagreement_reasons(units, beyond, task, texts))
    units = units.append_column("why", why)
    if task.units_are_examples:
        return _of_single_units(units)
    return _of_several_units(units, examples, task)


def _texts(load: Folder, shard: str) -> dict[int, str]:
    """Texts of a shard's examples by id."""
    table = load.read_table("examples", shard, columns=["example_id", "text"])
    return dict(zip(table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def _of_single_units(units: pa.Table) -> pa.Table:
    """What is said of examples that are their only unit."""
    final = units["final_label"] if "final_label" in units.column_names else units["given_label"]
    suspect = units["suspect"]
    nothing = pa.scalar(None, pa.int32())
    return pa.table({
        "example_id": units["example_id"],
        "given": units["given_label"],
        "final": final,
        "suggested": pc.if_else(suspect, units["suggested_label"], nothing),
        "source": units["source"],
        "confidence": units["confidence"],
        "quality": units["quality"],
        "rank": pc.if_else(suspect, units["rank"], pa.scalar(None, pa.int64())),
        "annotator": units["annotator"],
        "reason": units["why"],
    })  # fmt: skip


def _of_several_units(units: pa.Table, examples: pa.Table, task: Task) -> pa.Table:
    """What is said of examples of several units: the source that says most, the least confidence and quality, the first rank, and
    who said what of any of them.
    """
    suspect = units["suspect"]
    table = pa.table({
        "example_id": units["example_id"],
        "source": pc.index_in(units["source"], value_set=pa.array(SOURCES_BY_IMPORTANCE)),
        "confidence": units["confidence"],
        "quality": units["quality"],
        "rank": pc.if_else(suspect, units["rank"], pa.scalar(None, pa.int64())),
    })  # fmt: skip
    smallest = [(column, "min") for column in table.column_names[1:]]
    grouped = table.group_by("example_id", use_threads=False).aggregate(smallest).combine_chunks()
    ids = grouped["example_id"]
    told = np.flatnonzero(pc.is_valid(units["why"]).to_numpy(zero_copy_only=False))
    spoken = units.select(["example_id", "annotator", "why"]).take(pa.array(told)).to_pylist()
    said = {
        "example_id": ids,
        "source": pa.array(SOURCES_BY_IMPORTANCE).take(_one(grouped["source_min"])),
        **{column: grouped[f"{column}_min"] for column in ("confidence", "quality", "rank")},
        "annotator": _joined(
            ((row["example_id"], row["annotator"]) for row in spoken), ids.to_pylist(), ", "
        ),
        "reason": _joined(((row["example_id"], row["why"]) for row in spoken), ids.to_pylist(), "; "),
    }
    found = pa.table(said)
    labels = {"given": examples["given_label"]}
    final = (
        ("final_label", "final_value")
        if "final_label" in units.column_names
        else ("given_label", "given_value")
    )
    labels["final"] = _assembled(task, units, examples, units[final[0]], units[final[1]])
    labels["suggested"] = _assembled(
        task,
        units,
        examples,
        pc.if_else(suspect, units["suggested_label"], units["given_label"]),
        pc.if_else(suspect, units["suggested_value"], units["given_value"]),
    )
    found = _aligned(found, examples["example_id"])
    for column, values in labels.items():
        found = found.append_column(column, values)
    return found.append_column("example_id", examples["example_id"])


def _assembled(
    task: Task, units: pa.Table, examples: pa.Table, answers: pa.ChunkedArray, values: pa.ChunkedArray
) -> pa.Array:
    """The labels of examples by the answers of their units, in the order of the examples."""
    given = pa.table({"example_id": units["example_id"], "final_label": answers, "final_value": values})
    table = task.assemble(given, examples).combine_chunks()
    return _one(_aligned(table, examples["example_id"])["final_label"])


def _joined(said: Iterable[tuple[int, Any]], examples: list[int], between: str) -> pa.Array:
    """What is said of each example, every text once; null where nothing is."""
    texts: dict[int, Counter[str]] = defaultdict(Counter)
    for example, text in said:
        if text is not None:
            texts[example][text] += 1
    return pa.array([between.join(texts[each]) if each in texts else None for each in examples], pa.string())


def _aligned(table: pa.Table, ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows of some examples, in their order, without the column of their ids."""
    at = pc.index_in(_one(ids), value_set=_one(table["example_id"]))
    return table.take(at).drop_columns("example_id").combine_chunks()


def _in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    arrays = [
        _one(table[field.name]).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
