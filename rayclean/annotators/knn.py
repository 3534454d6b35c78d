"""An annotator by a vote of the nearest examples, without a language model or network access.

The neighbours are the query's demonstrations: in `relabel` the nearest of all examples, in the features of `predict`, but
copies of the query's text. Each votes for its given label, if that is a candidate, with a weight by its cosine similarity
and by the probability that its label is right, the posterior of `detect`: a suspect has hardly a vote. A method that asks
between epochs chooses the neighbours that it trusts, which count in full. Neighbours have no vote on candidates that are texts
of their own, such as the spans of a sentence: there it abstains.

Shares of votes are not calibrated. Where many questions are asked at once, what they prefer of each label on the whole is
removed, as from the scores of a language model.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from rayclean.annotators.base import MAX_MEASURED, NEAREST_OF_ANY, Annotator, best_position
from rayclean.annotators.query import Annotation, Query


class KnnAnnotator(Annotator):
    """Chooses the candidate with the greatest vote; its confidence is its share of all votes, and no probability."""

    class Config(Annotator.Config):
        """Options of the vote."""

        neighbours: int = Field(20, ge=1)
        """Number of neighbours that vote."""
        power: float = Field(1.0, ge=0)
        """Exponent of the cosine in a vote's weight, max(cosine, 0) ** power * P(its label is right); with 0 all neighbours
        are equally near."""
        smoothing: float = Field(0.5, gt=0)
        """Constant added to each candidate's votes, so that few neighbours do not give certainty."""

    config: Config
    billable = False
    independent = False
    chooses_texts = False

    def demonstrations(self, count: int | None, selector: str) -> tuple[int, str]:
        """The nearest neighbours, if they have a vote; `relabel.demonstrations` and `selector` apply only to language models."""
        votes = self.task is None or self.task.candidates_are_labels
        return (self.config.neighbours if votes else 0), NEAREST_OF_ANY

    def calibration(self, configured: str, num_classes: int) -> str:
        """By control questions, or in a training by its own answers; a text without content has no neighbours."""
        if configured != "auto":
            return configured
        return "controls" if num_classes <= MAX_MEASURED else "none"

    def sent(self, query: Query) -> Any:
        """The candidates, and the neighbours' labels, cosine similarities and probabilities, rounded as their last digits
        depend on the machine.
        """
        neighbours = [
            [each.answer.value, _rounded(each.similarity), _rounded(each.probability)]
            for each in query.demonstrations
        ]
        return [[candidate.value for candidate in query.candidates], neighbours]

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """Count the votes of each query's demonstrations."""
        return [self._vote(query) for query in queries]

    def _vote(self, query: Query) -> Annotation:
        values = [candidate.value for candidate in query.candidates]
        votes = [0.0] * len(values)
        for each in query.demonstrations:
            if each.answer.value in values:
                cosine = 1.0 if each.similarity is None else max(each.similarity, 0.0)
                probability = 1.0 if each.probability is None else each.probability
                votes[values.index(each.answer.value)] += cosine**self.config.power * probability
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


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)
