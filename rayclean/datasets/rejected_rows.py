"""Rows of the source that cannot be used, and the tables in `rejected/` that list them with the reason.

Readers reject what is malformed (`csv.py`, `jsonl.py`, `parquet.py`), `row_validation.py` rejects unusable
texts, labels and keys, and `second_pass.py` rejects unknown labels and duplicate keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayclean.folder import Folder
from rayclean.schema import REJECTED

VALUE_CHARACTERS = 200
"""Longest excerpt of a rejected value that `rejected/` keeps."""

WHOLE_CHARACTERS = 10_000
"""Longest value that `rejected/` keeps of a row that is kept whole."""

NO_LABEL = "no label"
"""Reason for rows whose label is one of `dataset.unlabelled`; they do not count against `max_rejected`."""

BLANK_ROW = "blank row"
"""Reason for rows all of whose cells are blank, as spreadsheets leave them behind; they do not count against `max_rejected`."""

NULL_LABEL = "null label"
"""Reason for rows whose label is null or blank."""

UNKNOWN_LABEL = "unknown label"
"""Reason for rows whose label is not in the label set."""


@dataclass(frozen=True)
class RejectedRow:
    """Why a row cannot be used."""

    reason: str
    value: str = ""
    """The offending value."""
    whole: bool = False
    """Whether `rejected/` keeps all of the value, so that a person can mend the row from it."""


def shorten_value(value: Any, characters: int = VALUE_CHARACTERS) -> str:
    """The beginning of a value, safe to write as UTF-8."""
    text = value if isinstance(value, str) else repr(value)
    return text[:characters].encode("utf-8", "backslashreplace").decode()[:characters]


def write_rejected(folder: Folder, name: str, rows: Sequence[tuple[str, int, str, str]]) -> None:
    """Write `rejected/<name>.parquet`: source, row, reason and value of each row."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, REJECTED, strict=True)]
    folder.write_table(pa.table(arrays, schema=REJECTED), "rejected", f"{name}.parquet")
