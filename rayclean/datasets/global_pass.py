"""What needs all examples at once, done by the driver between the two passes: duplicates and some kinds of noise.

Duplicates take 8 bytes per example, noise that chooses globally 12 (int64 id, int32 label); texts are only read
for noise that depends on them.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.datasets.instance_noise import out_of_fold_probabilities, text_features
from rayclean.datasets.second_pass import SecondPass, StagedShard, select_rows
from rayclean.folder import Folder
from rayclean.functional.noise import NEEDS_FEATURES, corrupt, is_local


def find_duplicates(folder: Folder, shards: list[StagedShard]) -> list[StagedShard]:
    """The shards, told which of their rows repeat the `example_id` of an earlier row (in role, file, row order)."""
    ids = np.empty(sum(shard.rows for shard in shards), np.int64)
    start = 0
    for shard in shards:
        ids[start : start + shard.rows] = _ids(folder, shard)
        start += shard.rows
    ids.sort()  # in place: 8 bytes per example in all
    repeated = np.unique(ids[1:][ids[1:] == ids[:-1]])
    if not len(repeated):
        return shards
    first: dict[int, tuple[str, str, int]] = {}
    told = []
    for shard in shards:
        part = _ids(folder, shard)
        positions = np.flatnonzero(np.isin(part, repeated))
        duplicates: dict[int, str] = {}
        if len(positions):  # one file name may stand in two roles: the role is part of where a row is
            table = folder.read_table("stage", "rows", f"{shard.name}.parquet", columns=["source", "row"])
            for position, row in zip(
                positions.tolist(), table.take(pa.array(positions)).to_pylist(), strict=True
            ):
                where = (shard.role, row["source"], row["row"])
                if (before := first.setdefault(int(part[position]), where)) != where:
                    duplicates[position] = f"{before[1]} row {before[2]}"
        told.append(StagedShard(shard.name, shard.role, shard.rows, duplicates))
    return told


def _ids(folder: Folder, shard: StagedShard) -> npt.NDArray[np.int64]:
    table = folder.read_table("stage", "rows", f"{shard.name}.parquet", columns=["example_id"])
    ids: npt.NDArray[np.int64] = table["example_id"].to_numpy()
    return ids


def prepare_noise(folder: Folder, finish: SecondPass, shards: list[StagedShard]) -> None:
    """Write `stage/noise/<shard>.parquet` (example_id, label) for kinds of noise that need all examples at once."""
    noise = finish.job.config.noise
    if noise is None or is_local(noise.kind, noise.exact):
        return
    columns = ["example_id", "label"] + (["text"] if noise.kind in NEEDS_FEATURES else [])
    names, ids_parts, label_parts, texts = [], [], [], []
    for shard in shards:
        if shard.role != "data":
            continue
        chosen = select_rows(finish, shard, columns)
        names.append(shard.name)
        ids_parts.append(chosen.ids[chosen.noisy])
        label_parts.append(chosen.labels[chosen.noisy])
        if noise.kind in NEEDS_FEATURES:
            texts += (
                chosen.table["text"].filter(pa.array(chosen.keep)).filter(pa.array(chosen.noisy)).to_pylist()
            )
    ids, labels = np.concatenate(ids_parts), np.concatenate(label_parts)
    seed = finish.job.seed if noise.seed is None else noise.seed
    classes = len(finish.labels.names)
    features = None
    if noise.kind in NEEDS_FEATURES and len(ids):
        features = text_features(ids, texts, seed)
        if noise.kind == "idn_softmax":
            features = out_of_fold_probabilities(ids, features, labels, classes, seed)
    noisy = corrupt(ids, labels, classes, noise.kind, noise.rate, seed, exact=noise.exact, features=features)
    start = 0
    for name, part in zip(names, ids_parts, strict=True):
        table = pa.table({"example_id": part, "label": noisy[start : start + len(part)]})
        folder.write_table(table, "stage", "noise", f"{name}.parquet")
        start += len(part)
