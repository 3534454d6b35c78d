"""relabel: ask the annotator about every suspect, decide by calibrated probability, write the final labels.

    detect/findings + load/examples + predict/features
      -> queries/      two candidates and demonstrations per suspect, by rank        (removed at the end)
      -> answers/      what the annotator said: from the ledger, or asked now         (removed at the end)
      -> annotations/  the decision on every suspect                                  (annotators/final_labels.py)
      -> labels/       the label of every example: given labels + accepted changes - reverts

What was answered is in `<run>/ledger/`, so another threshold or calibration asks nobody, and so does a crash.
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
from rayclean.annotators.base import MAX_SCORED, Annotator
from rayclean.annotators.decisions import ANSWERS, answer_rows, decide
from rayclean.annotators.demonstrations import DemonstrationSources, random_pool
from rayclean.annotators.engine import Budget, Engine
from rayclean.annotators.final_labels import write_labels
from rayclean.annotators.ledger import Ledger, Spent
from rayclean.annotators.queries import QueryBuilder, read_chunk, suspects_of
from rayclean.annotators.served import ServedAnnotator
from rayclean.config import Config
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
"""At least; a chunk's queries are in memory together."""
ROWS_PER_GROUP = 4096
"""Suspects whose demonstrations are searched together."""


def validate(config: Config, run: Run) -> None:
    """Options, address, key, prices; nothing is opened.

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
    """Ask, decide, write; see the top of this file."""
    load, detect = run.require("load"), run.require("detect")
    labels = LabelSet.from_json(load.read_text("labels.json")).described(
        config.dataset.words, config.dataset.definitions
    )
    annotator = build_annotator(config, tuple(labels))
    annotator.check()
    shards = load.shards("examples")
    counts = {shard: len(suspects_of(detect.url(), shard)) for shard in shards}
    total = sum(counts.values())
    rows = max(ROWS_PER_CHUNK, -(-total // MAX_CHUNKS))
    chunks = [chunk for chunk in range(-(-total // rows)) if not out.exists("answers", _part(chunk))]
    start, before = time.monotonic(), Ledger(run.sub("ledger"), out.name).spent.queries
    if chunks:
        sources = DemonstrationSources(load.url(), run.require("predict").url(), detect.url())
        _build(engines, config, annotator, labels, sources, counts, rows, out)
        _ask(engines, config, annotator, labels, run, out, chunks, total)
    seconds = time.monotonic() - start
    calibration = annotator.calibration(config.relabel.calibration, len(labels))
    figures = decide(out, len(labels), calibration, config.relabel.accept)
    sources_of_labels = write_labels(run, out)
    for finished in ("queries", "answers"):
        out.remove(finished)
    return _metrics(config, annotator, run, out, total, figures, sources_of_labels, seconds, before)


def _build(
    engines: Engines,
    config: Config,
    annotator: Annotator,
    labels: LabelSet,
    sources: DemonstrationSources,
    counts: dict[str, int],
    rows: int,
    out: Folder,
) -> None:
    count, selector = annotator.demonstrations(config.relabel.demonstrations, config.relabel.selector)
    questions = QueryBuilder(
        sources,
        TASKS.build(config.task, labels),
        out.url(),
        config.relabel.candidates,
        count,
        selector,
        tuple(random_pool(sources, config.seed)) if count and selector == "random" else (),
        config.seed,
        rows,
    )
    todo = [shard for shard in counts if not out.exists("queries", "built", f"{shard}.json")]
    with progress.progress_bar("relabel: questions", sum(counts.values()), "suspects") as bar:
        bar.advance(sum(counts[shard] for shard in counts if shard not in todo), resumed=True)
        for built in engines.map_items(questions.build, _groups(todo, counts)):
            bar.advance(built)


def _groups(shards: Sequence[str], counts: dict[str, int]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    held = 0
    for shard in shards:
        if groups[-1] and held + counts[shard] > ROWS_PER_GROUP:
            groups.append([])
            held = 0
        groups[-1].append(shard)
        held += counts[shard]
    return [group for group in groups if group]


def _ask(
    engines: Engines,
    config: Config,
    annotator: Annotator,
    labels: LabelSet,
    run: Run,
    out: Folder,
    chunks: list[int],
    total: int,
) -> None:
    relabel = config.relabel
    budget = Budget.of(relabel)
    calibration = annotator.calibration(relabel.calibration, len(labels))
    scored = calibration == "batch" and len(labels) <= MAX_SCORED
    twins = calibration == "content_free"
    used = _used(out) if run.shares_ledger else None
    asking = AskingPlan(annotator, run.url("ledger"), out.name, budget, relabel.max_error_rate, used)
    work = partial(_answer_chunk, out=out.url(), labels=labels, scored=scored, twins=twins)
    server: AbstractContextManager[Annotator] = nullcontext(annotator)
    if isinstance(
        annotator, ServedAnnotator
    ):  # a server takes minutes to start: only if there is something to ask
        needs = partial(
            _needs_asking, asking=asking, out=out.url(), labels=labels, scored=scored, twins=twins
        )
        if any(list(engines.map_items(needs, chunks))):
            server = engines.hosted(annotator, run.url())
    with progress.progress_bar("relabel: answers", total, "queries") as bar, server as ready:
        for _ in engines.ask_queries(
            replace(asking, annotator=ready),
            work,
            chunks,
            lambda n, reused: bar.advance(n, resumed=reused),
        ):
            pass


def _used(out: Folder) -> Spent:
    """What the chunks that an earlier attempt has finished took from the budget."""
    used = Spent()
    for shard in out.shards("answers"):
        table = out.read_table("answers", shard, columns=["state", "prompt_tokens", "answer_tokens"])
        used.queries += sum(state in ("answered", "error") for state in table["state"].to_pylist())
        used.prompt_tokens += int(pc.sum(table["prompt_tokens"]).as_py() or 0)
        used.answer_tokens += int(pc.sum(table["answer_tokens"]).as_py() or 0)
    return used


def _needs_asking(
    chunk: int, asking: AskingPlan, out: str, labels: LabelSet, scored: bool, twins: bool
) -> bool:
    """Whether a chunk holds a question that the ledger does not answer and the budget allows."""
    engine = asking.engine()
    _, queries = read_chunk(Folder(out), chunk, labels, scored)
    queries = [query for query in queries if len(query.candidates) > 1]
    if twins:
        queries += [engine.annotator.content_free(query) for query in queries]
    keys = {engine.annotator.key(query) for query in queries}
    return not engine.exhausted and len(engine.ledger.lookup(keys)) < len(keys)


async def _answer_chunk(
    engine: Engine, chunk: int, out: str, labels: LabelSet, scored: bool, twins: bool
) -> None:
    """Answer a chunk's queries and write `answers/part-<chunk>.parquet`."""
    folder = Folder(out)
    table, queries = read_chunk(folder, chunk, labels, scored)
    asked = [query for query in queries if len(query.candidates) > 1]
    blanks = [engine.annotator.content_free(query) for query in asked] if twins else []
    answers = await engine.answer([*dict.fromkeys(blanks), *asked])
    keys = [engine.annotator.key(query) for query in dict.fromkeys(blanks)]
    by_key = dict(zip(keys, answers, strict=False))
    twin_of = [by_key[engine.annotator.key(blank)] for blank in blanks]
    rows = answer_rows(table, answers[len(keys) :], twin_of, engine.ledger.session)
    folder.write_table(pa.Table.from_pylist(rows, schema=ANSWERS), "answers", _part(chunk))


