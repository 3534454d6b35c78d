"""The contracts see plug-ins that break them."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.simulated import SimulatedAnnotator
from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.pointwise import SelfConfidence
from rayclean.plugins import Plugin
from rayclean.tasks.classification import Classification
from rayclean.tasks.multi_label import MultiLabel
from tests.contracts import check_annotator, check_detector, check_task


class Backwards(SelfConfidence):
    """High qualities for labels that are likely wrong."""

    def score(self, batch: DetectorBatch, state: Any) -> Any:
        quality, vote = super().score(batch, state)
        return 1 - quality, vote


class CountsShards(SelfConfidence):
    """Scores that depend on how the examples are cut."""

    def fit(self, shards: Sequence[Any], mapper: Any) -> int:
        return len(shards)

    def score(self, batch: DetectorBatch, state: Any) -> Any:
        quality, vote = super().score(batch, None)
        return quality / state, vote


class OutOfOrder(SimulatedAnnotator):
    """Gives its answers as they come."""

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        return list(reversed(await super().annotate(queries)))


class Moody(SimulatedAnnotator):
    """Answers by what it was asked before."""

    asked = 0

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        self.asked += len(queries)
        answers = await super().annotate(queries)
        return [Annotation(each.key, each.unit_id, None if self.asked % 2 else 0) for each in answers]


class Fragile(SimulatedAnnotator):
    """Raises for a question that it cannot answer."""

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        if any(not query.text for query in queries):
            raise ValueError("no text")
        return await super().annotate(queries)


class Forgetful(MultiLabel):
    """Loses the last class when labels are put together."""

    def assemble(self, units: pa.Table, examples: pa.Table) -> pa.Table:
        last = pc.less(units["final_label"], 2 * len(self.labels) - 1)
        return super().assemble(units.filter(last), examples)


class GivenFirst(Classification):
    """Offers the given class first, which tells it."""

    def candidates(self, given: int, suggested: int, kind: str) -> list[int]:
        return [given, *({suggested} - {given})]


@pytest.mark.parametrize(
    ("check", "broken", "message"),
    [
        (check_detector, Backwards, "lower means more likely wrong"),
        (check_detector, CountsShards, "Not equal to tolerance"),
        (check_annotator, OutOfOrder, "in the order of the queries"),
        (check_annotator, Moody, "equal questions get other answers"),
        (check_annotator, Fragile, "raised for a single query"),
        (check_task, Forgetful, "the given answers give another label"),
        (check_task, GivenFirst, "the order tells which one is given"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_breaks_a_contract_is_seen(check: Callable[[Plugin], None], broken: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(Plugin(name=f"{__name__}:{broken.__name__}"))
