"""An annotator by a vote of the nearest trusted examples, without a language model or network access.

The neighbours are the query's demonstrations (the nearest examples that are not suspects, in the features of
`predict`). Each votes for its given label, if that is a candidate, with a weight by its cosine similarity. Neighbours have no
vote on candidates that are texts of their own, such as the spans of a sentence: there it abstains.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from rayclean.annotators.base import NEAREST_OF_ANY, Annotator, best_position
from rayclean.annotators.query import Annotation, Query


class KnnAnnotator(Annotator):
    """Chooses the candidate with the greatest vote; its confidence is its share of all votes."""

    class Config(Annotator.Config):
        """Options of the vote."""

        neighbours: int = Field(20, ge=1)
        """Number of neighbours that vote."""
        power: float = Field(1.0, ge=0)
        """Exponent of a vote's weight max(cosine, 0) ** power; with 0 every neighbour has weight 1."""
        smoothing: float = Field(0.5, gt=0)
        """Constant added to each candidate's votes, so that few neighbours do not give certainty."""

    config: Config
    billable = False
    independent = False
    calibrated = True
    chooses_texts = False

    def demonstrations(self, count: int | None, selector: str) -> tuple[int, str]:
        """The nearest neighbours, if they have a vote; `relabel.demonstrations` and `selector` apply only to language models."""
        votes = self.task is None or self.task.candidates_are_labels
        return (self.config.neighbours if votes else 0), NEAREST_OF_ANY

    def sent(self, query: Query) -> Any:
        """The candidates, and the neighbours' labels and cosine similarities, rounded as their last digits
        depend on the machine.
        """
        neighbours = [
            [each.answer.value, None if each.similarity is None else round(each.similarity, 4)]
            for each in query.demonstrations
        ]
        return [[candidate.value for candidate in query.candidates], neighbours]

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """Count the votes of each query's demonstrations."""
        return [self._vote(query) for query in queries]

    def _vote(self, query: Query) -> Annotation:
        values = [candidate.value for candidate in query.candidates]
        votes = [0.0] * len(values)
        for demonstration in query.demonstrations:
            if demonstration.answer.value in values:
                cosine = 1.0 if demonstration.similarity is None else max(demonstration.similarity, 0.0)
                votes[values.index(demonstration.answer.value)] += cosine**self.config.power
        total = sum(votes) + self.config.smoothing * len(votes)
        return Annotation(
            key=self.key(query),
            unit_id=query.unit_id,
            choice=best_position(votes),
            scores=tuple(math.log((vote + self.config.smoothing) / total) for vote in votes),
            raw=json.dumps([round(vote, 6) for vote in votes]),
            model=self.model_name,
        )

    @property
    def model_name(self) -> str:
        """The annotator's name in the ledger."""
        return f"knn-{self.config.neighbours}"
