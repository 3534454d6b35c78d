"""The work of `relabel` on one chunk of queries, in the process of the engine that answers them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotators.answers import ANSWERS, answer_rows, unneeded_rows
from rayclean.annotators.calibration_queries import answer_for_calibration, content_free_queries
from rayclean.annotators.engine import Engine
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.query_budget import Budget
from rayclean.annotators.query_builder import chunk_name, read_chunk
from rayclean.folder import Folder
from rayclean.runtime.asking import AskingPlan
from rayclean.tasks.base import Task


@dataclass(frozen=True)
class ChunkWork:
    """The work on one chunk in the engine's process: reads the queries and answers them."""

    load: str
    """URL of the folder of `load`."""
    out: str
    """URL of the folder of `relabel`."""
    stage: str
    """Name of the annotator's sub-folders."""
    task: Task
    calibration: str
    shows_given: bool
    for_controls: Budget | None = None
    """What control questions may use of the budget; None: all of it."""

    def read(self, chunk: int) -> tuple[pa.Table, list[Query]]:
        """Read the rows and queries of a chunk."""
        queries, examples = Folder(self.out).sub("queries", self.stage), Folder(self.load).url("examples")
        return read_chunk(queries, examples, chunk, self.task, self.shows_given)

    def needs_server(self, chunk: int, asking: AskingPlan) -> bool:
        """Whether a chunk has a query without a recorded answer that the budget allows."""
        engine = asking.engine()
        _, queries = self.read(chunk)
        queries += content_free_queries(engine.annotator, queries, self.calibration)
        keys = {engine.annotator.key(query) for query in queries}
        return not engine.exhausted and len(engine.ledger.lookup(keys)) < len(keys)

    def leave_out(self, chunk: int) -> None:
        """Write `answers/` of a chunk that nobody is asked about, since no answer could change a label."""
        queries = Folder(self.out).sub("queries", self.stage)
        name = chunk_name(chunk)
        table = pa.concat_tables([queries.read_table(name, shard) for shard in queries.shards(name)])
        answers = pa.Table.from_pylist(unneeded_rows(table), schema=ANSWERS)
        Folder(self.out).write_table(answers, "answers", self.stage, answers_part(chunk))

    async def answer(self, engine: Engine, chunk: int) -> None:
        """Answer a chunk's queries and write `answers/<annotator>/part-<chunk>.parquet`."""
        table, queries = self.read(chunk)
        neutral = content_free_queries(engine.annotator, queries, self.calibration)
        several = pc.greater(pc.list_value_length(table["candidates"]), 1)  # of the others no query is made
        controls = pc.sum(pc.and_(several, pc.less(table["rank"], 0))).as_py() or 0

        async def answer(asked: Sequence[Query]) -> list[Annotation | None]:
            if self.for_controls is None or not controls:
                return await engine.answer(asked)
            last = len(asked) - len(queries) + controls  # controls come first, after what calibration needs
            return [*await engine.answer(asked[:last], self.for_controls), *await engine.answer(asked[last:])]

        answers, content_free = await answer_for_calibration(answer, queries, neutral)
        rows = answer_rows(table, answers, content_free, engine.ledger.session, self.task.answers)
        table = pa.Table.from_pylist(rows, schema=ANSWERS)
        Folder(self.out).write_table(table, "answers", self.stage, answers_part(chunk))


def answers_part(chunk: int) -> str:
    """Name of the file of a chunk's answers."""
    return f"part-{chunk:05d}.parquet"
