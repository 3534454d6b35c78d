"""Second pass of `load`: turn a staged shard into examples, test rows and truth, with labels as they are stored.

Noise that is drawn per example is a hash of its id. Duplicates, splits, which take a share of every class, and noise that
needs all labels cannot be decided shard by shard: the global pass has prepared them.
"""

import ast
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.datasets.first_pass import LoadJob
from rayclean.datasets.label_forms import InjectedNoise
from rayclean.datasets.labels import LabelMapping
from rayclean.datasets.left_out import Kinds, count_loss, is_beyond_ascii
from rayclean.datasets.rejected_rows import UNKNOWN_LABEL, VALUE_CHARACTERS, write_rejected
from rayclean.datasets.shared_texts import stage_texts
from rayclean.folder import Folder
from rayclean.functional.noise import is_local
from rayclean.origins import ORIGINS, ORIGINS_FOLDER
from rayclean.schema import GROUPS, SPLIT_DEV, SPLIT_TEST, SPLIT_TRAIN, examples_schema, truth_schema

_SPLITS = np.array([SPLIT_TRAIN, SPLIT_DEV, SPLIT_TEST])


@dataclass(frozen=True)
class StagedShard:
    """A shard that the first pass has staged, and the driver's knowledge of it."""

    name: str
    role: str
    rows: int
    duplicates: dict[int, str]
    """Position in the shard of a row whose key is a duplicate -> the place of the first row with that key."""


@dataclass(frozen=True)
class SecondPassJob:
    """A load as the workers of the second pass need to know it: with all that is global resolved."""

    load: LoadJob
    labels: LabelMapping
    truths: dict[str, dict[str, int]]
    """role -> code in the truth column -> index of the label."""
    noise: InjectedNoise | None
    """The noise to inject, if any."""


@dataclass(frozen=True)
class SelectedRows:
    """The rows of a staged shard that are not rejected (B of them), with their labels and splits."""

    table: pa.Table
    """The whole shard."""
    keep: npt.NDArray[np.bool_]
    """[rows of the shard] Which rows are selected."""
    ids: npt.NDArray[np.int64]
    """[B] `example_id`."""
    labels: pa.Array
    """[B] Labels as they are stored; null where only the truth is known."""
    splits: npt.NDArray[np.int8]
    """[B] Index into train, dev, test."""
    noisy: npt.NDArray[np.bool_]
    """[B] Whether label noise is injected: rows of `dataset.path` that will be cleaned."""


def read_labelled(
    job: SecondPassJob, shard: StagedShard, columns: list[str] | None = None
) -> tuple[pa.Table, npt.NDArray[np.bool_], pa.Array]:
    """A staged shard, which of its rows are neither duplicates nor of an unknown label, and the labels of these."""
    table = Folder(job.load.out).read_table("stage", "rows", f"{shard.name}.parquet", columns=columns)
    labels = job.load.label_form.store(table["label"], job.labels.codes[shard.role])
    keep = ~labels.unknown
    keep[list(shard.duplicates)] = False
    return table, keep, labels.values.filter(pa.array(keep))


def select_rows(job: SecondPassJob, shard: StagedShard, columns: list[str] | None = None) -> SelectedRows:
    """Read a staged shard, look up its labels and splits, and drop duplicates and unknown labels."""
    table, keep, labels = read_labelled(job, shard, columns)
    ids = table["example_id"].to_numpy()[keep]
    config = job.load.config
    splits = np.full(len(ids), {"data": 0, "dev": 1, "test": 2}[shard.role], np.int8)
    if shard.role == "data" and config.holds_out:
        prepared = Folder(job.load.out).read_table("stage", "splits", f"{shard.name}.parquet")
        assert (prepared["example_id"].to_numpy() == ids).all(), "splits were prepared for other examples"
        splits = prepared["split"].to_numpy()
    will_be_cleaned = (splits == 0) | ((splits == 1) & (not config.dev.clean))
    noisy = will_be_cleaned & (shard.role == "data")
    return SelectedRows(table, keep, ids, labels, splits, noisy)


