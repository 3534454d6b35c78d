"""Numbers as people read them, for the report and the terminal."""

import math
from collections.abc import Mapping
from typing import Any

WHOLE = ("suspects", "asked", "changed", "tokens")
"""Figures that are whole numbers."""


def format_percent(value: float | None) -> str:
    """A share in per cent; more digits where it is small.

    >>> [format_percent(share) for share in (0.2346, 0.00042, 0, 1.0, None)]
    ['23.5 %', '0.042 %', '0 %', '100 %', 'not known']
    """
    if value is None:
        return "not known"
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    if value < 0.01:
        return f"{100 * value:.2g} %" if value >= 1e-6 else "< 0.0001 %"
    return f"{100 * value:.1f} %"


def format_figure(value: float | None) -> str:
    """A figure in [0, 1] that is no percentage.

    >>> format_figure(0.98765), format_figure(None)
    ('0.988', 'not known')
    """
    return "not known" if value is None else f"{value:.3f}"


def format_count(value: float | None) -> str:
    """A count with separated thousands.

    >>> format_count(1234567)
    '1,234,567'
    """
    return "not known" if value is None else f"{value:,.0f}"


def format_units(count: int, unit: str) -> str:
    """A count with its unit, one or several.

    >>> format_units(1, "label"), format_units(1234, "doubtful label")
    ('1 label', '1,234 doubtful labels')
    """
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


def referred_to_person(counts: Mapping[str, Any]) -> str:
    """How many labels a person decides (`annotations.waiting_for_person`), as a part of a sentence.

    >>> referred_to_person({"referred": 1}), referred_to_person({"referred": 20})
    ('1 is referred to a person', '20 are referred to a person')
    """
    from rayclean.annotations import (
        waiting_for_person,  # reads tables; this module is also loaded where nothing does
    )

    count = waiting_for_person(counts)
    return f"{count:,} {'is' if count == 1 else 'are'} referred to a person"


def format_seconds(seconds: float) -> str:
    """A duration in seconds, minutes or hours.

    >>> format_seconds(3.21), format_seconds(75), format_seconds(7260)
    ('3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def format_money(amount: float | None, currency: str | None) -> str:
    """An amount of money with its currency.

    >>> format_money(12.5, "USD"), format_money(0.00123, "EUR"), format_money(0.00004, "USD")
    ('12.50 USD', '0.0012 EUR', '0.000040 USD')
    """
    if amount is None:
        return "not known"
    return f"{amount:,.{2 if amount >= 0.1 else decimals('cost', amount, 2)}f}{' ' + currency if currency else ''}"


def figure_title(name: str, currency: str | None) -> str:
    """The name of a figure with its unit, where it is money.

    >>> figure_title("cost", "USD"), figure_title("cost", None), figure_title("tokens", "USD")
    ('cost (USD)', 'cost', 'tokens')
    """
    return f"{name} ({currency})" if currency and name == "cost" else name


def format_interval(interval: list[float] | None) -> str:
    """A 95 % interval of a share; empty where there is none.

    >>> format_interval([0.1, 0.2])
    '95 %: 10.0 % to 20.0 %'
    """
    return "" if interval is None else f"95 %: {format_percent(interval[0])} to {format_percent(interval[1])}"


def decimals(name: str, value: float, digits: int = 4) -> int:
    """How many decimals of a figure are shown: so many digits, and two of a small one.

    >>> decimals("accuracy", 0.91), decimals("seconds", 75.2), decimals("tokens", 12345.7)
    (4, 2, 0)
    >>> decimals("cost", 0.00012)
    5
    """
    size = abs(value)
    if name in WHOLE:
        return 0 if size >= 100 or value == int(value) else 1
    if size >= 1:
        return max(0, digits - len(str(int(size))))
    return digits if size == 0 else min(8, max(digits, 1 - math.floor(math.log10(size))))


def format_measured(name: str, mean: float, sd: float | None = None, digits: int = 4) -> str:
    """A figure by its name, rounded, with its deviation.

    >>> format_measured("accuracy", 0.91234, 0.00321), format_measured("asked", 7, 1.5)
    ('0.9123 ± 0.0032', '7 ± 1.5')
    """
    places = decimals(name, mean, digits)
    if sd is None:
        return f"{mean:,.{places}f}"
    return f"{mean:,.{places}f} ± {sd:,.{decimals(name, sd, 1) if name in WHOLE else places}f}"


def format_p_value(p: float) -> str:
    """A p-value, rounded.

    >>> format_p_value(0.03), format_p_value(0.0002), format_p_value(1.0)
    ('p=.03', 'p<.001', 'p=1')
    """
    return "p<.001" if p < 0.001 else "p=" + f"{p:.3f}".rstrip("0").rstrip(".").removeprefix("0")
