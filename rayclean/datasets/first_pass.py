"""First pass over the data: read a piece of the source, check and identify its rows, and write them down in shards.

After it, everything global is known from small summaries (the values of the label column, counts, ids), and the
source is never read again: what follows works on `stage/` alone, which goes when `load` is done.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from rayclean.config import DatasetConfig
from rayclean.datasets.base import RowFault
from rayclean.datasets.example_id import key_id, row_id
from rayclean.datasets.labels import MAX_LABELS, LabelCounts
from rayclean.datasets.rows import ParsedRow, RowParser, choose_columns, shorten_value
from rayclean.datasets.sources import SourcePiece
from rayclean.errors import DataError
from rayclean.folder import Folder
from rayclean.schema import REJECTED

STAGED = pa.schema(
    [
        ("example_id", pa.int64()),
        ("text", pa.string()),
        ("label", pa.string()),  # code, see rayclean.datasets.rows
        ("truth", pa.string()),
        ("key", pa.string()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int64()),
    ]
)


@dataclass(frozen=True)
class LoadJob:
    """What every worker of `load` needs to know."""

    config: DatasetConfig
    out: str
    """Folder that is written, as a URL."""
    seed: int


@dataclass
class PieceSummary:
    """What the driver learns of a piece."""

    role: str
    rows: int = 0
    shards: list[int] = field(default_factory=list)
    """Usable rows of each shard."""
    rejected: dict[str, dict[str, Any]] = field(default_factory=dict)
    """reason -> count, and source, row and value of the first."""
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    truths: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    """Files without rows."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "PieceSummary":
        """Inverse of `to_json`."""
        return cls(
            **{**values, "labels": {code: LabelCounts(**seen) for code, seen in values["labels"].items()}}
        )


def stage_piece(job: LoadJob, piece: SourcePiece) -> PieceSummary:
    """Read one piece and write `stage/rows/<piece>-<n>.parquet`, `rejected/<piece>-<n>-read.parquet` and a summary.

    Raises:
        DataError: a file cannot be read, lacks a column, or its label column has no end of values.
    """
    folder = Folder(job.out)
    writer = _Writer(job, piece, folder)
    reader = piece.source.reader()
    for segment in piece.segments:
        name = segment.file.name
        found = reader.columns(segment.file)
        if not found:
            writer.summary.empty.append(name)
            continue
        columns = choose_columns(job.config, piece.source.role, found, segment.file.url, reader.sparse)
        parse = RowParser(job.config, columns, piece.source.role)
        before = writer.summary.rows
        for row, values in reader.rows(segment, columns.names):
            writer.add(name, row, values if isinstance(values, RowFault) else parse(values))
        if writer.summary.rows == before:
            writer.summary.empty.append(name)
    writer.flush()
    folder.write_json(writer.summary.to_json(), "stage", "pieces", f"{piece.name}.json")
    return writer.summary


def read_summary(job: LoadJob, piece: SourcePiece) -> PieceSummary | None:
    """The summary that an earlier attempt left, if it finished the piece."""
    folder = Folder(job.out)
    if not folder.exists("stage", "pieces", f"{piece.name}.json"):
        return None
    return PieceSummary.from_json(folder.read_json("stage", "pieces", f"{piece.name}.json"))


class _Writer:
    """Collects rows until a shard is full."""

    def __init__(self, job: LoadJob, piece: SourcePiece, folder: Folder):
        self.job, self.piece, self.folder = job, piece, folder
        self.role = piece.source.role
        self.summary = PieceSummary(self.role)
        self.truths: Counter[str] = Counter()
        self.number = 0
        self._clear()

    def add(self, source: str, row: int, parsed: ParsedRow | RowFault) -> None:
        """One row of the source, usable or not."""
        self.summary.rows += 1
        if isinstance(parsed, RowFault):
            value = shorten_value(parsed.value)
            self.faults.append((source, row, parsed.reason, value))
            entry = self.summary.rejected.setdefault(
                parsed.reason, {"count": 0, "source": source, "row": row, "value": value}
            )
            entry["count"] += 1
        else:
            self._keep(source, row, parsed)
        if len(self.kept) + len(self.faults) >= self.job.config.rows_per_shard:
            self.flush()

    def _keep(self, source: str, row: int, parsed: ParsedRow) -> None:
        id_ = row_id(self.role, source, row) if parsed.key is None else key_id(parsed.key)
        key = None if parsed.key is None else repr(parsed.key)
        self.kept.append((id_, parsed.text, parsed.label, parsed.truth, key, source, row))
        if parsed.label is not None:
            seen = self.summary.labels.get(parsed.label)
            if seen is not None:
                seen.count += 1
            else:
                self.summary.labels[parsed.label] = LabelCounts(1, source, row)
                check_label_count(len(self.summary.labels))
        if parsed.truth is not None:
            self.truths[parsed.truth] += 1
            check_label_count(len(self.truths))

    def flush(self) -> None:
        """Write what there is."""
        self.summary.truths = dict(self.truths)
        name = f"{self.piece.name}-{self.number:04d}"
        if self.kept:
            columns = [list(column) for column in zip(*self.kept, strict=True)]
            arrays = [
                pa.array(column, field.type.value_type).dictionary_encode()
                if isinstance(field.type, pa.DictionaryType)
                else pa.array(column, field.type)
                for column, field in zip(columns, STAGED, strict=True)
            ]
            self.folder.write_table(pa.table(arrays, schema=STAGED), "stage", "rows", f"{name}.parquet")
        if self.faults:
            write_rejected(self.folder, f"{name}-read", self.faults)
        if self.kept or self.faults:
            self.summary.shards.append(len(self.kept))
            self.number += 1
        self._clear()

    def _clear(self) -> None:
        self.kept: list[tuple[Any, ...]] = []
        self.faults: list[tuple[str, int, str, str]] = []


def write_rejected(folder: Folder, name: str, faults: list[tuple[str, int, str, str]]) -> None:
    """Write rows (source, row, reason, value) that cannot be used."""
    columns = [list(column) for column in zip(*faults, strict=True)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, REJECTED, strict=True)]
    folder.write_table(pa.table(arrays, schema=REJECTED), "rejected", f"{name}.parquet")


def check_label_count(count: int) -> None:
    """Stop at a label column that is none.

    Raises:
        DataError: too many different values.
    """
    if count > MAX_LABELS:
        raise DataError(
            f"the label column (dataset.label or dataset.truth) holds more than {MAX_LABELS:,} different values; "
            "classification needs classes: check which column it is"
        )
