"""Second pass: turn a staged shard into examples, test rows and truth, with labels as indices.

Everything drawn per example (its split, its noise) is a hash of its id; only what cannot be drawn alone (duplicates,
noise that needs all labels) was prepared by the driver.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.datasets.first_pass import LoadJob, write_rejected
from rayclean.datasets.labels import LabelMapping
from rayclean.datasets.rows import VALUE_CHARACTERS
from rayclean.folder import Folder
from rayclean.functional.hashing import uniform
from rayclean.functional.noise import corrupt, is_local
from rayclean.schema import EXAMPLES, SPLIT_DEV, SPLIT_TEST, SPLIT_TRAIN, TRUTH

NO_VALUE, UNKNOWN = -1, -2
SPLITS = np.array([SPLIT_TRAIN, SPLIT_DEV, SPLIT_TEST])


@dataclass(frozen=True)
class StagedShard:
    """A staged shard and what the driver knows about it."""

    name: str
    role: str
    rows: int
    duplicates: dict[int, str]
    """Position in the shard -> where the same key came first."""


@dataclass(frozen=True)
class SecondPass:
    """What every worker of the second pass needs to know."""

    job: LoadJob
    labels: LabelMapping
    truths: dict[str, dict[str, int]]
    """role -> code in the truth column -> index."""
    mapping: dict[int, int]
    """`asym_map` as indices."""


@dataclass(frozen=True)
class SelectedRows:
    """The rows of a staged shard that stay, and what is known of each."""

    table: pa.Table
    keep: npt.NDArray[np.bool_]
    """[rows of the shard]"""
    ids: npt.NDArray[np.int64]
    """[B] of the rows that stay, like all that follow."""
    labels: npt.NDArray[np.int32]
    """`NO_VALUE` where only the truth is known."""
    splits: npt.NDArray[np.int8]
    """Index into `SPLITS`."""
    noisy: npt.NDArray[np.bool_]
    """Whether label noise goes in here: rows of `dataset.path` that will be cleaned."""


def select_rows(finish: SecondPass, shard: StagedShard, columns: list[str] | None = None) -> SelectedRows:
    """Read a staged shard, look up its labels, drop duplicates and unknown labels, and draw the splits."""
    table = Folder(finish.job.out).read_table("stage", "rows", f"{shard.name}.parquet", columns=columns)
    labels = _lookup(table["label"], finish.labels.codes[shard.role])
    keep = labels != UNKNOWN
    keep[list(shard.duplicates)] = False
    ids = table["example_id"].to_numpy()[keep]
    config = finish.job.config
    splits = np.full(len(ids), {"data": 0, "dev": 1, "test": 2}[shard.role], np.int8)
    if shard.role == "data":
        draw = uniform(ids, finish.job.seed, "split")
        splits[draw < config.test.share + config.dev.share] = 1
        splits[draw < config.test.share] = 2
    cleanable = (splits == 0) | (
        (splits == 1) & (not config.dev.clean)
    )  # declared clean: no noise is injected there
    noisy = cleanable & (shard.role == "data")
    return SelectedRows(table, keep, ids, labels[keep], splits, noisy)


def finish_shard(finish: SecondPass, shard: StagedShard) -> dict[str, Any]:
    """Write `examples/`, `test/`, `truth/` and `rejected/` of one staged shard.

    Returns:
        Counts: `rows`, `rejected` by reason, `splits`, `labels` ([label, count] of examples and of test rows), `truths`, `transitions`, `characters`.
    """
    folder = Folder(finish.job.out)
    chosen = select_rows(finish, shard)
    rejected = _reject(folder, finish, shard, chosen)
    kept = chosen.table.filter(pa.array(chosen.keep))
    noise = finish.job.config.noise
    given = chosen.labels
    if noise is not None:
        truth = given
        given = noisy_labels(finish, shard, chosen, folder)
    else:
        truth = _lookup(kept["truth"], finish.truths.get(shard.role, {}))
    examples = pa.table(
        [chosen.ids, kept["text"], pa.array(given, mask=given < 0), pa.array(SPLITS[chosen.splits])],
        schema=EXAMPLES,
    )
    is_test = chosen.splits == 2
    name = f"{shard.name}.parquet"
    for rows, where in ((~is_test, "examples"), (is_test, "test")):
        if rows.any():
            folder.write_table(examples.filter(pa.array(rows)), where, name)
    if (truth >= 0).any():
        known = truth >= 0
        folder.write_table(pa.table([chosen.ids[known], truth[known]], schema=TRUTH), "truth", name)
    changed: Counter[tuple[int, int]] = Counter(
        zip(truth[chosen.noisy].tolist(), given[chosen.noisy].tolist(), strict=True)
        if noise is not None
        else ()
    )
    characters = (
        pc.utf8_length(kept["text"]).to_numpy().astype(np.int64) if len(kept) else np.zeros(0, np.int64)
    )
    result = {
        "name": shard.name,
        "rows": shard.rows,
        "rejected": rejected,
        "splits": {str(split): int((chosen.splits == i).sum()) for i, split in enumerate(SPLITS)},
        "labels": [
            np.column_stack(np.unique(given[rows & (given >= 0)], return_counts=True)).tolist()
            for rows in (~is_test, is_test)
        ],
        "truths": int((truth >= 0).sum()),
        "transitions": [[before, after, count] for (before, after), count in sorted(changed.items())],
        "characters": [
            int(characters.sum()),
            int(characters.min(initial=2**31)),
            int(characters.max(initial=0)),
        ],
    }
    folder.write_json(result, "stage", "shards", f"{shard.name}.json")
    return result


def noisy_labels(
    finish: SecondPass, shard: StagedShard, chosen: SelectedRows, folder: Folder
) -> npt.NDArray[np.int32]:
    """The labels after noise; rows that get none keep theirs."""
    noise = finish.job.config.noise
    assert noise is not None
    labels = chosen.labels.copy()
    rows = chosen.noisy
    if not rows.any():
        return labels
    if is_local(noise.kind, noise.exact):
        seed = finish.job.seed if noise.seed is None else noise.seed
        labels[rows] = corrupt(
            chosen.ids[rows],
            labels[rows],
            len(finish.labels.names),
            noise.kind,
            noise.rate,
            seed,
            mapping=finish.mapping,
        )
    else:
        prepared = folder.read_table("stage", "noise", f"{shard.name}.parquet")
        assert (prepared["example_id"].to_numpy() == chosen.ids[rows]).all(), (
            "noise was prepared for other examples"
        )
        labels[rows] = prepared["label"].to_numpy()
    return labels


def _lookup(column: pa.ChunkedArray, codes: dict[str, int]) -> npt.NDArray[np.int32]:
    encoded = column.combine_chunks().dictionary_encode()
    table = np.array(
        [codes.get(code, UNKNOWN) for code in encoded.dictionary.to_pylist()] + [NO_VALUE], np.int32
    )
    return np.asarray(table[encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)])


def _reject(folder: Folder, finish: SecondPass, shard: StagedShard, chosen: SelectedRows) -> dict[str, int]:
    """Write the rows that do not stay; counts by reason."""
    faults, counts = [], Counter[str]()
    positions = np.flatnonzero(~chosen.keep)
    rows = chosen.table.select(["source", "row", "label", "key"]).take(pa.array(positions)).to_pylist()
    for position, row in zip(positions.tolist(), rows, strict=True):
        first = shard.duplicates.get(position)
        if first is None:
            reason, detail, value = "unknown label", finish.labels.explain(row["label"]), row["label"][2:]
        elif row["key"] is None:
            reason, value = "hash collision", ""
            detail = f"hash collision: the same example_id as {first}; set dataset.id"
        else:
            reason, detail, value = "duplicate key", f"duplicate key: first in {first}", row["key"]
        counts[reason] += 1
        faults.append((row["source"], row["row"], detail, value[:VALUE_CHARACTERS]))
    if faults:
        write_rejected(folder, f"{shard.name}-label", faults)
    return dict(counts)
