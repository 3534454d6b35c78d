"""A figure over several seeds: its mean and deviation, and how it compares with a reference under the same seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rayclean.evaluation.formatting import decimals, format_p_value

SIGNIFICANT = 0.05
"""Significance level: smaller p-values are marked."""


@dataclass(frozen=True)
class PointFigure:
    """Statistics of one figure of a point over its seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation; None with one seed."""
    seeds: int
    """Number of seeds; if some trials ran to their end, trials stopped as worse are excluded from all
    figures."""
    p: float | None = None
    """p-value of a two-sided paired t-test against the reference, over the seeds under which both ran to
    their end. None: there is no reference, the point is the reference, there are fewer than two pairs, or all
    differences are equal."""
    difference: float | None = None
    """Mean of the paired differences to the reference."""

    @property
    def significant(self) -> bool:
        """Whether the point differs significantly from the reference."""
        return self.p is not None and self.p < SIGNIFICANT

    @property
    def sign(self) -> str:
        """Sign of the difference to the reference."""
        return "=" if not self.difference else "▲" if self.difference > 0 else "▼"

    @property
    def mark(self) -> str:
        """The mark of the comparison with the reference; empty if there is none."""
        return "" if self.p is None else f"{self.sign} {format_p_value(self.p)}"

    def difference_of(self, metric: str) -> str:
        """The difference to the reference, with the digits of the metric's mean."""
        return f"{self.difference or 0.0:+,.{decimals(metric, self.mean)}f}"


def pooled(figures: Sequence[PointFigure]) -> PointFigure:
    """A figure over several points: its mean, and the deviation over seeds of all of them."""
    squares = [figure.sd**2 for figure in figures if figure.sd is not None]
    return PointFigure(
        fmean(figure.mean for figure in figures),
        math.sqrt(fmean(squares)) if squares else None,
        sum(figure.seeds for figure in figures),
    )
