"""The vote of the nearest trusted examples: an annotator that needs no language model and no network.

The neighbours are the query's demonstrations (the nearest examples that are no suspects, in the features of
`predict`); each votes for its given label with the weight of its cosine. Only candidates can be voted for.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from rayclean.annotators.base import Annotation, Annotator, Query, best_position


class KnnAnnotator(Annotator):
    """Chooses the candidate with the greatest vote; its confidence is its share of the candidates' votes."""

    class Config(Annotator.Config):
        """Number of neighbours and weight of their votes."""

        neighbours: int = Field(20, ge=1)
        """Number of neighbours that vote."""
        power: float = Field(1.0, ge=0)
        """Exponent of a vote's weight max(cosine, 0) ** power; with 0 every neighbour counts 1."""
        smoothing: float = Field(0.5, gt=0)
        """Added to each candidate's votes, so that few neighbours give no certainty."""

    config: Config
    billable = False
    calibrated = True

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """The nearest neighbours; `relabel.demonstrations` and `selector` are for language models."""
        return self.config.neighbours, "nearest"

    def sent(self, query: Query) -> Any:
        """Nothing is sent; the vote depends on the candidates' and the neighbours' labels and on the
        neighbours' cosines, of which the last digits depend on the machine.
        """
        neighbours = [
            [each.answer.value, None if each.similarity is None else round(each.similarity, 4)]
            for each in query.demonstrations
        ]
        return [[candidate.value for candidate in query.candidates], neighbours]

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """Count the votes of each query's demonstrations; nothing is sent."""
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
