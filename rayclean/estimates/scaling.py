"""From the sizes that were timed to a larger one."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """Seconds that grow in proportion to an amount of work, after a start that costs the same for any amount."""

    start: float
    slope: float
    """Seconds per unit of work; never negative."""

    def at(self, work: float) -> float:
        """Seconds for an amount of work; none for none."""
        return self.start + self.slope * work if work > 0 else 0.0


def fit_line(work: Sequence[float], seconds: Sequence[float]) -> Line:
    """The line through a first, cold measurement and two warm ones.

    The first one pays for what a process does once: importing libraries, opening a network. So the warm ones say what a
    unit of work costs, and what the cold one took beyond that is the start.

    Args:
        work: of each measurement, in their order; the first and the second may be the same amount.
        seconds: of each measurement.

    >>> fit_line([10, 20, 60], [6.0, 2.0, 6.0])
    Line(start=5.0, slope=0.1)
    """
    cold, small, large = zip(work, seconds, strict=True)
    if large[0] > small[0]:
        slope = max(0.0, (large[1] - small[1]) / (large[0] - small[0]))
    else:
        slope = large[1] / large[0] if large[0] else 0.0
    return Line(max(0.0, cold[1] - slope * cold[0]), slope)


def seconds_per_row(batches: Sequence[int], seconds: Sequence[float]) -> Line:
    """What a row of a batch costs, where a step costs the same for any batch beside what its rows cost.

    Args:
        batches: two sizes of batches.
        seconds: per row, with each of them.

    Returns:
        A line over 1 / the size of a batch.

    >>> seconds_per_row([10, 100], [0.11, 0.02]).at(1 / 50)
    0.03
    """
    (small, large), (slow, fast) = batches, seconds
    step = max(0.0, (slow - fast) / (1 / small - 1 / large))
    return Line(max(0.0, round(fast - step / large, 12)), round(step, 12))
