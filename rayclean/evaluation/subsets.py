"""How right a method's subsets are: the share of wrong labels among its clean, hard and purified examples.

The method never sees these figures. They are computed beside the training, from the columns that it leaves after each
epoch (`train/epochs/`) and the truth, where there is one.
"""

import numpy as np
import numpy.typing as npt

from rayclean.artifacts import Folder
from rayclean.functional.partition import Subset

Labels = npt.NDArray[np.int64]


def subset_noise(load: Folder, epoch: Folder) -> dict[str, float]:
    """Shares of wrong labels after one epoch.

    Args:
        load: the folder of `load`; there may be no truth in it.
        epoch: `train/epochs/epoch-<number>/` of a method with the columns `subset` and `answer`.

    Returns:
        `clean`, `hard`, `purified`: labels trained on that are wrong, of the subset's examples of known truth.
        `answered` and `answers`: the labels trained on, and the annotator's, of those that have an answer (the NoiseAL
        paper's 17.89 % before and 14.54 % after). Names without such an example are left out; {} without truth or
        subsets.
    """
    truth = load.sub("truth")
    if not truth.shards():
        return {}
    columns = _columns(epoch)
    if columns is None:
        return {}
    ids, given, subset, answer = columns
    true = np.full(len(ids), -1, dtype=np.int64)
    for shard in truth.shards():
        table = truth.read_table(shard, columns=["example_id", "true_label"]).drop_null()
        found = table["example_id"].to_numpy()
        where = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        mine = ids[where] == found
        true[where[mine]] = table["true_label"].to_numpy()[mine]
    noise = {}
    for member in (Subset.CLEAN, Subset.HARD, Subset.PURIFIED):
        rows = (true >= 0) & (subset == member)
        if rows.any():
            noise[member.name.lower()] = float((given[rows] != true[rows]).mean())
    rows = (true >= 0) & (answer >= 0)
    if rows.any():
        noise["answered"] = float((given[rows] != true[rows]).mean())
        noise["answers"] = float((answer[rows] != true[rows]).mean())
    return noise


def _columns(epoch: Folder) -> list[Labels] | None:
    """Sorted ids, labels trained on, subsets, answers; None where the method makes no subsets, or has not yet."""
    names = ("example_id", "given_label", "subset", "answer")
    parts: list[list[Labels]] = []
    for shard in epoch.shards():
        table = epoch.read_table(shard)
        if not set(names) <= set(table.column_names):
            return None
        parts.append([table[name].to_numpy().astype(np.int64) for name in names])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return columns if columns and (columns[2] >= 0).any() else None
