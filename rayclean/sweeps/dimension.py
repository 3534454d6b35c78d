"""The values that one swept field takes, and the conditions under which it is swept."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Field, model_validator

from rayclean.plugins import Options

_KINDS = ("grid", "choice", "uniform", "log_uniform", "integer")
"""Keys that specify the values of a field."""


class Dimension(Options):
    """The values of one field: exactly one of `grid`, `choice`, `uniform`, `log_uniform`, `integer`."""

    grid: tuple[Any, ...] | None = Field(None, min_length=1)
    """Values that are all tried, combined with every value of the other grids."""
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    """Values of which one is drawn for each sample."""
    uniform: tuple[float, float] | None = None
    """Lower and upper bound of a uniformly drawn number."""
    log_uniform: tuple[float, float] | None = None
    """Lower and upper bound of a number whose logarithm is drawn uniformly."""
    integer: tuple[int, int] | None = None
    """Least and greatest value of an integer that is drawn uniformly."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Condition: the field is swept only where other swept fields have these values (each a value or a list);
    elsewhere it keeps its base value."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"say exactly one of {', '.join(_KINDS)}, got {given or 'none'}")
        low, high = self.bounds or (0, 1)
        if not low < high:
            raise ValueError(f"{given[0]} = [low, high] needs low < high, got {[low, high]}")
        if self.log_uniform is not None and low <= 0:
            raise ValueError(f"log_uniform needs positive bounds, got {[low, high]}")
        return self

    @property
    def drawn(self) -> bool:
        """Whether the values are drawn rather than enumerated."""
        return self.grid is None

    @property
    def listed(self) -> tuple[Any, ...]:
        """The values of a grid or a choice; () for a range."""
        return self.grid or self.choice or ()

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range from which values are drawn; None for listed values."""
        return self.uniform or self.log_uniform or self.integer

    def holds(self, point: Mapping[str, Any], unknown: Collection[str] = ()) -> bool:
        """Whether the conditions of the field hold at a point; fields in `unknown` may have any value."""
        return all(
            other in unknown or (other in point and point[other] in as_list(wanted))
            for other, wanted in self.when.items()
        )

    def described(self) -> str:
        """A description of the values in words.

        >>> Dimension(integer=(1, 5), when={"method.threshold": "fixed"}).described()
        'whole numbers from 1 to 5; only where method.threshold is fixed'
        """
        if self.bounds is None:
            text = ("one of " if self.drawn else "") + ", ".join(map(show, self.listed))
        else:
            whole, log = "whole numbers " * bool(self.integer), ", log-uniform" * bool(self.log_uniform)
            text = f"{whole}from {show(self.bounds[0])} to {show(self.bounds[1])}{log}"
        conditions = " and ".join(f"{path} is {show(value)}" for path, value in self.when.items())
        return f"{text}; only where {conditions}" if conditions else text


def show(value: Any) -> str:
    """The text of a value in a title or a table; a plug-in is its name with its options in brackets.

    >>> show({"name": "knn", "neighbours": 5}), show(0.1), show({"name": "lane"})
    ('knn(neighbours=5)', '0.1', 'lane')
    """
    if isinstance(value, dict):
        rest = ",".join(f"{key}={show(each)}" for key, each in value.items() if key != "name")
        return f"{value.get('name', '')}({rest})" if rest else str(value.get("name", ""))
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(show, value)) if isinstance(value, list | tuple) else str(value)


def as_list(value: Any) -> list[Any]:
    """The values of a condition, which may be a single value or a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def is_condition(path: str) -> bool:
    """Whether a swept field makes the data easier or harder, like a noise rate, so that it cannot be
    selected. The words of labels in prompts can be.

    >>> is_condition("dataset.noise.rate"), is_condition("dataset.words"), is_condition("method.lambda_")
    (True, False, False)
    """
    section, _, key = path.partition(".")
    return section == "dataset" and key.partition(".")[0] not in ("words", "definitions")