def write_examples(job: SecondPassJob, shard: StagedShard) -> dict[str, Any]:
    """Write `examples/`, `test/`, `origins/`, `truth/` and `rejected/` of one staged shard.

    Returns:
        Counts of the shard: `rows`, `rejected` by reason, `kinds` of the rejected rows (`left_out.py`), `unlabelled`
        examples, `splits`, `labels` ([index, count] of examples and of test rows), `sums` (further numbers about the
        labels of both), `truths`, `transitions` ([..., count] of injected noise), `characters` and `tokens` (sum,
        least and most per text; None without tokens).
    """
    folder, form = Folder(job.load.out), job.load.label_form
    selected = select_rows(job, shard)
    rejected, kinds = _write_rejected(folder, job, shard, selected)
    kept = selected.table.filter(pa.array(selected.keep))
    if job.noise is not None:
        truth, given = selected.labels, _noisy_labels(folder, job, job.noise, shard, selected)
    else:
        truth = form.store(kept["truth"], job.truths.get(shard.role, {})).values
        given = selected.labels
    texts = [kept["text"], kept["tokens"]] if form.reads_tokens else [kept["text"]]
    columns = [selected.ids, *texts, given, pa.array(_SPLITS[selected.splits])]
    examples = pa.table(columns, schema=examples_schema(form.name))
    stage_texts(folder, shard.name, examples)
    is_test = selected.splits == 2
    name = f"{shard.name}.parquet"
    for rows, part in ((~is_test, "examples"), (is_test, "test")):
        if rows.any():
            folder.write_table(examples.filter(pa.array(rows)), part, name)
    if job.load.config.group is not None and shard.role == "data" and not is_test.all():
        groups = pa.table([selected.ids, kept["group"]], schema=GROUPS)
        folder.write_table(groups.filter(pa.array(~is_test)), "groups", name)
    folder.write_table(_origins(selected.ids, kept), ORIGINS_FOLDER, name)
    known = np.asarray(truth.is_valid())
    if known.any():
        columns = [selected.ids[known], truth.drop_null()]
        folder.write_table(pa.table(columns, schema=truth_schema(form.name)), "truth", name)
    noisy = pa.array(selected.noisy)
    transitions = []
    if job.noise is not None:
        transitions = form.transitions(truth.filter(noisy), given.filter(noisy), job.noise.classes)
    parts = [pa.array(rows) for rows in (~is_test, is_test)]
    counts = {
        "name": shard.name,
        "rows": shard.rows,
        "rejected": rejected,
        "kinds": kinds,
        "without_label": given.filter(parts[0]).null_count,
        "splits": {str(split): int((selected.splits == i).sum()) for i, split in enumerate(_SPLITS)},
        "labels": [form.count(given.filter(part)) for part in parts],
        "sums": [form.sums(kept["label"].filter(part), given.filter(part)) for part in parts],
        "truths": int(known.sum()),
        "transitions": transitions,
        "characters": _spread(pc.utf8_length(kept["text"])),
        "tokens": _spread(pc.list_value_length(kept["tokens"])) if form.reads_tokens else None,
    }
    folder.write_json(counts, "stage", "shards", f"{shard.name}.json")
    return counts


def _origins(ids: npt.NDArray[np.int64], kept: pa.Table) -> pa.Table:
    """A shard of `origins/`: the key as the user's column writes it, the file and the row."""
    keys = [None if key is None else str(ast.literal_eval(key)) for key in kept["key"].to_pylist()]
    columns = [ids, pa.array(keys, pa.string()), kept["source"].cast(pa.string()), kept["row"]]
    return pa.table(columns, schema=ORIGINS)


def _noisy_labels(
    folder: Folder, job: SecondPassJob, noise: InjectedNoise, shard: StagedShard, selected: SelectedRows
) -> pa.Array:
    """The labels [B] after noise was injected into the rows that get some."""
    rows = selected.noisy
    if not rows.any():
        return selected.labels
    ids = selected.ids[rows]
    if is_local(noise.kind, noise.exact):
        noisy = job.load.label_form.corrupt(ids, selected.labels.filter(pa.array(rows)), noise)
    else:
        prepared = folder.read_table("stage", "noise", f"{shard.name}.parquet")
        assert (prepared["example_id"].to_numpy() == ids).all(), "noise was prepared for other examples"
        noisy = prepared["label"].combine_chunks()
    places = np.arange(len(rows))
    places[rows] = len(rows) + np.arange(len(ids))
    return pa.concat_arrays([selected.labels, noisy]).take(pa.array(places))


def _spread(lengths: pa.ChunkedArray) -> list[int]:
    """Sum, least and most of lengths."""
    values = lengths.to_numpy().astype(np.int64) if len(lengths) else np.zeros(0, np.int64)
    return [int(values.sum()), int(values.min(initial=2**31)), int(values.max(initial=0))]


def _write_rejected(
    folder: Folder, job: SecondPassJob, shard: StagedShard, selected: SelectedRows
) -> tuple[dict[str, int], Kinds]:
    """Write the rows that are not selected to `rejected/`, and count them by reason and by kind."""
    rejected, counts = [], Counter[str]()
    kinds: Kinds = {}
    positions = np.flatnonzero(~selected.keep)
    columns = ["source", "row", "label", "key", "text"]
    rows = selected.table.select(columns).take(pa.array(positions)).to_pylist()
    for position, row in zip(positions.tolist(), rows, strict=True):
        first = shard.duplicates.get(position)
        if first is None:
            codes = job.load.label_form.codes(row["label"])
            code = next(code for code in codes if code not in job.labels.codes[shard.role])
            reason, detail, value = UNKNOWN_LABEL, job.labels.explain(code), code[2:]
        elif row["key"] is None:
            reason, value = "hash collision", ""
            detail = f"hash collision: the same example_id as {first}; set dataset.id"
        else:
            reason, detail, value = "duplicate key", f"duplicate key: first in {first}", row["key"]
        counts[reason] += 1
        classes = () if row["label"] is None else job.load.label_form.codes(row["label"])
        count_loss(kinds, row["source"], set(classes), is_beyond_ascii([*row.values()]), reason)
        rejected.append((row["source"], row["row"], detail, value[:VALUE_CHARACTERS]))
    if rejected:
        write_rejected(folder, f"{shard.name}-label", rejected)
    return dict(counts), kinds
