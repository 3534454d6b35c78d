"""The detector seam: from predictions (and features, or training dynamics) to a quality per unit.

A detector works in two steps, so that it runs shard by shard with flat memory: `fit` sees all shards as often
as it likes through a `Mapper` and returns a small state (thresholds, K x K counts, an index); `score` turns
one batch and that state into a quality and a vote per example. The result may not depend on how the examples
are cut into shards or in which order the shards come.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.plugins import Options

T = TypeVar("T")
R = TypeVar("R")


class Mapper(Protocol):
    """A `map` that may run on many machines: it yields `function(item)` for every item, in any order."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Apply `function` (picklable) to every item (picklable)."""
        ...


@dataclass(frozen=True)
class DetectorBatch:
    """The columns of B units that detectors read; in classification a unit is an example and an answer a class."""

    unit_id: npt.NDArray[np.int64]
    """[B] ids of what is doubted."""
    given_label: npt.NDArray[np.int32]
    """[B] indices of the given answers."""
    predicted_label: npt.NDArray[np.int32]
    """[B] indices of the most probable answers."""
    probabilities: npt.NDArray[np.float32]
    """[B, K] probabilities of all answers; 0 for answers of other units."""
    features: npt.NDArray[np.float32] | None = None
    """[B, D] features; None for detectors without `needs_features`."""
    example_id: npt.NDArray[np.int64] | None = None
    """[B] ids of the examples; None where every unit is an example."""
    group: npt.NDArray[np.int64] | None = None
    """[B] the number that all copies of an example's text share; None for detectors without `needs_groups`."""
    examples_given: pa.Table | None = None
    """`example_id` and `given_label`, the whole given label in the form of the task, of the batch's examples; None
    where every unit is an example, whose label is its answer."""
    given_value: pa.Array | None = None
    """[B] the given answers as JSON, where their indices do not say them; not for detectors."""
    suggested_value: pa.Array | None = None
    """[B] the answers that the model suggests as JSON, likewise."""

    @property
    def examples(self) -> npt.NDArray[np.int64]:
        """[B] ids of the examples that the units belong to."""
        return self.unit_id if self.example_id is None else self.example_id


class DetectorShard(Protocol):
    """A shard of predictions, which is opened where it is needed."""

    def read(self, features: bool = False, groups: bool = False) -> DetectorBatch:
        """Read the shard's columns; `features` and `group` only where they are asked for."""
        ...


class Detector:
    """Base class of all detectors."""

    class Config(Options):
        """Options beside `name`."""

    needs_features: bool = False
    """Whether it reads features, and so units must be examples."""
    needs_groups: ClassVar[bool] = False
    """Whether it reads which texts are copies of each other, and so units must be examples."""

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        self.config = config
        self.num_classes = num_classes
        self.seed = seed

    def fit(self, shards: Sequence[DetectorShard], mapper: Mapper) -> Any:
        """The state that `score` needs (picklable, small); None if each example is scored by itself."""
        return None

    def score(
        self, batch: DetectorBatch, state: Any
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Quality [B] in [0, 1] (**lower = more likely wrong**) and vote [B] (True: the label is called wrong)."""
        raise NotImplementedError

    def answer_probabilities(self, batch: DetectorBatch, state: Any) -> npt.NDArray[np.floating[Any]] | None:
        """Probability [B, K] that each answer is right, if the detector knows better than the model; else None. A row
        of NaN says that it does not know better about that unit. The first detector that does decides which answer is
        suggested beside the given one.
        """
        return None

    def metrics(self, state: Any) -> dict[str, float]:
        """Metrics of the whole data set that follow from the fitted state, for `metrics.json`."""
        return {}

    def note(self, state: Any) -> str:
        """What a user must know about the fitted state, as a sentence without its full stop; '' if there is nothing."""
        return ""
