"""A simulated annotator for tests, dry runs and experiments, deterministic for each question and seed.

Without true labels it answers by a hash of the question, so a dry run measures numbers of queries and time,
but not quality. With `truth_path`, set only in experiments, it is correct with probability `accuracy`.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from rayclean.annotators.base import Annotator
from rayclean.annotators.query import Annotation, Query
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.schema import Candidate


class SimulatedAnnotator(Annotator):
    """Annotator that answers immediately and without a model."""

    class Config(Annotator.Config):
        """Options of the simulated annotator."""

        accuracy: float = Field(0.9, ge=0, le=1)
        """Probability of choosing the true label, if it is known and a candidate; otherwise the answer is a
        guess."""
        confidence: float = Field(0.9, gt=0, lt=1)
        """Probability that it assigns to its choice."""
        truth_path: str | None = None
        """Folder of Parquet files with `example_id` and `true_label`, for experiments only; no verb sets
        it."""
        seed: int = 0
        """Seed of the random answers."""
        tokens: int = Field(0, ge=0)
        """Number of prompt tokens recorded for each answer."""

        OPERATIONAL: ClassVar[tuple[str, ...]] = ("concurrency",)

    config: Config
    billable = False
    calibrated = True

    def __init__(self, config: Any, labels: Sequence[Any], seed: int = 0):
        super().__init__(config, labels, seed)
        self._truth: dict[int, str] | None = None

    def check(self) -> None:
        """Refuse a `truth_path` that does not exist."""
        if self.config.truth_path is not None and not Folder(self.config.truth_path).exists():
            raise ConfigError(f"annotator.truth_path: {self.config.truth_path!r} does not exist")

    def identity(self) -> dict[str, Any]:
        """The options, with whether it knows the truth in place of the path: moved data get the same answers."""
        found = super().identity()
        options = {**found["options"], "truth_path": self.config.truth_path is not None}
        return found | {"options": options}

    def sent(self, query: Query) -> Any:
        """The content on which an answer depends; with true labels it includes the example's id."""
        content = super().sent(query)
        return content if self.config.truth_path is None else [content, query.unit_id]

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """Answer by a seeded random number per query."""
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Annotation:
        key = self.key(query)
        right, pick = np.random.default_rng([self.config.seed, int(key, 16)]).random(2)
        places = range(len(query.candidates))
        truth = self._true_value(query.unit_id)
        true_places = [place for place in places if query.candidates[place].value == truth]
        if true_places:
            others = [place for place in places if place not in true_places]
            is_right = right < self.config.accuracy or not others
            choice = true_places[0] if is_right else others[int(pick * len(others))]
        else:
            choice = places[int(pick * len(places))]
        rest = (1 - self.config.confidence) / max(len(places) - 1, 1)
        return Annotation(
            key=key,
            unit_id=query.unit_id,
            choice=choice,
            scores=tuple(math.log(self.config.confidence if x == choice else rest) for x in places),
            raw=query.candidates[choice].word,
            model=f"simulated-{self.config.seed}",
            prompt_tokens=self.config.tokens,
        )

    def _true_value(self, unit_id: int) -> str | None:
        """The value of the true answer; None where it is not known."""
        return self._true_values().get(unit_id)

    def _true_values(self) -> dict[int, str]:
        """Value of the true answer by the id of a unit; read at the first query."""
        if self._truth is None:
            self._truth = {}
            if self.config.truth_path is not None:
                folder = Folder(self.config.truth_path)
                for name in folder.shards():
                    table = folder.read_table(name, columns=["example_id", "true_label"]).drop_null()
                    columns = [table["example_id"], table["true_label"], pa.nulls(len(table))]
                    if self.task is not None:
                        rows = self.task.unit_rows(table, "true_label")
                        columns = [rows[name] for name in ("unit_id", "given_label", "given_value")]
                    for unit, index, value in zip(*(c.to_pylist() for c in columns), strict=True):
                        self._truth[unit] = value or Candidate.of(self.labels[index]).value
        return self._truth
