"""The part of one annotator in `relabel`: its queries, and its new or recorded answers.

queries/annotator-00/...    candidates and demonstrations by rank, in chunks
answers/annotator-00/...    an answer to every query of a chunk, written when the whole chunk is answered
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from rayclean import progress
from rayclean.annotators.base import Annotator
from rayclean.annotators.beyond import drawn_beyond
from rayclean.annotators.decisions import stage_name
from rayclean.annotators.demonstrations import DemonstrationSources
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.measuring import measure_answers
from rayclean.annotators.query_budget import Budget
from rayclean.annotators.query_builder import QueryBuilder, chunk_name, chunks_in
from rayclean.annotators.random_demonstrations import random_pool
from rayclean.config import Config
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.runtime.asking import AskingPlan
from rayclean.runtime.engines import Engines
from rayclean.tasks.base import Task
from rayclean.verbs.relabel_chunks import ChunkWork, answers_part

logger = logging.getLogger(__name__)

MAX_CHUNKS = 16
ROWS_PER_CHUNK = 2048
"""Least number of suspects in a chunk; the queries of a chunk are in memory together."""
ROWS_PER_GROUP = 4096
"""Number of suspects whose demonstrations are searched together."""


@dataclass(frozen=True)
class AnnotatorStage:
    """One annotator in the sequence of annotators of `relabel`."""

    config: Config
    number: int
    annotator: Annotator
    task: Task
    sources: DemonstrationSources
    run: Run
    out: Folder

    @property
    def calibration(self) -> str:
        """How the annotator's scores become probabilities."""
        return self.annotator.calibration(self.config.relabel.calibration, len(self.task.answers))

    @property
    def session(self) -> str:
        """Name of the ledger's session for this annotator, over all of whose attempts the budget applies."""
        return self.out.name if self.number == 0 else f"{self.out.name} {stage_name(self.number)}"

    @property
    def spent(self) -> Spent:
        """Numbers of the answers charged to this annotator, over all attempts."""
        return Ledger(self.run.sub("ledger"), self.session).spent

    @property
    def chunk_work(self) -> ChunkWork:
        """The work on chunks, in a form that can be sent to other processes."""
        folders = (self.sources.load, self.out.url())
        return ChunkWork(
            *folders, stage_name(self.number), self.task, self.calibration, self.annotator.shows_given
        )

    @property
    def _controls(self) -> int:
        """Number of control questions; none to an annotator that asks nobody, or repeats what the model says."""
        return self.config.relabel.controls if self.annotator.asks and self.annotator.independent else 0

    @property
    def _in_vain(self) -> bool:
        """Whether nobody is asked, since no control question measures the annotator and so no answer could change a label."""
        return self.annotator.asks and not self._controls and not self.config.relabel.ask_all

    def _beyond(self, suspects: int) -> tuple[npt.NDArray[np.int64], int] | None:
        """Units beyond the suspects to ask about, and the rank of the first; only of the first annotator."""
        if not self._beyond_count:
            return None
        return drawn_beyond(self.run.require("detect"), self._beyond_count, self.config.seed), suspects

    @property
    def _beyond_count(self) -> int:
        """Number of questions beyond the suspects; without control questions nobody could tell what answers mean."""
        return self.config.relabel.beyond if self.number == 0 and self._controls else 0

    def ask(self, engines: Engines, suspects: dict[str, int], only: npt.NDArray[np.int64] | None) -> None:
        """Write the missing queries and answers.

        Args:
            engines: engines that run the work.
            suspects: number of suspects by shard.
            only: sorted ids of the suspects to ask about; None: all.
        """
        total = sum(suspects.values())
        asked = total if only is None else len(only)
        if not asked:  # control questions alone would be paid for nothing
            return
        queries = self.out.sub("queries", stage_name(self.number))
        rows_per_chunk = max(ROWS_PER_CHUNK, -(-total // MAX_CHUNKS))
        todo = [shard for shard in suspects if not queries.exists("built", f"{shard}.json")]
        if todo:
            builder = self.query_builder(queries, rows_per_chunk, only, self._beyond(total))
            with progress.progress_bar("relabel: questions", total, "suspects") as bar:
                bar.advance(sum(suspects[shard] for shard in suspects if shard not in todo), resumed=True)
                for group, _ in zip(
                    groups := _groups(todo, suspects), engines.map_items(builder.build, groups), strict=True
                ):
                    bar.advance(sum(suspects[shard] for shard in group))
        answers = ("answers", stage_name(self.number))
        missing = [
            chunk for chunk in chunks_in(queries) if not self.out.exists(*answers, answers_part(chunk))
        ]
        if missing:
            self._answer(engines, missing, asked, total)

    def query_builder(
        self,
        queries: Folder,
        rows_per_chunk: int,
        only: npt.NDArray[np.int64] | None,
        beyond: tuple[npt.NDArray[np.int64], int] | None,
    ) -> QueryBuilder:
        """Build the maker of the configured queries."""
        relabel, seed = self.config.relabel, self.config.seed
        count, selector = self.annotator.demonstrations(relabel.demonstrations, relabel.selector)
        count = 0 if self._in_vain else count
        return QueryBuilder(
            self.sources,
            self.task,
            queries.url(),
            relabel.candidates,
            count,
            selector,
            tuple(random_pool(self.sources, seed)) if count and selector == "random" else (),
            seed,
            rows_per_chunk,
            self._controls,
            only,
            beyond,
        )

    def _answer(self, engines: Engines, chunks: list[int], asked: int, suspects: int) -> None:
        """Write `answers/` of some chunks; those after the first without asking where no answer could change a label."""
        total = asked + self._controls + self._beyond_count
        limit = Budget.of(self.annotator).for_controls(asked)
        if limit is not None and limit.max_queries is not None and limit.max_queries < self._controls:
            logger.warning(
                "relabel: max_queries allows %d of %d control questions, as half of it is kept for suspects",
                limit.max_queries,
                self._controls,
            )
        with progress.progress_bar("relabel: answers", total, "queries") as bar, ExitStack() as server:
            asker = _Asker(self, engines, server, bar, replace(self.chunk_work, for_controls=limit))
            first, rest = (chunks[:1], chunks[1:]) if chunks[0] == 0 and not self._in_vain else ([], chunks)
            asker.ask(first)
            if self._in_vain or (rest and self._cannot_change_a_label(suspects)):
                server.close()  # nobody is asked any more, and tasks that wait for a CPU may wait for those of a language model
                for _ in engines.map_items(self.chunk_work.leave_out, rest):
                    pass
            else:
                asker.ask(rest)

    def _cannot_change_a_label(self, suspects: int) -> bool:
        """Whether control questions and the first suspects show that the annotator is not surely better than chance."""
        if not self._controls or self.config.relabel.ask_all:
            return False
        first = self.out.read_table(
            "answers", stage_name(self.number), answers_part(0), columns=["state", "rank"]
        )
        unasked = pc.and_(pc.equal(first["state"], "unasked"), pc.less(first["rank"], 0))
        known = first.filter(pc.invert(unasked))  # controls may be beyond their part of the budget
        if not {*known["state"].to_pylist()} <= {"answered", "single"}:
            return False  # the budget ended, or questions failed: it is not known yet
        folder, given = stage_name(self.number), np.zeros(len(self.task.answers), dtype=np.int64)
        queries = self.out.sub("queries", folder)
        for chunk in chunks_in(queries):
            for shard in queries.shards(chunk_name(chunk)):
                table = queries.read_table(chunk_name(chunk), shard, columns=["rank", "given_label"])
                ranks = table["rank"].to_numpy()
                asked = (ranks >= 0) & (ranks < suspects)
                given += np.bincount(table["given_label"].to_numpy()[asked], minlength=len(given))
        found = measure_answers(self.out, folder, len(given), self.calibration, suspects, given)
        return not found.measured.worth.above_chance

    def used_before(self) -> Spent:
        """Budget used by the finished chunks of earlier attempts."""
        used, folder = Spent(), ("answers", stage_name(self.number))
        for shard in self.out.shards(*folder):
            columns = ["state", "prompt_tokens", "answer_tokens"]
            table = self.out.read_table(*folder, shard, columns=columns)
            used.queries += sum(state in ("answered", "error") for state in table["state"].to_pylist())
            used.prompt_tokens += int(pc.sum(table["prompt_tokens"]).as_py() or 0)
            used.answer_tokens += int(pc.sum(table["answer_tokens"]).as_py() or 0)
        return used


@dataclass
class _Asker:
    """Asks about chunks; a language model is served from the first query on that has no recorded answer."""

    stage: AnnotatorStage
    engines: Engines
    server: ExitStack
    """Where the language model is served, until the end of the stage."""
    bar: progress.ProgressBar
    work: ChunkWork
    ready: Annotator | None = None
    """The annotator once it is served."""

    def ask(self, chunks: list[int]) -> None:
        """Write `answers/` of some chunks."""
        stage, config = self.stage, self.stage.config
        used = stage.used_before() if stage.run.shares_ledger else None
        budget, rate = Budget.of(stage.annotator), config.relabel.max_error_rate
        asking = AskingPlan(
            self.ready or stage.annotator, stage.run.url("ledger"), stage.session, budget, rate, used
        )
        if self.ready is None and stage.annotator.server() is not None:
            # A server takes minutes to start, so only if it is needed.
            must_ask = partial(self.work.needs_server, asking=asking)
            if any(list(self.engines.map_items(must_ask, chunks))):
                self.ready = self.server.enter_context(self.engines.hosted(stage.annotator, stage.run.url()))
                asking = replace(asking, annotator=self.ready)
        for _ in self.engines.ask_queries(
            asking,
            self.work.answer,
            chunks,
            lambda count, reused: self.bar.advance(count, resumed=reused),
        ):
            pass


def _groups(shards: Sequence[str], suspects: dict[str, int]) -> list[list[str]]:
    """Shards in groups of at most `ROWS_PER_GROUP` suspects, or of one shard."""
    groups: list[list[str]] = [[]]
    rows = 0
    for shard in shards:
        if groups[-1] and rows + suspects[shard] > ROWS_PER_GROUP:
            groups.append([])
            rows = 0
        groups[-1].append(shard)
        rows += suspects[shard]
    return [group for group in groups if group]
