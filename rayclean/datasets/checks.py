"""What stops a load: contradictory options, too many rejected rows, empty roles, a missing truth, lost rows.

`check_options` runs before any work, the others as soon as the passes have found what they need.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.parquet as pq

from rayclean.config import DatasetConfig, NoiseConfig
from rayclean.datasets.class_sets import label_columns
from rayclean.datasets.columns import names_of
from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.label_forms import LabelForm
from rayclean.datasets.labels import noise_indices
from rayclean.datasets.rejected_rows import UNKNOWN_LABEL
from rayclean.datasets.second_pass import StagedShard
from rayclean.datasets.sources import Source
from rayclean.errors import ConfigError, DataError
from rayclean.folder import Folder
from rayclean.schema import Label, LabelSet


def check_options(dataset: DatasetConfig, form: LabelForm) -> None:
    """Stop if options of `[dataset]` contradict each other, or name a label that does not exist.

    Raises:
        ConfigError: they do; the message says what to change.
    """
    text = (dataset.tokens,) if form.reads_tokens else names_of(dataset.text)
    if not text:
        raise ConfigError("dataset.text is an empty list; name at least one column")
    for name, column in (("label", dataset.label), ("truth", dataset.truth)):
        if set(names_of(column)) & set(text):
            raise ConfigError(
                f"dataset.{name} = {column!r} is also a text column: the model would read the answer; name another "
                f"column, or leave it out of dataset.{'tokens' if form.reads_tokens else 'text'}"
            )
    if dataset.truth == dataset.label:
        raise ConfigError(
            f"dataset.truth and dataset.label are both {dataset.label!r}; leave truth out if it is not known"
        )
    shares = dataset.dev.share + dataset.test.share
    if shares >= 1:
        raise ConfigError(
            f"dataset.dev.share + dataset.test.share = {shares:g} leaves nothing to clean; lower them to less than 1 together"
        )
    for name, split in (("dev", dataset.dev), ("test", dataset.test)):
        if split.label is not None and not split.has_source:
            raise ConfigError(
                f"dataset.{name}.label needs dataset.{name}.path or dataset.{name}.split: a share has the data set's "
                "own label column"
            )
    if dataset.test.clean:
        raise ConfigError("dataset.test.clean has no meaning: test examples are never cleaned; remove it")
    _check_form_options(dataset, form)
    if form.names is not None:
        label_set = LabelSet(Label(index, name, name) for index, name in enumerate(form.names))
        label_set.described(dataset.words, dataset.definitions)
        noise_indices(dataset, form.names)
    if dataset.noise is not None:
        _check_noise(dataset, dataset.noise, form)


def _check_form_options(dataset: DatasetConfig, form: LabelForm) -> None:
    """Stop at options that this form of labels does not have."""
    if dataset.tokens != type(dataset).model_fields["tokens"].default and not form.reads_tokens:
        raise ConfigError(
            f"dataset.tokens is for labels that are a tag per token, and the configured task reads {form.holds}: set task.name = "
            '"tagging", or remove dataset.tokens (dataset.text names the text)'
        )
    if dataset.label_separator is not None and not form.reads_columns:
        raise ConfigError(
            f"dataset.label_separator is for rows with several classes, and the configured task reads {form.holds}: set "
            'task.name = "multi_label", or remove dataset.label_separator'
        )
    if form.reads_tokens and any(str(value).strip() for value in dataset.unlabelled):
        raise ConfigError(
            'where labels are tags, dataset.unlabelled can only be [""]: remove other values, and leave the tags of rows without '
            "labels null or blank"
        )
    columns = label_columns(dataset)
    if columns and form.names is None:
        raise ConfigError(
            f"dataset.{next(iter(columns))} names columns of 0 and 1: name their classes in dataset.labels, in the same order"
        )
    for name, found in columns.items():
        if form.names is not None and len(found) != len(form.names):
            raise ConfigError(
                f"dataset.{name} names {len(found)} columns of 0 and 1 for the {len(form.names)} classes {form.names[:10]}: "
                "name one column per class, in the same order"
            )


def _check_noise(dataset: DatasetConfig, noise: NoiseConfig, form: LabelForm) -> None:
    if noise.kind not in form.noises:
        exist = (
            f"there is {' and '.join(form.noises)}" if form.noises else "there is none: remove dataset.noise"
        )
        raise ConfigError(
            f"dataset.noise.kind = {noise.kind!r} does not exist where labels are {form.holds}; {exist}"
        )
    if noise.exact and not form.one_code:
        raise ConfigError("dataset.noise.exact is for labels that are one class; remove it")
    if dataset.truth is not None:
        raise ConfigError(
            "dataset.noise on top of real noise would leave no single truth: remove dataset.noise to measure "
            f"against the column {dataset.truth!r}, or set dataset.label to it and remove dataset.truth to "
            "inject noise into true labels"
        )
    if (noise.kind == "asym_map") != bool(noise.mapping):
        raise ConfigError(
            "dataset.noise.mapping (label -> wrong label) and kind = 'asym_map' go together; set both or "
            "neither"
        )
    if noise.exact and noise.kind not in ("sym", "asym"):
        raise ConfigError(
            f"dataset.noise.exact is for the kinds sym and asym; {noise.kind} draws its number of wrong labels itself: remove "
            "dataset.noise.exact"
        )
    itself = [name for name, wrong in noise.mapping.items() if name == wrong]
    if itself:
        raise ConfigError(
            f"dataset.noise.mapping maps {itself} to itself; name another label or leave it out"
        )


def check_stops(summaries: list[PieceSummary], form: LabelForm) -> None:
    """Stop at a row whose label is written in a way that the config does not say.

    Raises:
        DataError: names the row, its value and what to change.
    """
    for summary in summaries:
        for reason, fix in form.stops.items():
            if entry := summary.rejected.get(reason):
                raise DataError(f"{entry['source']} row {entry['row']}: {reason}: {entry['value']!r}; {fix}")


def check_sources_hold_rows(sources: list[Source], summaries: list[PieceSummary]) -> None:
    """Stop if the files of a role hold no rows at all.

    Raises:
        DataError: names the role and its first file.
    """
    for source in sources:
        if not sum(summary.rows for summary in summaries if summary.role == source.role):
            raise DataError(
                f"{source.files[0].url}: empty; the {source.role} files hold no rows; name others"
            )


def check_truth(dataset: DatasetConfig, summaries: list[PieceSummary]) -> None:
    """Stop if the truth column has no value in any row (JSON Lines may leave it out row by row).

    Raises:
        DataError: it has none.
    """
    if dataset.truth is not None and not any(summary.known_truths for summary in summaries):
        raise DataError(
            f"dataset.truth = {dataset.truth!r}: no row has a value there that can be read; leave dataset.truth out, or check "
            "its name"
        )


def check_roles(
    metrics: dict[str, Any],
    summaries: list[PieceSummary],
    shards: list[StagedShard],
    written: list[dict[str, Any]],
    needs_labels: bool = True,
) -> None:
    """Stop if all rows of the development or test files are rejected, or if nothing is left to clean, or to score.

    Raises:
        DataError: why the first row of those files cannot be used.
    """
    for role in ("dev", "test"):
        read = sum(summary.rows for summary in summaries if summary.role == role)
        if not read or metrics[role]:
            continue
        repeated = [place for shard in shards if shard.role == role for place in shard.duplicates.values()]
        unknown = sum(
            counts["rejected"].get(UNKNOWN_LABEL, 0)
            for shard, counts in zip(shards, written, strict=True)
            if shard.role == role
        )
        why = f"{unknown:,} have an unknown label" if unknown else "see the reasons in rejected/"
        if repeated:
            why = (
                f"{len(repeated):,} have a key that came before, the first that of {repeated[0]}: keys "
                "(dataset.id) must differ between all files; without dataset.id a row's place "
                "is its key"
            )
        raise DataError(f"none of the {read:,} rows of the {role} files can be used: {why}")
    if not metrics["examples"] - (metrics["dev"] if needs_labels else 0):
        raise DataError(
            "no example is left to clean or train on: check dataset.dev.share, dataset.test.share and "
            "rejected rows"
        )


def check_complete(out: Folder, summaries: list[PieceSummary]) -> None:
    """Stop if rows were lost: the written files together must hold as many rows as were read.

    Raises:
        DataError: they do not.
    """

    def count_rows(path: tuple[str, str]) -> int:
        with out.fs.open(out.path(*path), "rb") as file:
            return int(pq.ParquetFile(file).metadata.num_rows)

    paths = [(part, name) for part in ("examples", "test", "rejected") for name in out.shards(part)]
    with ThreadPoolExecutor(16) as pool:
        written = sum(pool.map(count_rows, paths))
    read = sum(summary.rows for summary in summaries)
    if written != read:
        raise DataError(
            f"{read} rows were read but {written} written: files changed while they were read, or a disk "
            f"lost some; remove {out.root} and run `rayclean load` again"
        )
