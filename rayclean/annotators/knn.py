"""The vote of the nearest trusted examples: an annotator that needs no language model and no network.

The neighbours are the query's demonstrations (the nearest examples that are no suspects, in the features of
`predict`); each votes for its given label with the weight of its cosine. Only candidates can be voted for.
"""

import json
import math
from collections.abc import Sequence

from pydantic import Field

from rayclean.annotators.base import Annotation, Annotator, Query


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

    def key(self, query: Query) -> str:
        """The key holds the neighbours' cosines to 4 digits, too: the vote depends on them."""
        cosines = [None if d.similarity is None else round(d.similarity, 4) for d in query.demonstrations]
        return self.address(query, cosines)

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """Count the votes of each query's demonstrations; nothing is sent."""
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
        is_tie = len(ranked) > 1 and votes[ranked[0]] == votes[ranked[1]]
        return Annotation(
            key=self.key(query),
            example_id=query.example_id,
            label=None if is_tie else ranked[0],
            scores=scores,
            raw=json.dumps({str(index): round(vote, 6) for index, vote in votes.items()}),
            model=self.model_name,
        )

    @property
    def model_name(self) -> str:
        """The annotator's name in the ledger."""
        return f"knn-{self.config.neighbours}"