def _metrics(
    config: Config,
    annotator: Annotator,
    run: Run,
    out: Folder,
    total: int,
    figures: dict[str, Any],
    labels: dict[str, int],
    seconds: float,
    before: int,
) -> dict[str, Any]:
    spent = Ledger(run.sub("ledger"), out.name).spent
    fresh, complete = spent.queries - before, figures["unasked"] == 0
    go_on = None
    if not complete:
        go_on = (
            f"the budget left {figures['unasked']} of {total} suspects unasked: raise relabel.max_queries, max_tokens or "
            "max_cost and run the same command; what was answered is in the ledger and costs nothing again"
        )
        logger.warning("relabel: %s", go_on)
    elif figures["error"]:
        go_on = (
            f"{figures['error']} queries failed and kept their given label; `rayclean relabel --again` asks those again "
            "(the others are in the ledger), then `rayclean clean` goes on with what follows"
        )
        logger.warning("relabel: %s", go_on)
    return {
        "suspects": total,
        **figures,
        "reverted": labels["reverted"],
        "labels": labels,
        "annotator": {"name": config.annotator.name, "model": figures.pop("model")},
        **Budget.of(config.relabel).paid(spent),
        "seconds": round(seconds, 3),
        "queries_per_second": round(fresh / seconds, 3) if fresh and seconds > 0 else None,  # of this attempt
        "complete": complete,
        "go_on": go_on,
    }


def _part(chunk: int) -> str:
    return f"part-{chunk:05d}.parquet"
