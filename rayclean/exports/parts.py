"""One piece of the source as parts of the files that are written; runs in a worker."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotations import FOR_A_PERSON
from rayclean.config.export_section import ExportConfig
from rayclean.datasets.base import FileSegment, Reader
from rayclean.datasets.sources import SourcePiece
from rayclean.errors import DataError
from rayclean.exports.added_columns import AddedColumns
from rayclean.exports.formats import ExportRows, OutputFile
from rayclean.exports.json_types import KeyTypes, key_types, objects_as_table
from rayclean.exports.plan import ExportPlan, writer_of
from rayclean.exports.run_labels import RowLabels
from rayclean.exports.shard_labels import RunShards
from rayclean.folder import Folder
from rayclean.tasks.base import Task

NOT_IN_RUN = "new"
"""`label_source` of a row of which the run knows nothing."""


@dataclass(frozen=True)
class ExportJob:
    """An export, as its workers need to know it."""

    options: ExportConfig
    plan: ExportPlan
    added: AddedColumns
    task: Task
    out: str
    """URL of the folder of parts."""


@dataclass(frozen=True)
class PieceJob:
    """A piece of the source with what the run says of it."""

    piece: SourcePiece
    shards: RunShards


@dataclass
class _Counts:
    """What was counted while rows were written."""

    read: int = 0
    sources: Counter[str] = dataclasses.field(default_factory=Counter)
    """`label_source` -> rows that were written."""


def part_name(piece: str, output: int) -> str:
    """Name of the part of an output that comes from a piece."""
    return f"{piece}-{output:06d}"


def write_parts(job: ExportJob, item: PieceJob) -> dict[str, Any]:
    """Write the parts of a piece.

    Returns:
        Number of rows read, of rows written by where their label comes from, and the outputs that got a part.
    """
    piece, folder = item.piece, Folder(job.out)
    reader = piece.source.reader()
    segments = [segment for segment in piece.segments if segment.file.name in job.plan.files]
    labels = RowLabels(item.shards, [segment.file.name for segment in segments], job.task)
    counts = _Counts()
    written = []
    for number, group in groupby(segments, key=lambda segment: job.plan.files[segment.file.name].output):
        output = job.plan.outputs[number]
        batches = _batches(job, output, reader, list(group), labels, counts)
        folder.write_file(partial(writer_of(output).write_part, batches), part_name(piece.name, number))
        written.append(number)
    found = {
        "name": piece.name,
        "rows": counts.read,
        "sources": dict(counts.sources),
        "outputs": written,
    }
    folder.write_json(found, f"{piece.name}.json")
    return found


def infer_types(source_piece: SourcePiece) -> KeyTypes:
    """The types of all keys of a piece of JSON."""
    reader = source_piece.source.reader()
    return key_types(
        batch.rows
        for segment in source_piece.segments
        for batch in reader.whole_rows(segment)
        if isinstance(batch.rows, list)
    )


def _batches(
    job: ExportJob,
    output: OutputFile,
    reader: Reader,
    segments: list[FileSegment],
    labels: RowLabels,
    counts: _Counts,
) -> Iterator[ExportRows]:
    """The rows of neighbouring segments as they are written; counts them by the way."""
    for segment in segments:
        in_file = {column: reader.label_names(segment.file, column) or () for column in job.added.in_place}
        left_out = job.plan.files[segment.file.name].left_out
        for batch in reader.whole_rows(segment):
            counts.read += len(batch.numbers)
            said = _known(labels.of(segment.file.name, batch.numbers))
            keep = _selected(job.options, said)
            rows = job.added.rewrite(batch.rows, said, in_file)
            counts.sources.update(
                pc.array_filter(said["source"].combine_chunks(), pa.array(keep)).to_pylist()
            )
            yield _written(rows, said, keep, output, job.added, left_out)


def _known(said: pa.Table) -> pa.Table:
    """What is said of rows, with a source for those of which the run knows nothing."""
    place = said.schema.get_field_index("source")
    return said.set_column(place, "source", pc.fill_null(said["source"], NOT_IN_RUN))


def _selected(options: ExportConfig, said: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows are exported."""
    sources = said["source"].to_numpy()
    keep = np.ones(len(sources), dtype=bool)
    if options.only == "changed":
        given, final = said["given"].to_pylist(), said["final"].to_pylist()
        keep = np.array(
            [one is not None and one != other for one, other in zip(given, final, strict=True)], bool
        )
    elif options.only == "suspects":
        keep = pc.is_valid(said["rank"]).to_numpy()
    elif options.only == "referred":
        keep = np.isin(sources, FOR_A_PERSON)
    return keep & ~np.isin(sources, FOR_A_PERSON) if options.drop_referred else keep


def _written(
    rows: ExportRows,
    said: pa.Table,
    keep: npt.NDArray[np.bool_],
    output: OutputFile,
    added: AddedColumns,
    left_out: tuple[str, ...],
) -> ExportRows:
    """Rows with their added columns, in the form of the output."""
    if isinstance(rows, list):
        rows = [{key: value for key, value in row.items() if key not in left_out} for row in rows]
        if output.schema is None:
            # Nothing is inferred: objects stay as they are, and get keys at their end.
            further = added.table(said).to_pylist()
            _check_keys(rows, added.names)
            return [{**row, **more} for row, more, kept in zip(rows, further, keep, strict=True) if kept]
        own = pa.schema(list(output.schema)[: len(output.schema) - len(added.names)])
        rows = objects_as_table(rows, own)
    for name in left_out:
        rows = rows.drop_columns(name) if name in rows.column_names else rows
    table = pa.Table.from_arrays(
        [*rows.columns, *added.table(said).columns], names=[*rows.column_names, *added.schema().names]
    ).filter(pa.array(keep))
    assert output.schema is not None
    return conformed(table, output.schema, as_text=output.format == "csv")


def _check_keys(rows: list[dict[str, Any]], names: dict[str, str]) -> None:
    """Stop where an object has a key of the name of an added one, which the first objects of its file did not show.

    Raises:
        DataError: it would be overwritten.
    """
    for column, name in names.items():
        if any(name in row for row in rows):
            raise DataError(
                f"a later object of the data has the key {name!r}, which the added column {column!r} would overwrite; give that "
                f"another name: export.names.{column}=NAME (--name {column}=NAME)"
            )


def conformed(table: pa.Table, schema: pa.Schema, as_text: bool = False) -> pa.Table:
    """A table with the columns of a schema, null where it has none; `as_text`: types are those of the table."""
    columns, fields = [], []
    for field in schema:
        if field.name not in table.column_names:
            column = pa.nulls(len(table), field.type)
        else:
            column = table[field.name]
            if not as_text and column.type != field.type:
                column = column.cast(field.type)
        columns.append(column)
        fields.append(field.with_type(column.type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=schema.metadata))
