"""The vote of the nearest trusted examples: an annotator that needs no language model and no network.

The neighbours are the query's demonstrations (nearest examples that are no suspects, in the features of `predict`);
each votes for its given label with its cosine (METHODS 13.3). Only candidates are voted for.
"""

import json
import math
from collections.abc import Sequence

from pydantic import Field

from rayclean.annotators.base import Annotation, Annotator, Query


class KnnAnnotator(Annotator):
    """Label = the candidate with the greatest vote; confidence = its share of the candidates' votes."""

    class Config(Annotator.Config):
        """How the neighbours vote."""

        neighbours: int = Field(20, ge=1)
        """Neighbours that vote."""
        power: float = Field(1.0, ge=0)
        """A vote weighs max(cosine, 0) ** power; 0: every neighbour counts 1."""
        smoothing: float = Field(0.5, gt=0)
        """Added to each candidate's votes, so that few neighbours are no certainty."""

    config: Config
    billable = False
    calibrated = True

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """The nearest neighbours, whatever `relabel.demonstrations` shows a language model."""
        return self.config.neighbours, "nearest"

    def key(self, query: Query) -> str:
        """Neighbours that moved are another question: their cosines (to 4 digits) belong to the key."""
        near = [None if d.similarity is None else round(d.similarity, 4) for d in query.demonstrations]
        return self.address(query, near)

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """See base class; nothing is sent."""
        return [self._vote(query) for query in queries]

    def _vote(self, query: Query) -> Annotation:
        votes: dict[int, float] = {label.index: 0.0 for label in query.candidates}
        for demonstration in query.demonstrations:
            if demonstration.label in votes:
                cosine = 1.0 if demonstration.similarity is None else max(demonstration.similarity, 0.0)
                votes[demonstration.label] += cosine**self.config.power
        total = sum(votes.values()) + self.config.smoothing * len(votes)
        scores = {index: math.log((vote + self.config.smoothing) / total) for index, vote in votes.items()}
        ranked = sorted(votes, key=lambda index: -votes[index])
        tie = len(ranked) > 1 and votes[ranked[0]] == votes[ranked[1]]
        return Annotation(
            key=self.key(query),
            example_id=query.example_id,
            label=None if tie else ranked[0],
            scores=scores,
            raw=json.dumps({str(index): round(vote, 6) for index, vote in votes.items()}),
            model=self.model_name,
        )

    @property
    def model_name(self) -> str:
        """Name in the ledger."""
        return f"knn-{self.config.neighbours}"
