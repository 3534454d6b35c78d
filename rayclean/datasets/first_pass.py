"""First pass of `load`: read a piece of the source, validate and identify its rows, and stage them in shards.

After it, everything global is known from small summaries (label values and their counts, numbers of rows),
and the source is never read again: the later passes read `stage/` alone, which is removed when `load` is
done.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from rayclean.config import DatasetConfig
from rayclean.datasets.base import FileForm
from rayclean.datasets.class_label import named_rows
from rayclean.datasets.columns import choose_columns
from rayclean.datasets.example_id import key_id, row_id
from rayclean.datasets.label_forms import LabelForm
from rayclean.datasets.labels import MAX_LABELS, LabelCounts
from rayclean.datasets.left_out import Kinds, count_row, is_beyond_ascii
from rayclean.datasets.rejected_rows import (
    BLANK_ROW,
    NO_LABEL,
    WHOLE_CHARACTERS,
    RejectedRow,
    shorten_value,
    write_rejected,
)
from rayclean.datasets.row_validation import RowValidator, ValidRow
from rayclean.datasets.sources import SourcePiece
from rayclean.errors import DataError
from rayclean.folder import Folder

STAGED = pa.schema(
    [
        ("example_id", pa.int64()),
        ("text", pa.string()),
        ("label", pa.string()),  # as its form stages it, see label_forms.py
        ("truth", pa.string()),
        ("key", pa.string()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int64()),
        ("group", pa.int64()),  # number of what is never divided; null where nothing is
    ]
)
"""`stage/rows/`: valid rows of the source, one shard per file."""

_STAGED_TOKENS = STAGED.append(pa.field("tokens", pa.list_(pa.string())))
"""The same with tokens, where the form of the labels reads some."""


@dataclass(frozen=True)
class LoadJob:
    """One run of `load`, as its workers need to know it."""

    config: DatasetConfig
    out: str
    """URL of the folder that is written."""
    seed: int
    label_form: LabelForm
    """How labels are read and stored."""
    needs_labels: bool = True
    """Whether rows of the data and the development files need a label; false where a trained classifier scores them."""


@dataclass
class PieceSummary:
    """The driver's knowledge of a piece after the first pass."""

    role: str
    rows: int = 0
    """Rows read, valid or not."""
    shards: list[int] = field(default_factory=list)
    """Valid rows of each shard."""
    rejected: dict[str, dict[str, Any]] = field(default_factory=dict)
    """reason -> number of rejected rows, and source, row and value of the first one."""
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    """Code of a label -> where the label column holds it."""
    truths: dict[str, int] = field(default_factory=dict)
    """Code of a label -> number of rows whose truth column holds it."""
    label_names: list[str] = field(default_factory=list)
    """Names that the files themselves give to the values of the label column."""
    numberings: list[list[str]] = field(default_factory=list)
    """The different lists of such names, in the order of the numbers that stand for them."""
    unlabelled: list[str] = field(default_factory=list)
    """Class keys of those values of `dataset.unlabelled` that the label column holds."""
    known_truths: int = 0
    """Valid rows whose truth column has a value."""
    empty: list[str] = field(default_factory=list)
    """Names of files without rows."""
    kinds: Kinds = field(default_factory=dict)
    """Rows read and rows rejected, by kind of row."""

    forms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How files are written, in words -> how many are, the first of them, and what about it was guessed."""

    def note_labels(self, names: list[str] | None, unlabelled: set[str]) -> None:
        """Add the names that a file gives to its labels, and the values of `dataset.unlabelled` that it holds."""
        self.label_names = list(dict.fromkeys([*self.label_names, *(names or ())]))
        if names and names not in self.numberings:
            self.numberings.append(names)
        self.unlabelled = sorted({*self.unlabelled, *unlabelled})

    def to_json(self) -> dict[str, Any]:
        """The summary as values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "PieceSummary":
        """Inverse of `to_json`."""
        labels = {code: LabelCounts(**counts) for code, counts in values["labels"].items()}
        return cls(**{**values, "labels": labels})


def stage_piece(job: LoadJob, piece: SourcePiece) -> PieceSummary:
    """Read a piece; write its shards to `stage/rows/`, its rejected rows to `rejected/`, and its summary.

    Raises:
        DataError: a file cannot be read or lacks a column, or a label column holds too many different values.
    """
    folder = Folder(job.out)
    writer = _ShardWriter(job, piece, folder)
    reader = piece.source.reader()
    for segment in piece.segments:
        name = segment.file.name
        found = reader.columns(segment.file)
        if not found:
            writer.summary.empty.append(name)
            continue
        columns = choose_columns(
            job.config,
            piece.source.role,
            found,
            segment.file.url,
            reader.sparse,
            job.label_form.reads_tokens,
            label_optional=not job.needs_labels,
        )
        writer.add_form(name, reader.describe(segment.file))
        validate = RowValidator(job.config, columns, piece.source.role, job.label_form, job.needs_labels)
        rows_before = writer.summary.rows
        for row, values in named_rows(reader, segment, columns.names):
            values = too_long(values, job.config.max_characters)
            checked = values if isinstance(values, RejectedRow) else validate(values)
            writer.add(name, row, checked)
            writer.count_kinds(name, values, checked, validate)
        writer.summary.note_labels(
            reader.label_names(segment.file, columns.label) if isinstance(columns.label, str) else None,
            validate.unlabelled_found,
        )
        if writer.summary.rows == rows_before:
            writer.summary.empty.append(name)
    writer.flush()
    folder.write_json(writer.summary.to_json(), "stage", "pieces", f"{piece.name}.json")
    return writer.summary


