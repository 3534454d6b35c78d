"""Second pass of `load`: turn a staged shard into examples, test rows and truth, with labels as indices.

Whatever is drawn per example (its split, its noise) is a hash of its id. Duplicates and noise that needs all
labels cannot be decided shard by shard: the global pass has prepared them.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.datasets.first_pass import LoadJob
from rayclean.datasets.labels import LabelMapping
from rayclean.datasets.rejected_rows import VALUE_CHARACTERS, write_rejected
from rayclean.folder import Folder
from rayclean.functional.hashing import uniform
from rayclean.functional.noise import corrupt, is_local
from rayclean.schema import EXAMPLES, SPLIT_DEV, SPLIT_TEST, SPLIT_TRAIN, TRUTH

_NO_VALUE, _UNKNOWN = -1, -2
"""Values in the place of a label's index: the column is null; the label is not in the label set."""
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
    noise_mapping: dict[int, int]
    """`dataset.noise.mapping` (label -> wrong label) as indices."""


@dataclass(frozen=True)
class SelectedRows:
    """The rows of a staged shard that are not rejected (B of them), with their labels and splits."""

    table: pa.Table
    """The whole shard."""
    keep: npt.NDArray[np.bool_]
    """[rows of the shard] Which rows are selected."""
    ids: npt.NDArray[np.int64]
    """[B] `example_id`."""
    labels: npt.NDArray[np.int32]
    """[B] Index of the label; `_NO_VALUE` where only the truth is known."""
    splits: npt.NDArray[np.int8]
    """[B] Index into train, dev, test."""
    noisy: npt.NDArray[np.bool_]
    """[B] Whether label noise is injected: rows of `dataset.path` that will be cleaned."""


def select_rows(job: SecondPassJob, shard: StagedShard, columns: list[str] | None = None) -> SelectedRows:
    """Read a staged shard, look up its labels, drop duplicates and unknown labels, and draw the splits."""
    table = Folder(job.load.out).read_table("stage", "rows", f"{shard.name}.parquet", columns=columns)
    labels = _label_indices(table["label"], job.labels.codes[shard.role])
    keep = labels != _UNKNOWN
    keep[list(shard.duplicates)] = False
    ids = table["example_id"].to_numpy()[keep]
    config = job.load.config
    splits = np.full(len(ids), {"data": 0, "dev": 1, "test": 2}[shard.role], np.int8)
    if shard.role == "data":
        draw = uniform(ids, job.load.seed, "split")
        splits[draw < config.test.share + config.dev.share] = 1
        splits[draw < config.test.share] = 2
    will_be_cleaned = (splits == 0) | ((splits == 1) & (not config.dev.clean))
    noisy = will_be_cleaned & (shard.role == "data")
    return SelectedRows(table, keep, ids, labels[keep], splits, noisy)


def write_examples(job: SecondPassJob, shard: StagedShard) -> dict[str, Any]:
    """Write `examples/`, `test/`, `truth/` and `rejected/` of one staged shard.

    Returns:
        Counts of the shard: `rows`, `rejected` by reason, `splits`, `labels` ([index, count] of examples and
        of test rows), `truths`, `transitions` ([true index, given index, count] of injected noise),
        `characters` (sum, least and most per text).
    """
    folder = Folder(job.load.out)
    selected = select_rows(job, shard)
    rejected = _write_rejected(folder, job, shard, selected)
    kept = selected.table.filter(pa.array(selected.keep))
    has_noise = job.load.config.noise is not None
    if has_noise:
        truth, given = selected.labels, _noisy_labels(folder, job, shard, selected)
    else:
        truth = _label_indices(kept["truth"], job.truths.get(shard.role, {}))
        given = selected.labels
    columns = [
        selected.ids,
        kept["text"],
        pa.array(given, mask=given < 0),
        pa.array(_SPLITS[selected.splits]),
    ]
    examples = pa.table(columns, schema=EXAMPLES)
    is_test = selected.splits == 2
    name = f"{shard.name}.parquet"
    for rows, part in ((~is_test, "examples"), (is_test, "test")):
        if rows.any():
            folder.write_table(examples.filter(pa.array(rows)), part, name)
    known = truth >= 0
    if known.any():
        folder.write_table(pa.table([selected.ids[known], truth[known]], schema=TRUTH), "truth", name)
    transitions: Counter[tuple[int, int]] = Counter()
    if has_noise:
        noisy = selected.noisy
        transitions.update(zip(truth[noisy].tolist(), given[noisy].tolist(), strict=True))
    lengths = pc.utf8_length(kept["text"]).to_numpy().astype(np.int64) if len(kept) else np.zeros(0, np.int64)
    counts = {
        "name": shard.name,
        "rows": shard.rows,
        "rejected": rejected,
        "splits": {str(split): int((selected.splits == i).sum()) for i, split in enumerate(_SPLITS)},
        "labels": [_count_labels(given[rows]) for rows in (~is_test, is_test)],
        "truths": int(known.sum()),
        "transitions": [[before, after, count] for (before, after), count in sorted(transitions.items())],
        "characters": [int(lengths.sum()), int(lengths.min(initial=2**31)), int(lengths.max(initial=0))],
    }
    folder.write_json(counts, "stage", "shards", f"{shard.name}.json")
    return counts


