"""The verb load, which reads, validates and identifies the examples, splits them, and injects configured
noise.

    first pass     source files -> stage/, and a summary of each piece (on workers)
    global pass    label set, truth, duplicate keys, splits, global noise (in the driver, from summaries and ids)
    second pass    stage/ -> examples/ test/ origins/ truth/ rejected/ (on workers)

The source is read once, in batches of rows. The driver never holds rows, only the values of the label column,
8 bytes per example for duplicates, 20 for splits (70 while they are sorted), 18 for copies of texts, and 12 for noise that is
chosen globally. Files are sorted by name, so the output depends neither on the order of the sources nor on the number of
workers; ids, splits and noise do not depend on `rows_per_shard` either.

Where a trained classifier will predict (`predict.mode = "model"`), rows need no label, and the label set is the
classifier's.
"""

import logging
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from rayclean.config import Config
from rayclean.datasets.base import Reader, SourceFile
from rayclean.datasets.checks import (
    check_complete,
    check_options,
    check_roles,
    check_sources_hold_rows,
    check_stops,
    check_truth,
)
from rayclean.datasets.columns import choose_columns
from rayclean.datasets.first_pass import LoadJob, PieceSummary, read_summary, stage_piece
from rayclean.datasets.first_rows import check_first_rows, find_misfit
from rayclean.datasets.global_pass import (
    find_duplicates,
    merge_label_counts,
    names_in_files,
    numberings_in_files,
    prepare_noise,
    prepare_splits,
    resolve_noise,
    resolve_truth,
    staged_shards,
)
from rayclean.datasets.label_checks import (
    check_truth_values,
    check_unknown_labels,
    check_unlabelled,
    label_warnings,
)
from rayclean.datasets.label_forms import LabelForm, described_form, label_form
from rayclean.datasets.labels import (
    LABEL_CODES_FILE,
    check_same_names,
    distinct_names,
    frequent_codes,
    resolve_labels,
)
from rayclean.datasets.load_remarks import text_remarks
from rayclean.datasets.other_data import SOURCES_FILE, refuse_other_data, source_places
from rayclean.datasets.rejected_share import check_rejected
from rayclean.datasets.role_sources import check_roles_differ, check_texts_differ
from rayclean.datasets.row_validation import unlabelled_keys
from rayclean.datasets.second_pass import SecondPassJob, StagedShard, write_examples
from rayclean.datasets.shared_texts import count_texts
from rayclean.datasets.sources import Source, SourcePiece, cut_into_pieces, find_sources
from rayclean.datasets.summary import load_metrics, write_truth_summary
from rayclean.errors import ConfigError, DataError
from rayclean.folder import Folder
from rayclean.progress import progress_bar
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import SECONDS_PER_BYTE, VerbNeeds
from rayclean.schema import FormName, Label, LabelSet
from rayclean.tasks import TASKS
from rayclean.verbs.scored_classes import classes_of_classifier, is_scored, with_classes_of_classifier

logger = logging.getLogger(__name__)

VERSION = 9


def source_fingerprint(config: Config) -> Any:
    """Names, sizes and stamps of all source files, as plain JSON values, and the classes of a classifier that scores them.

    The stamp is the digest of a local file, and the ETag, version or time of a remote one. A data set on the
    Hugging Face hub is identified by name, config and revision, without contacting the hub.

    Raises:
        ConfigError, DataError: the sources cannot be found (`find_sources`).
        ArtifactError: `predict.model` is no trained classifier.
    """
    scored_by = classes_of_classifier(config)
    return [
        [
            source.role,
            source.format,
            source.split,
            [[file.name, file.size, *file.stamp] for file in source.files],
        ]
        for source in find_sources(config.dataset)
    ] + ([] if scored_by is None else [["classifier", *scored_by]])


def validate(config: Config, run: Run) -> None:
    """Check that the sources exist, that the first file of each has the columns, and that options are
    consistent.

    Raises:
        ConfigError: options contradict each other, a label is unknown, the labels are of another task, or the run folder
            holds the run of another data set.
        DataError: a source is missing, empty, unreadable, or lacks a column.
        ArtifactError: `predict.model` is no trained classifier.
    """
    config = with_classes_of_classifier(config)
    form = _form(config)
    if isinstance(config.dataset.label, tuple) and not form.reads_columns:
        raise ConfigError(f"dataset.label names several columns: {_another_task(config, form, 'classes')}")
    check_options(config.dataset, form)
    sources = find_sources(config.dataset)
    check_roles_differ(sources)
    for source in sources:
        file = next((file for file in source.files if file.size > 0), source.files[0])
        reader = source.reader()
        found = reader.columns(file) if file.size > 0 else []
        if not found:
            raise DataError(
                f"{source.files[0].url}: empty file; expected a data set with columns, check dataset.path"
            )
        _check_labels(config, source, reader, file, found)
    refuse_other_data(config.dataset, sources[0], _form(config), run)


