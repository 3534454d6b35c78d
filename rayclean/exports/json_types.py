"""Types for the keys of JSON objects, where they become the columns of a table.

Every value must fit without a loss; a key whose values do not (texts and numbers, whole numbers that a float cannot hold)
becomes a column of texts in JSON.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from rayclean.exports.cells import json_text

_AS_JSON = {b"rayclean": b"json"}
_EXACT = 2**53
"""Floats hold all whole numbers up to this one."""

_BEYOND_FLOATS = pa.duration("s")
"""Stands for whole numbers of 64 bits some of which no float holds; JSON itself has no such type."""

KeyTypes = dict[str, pa.DataType | None]
"""Key -> type of its values; None where they are written as JSON."""


def key_types(batches: Iterable[list[dict[str, Any]]]) -> KeyTypes:
    """The types of all keys of some objects, in the order in which they come."""
    found: KeyTypes = {}
    for objects in batches:
        keys = dict.fromkeys(key for each in objects for key in each)
        found = merged_types([found, {key: _type([each.get(key) for each in objects]) for key in keys}])
    return found


def merged_types(parts: Iterable[KeyTypes]) -> KeyTypes:
    """The types of keys that hold the values of all parts."""
    merged: KeyTypes = {}
    for part in parts:
        for key, type_ in part.items():
            merged[key] = _common(merged[key], type_) if key in merged else type_
    return merged


def schema_of(types: KeyTypes) -> pa.Schema:
    """A table's columns for some keys."""
    return pa.schema([
        pa.field(key, pa.string(), metadata=_AS_JSON) if type_ is None else pa.field(key, _of_column(type_))
        for key, type_ in types.items()
    ])  # fmt: skip


def _of_column(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_):
        return pa.list_(_of_column(type_.value_type))
    return pa.string() if pa.types.is_null(type_) else pa.int64() if type_ == _BEYOND_FLOATS else type_


def objects_as_table(objects: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Objects as a table; a key that an object lacks is null."""
    return pa.Table.from_arrays([_column(objects, field) for field in schema], schema=schema)


def _column(objects: list[dict[str, Any]], field: pa.Field) -> pa.Array:
    values: Iterator[Any] = (each.get(field.name) for each in objects)
    if (field.metadata or {}).get(b"rayclean") == b"json":
        values = (None if value is None else json_text(value) for value in values)
    return pa.array(list(values), field.type)


def _type(values: list[Any]) -> pa.DataType | None:
    try:
        type_ = pa.infer_type(values)
        pa.array(values, type_)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeError):
        return None
    if pa.types.is_floating(type_):
        return type_ if _fit_floats(values) else None
    if pa.types.is_integer(type_):
        return pa.int64() if _fit_floats(values) else _BEYOND_FLOATS
    return type_ if _is_plain(type_) else None


def _fit_floats(values: list[Any]) -> bool:
    return all(abs(value) <= _EXACT for value in values if isinstance(value, int))


def _is_plain(type_: pa.DataType) -> bool:
    """Whether every value fits: an object that lacks a key would come back with a null for it, so only lists of plain values
    do.
    """
    if pa.types.is_list(type_):
        return _is_plain(type_.value_type)
    return not pa.types.is_struct(type_)


def _common(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    if one is None or other is None:
        return None
    if pa.types.is_null(one) or one == other:
        return other
    if pa.types.is_null(other):
        return one
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = _common(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner)
    numbers = {one, other}
    if numbers == {pa.int64(), pa.float64()}:
        return pa.float64()
    return _BEYOND_FLOATS if numbers == {pa.int64(), _BEYOND_FLOATS} else None