def _noisy_labels(
    folder: Folder, job: SecondPassJob, shard: StagedShard, selected: SelectedRows
) -> npt.NDArray[np.int32]:
    """The labels [B] after noise was injected into the rows that get some."""
    noise = job.load.config.noise
    assert noise is not None
    labels, rows = selected.labels.copy(), selected.noisy
    if not rows.any():
        return labels
    ids = selected.ids[rows]
    if is_local(noise.kind, noise.exact):
        seed = job.load.seed if noise.seed is None else noise.seed
        classes = len(job.labels.names)
        labels[rows] = corrupt(
            ids, labels[rows], classes, noise.kind, noise.rate, seed, mapping=job.noise_mapping
        )
    else:
        prepared = folder.read_table("stage", "noise", f"{shard.name}.parquet")
        assert (prepared["example_id"].to_numpy() == ids).all(), "noise was prepared for other examples"
        labels[rows] = prepared["label"].to_numpy()
    return labels


def _label_indices(column: pa.ChunkedArray, indices: dict[str, int]) -> npt.NDArray[np.int32]:
    """Index of each label code; `_UNKNOWN` for codes without one, `_NO_VALUE` for null."""
    encoded = column.combine_chunks().dictionary_encode()
    table = np.array(
        [indices.get(code, _UNKNOWN) for code in encoded.dictionary.to_pylist()] + [_NO_VALUE], np.int32
    )
    return np.asarray(table[encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)])


def _count_labels(labels: npt.NDArray[np.int32]) -> list[list[int]]:
    """[index, count] of the labels that are known."""
    counted: list[list[int]] = np.column_stack(np.unique(labels[labels >= 0], return_counts=True)).tolist()
    return counted


def _write_rejected(
    folder: Folder, job: SecondPassJob, shard: StagedShard, selected: SelectedRows
) -> dict[str, int]:
    """Write the rows that are not selected to `rejected/`, and count them by reason."""
    rejected, counts = [], Counter[str]()
    positions = np.flatnonzero(~selected.keep)
    rows = selected.table.select(["source", "row", "label", "key"]).take(pa.array(positions)).to_pylist()
    for position, row in zip(positions.tolist(), rows, strict=True):
        first = shard.duplicates.get(position)
        if first is None:
            reason, detail, value = "unknown label", job.labels.explain(row["label"]), row["label"][2:]
        elif row["key"] is None:
            reason, value = "hash collision", ""
            detail = f"hash collision: the same example_id as {first}; set dataset.id"
        else:
            reason, detail, value = "duplicate key", f"duplicate key: first in {first}", row["key"]
        counts[reason] += 1
        rejected.append((row["source"], row["row"], detail, value[:VALUE_CHARACTERS]))
    if rejected:
        write_rejected(folder, f"{shard.name}-label", rejected)
    return dict(counts)