def too_long(values: list[Any] | RejectedRow, characters: int) -> list[Any] | RejectedRow:
    """The values of a row, unless one of them is a longer text, or list of texts, than any that can be meant.

    >>> too_long(["abcdef", "x"], 5)
    RejectedRow(reason='longer than dataset.max_characters', value='6 characters: abcdef', whole=False)
    """
    if not isinstance(values, RejectedRow):
        for value in values:
            parts = value if isinstance(value, list) else [value]
            length = sum(len(part) for part in parts if isinstance(part, str))
            if length > characters:
                return RejectedRow(
                    "longer than dataset.max_characters", f"{length:,} characters: {str(parts[0])[:100]}"
                )
    return values


def read_summary(job: LoadJob, piece: SourcePiece) -> PieceSummary | None:
    """The summary that an earlier attempt at this load left; None if it did not finish the piece."""
    folder = Folder(job.out)
    if not folder.exists("stage", "pieces", f"{piece.name}.json"):
        return None
    return PieceSummary.from_json(folder.read_json("stage", "pieces", f"{piece.name}.json"))


class _ShardWriter:
    """Collects the rows of a piece and writes a shard whenever enough have come together."""

    def __init__(self, job: LoadJob, piece: SourcePiece, folder: Folder):
        self.job, self.piece, self.folder = job, piece, folder
        self.role = piece.source.role
        self.grouped = self.role == "data" and (job.config.holds_out or job.config.group is not None)
        self.summary = PieceSummary(self.role)
        self.truths: Counter[str] = Counter()
        self.codes = job.label_form.codes
        self.number = 0
        self._clear()

    def add(self, source: str, row: int, checked: ValidRow | RejectedRow) -> None:
        """Add one row of the source, valid or rejected."""
        self.summary.rows += 1
        if isinstance(checked, RejectedRow):
            value = shorten_value(checked.value)
            kept = shorten_value(checked.value, WHOLE_CHARACTERS) if checked.whole else value
            self.rejected.append((source, row, checked.reason, kept))
            entry = self.summary.rejected.setdefault(
                checked.reason, {"count": 0, "source": source, "row": row, "value": value}
            )
            entry["count"] += 1
        else:
            self._stage(source, row, checked)
        if len(self.valid) + len(self.rejected) >= self.job.config.rows_per_shard:
            self.flush()

    def count_kinds(
        self,
        source: str,
        values: Sequence[Any] | RejectedRow,
        checked: ValidRow | RejectedRow,
        validate: RowValidator,
    ) -> None:
        """Count one row of the source by its kind; one that is blank, or that the config calls unlabelled, is neither kept nor
        lost.
        """
        lost = isinstance(checked, RejectedRow)
        if isinstance(checked, ValidRow):
            classes = set() if checked.label is None else set(self.codes(checked.label))
        elif checked.reason in (NO_LABEL, BLANK_ROW):
            return
        else:
            classes = set() if isinstance(values, RejectedRow) else validate.classes(values)
        count_row(self.summary.kinds, source, classes, is_beyond_ascii(values), lost)

    def add_form(self, source: str, form: FileForm | None) -> None:
        """Count a file by how it is written."""
        if form is not None:
            new = {"files": 0, "first": source, "remark": form.remark}
            self.summary.forms.setdefault(form.words, new)["files"] += 1

    def _stage(self, source: str, row: int, valid: ValidRow) -> None:
        id_ = row_id(self.role, source, row) if valid.key is None else key_id(valid.key)
        key = None if valid.key is None else repr(valid.key)
        group = valid.group_number() if self.grouped else None
        staged = (id_, valid.text, valid.label, valid.truth, key, source, row, group)
        self.valid.append(staged if valid.tokens is None else (*staged, valid.tokens))
        if valid.label is not None:
            for code in self.codes(valid.label):
                counts = self.summary.labels.get(code)
                if counts is not None:
                    counts.count += 1
                else:
                    self.summary.labels[code] = LabelCounts(1, source, row)
                    _check_label_count(len(self.summary.labels))
        if valid.truth is not None:
            self.summary.known_truths += 1
            for code in self.codes(valid.truth):
                self.truths[code] += 1
            _check_label_count(len(self.truths))

    def flush(self) -> None:
        """Write the collected rows as one shard."""
        self.summary.truths = dict(self.truths)
        name = f"{self.piece.name}-{self.number:04d}"
        if self.valid:
            self.folder.write_table(_staged_table(self.valid), "stage", "rows", f"{name}.parquet")
        if self.rejected:
            write_rejected(self.folder, f"{name}-read", self.rejected)
        if self.valid or self.rejected:
            self.summary.shards.append(len(self.valid))
            self.number += 1
        self._clear()

    def _clear(self) -> None:
        self.valid: list[tuple[Any, ...]] = []
        self.rejected: list[tuple[str, int, str, str]] = []


def _staged_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows in the order of the columns of `STAGED`, some with tokens at their end, as a table."""
    schema = STAGED if len(rows[0]) == len(STAGED) else _STAGED_TOKENS
    columns = [list(column) for column in zip(*rows, strict=True)]
    arrays = [
        pa.array(column, field.type.value_type).dictionary_encode()
        if isinstance(field.type, pa.DictionaryType)
        else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _check_label_count(count: int) -> None:
    """Stop at a column of so many different values that it can hold no classes.

    Raises:
        DataError: there are more than `MAX_LABELS` values.
    """
    if count > MAX_LABELS:
        raise DataError(
            f"the label column (dataset.label or dataset.truth) holds more than {MAX_LABELS:,} different "
            "values; classification needs classes: check which column it is"
        )
