"""load: read, validate and identify the examples, split them, and inject noise where the config asks for it.

    first pass     source files -> stage/, and a summary of each piece (workers) global pass    label set,
    truth, duplicate keys, noise that needs all examples (driver; summaries and ids alone) second pass
    stage/ -> examples/ test/ truth/ rejected/ (workers)

The source is read once, a batch of rows at a time, and no row is ever in the driver, which holds the values
of the label column, 8 bytes per example for duplicates, and 12 for noise that chooses globally. Files are put
in the order of their names, so neither the order in which they are given nor the number of workers changes
anything; ids, splits and noise do not even depend on `rows_per_shard`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rayclean.config import Config
from rayclean.datasets.checks import (
    check_complete,
    check_options,
    check_rejected,
    check_roles,
    check_sources_hold_rows,
    check_truth,
)
from rayclean.datasets.columns import choose_columns
from rayclean.datasets.first_pass import LoadJob, PieceSummary, read_summary, stage_piece
from rayclean.datasets.global_pass import (
    find_duplicates,
    merge_label_counts,
    prepare_noise,
    resolve_truth,
    staged_shards,
)
from rayclean.datasets.labels import noise_indices, resolve_labels
from rayclean.datasets.second_pass import SecondPassJob, StagedShard, write_examples
from rayclean.datasets.sources import Source, SourcePiece, cut_into_pieces, find_sources
from rayclean.datasets.summary import load_metrics, write_truth_summary
from rayclean.errors import DataError
from rayclean.folder import Folder
from rayclean.progress import progress_bar
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import SECONDS_PER_BYTE, VerbNeeds
from rayclean.schema import Label, LabelSet

VERSION = 1


def source_fingerprint(config: Config) -> Any:
    """Names, sizes and stamps of all source files as plain JSON values.

    A stamp is the digest of a local file, and an ETag, version or time elsewhere. A data set on the Hugging
    Face hub counts by name, config and revision; the hub is not contacted.

    Raises:
        ConfigError, DataError: like `find_sources`.
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
    """Check that the sources exist, that the first file of each has the columns, and that options agree.

    Raises:
        ConfigError: options contradict each other, or a label is unknown.
        DataError: a source is missing, empty, unreadable, or lacks a column.
    """
    check_options(config.dataset)
    for source in find_sources(config.dataset):
        file = next((file for file in source.files if file.size > 0), source.files[0])
        reader = source.reader()
        found = reader.columns(file) if file.size > 0 else []
        if not found:
            raise DataError(
                f"{source.files[0].url}: empty file; expected a data set with columns, check dataset.path"
            )
        choose_columns(config.dataset, source.role, found, file.url, reader.sparse)


def needs(config: Config, run: Run) -> VerbNeeds:
    """Time to read the source files."""
    files = [file for source in find_sources(config.dataset) for file in source.files]
    return VerbNeeds(seconds=SECONDS_PER_BYTE * sum(file.size for file in files))


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Write `examples/`, `test/`, `truth/`, `rejected/` and `labels.json`.

    Returns:
        Counts of examples, classes and rejected rows, lengths of texts, and warnings; nothing about the
        truth.

    Raises:
        DataError: too many rows cannot be used, or the labels make no classification.
    """
    dataset = config.dataset
    sources = find_sources(dataset)
    pieces = cut_into_pieces(sources)
    job = LoadJob(dataset, out.url(), config.seed)
    summaries = _first_pass(engines, job, pieces)
    check_sources_hold_rows(sources, summaries)
    check_rejected(dataset, summaries)

    names_in_file = _names_in_file(sources[0], dataset.label) if dataset.labels is None else None
    labels = resolve_labels(merge_label_counts(summaries), dataset.labels, names_in_file)
    shards = find_duplicates(out, staged_shards(pieces, summaries))
    check_rejected(dataset, summaries, labels, shards)
    check_truth(dataset, summaries)
    label_set = LabelSet(Label(index, name, name) for index, name in enumerate(labels.names))
    label_set = label_set.described(dataset.words, dataset.definitions)
    second = SecondPassJob(
        job,
        replace(labels, unknown={}),  # the driver alone needs the places of unknown labels
        resolve_truth(dataset, summaries, labels),
        noise_indices(dataset, labels.names),
    )
    prepare_noise(out, second, shards)

    written = _second_pass(engines, second, shards)
    out.write_text(label_set.to_json(), "labels.json")
    write_truth_summary(out, second, summaries, written)
    metrics = load_metrics(summaries, written, labels)
    check_roles(metrics, summaries, labels, shards)
    check_complete(out, summaries)
    out.remove("stage", "pieces")  # first, so that a crash in between makes the next attempt stage anew
    out.remove("stage")
    return metrics


def _names_in_file(source: Source, column: str) -> Sequence[str] | None:
    return source.reader().label_names(source.files[0], column)


def _first_pass(engines: Engines, job: LoadJob, pieces: list[SourcePiece]) -> list[PieceSummary]:
    """Stage the pieces that no earlier attempt has finished; summaries in the order of the pieces."""
    done: dict[int, PieceSummary] = {}
    with progress_bar("load: read", None, "rows") as bar:
        for piece in pieces:
            summary = read_summary(job, piece)
            if summary is not None:
                done[piece.index] = summary
                bar.advance(summary.rows, resumed=True)
        remaining = [piece for piece in pieces if piece.index not in done]
        for index, summary in engines.map_items(partial(_stage_indexed, job), remaining):
            done[index] = summary
            bar.advance(summary.rows)
    return [done[piece.index] for piece in pieces]


def _stage_indexed(job: LoadJob, piece: SourcePiece) -> tuple[int, PieceSummary]:
    return piece.index, stage_piece(job, piece)


def _second_pass(engines: Engines, job: SecondPassJob, shards: list[StagedShard]) -> list[dict[str, Any]]:
    """Write the shards that no earlier attempt has finished; counts in the order of the shards."""
    folder = Folder(job.load.out)
    done: dict[str, dict[str, Any]] = {}
    with progress_bar("load: write", sum(shard.rows for shard in shards), "examples") as bar:
        for shard in shards:
            if folder.exists("stage", "shards", f"{shard.name}.json"):
                done[shard.name] = folder.read_json("stage", "shards", f"{shard.name}.json")
                bar.advance(shard.rows, resumed=True)
        remaining = [shard for shard in shards if shard.name not in done]
        for counts in engines.map_items(partial(write_examples, job), remaining):
            done[counts["name"]] = counts
            bar.advance(counts["rows"])
    return [done[shard.name] for shard in shards]
