"""The detector seam: from predictions (and features, or training dynamics) to a quality per example.

A detector works in two steps, so that it runs shard by shard with flat memory: `fit` sees all shards as often as it
likes through a `Mapper` and returns a small state (thresholds, K x K counts, an index); `score` turns one batch and
that state into a quality and a vote per example. The result may not depend on how the examples are cut into shards
or in which order the shards come.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rayclean.plugins import Options

T = TypeVar("T")
R = TypeVar("R")


class Mapper(Protocol):
    """`map`, possibly on many machines: yields `function(item)` for every item, in any order."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Apply `function` (picklable) to every item (picklable)."""
        ...


@dataclass(frozen=True)
class DetectorBatch:
    """Columns of some examples, as detectors see them."""

    example_id: npt.NDArray[np.int64]
    """[B]"""
    given_label: npt.NDArray[np.int32]
    """[B]"""
    predicted_label: npt.NDArray[np.int32]
    """[B]"""
    probabilities: npt.NDArray[np.float32]
    """[B, K]"""
    features: npt.NDArray[np.float32] | None = None
    """[B, D]; only for detectors with `needs_features`."""


class DetectorShard(Protocol):
    """One shard of predictions, opened where it is needed."""

    def read(self, features: bool = False) -> DetectorBatch:
        """The shard's columns."""
        ...


class Detector:
    """Base of all detectors."""

    class Config(Options):
        """Options beside `name`."""

    needs_features: ClassVar[bool] = False
    """Whether batches must carry features."""

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        self.config = config
        self.num_classes = num_classes
        self.seed = seed

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> Any:
        """State from all shards (picklable, small). None for detectors that look at one example at a time."""
        return None

    def score(
        self, batch: DetectorBatch, state: Any
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality [B] (**lower = more likely wrong**) and vote [B] (True: this detector calls the label wrong)."""
        raise NotImplementedError

    def metrics(self, state: Any) -> dict[str, float]:
        """Figures of the whole data set that the fitted state tells, for `metrics.json`."""
        return {}
