"""Values of Arrow as the cells of a CSV and the values of JSON."""

import base64
import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def text_cells(column: pa.ChunkedArray) -> list[str]:
    """The values [B] of a column as texts, null as ""."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        try:
            return ["" if cell is None else cell for cell in column.to_pylist()]
        except UnicodeDecodeError:  # Parquet does not check its texts
            column = column.cast(pa.large_binary())
    elif (
        pa.types.is_integer(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_timestamp(kind)
    ):
        return ["" if cell is None else cell for cell in pc.cast(column, pa.string()).to_pylist()]
    elif pa.types.is_floating(kind):
        return ["" if value is None else str(value) for value in _shortest(column)]
    return [_text(cell) for cell in json_values(column)]


def json_values(column: pa.ChunkedArray) -> list[Any]:
    """The values [B] of a column as JSON has them: numbers that are not finite as null, times in ISO 8601, bytes as text or,
    where they are none, in base64.
    """
    if pa.types.is_floating(column.type):
        return [value if value is None or math.isfinite(value) else None for value in _shortest(column)]
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":  # Python's times end at microseconds
        return list(pc.cast(column, pa.string()).to_pylist())
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:  # Parquet does not check its texts
        values = column.cast(pa.large_binary()).to_pylist()
    return [_plain(value) for value in values]


def _shortest(column: pa.ChunkedArray) -> list[float | None]:
    """Numbers with the shortest text that says them in the column's precision: 1.1, where the same bits as a float64 would be
    1.100000023841858. A number that is none counts as null.
    """
    values, valid = column.fill_null(0).to_numpy(), column.is_valid().to_pylist()
    return [
        float(str(value)) if known and value == value else None
        for value, known in zip(values, valid, strict=True)
    ]


def json_text(value: Any) -> str:
    """A value as JSON, on one line."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json_text(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)  # decimals, UUIDs, durations
