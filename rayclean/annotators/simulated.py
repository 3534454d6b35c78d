"""A made-up annotator for tests, dry runs and experiments: seeded, deterministic per question.

Without a truth it answers by a hash of the question: a dry run that measures queries, time and plumbing and says
nothing about the data. With `truth_path`, which only an experiment sets, it is right with probability `accuracy`.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from rayclean.annotators.base import Annotation, Annotator, Query
from rayclean.errors import ConfigError
from rayclean.folder import Folder


class SimulatedAnnotator(Annotator):
    """Answers at once, costs nothing."""

    class Config(Annotator.Config):
        """How good it pretends to be."""

        accuracy: float = Field(0.9, ge=0, le=1)
        """With a truth: how often it chooses the true label where that is a candidate; elsewhere it guesses."""
        confidence: float = Field(0.9, gt=0, lt=1)
        """Probability that it puts on its choice."""
        truth_path: str | None = None
        """For experiments only: folder of Parquet files with `example_id` and `true_label`. No verb ever sets it."""
        seed: int = 0
        """Another seed gives other mistakes."""
        tokens: int = Field(0, ge=0)
        """Prompt tokens that each answer pretends to cost."""

        OPERATIONAL: ClassVar[tuple[str, ...]] = ("concurrency",)

    config: Config
    billable = False
    calibrated = True

    def __init__(self, config: Any, labels: Sequence[Any], seed: int = 0):
        super().__init__(config, labels, seed)
        self._truth: dict[int, int] | None = None

    def check(self) -> None:
        """See base class."""
        if self.config.truth_path is not None and not Folder(self.config.truth_path).exists():
            raise ConfigError(f"annotator.truth_path: {self.config.truth_path!r} does not exist")

    def key(self, query: Query) -> str:
        """With a truth the answer depends on the example, not on its text alone."""
        return (
            self.address(query, query.example_id)
            if self.config.truth_path is not None
            else self.address(query)
        )

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """See base class."""
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Annotation:
        key = self.key(query)
        right, pick = np.random.default_rng([self.config.seed, int(key, 16)]).random(2)
        indices = [label.index for label in query.candidates]
        truth = self._truths().get(query.example_id)
        if truth in indices:
            others = [index for index in indices if index != truth]
            chosen = truth if right < self.config.accuracy or not others else others[int(pick * len(others))]
        else:
            chosen = indices[int(pick * len(indices))]
        rest = (1 - self.config.confidence) / max(len(indices) - 1, 1)
        return Annotation(
            key=key,
            example_id=query.example_id,
            label=chosen,
            scores={
                index: math.log(self.config.confidence if index == chosen else rest) for index in indices
            },
            raw=str(chosen),
            model=f"simulated-{self.config.seed}",
            prompt_tokens=self.config.tokens,
        )

    def _truths(self) -> dict[int, int]:
        if self._truth is None:
            self._truth = {}
            if self.config.truth_path is not None:
                folder = Folder(self.config.truth_path)
                for name in folder.shards():
                    table = folder.read_table(name, columns=["example_id", "true_label"]).drop_null()
                    self._truth.update(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return self._truth
