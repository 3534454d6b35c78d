"""Figures, p-values and swept values of a sweep as text."""

import math
from collections.abc import Sequence
from typing import Any

from rayclean.sweeps.dimension import Dimension
from rayclean.sweeps.results import PointFigure
from rayclean.sweeps.space import show

SIGNIFICANT = 0.05
"""Smaller p-values are marked."""
WHOLE = ("suspects", "asked", "changed", "tokens")
"""Figures that are whole numbers."""


def digits(metric: str, value: float, precision: int = 4) -> int:
    """How many decimals of a figure are shown.

    >>> digits("accuracy", 0.91), digits("seconds", 75.2), digits("tokens", 123456.7), digits("cost", 0.00012)
    (4, 2, 0, 5)
    """
    size = abs(value)
    if metric in WHOLE:
        return 0 if size >= 100 or value == int(value) else 1
    if size >= 1:
        return max(0, precision - len(str(int(size))))
    return precision if size == 0 else min(8, max(precision, 1 - math.floor(math.log10(size))))


def amount(metric: str, mean: float, sd: float | None = None, precision: int = 4) -> str:
    """A figure, rounded, with its deviation.

    >>> amount("accuracy", 0.91234, 0.00321), amount("tokens", 12345.6), amount("asked", 7, 1.5)
    ('0.9123 ± 0.0032', '12,346', '7 ± 1.5')
    """
    places = digits(metric, mean, precision)
    if sd is None:
        return f"{mean:,.{places}f}"
    return f"{mean:,.{places}f} ± {sd:,.{digits(metric, sd, 1) if metric in WHOLE else places}f}"


def p_value(p: float) -> str:
    """A p-value, rounded.

    >>> p_value(0.03), p_value(0.0002), p_value(1.0)
    ('p=.03', 'p<.001', 'p=1')
    """
    if p < 0.001:
        return "p<.001"
    return "p=" + f"{p:.3f}".rstrip("0").rstrip(".").removeprefix("0")


def is_significant(figure: PointFigure) -> bool:
    """Whether a figure differs from the reference by more than chance explains."""
    return figure.p is not None and figure.p < SIGNIFICANT


def sign(figure: PointFigure) -> str:
    """Whether a figure lies above or below the reference."""
    return "=" if not figure.difference else ("▲" if figure.difference > 0 else "▼")


def mark(figure: PointFigure) -> dict[str, Any] | None:
    """How a figure differs from the reference; None where it is not compared."""
    if figure.p is None:
        return None
    return {"text": f"{sign(figure)} {p_value(figure.p)}", "significant": is_significant(figure)}


def difference(metric: str, figure: PointFigure) -> str | None:
    """The mean difference to the reference, with the digits of the figure; None where it is not compared."""
    if figure.p is None or figure.difference is None:
        return None
    return f"{figure.difference:+,.{digits(metric, figure.mean)}f}"


def values_of(dimension: Dimension) -> str:
    """The values of a dimension in words.

    >>> values_of(Dimension(integer=(1, 5), when={"method.threshold": "fixed"}))
    'whole numbers from 1 to 5; only where method.threshold is fixed'
    """
    if dimension.grid is not None or dimension.choice is not None:
        text = ", ".join(map(show, dimension.listed))
        text = text if dimension.grid is not None else f"one of {text}"
    elif dimension.integer is not None:
        text = f"whole numbers from {dimension.integer[0]} to {dimension.integer[1]}"
    else:
        low, high = dimension.uniform or dimension.log_uniform or (0.0, 0.0)
        text = f"from {show(low)} to {show(high)}" + (", log-uniform" if dimension.log_uniform else "")
    conditions = [f"{path} is {show(value)}" for path, value in dimension.when.items()]
    return text + (f"; only where {' and '.join(conditions)}" if conditions else "")


def listing(names: Sequence[str]) -> str:
    """Names as a list in a sentence.

    >>> listing(["a"]), listing(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
