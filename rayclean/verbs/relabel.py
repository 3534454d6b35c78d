"""relabel: ask the annotator about every suspect, decide by calibrated probability, write the final labels.

    detect/findings + load/examples + predict/features
      -> queries/      candidates and demonstrations of every suspect, by rank   (removed at the end)
      -> answers/      raw answers, from the ledger or new                       (removed at the end)
      -> annotations/  the decision on every suspect                             (annotators/decisions.py)
      -> labels/       the label of every example: given labels + accepted changes - reverts

Answers are kept in `<run>/ledger/`: another acceptance or calibration sends no query, and neither does the attempt after
a crash.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayclean import progress
from rayclean.annotators import build_annotator
from rayclean.annotators.answers import ANSWERS, answer_rows
from rayclean.annotators.base import Annotator
from rayclean.annotators.calibration_queries import answer_for_calibration, content_free_queries
from rayclean.annotators.decisions import write_decisions
from rayclean.annotators.demonstrations import DemonstrationSources, random_pool
from rayclean.annotators.engine import Budget, Engine
from rayclean.annotators.final_labels import write_labels
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.queries import QueryBuilder, read_chunk, suspects_of
from rayclean.annotators.served import ServedAnnotator
from rayclean.config import Config, RelabelConfig
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.runtime.asking import AskingPlan
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import SECONDS_PER_EXAMPLE, VerbNeeds, loaded_examples
from rayclean.runtime.server_checks import validate_server
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS

logger = logging.getLogger(__name__)

VERSION = 1

MAX_CHUNKS = 16
ROWS_PER_CHUNK = 2048
"""Least number of suspects in a chunk; the queries of a chunk are in memory together."""
ROWS_PER_GROUP = 4096
"""Number of suspects whose demonstrations are searched together."""


def validate(config: Config, run: Run) -> None:
    """Check options, address, key and server; nothing is opened.

    Raises:
        ConfigError: they cannot work.
    """
    annotator = build_annotator(config, ())
    annotator.check()
    validate_server(annotator)


def needs(config: Config, run: Run) -> VerbNeeds:
    """The annotator's language model, and time to build and answer the queries."""
    annotator = build_annotator(config, ())
    server = annotator.config.server if isinstance(annotator, ServedAnnotator) else None
    return VerbNeeds(server=server, seconds=SECONDS_PER_EXAMPLE * loaded_examples(run))


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Ask, decide and write the labels; returns the verb's metrics."""
    load, detect = run.require("load"), run.require("detect")
    labels = LabelSet.from_json(load.read_text("labels.json")).described(
        config.dataset.words, config.dataset.definitions
    )
    annotator = build_annotator(config, tuple(labels))
    annotator.check()
    suspects = {shard: len(suspects_of(detect.url(), shard)) for shard in load.shards("examples")}
    total = sum(suspects.values())
    rows_per_chunk = max(ROWS_PER_CHUNK, -(-total // MAX_CHUNKS))
    count = -(-total // rows_per_chunk)
    chunks = [chunk for chunk in range(count) if not out.exists("answers", _part(chunk))]
    start, paid_before = time.monotonic(), Ledger(run.sub("ledger"), out.name).spent.queries
    calibration = annotator.calibration(config.relabel.calibration, len(labels))
    if chunks:
        sources = DemonstrationSources(load.url(), run.require("predict").url(), detect.url())
        builder = _query_builder(config, annotator, labels, sources, out, rows_per_chunk)
        _build_queries(engines, builder, suspects, out)
        _ask(engines, config.relabel, annotator, labels, calibration, run, out, chunks, total)
    seconds = time.monotonic() - start
    decided = write_decisions(out, len(labels), calibration, config.relabel.accept)
    label_sources = write_labels(run, out)
    for finished in ("queries", "answers"):
        out.remove(finished)
    spent = Ledger(run.sub("ledger"), out.name).spent
    fresh = spent.queries - paid_before
    advice = _advice(decided, total)
    if advice is not None:
        logger.warning("relabel: %s", advice)
    return {
        "suspects": total,
        **{name: value for name, value in decided.items() if name != "model"},
        "reverted": label_sources["reverted"],
        "labels": label_sources,
        "annotator": {"name": config.annotator.name, "model": decided["model"]},
        **Budget.of(config.relabel).paid(spent),
        "seconds": round(seconds, 3),
        "queries_per_second": round(fresh / seconds, 3) if fresh and seconds > 0 else None,  # in this attempt
        "complete": decided["unasked"] == 0,
        "go_on": advice,
    }


def _query_builder(
    config: Config,
    annotator: Annotator,
    labels: LabelSet,
    sources: DemonstrationSources,
    out: Folder,
    rows_per_chunk: int,
) -> QueryBuilder:
    """Makes the queries that a config describes."""
    count, selector = annotator.demonstrations(config.relabel.demonstrations, config.relabel.selector)
    return QueryBuilder(
        sources,
        TASKS.build(config.task, labels),
        out.url(),
        config.relabel.candidates,
        count,
        selector,
        tuple(random_pool(sources, config.seed)) if count and selector == "random" else (),
        config.seed,
        rows_per_chunk,
    )


def _build_queries(engines: Engines, builder: QueryBuilder, suspects: dict[str, int], out: Folder) -> None:
    """Write `queries/` for the shards that have none yet.

    Args:
        engines: where the work is done.
        builder: makes the queries.
        suspects: number of suspects by shard.
        out: folder of the verb.
    """
    todo = [shard for shard in suspects if not out.exists("queries", "built", f"{shard}.json")]
    with progress.progress_bar("relabel: questions", sum(suspects.values()), "suspects") as bar:
        bar.advance(sum(suspects[shard] for shard in suspects if shard not in todo), resumed=True)
        for built in engines.map_items(builder.build, _groups(todo, suspects)):
            bar.advance(built)


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


def _ask(
    engines: Engines,
    relabel: RelabelConfig,
    annotator: Annotator,
    labels: LabelSet,
    calibration: str,
    run: Run,
    out: Folder,
    chunks: list[int],
    total: int,
) -> None:
    """Write `answers/` of some chunks, with the server running where the annotator brings one and needs it."""
    used = _used_before(out) if run.shares_ledger else None
    asking = AskingPlan(
        annotator, run.url("ledger"), out.name, Budget.of(relabel), relabel.max_error_rate, used
    )
    work = partial(_answer_chunk, out=out.url(), labels=labels, calibration=calibration)
    server: AbstractContextManager[Annotator] = nullcontext(annotator)
    if isinstance(annotator, ServedAnnotator):  # a server takes minutes to start: only if it is needed
        needs = partial(_needs_asking, asking=asking, out=out.url(), labels=labels, calibration=calibration)
        if any(list(engines.map_items(needs, chunks))):
            server = engines.hosted(annotator, run.url())
    with progress.progress_bar("relabel: answers", total, "queries") as bar, server as ready:
        asking = replace(asking, annotator=ready)
        for _ in engines.ask_queries(
            asking, work, chunks, lambda count, reused: bar.advance(count, resumed=reused)
        ):
            pass


def _used_before(out: Folder) -> Spent:
    """The part of the budget that the finished chunks of an earlier attempt have used."""
    used = Spent()
    for shard in out.shards("answers"):
        table = out.read_table("answers", shard, columns=["state", "prompt_tokens", "answer_tokens"])
        used.queries += sum(state in ("answered", "error") for state in table["state"].to_pylist())
        used.prompt_tokens += int(pc.sum(table["prompt_tokens"]).as_py() or 0)
        used.answer_tokens += int(pc.sum(table["answer_tokens"]).as_py() or 0)
    return used


def _needs_asking(chunk: int, asking: AskingPlan, out: str, labels: LabelSet, calibration: str) -> bool:
    """Whether a chunk holds a query that the ledger does not answer and the budget allows."""
    engine = asking.engine()
    _, queries = read_chunk(Folder(out), chunk, labels, calibration)
    queries += content_free_queries(engine.annotator, queries, calibration)
    keys = {engine.annotator.key(query) for query in queries}
    return not engine.exhausted and len(engine.ledger.lookup(keys)) < len(keys)


async def _answer_chunk(engine: Engine, chunk: int, out: str, labels: LabelSet, calibration: str) -> None:
    """Answer a chunk's queries and write `answers/part-<chunk>.parquet`."""
    folder = Folder(out)
    table, queries = read_chunk(folder, chunk, labels, calibration)
    neutral = content_free_queries(engine.annotator, queries, calibration)
    answers, content_free = await answer_for_calibration(engine.answer, queries, neutral)
    rows = answer_rows(table, answers, content_free, engine.ledger.session)
    folder.write_table(pa.Table.from_pylist(rows, schema=ANSWERS), "answers", _part(chunk))


def _advice(decided: dict[str, Any], total: int) -> str | None:
    """How to go on where suspects were left unasked or queries failed; None where neither happened."""
    if decided["unasked"]:
        return (
            f"the budget left {decided['unasked']} of {total} suspects unasked: raise relabel.max_queries, max_tokens or "
            "max_cost and run the same command; what was answered is in the ledger and costs nothing again"
        )
    if decided["error"]:
        return (
            f"{decided['error']} queries failed and kept their given label; `rayclean relabel --again` asks those again "
            "(the others are in the ledger), then `rayclean clean` goes on with what follows"
        )
    return None


def _part(chunk: int) -> str:
    """Name of the file with a chunk's answers."""
    return f"part-{chunk:05d}.parquet"