def _check_labels(config: Config, source: Source, reader: Reader, file: SourceFile, found: list[str]) -> None:
    """Check that a file has the columns, and labels of the task's form in its first rows."""
    dataset, form = config.dataset, _form(config)
    of_role = {"dev": dataset.dev.label, "test": dataset.test.label}.get(source.role)
    options = [(of_role and f"{source.role}.label") or "label", "truth"]
    for option, column in zip(options, (of_role or dataset.label, dataset.truth), strict=True):
        if isinstance(column, str) and column in found:
            misfit = find_misfit(form, reader, file, column)
            if misfit is not None:
                raise ConfigError(
                    f"{file.url} row {misfit.row}: dataset.{option} = {column!r} holds {misfit.value}: "
                    f"{_another_task(config, form, misfit.form)}"
                )
    if source.role == "data" and form.names and isinstance(dataset.label, str) and not is_scored(config):
        names = reader.label_names(file, dataset.label) or ()
        if len(source.files) == 1 and names:  # several files name the classes together
            check_same_names(form.names, distinct_names(form.classes_of(names), unlabelled_keys(dataset)))
    columns = choose_columns(
        dataset, source.role, found, file.url, reader.sparse, form.reads_tokens,
        label_optional=is_scored(config),
    )  # fmt: skip
    if logger.isEnabledFor(logging.INFO):
        form_of_file = reader.describe(file)
        logger.info(
            "%s: %s%s", file.url, columns, f"; {form_of_file.words}" if form_of_file is not None else ""
        )
    check_first_rows(dataset, source.role, form, reader, file, columns)


def _another_task(config: Config, form: LabelForm, found: FormName) -> str:
    """The end of a message: what was found, what the task reads, and which task reads what was found."""
    names = [name for name in TASKS if TASKS.resolve(name).label_form == found]
    return (
        f"that is {described_form(found)}, and the task {config.task.name!r} reads {form.holds}: set "
        f'task = {{ name = "{names[0]}" }}, or {form.advice}'
    )


def _form(config: Config) -> LabelForm:
    """The form of labels that the task reads."""
    return label_form(TASKS.resolve(config.task.name).label_form, config.dataset)


def needs(config: Config, run: Run) -> VerbNeeds:
    """Estimate the time to read the source files."""
    files = [file for source in find_sources(config.dataset) for file in source.files]
    return VerbNeeds(seconds=SECONDS_PER_BYTE * sum(file.size for file in files))


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Write `examples/`, `test/`, `truth/`, `rejected/` and `labels.json`.

    Returns:
        Counts of examples, classes and rejected rows, lengths of texts, and warnings; nothing about the
        truth.

    Raises:
        DataError: too many rows are unusable, the labels do not define a classification, or the test files hold the texts
            of the data.
    """
    config = with_classes_of_classifier(config)
    dataset, needs_labels = config.dataset, not is_scored(config)
    sources = find_sources(dataset)
    pieces = cut_into_pieces(sources)
    form = _form(config)
    job = LoadJob(dataset, out.url(), config.seed, form, needs_labels)
    summaries = _first_pass(engines, job, pieces)
    check_sources_hold_rows(sources, summaries)
    check_stops(summaries, form)
    check_rejected(dataset, summaries)
    check_unlabelled(dataset, summaries)

    counts = merge_label_counts(summaries)
    labels = resolve_labels(
        counts,
        form.names,
        names_in_files(dataset, form, summaries) if needs_labels else (),
        form.least_classes if needs_labels else 0,
        numberings=numberings_in_files(summaries) if needs_labels and form.name != "tags" else (),
        first_label=None if form.reads_tokens else dataset.first_label,  # tags have become names already
        merge=dataset.merge_labels,
    )
    if form.one_code:
        check_unknown_labels(dataset, labels, summaries)
    shards = find_duplicates(out, staged_shards(pieces, summaries))
    check_rejected(dataset, summaries, labels if form.one_code else None, shards)
    check_truth(dataset, summaries)
    label_set = LabelSet(Label(index, name, name) for index, name in enumerate(labels.names))
    label_set = label_set.described(dataset.words, dataset.definitions)
    truths = resolve_truth(dataset, summaries, labels)
    check_truth_values(dataset, summaries, truths, labels)
    second = SecondPassJob(
        job,
        replace(labels, unknown={}, ways={}),  # only the driver needs the places of unknown labels
        truths,
        resolve_noise(job, summaries, labels),
    )
    prepare_splits(out, second, shards)
    prepare_noise(out, second, shards)

    written = _second_pass(engines, second, shards)
    if not form.one_code:
        check_unknown_labels(dataset, labels, summaries, list(zip(shards, written, strict=True)))
        check_rejected(dataset, summaries, labels, shards, written)
    out.write_text(label_set.to_json(), "labels.json")
    out.write_json(frequent_codes(counts, labels), LABEL_CODES_FILE)
    out.write_json(source_places(dataset), SOURCES_FILE)
    write_truth_summary(out, second, summaries, written)
    metrics = load_metrics(summaries, shards, written, labels, form, needs_labels=needs_labels)
    metrics["label_ways"] = labels.ways
    metrics["warnings"] = [*label_warnings(dataset, labels, summaries), *metrics["warnings"]]
    check_roles(metrics, summaries, shards, written, needs_labels)
    check_complete(out, summaries)
    texts = count_texts(out, [(shard.name, shard.role) for shard in shards])
    check_texts_differ(texts)
    alarms, warnings = text_remarks(texts)
    metrics |= {"texts": asdict(texts), "alarms": alarms, "warnings": [*metrics["warnings"], *warnings]}
    out.remove("stage", "pieces")  # first, so that the next attempt after a crash stages again
    out.remove("stage")
    return metrics


def _first_pass(engines: Engines, job: LoadJob, pieces: list[SourcePiece]) -> list[PieceSummary]:
    """Stage the unfinished pieces; returns the summaries of all pieces in order."""
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
    """Write the unfinished shards; returns the counts of all shards in order."""
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
