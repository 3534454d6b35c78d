"""Values inside nested columns, by dotted paths: `data.text`, `annotations.0.label`.

A part of a path is a key of an object or, in a list, a position from 0. A column whose own name is the path comes first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PATHS = 100
"""Most paths of one row that are listed for people."""


def nested_value(row: Mapping[str, Any], path: str) -> Any:
    """The value of a row at a path; None where there is none.

    >>> nested_value({"data": {"text": "hello"}, "choices": [{"name": "x"}]}, "choices.0.name")
    'x'
    >>> nested_value({"a.b": 1, "a": {"b": 2}}, "a.b")
    1
    """
    if path in row or "." not in path:
        return row.get(path)
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def with_nested_value(row: Mapping[str, Any], path: str, new: Any) -> dict[str, Any]:
    """The row with another value at a path that it has; nothing of the row itself is changed.

    >>> with_nested_value({"data": {"text": "hello", "labels": ["x"]}}, "data.labels.0", "y")
    {'data': {'text': 'hello', 'labels': ['y']}}
    """
    if path in row or "." not in path:
        return {**row, path: new}
    return _replaced(row, path.split("."), new)  # type: ignore[no-any-return]


def _replaced(value: Any, parts: Sequence[str], new: Any) -> Any:
    if not parts:
        return new
    if isinstance(value, Mapping):
        return {**value, parts[0]: _replaced(value[parts[0]], parts[1:], new)}
    items = list(value)
    items[int(parts[0])] = _replaced(items[int(parts[0])], parts[1:], new)
    return items


def nested_paths(value: Any, above: str = "") -> Iterator[str]:
    """Paths to the plain values in objects and in the first elements of lists, at most some, as a column's name is written.

    >>> list(nested_paths({"text": "a", "data": {"label": "x"}, "tags": [{"name": "y"}, {"name": "z"}]}))
    ['text', 'data.label', 'tags.0.name']
    """
    left, found = [(above, value)], 0
    while left and found < _PATHS:  # a loop, since values may be nested deeper than Python recurses
        path, value = left.pop()
        below = f"{path}." if path else ""
        if isinstance(value, Mapping) and value:
            left += reversed([(f"{below}{key}", each) for key, each in value.items()])
        elif isinstance(value, list) and value and isinstance(value[0], Mapping | list):
            left.append((f"{below}0", value[0]))
        elif path:
            found += 1
            yield path
