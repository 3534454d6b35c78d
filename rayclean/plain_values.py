"""Results as values that JSON can hold, whoever prints them."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def plain_value(value: Any) -> Any:
    """Dataclasses as dicts and sequences as lists; numbers that are not finite, which JSON has not, become None.

    >>> plain_value({"a": (1, float("nan")), 2: True})
    {'a': [1, None], '2': True}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_value(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_value(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain_value(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
