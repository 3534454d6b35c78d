"""load: read, check and identify the examples, split them, and inject noise where an experiment asks for it.

    source files -> stage (one pass over the source, in workers) -> what is global, from summaries, in the driver
                 -> examples/ test/ truth/ rejected/ (second pass, over the stage, in workers)

The source is read once, a batch of rows at a time, and no row is ever in the driver; what the driver holds is the
values of the label column, 8 bytes per example for duplicates, and 12 for noise that chooses globally. Files are
put in the order of their names, so neither the order in which they are given nor the number of workers changes
anything; ids, splits and noise do not even depend on `rows_per_shard`.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow.parquet as pq

from rayclean.config import Config
from rayclean.datasets.checks import check_options, check_rejected, check_roles, check_truth, noise_mapping
from rayclean.datasets.first_pass import LoadJob, PieceSummary, read_summary, stage_piece
from rayclean.datasets.global_pass import find_duplicates, prepare_noise
from rayclean.datasets.labels import LabelCounts, resolve_labels
from rayclean.datasets.rows import choose_columns
from rayclean.datasets.second_pass import SecondPass, StagedShard, finish_shard
from rayclean.datasets.sources import SourcePiece, cut_into_pieces, find_sources
from rayclean.datasets.summary import load_metrics, truths_by_role, write_truth
from rayclean.errors import DataError
from rayclean.folder import Folder
from rayclean.progress import progress_bar
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import SECONDS_PER_BYTE, VerbNeeds
from rayclean.schema import Label, LabelSet

VERSION = 1


def source_fingerprint(config: Config) -> Any:
    """Names, sizes and stamps (digest of a local file, else ETag, version or time) of all source files, as plain JSON values.

    A data set on the Hugging Face hub counts by name, config and revision; the hub is not asked.

    Raises:
        ConfigError, DataError: as `find_sources`.
    """
    return [
        [
            source.role,
            source.format,
            source.split,
            [[file.name, file.size, *file.stamp] for file in source.files],
        ]
        for source in find_sources(config.dataset)
    ]


def validate(config: Config, run: Run) -> None:
    """Check that the sources exist, that the first file of each has the columns, and that the options fit together.

    Raises:
        ConfigError: options contradict each other, or a label is unknown.
        DataError: a source is missing, empty, unreadable, or lacks a column.
    """
    check_options(config.dataset)
    for source in find_sources(config.dataset):
        full = [file for file in source.files if file.size > 0]
        reader = source.reader()
        found = reader.columns(full[0]) if full else []
        if not found:
            raise DataError(
                f"{source.files[0].url}: empty file; expected a data set with columns, check dataset.path"
            )
        choose_columns(config.dataset, source.role, found, full[0].url, reader.sparse)


def needs(config: Config, run: Run) -> VerbNeeds:
    """Time to read the source files."""
    sources = find_sources(config.dataset)
    size = sum(file.size for source in sources for file in source.files)
    return VerbNeeds(seconds=SECONDS_PER_BYTE * size)


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Write `examples/`, `test/`, `truth/`, `rejected/` and `labels.json`.

    Returns:
        Counts of examples, classes and rejected rows, lengths of texts, and warnings; nothing about the truth.

    Raises:
        DataError: too many rows cannot be used, or the labels make no classification.
    """
    sources = find_sources(config.dataset)
    pieces = cut_into_pieces(sources)
    job = LoadJob(config.dataset, out.url(), config.seed)
    summaries = _stage(engines, job, pieces)
    for source in sources:
        if not sum(summary.rows for summary in summaries if summary.role == source.role):
            raise DataError(f"{source.files[0].url}: empty; the {source.role} files hold no rows")
    shards = [
        StagedShard(f"{piece.name}-{number:04d}", piece.source.role, rows, {})
        for piece, summary in zip(pieces, summaries, strict=True)
        for number, rows in enumerate(summary.shards)
        if rows
    ]
    hint = None
    if config.dataset.labels is None:
        hint = sources[0].reader().label_names(sources[0].files[0], config.dataset.label)
    check_rejected(config.dataset, summaries, None, [])
    labels = resolve_labels(_seen(summaries), config.dataset.labels, hint)
    shards = find_duplicates(out, shards)
    check_rejected(config.dataset, summaries, labels, shards)
    check_truth(config.dataset, summaries)
    label_set = LabelSet(Label(index, name, name) for index, name in enumerate(labels.names))
    label_set = label_set.described(config.dataset.words, config.dataset.definitions)
    truths = truths_by_role(config.dataset, summaries, labels)
    finish = SecondPass(job, replace(labels, unknown={}), truths, noise_mapping(config.dataset, labels.names))
    prepare_noise(out, finish, shards)
    results = _finish(engines, finish, shards)
    out.write_text(label_set.to_json(), "labels.json")
    write_truth(out, finish, summaries, results)
    metrics = load_metrics(summaries, results, labels)
    check_roles(metrics, summaries, labels, shards)
    _check_complete(out, summaries)
    if not metrics["examples"] - metrics["dev"]:
        raise DataError(
            "no example is left to clean or train on: check dataset.dev.share, dataset.test.share and rejected rows"
        )
    out.remove("stage", "pieces")  # first, so that a crash in between makes the next attempt stage anew
    out.remove("stage")
    return metrics


