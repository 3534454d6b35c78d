"""The annotator that asks nobody: labels change where the model's posterior alone says so.

It is the default, and what every other annotator has to beat.
"""

from collections.abc import Sequence
from typing import Any

from rayclean.annotators.base import Annotator
from rayclean.annotators.query import Annotation, Query


class PosteriorAnnotator(Annotator):
    """Leaves every question open, so that the posterior decides, and only where it is sure."""

    config: Annotator.Config
    billable = False
    asks = False
    independent = False

    def demonstrations(self, count: int | None, selector: str) -> tuple[int, str]:
        """None: nobody reads them."""
        return 0, "random"

    def sent(self, query: Query) -> Any:
        """Nothing."""
        return None

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation | None]:
        """No answer to any query."""
        return [None] * len(queries)
