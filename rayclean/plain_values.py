"""Results as values that JSON can hold and as cells of a spreadsheet, whoever writes them."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters of cells that a spreadsheet may run as a formula."""


def defused(cell: str) -> str:
    """A cell as a spreadsheet shows it, which would run some as formulas.

    >>> defused("=cmd"), defused("a=b")
    ("'=cmd", 'a=b')
    """
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


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
