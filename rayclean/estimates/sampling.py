"""Rows drawn evenly from a data set, written as a small data set of the same columns."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rayclean.config import Config, Split
from rayclean.datasets.base import FileSegment
from rayclean.datasets.class_label import named_rows
from rayclean.datasets.columns import SourceColumns, names_of
from rayclean.datasets.rejected_rows import RejectedRow
from rayclean.datasets.sources import Source, find_sources
from rayclean.errors import DataError
from rayclean.estimates.data_size import RowCount, count_rows_of
from rayclean.first_look.reading import MOST_FILES, MOST_ROWS
from rayclean.folder import Folder
from rayclean.tasks import TASKS


@dataclass(frozen=True)
class DataSample:
    """Some rows of the data, and what reading them has shown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    """Values of the columns, in an order that was drawn at random."""
    count: RowCount
    """Rows of the whole data set."""
    read: int
    """Rows that were read, from which the sample was drawn."""
    seconds_per_row: float
    """Of reading alone."""


def draw_rows(config: Config, size: int) -> DataSample:
    """Draw rows from the first ones of all files.

    Args:
        config: of the run.
        size: most rows.

    Raises:
        DataError: a file cannot be read, lacks a column, or there are no rows.
    """
    source = next(each for each in find_sources(config.dataset) if each.role == "data")
    columns = _columns(config)
    draw, kept, read = random.Random(config.seed), list[tuple[Any, ...]](), 0
    start = time.monotonic()
    for values in _rows(source, columns):
        read += 1
        if len(kept) < size:
            kept.append(tuple(values))
        elif (place := draw.randrange(read)) < size:
            kept[place] = tuple(values)
    seconds = time.monotonic() - start
    if not kept:
        raise DataError(f"{source.files[0].url}: no row can be read; `rayclean load` says why")
    draw.shuffle(kept)
    count = count_rows_of(source)
    return DataSample(tuple(columns), tuple(kept), count, read, seconds / read)


def sample_config(config: Config, folder: Folder, sample: DataSample, size: int) -> Config:
    """The config of a run on the first rows of a sample, which is written to a folder.

    Names of single classes are left out of it, since a sample may hold none of their rows.
    """
    lines = [
        json.dumps(dict(zip(sample.columns, row, strict=True)), default=str, ensure_ascii=True)
        for row in sample.rows[:size]
    ]
    path = f"sample-{size}.jsonl"
    folder.write_text("\n".join(lines) + "\n", path)
    dataset = config.dataset
    shares = {"dev": dataset.dev, "test": dataset.test}
    splits = {name: Split(share=0.1) if split.has_source else split for name, split in shares.items()}
    noise = dataset.noise if dataset.noise is None or not dataset.noise.mapping else None
    return config.model_copy(
        update={
            "dataset": dataset.model_copy(
                update={
                    "path": folder.url(path), "format": "jsonl", "encoding": None, "delimiter": None, "quote": None,
                    "escape": None, "header": True, "max_rejected": 1.0, "words": {}, "definitions": {}, "noise": noise,
                    **splits,
                }
            ),
            "output": folder.url(), "name": f"run-{size}",
        }
    )  # fmt: skip


def _columns(config: Config) -> list[str]:
    """The columns that `load` reads."""
    dataset = config.dataset
    reads_tokens = TASKS.resolve(config.task.name).label_form == "tags"
    text = () if reads_tokens else names_of(dataset.text)
    tokens = dataset.tokens if reads_tokens else None
    return SourceColumns(text, dataset.label, dataset.truth, dataset.id, tokens, dataset.group).names


def _rows(source: Source, columns: Sequence[str]) -> Any:
    """Rows from the beginning of each file, at most `MOST_ROWS` of all; unreadable ones are left out."""
    source = replace(source, files=source.files[:: -(-len(source.files) // MOST_FILES)])
    quota = -(-MOST_ROWS // len(source.files))
    for file in source.files:
        reader = source.reader()
        found = reader.columns(file) if file.size else []
        read = [name for name in columns if name in found or reader.sparse]
        rows = named_rows(reader, FileSegment(file), read) if read else iter(())
        for _, (_, values) in zip(range(quota), rows, strict=False):
            if not isinstance(values, RejectedRow):
                cells = dict(zip(read, values, strict=True))
                yield [cells.get(name) for name in columns]