def _stage(engines: Engines, job: LoadJob, pieces: list[SourcePiece]) -> list[PieceSummary]:
    done: dict[int, PieceSummary] = {}
    with progress_bar("load: read", None, "rows") as bar:
        for piece in pieces:
            summary = read_summary(job, piece)
            if summary is not None:
                done[piece.index] = summary
                bar.advance(summary.rows, resumed=True)
        todo = [piece for piece in pieces if piece.index not in done]
        for index, summary in engines.map_items(partial(_stage_indexed, job), todo):
            done[index] = summary
            bar.advance(summary.rows)
    return [done[piece.index] for piece in pieces]


def _stage_indexed(job: LoadJob, piece: SourcePiece) -> tuple[int, PieceSummary]:
    return piece.index, stage_piece(job, piece)


def _finish(engines: Engines, finish: SecondPass, shards: list[StagedShard]) -> list[dict[str, Any]]:
    folder = Folder(finish.job.out)
    done: dict[str, dict[str, Any]] = {}
    with progress_bar("load: write", sum(shard.rows for shard in shards), "examples") as bar:
        for shard in shards:
            if folder.exists("stage", "shards", f"{shard.name}.json"):
                done[shard.name] = folder.read_json("stage", "shards", f"{shard.name}.json")
                bar.advance(shard.rows, resumed=True)
        todo = [shard for shard in shards if shard.name not in done]
        for result in engines.map_items(partial(finish_shard, finish), todo):
            done[result["name"]] = result
            bar.advance(result["rows"])
    return [done[shard.name] for shard in shards]


def _seen(summaries: Iterable[PieceSummary]) -> dict[str, dict[str, LabelCounts]]:
    """Label values of all pieces by role; the first place is the first in file order."""
    merged: dict[str, dict[str, LabelCounts]] = {"data": {}, "dev": {}, "test": {}}
    for summary in summaries:
        codes = merged[summary.role]
        for code, seen in summary.labels.items():
            if code in codes:
                codes[code].count += seen.count
            else:
                codes[code] = LabelCounts(seen.count, seen.source, seen.row)
    return merged


def _check_complete(out: Folder, summaries: list[PieceSummary]) -> None:
    """Rows written = rows read, counted in the files themselves."""

    def count(path: tuple[str, str]) -> int:
        with out.fs.open(out.path(*path), "rb") as file:
            return int(pq.ParquetFile(file).metadata.num_rows)

    paths = [(part, name) for part in ("examples", "test", "rejected") for name in out.shards(part)]
    with ThreadPoolExecutor(16) as pool:
        written = sum(pool.map(count, paths))
    read = sum(summary.rows for summary in summaries)
    if written != read:
        raise DataError(
            f"{read} rows were read but {written} written: files changed while they were read, or a disk lost some; "
            f"remove {out.root} and run `rayclean load` again"
        )
