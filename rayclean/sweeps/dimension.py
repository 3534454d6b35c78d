"""The values that one swept field takes, and the conditions under which it is swept."""

from typing import Any

from pydantic import Field, model_validator

from rayclean.plugins import Options

_KINDS = ("grid", "choice", "uniform", "log_uniform", "integer")
"""Ways to say which values a field takes."""


class Dimension(Options):
    """The values that one field takes: one of `grid`, `choice`, `uniform`, `log_uniform`, `integer`."""

    grid: tuple[Any, ...] | None = Field(None, min_length=1)
    """Every one of these values, with every value of the other grids."""
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    """One of these values, drawn again for each sample."""
    uniform: tuple[float, float] | None = None
    """A number between the two."""
    log_uniform: tuple[float, float] | None = None
    """A number between the two, its logarithm uniform."""
    integer: tuple[int, int] | None = None
    """A whole number between the two, both included."""
    when: dict[str, Any] = Field(default_factory=dict)
    """The field is swept only where other swept fields have these values (a value, or a list of them);
    elsewhere it keeps its base value."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"say exactly one of {', '.join(_KINDS)}, got {given or 'none'}")
        for kind in ("uniform", "log_uniform", "integer"):
            bounds = getattr(self, kind)
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{kind} = [low, high] needs low < high, got {list(bounds)}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform needs positive bounds, got {list(self.log_uniform)}")
        return self

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn rather than enumerated."""
        return self.grid is None

    @property
    def ranged(self) -> bool:
        """Whether values are drawn from a range: hardly two points share one."""
        return self.grid is None and self.choice is None

    @property
    def listed(self) -> tuple[Any, ...]:
        """The values of a grid or a choice; () of a range."""
        return self.grid or self.choice or ()


def is_condition(path: str) -> bool:
    """Whether a swept field makes the data easier or harder, like a noise rate, and is nothing to choose. The
    words by which prompts name the labels are a choice.

    >>> is_condition("dataset.noise.rate"), is_condition("dataset.words"), is_condition("method.lambda_")
    (True, False, False)
    """
    section, _, key = path.partition(".")
    return section == "dataset" and key.partition(".")[0] not in ("words", "definitions")


def check_condition(path: str, other: str, wanted: Any, dimension: Dimension) -> None:
    """Refuse a condition on a value that never occurs: its field would silently keep the base value.

    Raises:
        ValueError: the value is not among those of the other field.
    """
    values = wanted if isinstance(wanted, list | tuple) else [wanted]
    never = [value for value in values if value not in dimension.listed]
    if dimension.listed and never:
        raise ValueError(
            f"{path}: `when` waits for {other} = {never}, which is swept over {list(dimension.listed)}"
        )
