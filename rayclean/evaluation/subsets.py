"""The noise of a method's subsets: the share of wrong labels among its clean, hard and purified examples.

`evaluate` computes these figures from the columns that a training leaves after each epoch (`train/epochs/`) and the
truth, where there is one. Some parts and counts are in memory at once, whatever the number of examples.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.evaluation.counts import UNKNOWN
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup, lookup_values
from rayclean.functional.partition import Subset

_Labels = npt.NDArray[np.int64]
EpochColumns = Mapping[str, npt.NDArray[Any]]

SUBSETS = {member.name.lower(): member for member in (Subset.CLEAN, Subset.HARD, Subset.PURIFIED)}
PARTS = 16
"""Parts of an epoch whose truth is looked up at once: the more, the less often the truth is read."""


def joined_subsets(
    load: Folder, epochs: Sequence[Folder]
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]], _Labels]]:
    """All parts of some epochs of one training, with the truth.

    Args:
        load: the folder of `load`; there may be no truth in it.
        epochs: folders of the same examples in the same parts, as the training loop writes them.

    Yields:
        The position of the epoch in `epochs`, the columns [B] of a part, and its true labels [B], `UNKNOWN` where they
        are not known.
    """
    shards = [epoch.shards() for epoch in epochs]
    names = sorted(set().union(*shards))
    for start in range(0, len(names), PARTS):
        block = names[start : start + PARTS]
        ids = [_first_with(name, epochs, shards).read_table(name, columns=["example_id"]) for name in block]
        parts = [table["example_id"].to_numpy() for table in ids]
        edges = np.cumsum([len(part) for part in parts])[:-1]
        true = np.split(_true_labels(load, np.concatenate(parts)), edges)
        for place, (epoch, epoch_shards) in enumerate(zip(epochs, shards, strict=True)):
            for name, part, known in zip(block, parts, true, strict=True):
                if name in epoch_shards:
                    table = epoch.read_table(name)
                    columns = {column: table[column].to_numpy() for column in table.column_names}
                    yield place, columns, lookup_values(part, known, columns["example_id"])


def count_subsets(columns: EpochColumns, true: _Labels) -> Counter[str]:
    """Counts of some rows, to be added up for `subset_shares`.

    Args:
        columns: of `joined_subsets`.
        true: [B] true labels.

    Returns:
        `<subset>`: its examples, `<subset>_known`: those of known truth, `<subset>_wrong`: those of a wrong label;
        likewise `answered`, the examples with an answer, and `answers_wrong`, the wrong ones among the answers;
        `purified_after_wrong`: purified examples that are wrong once answers have replaced labels. Empty where the method
        makes no subsets.
    """
    if not _has_subsets(columns):
        return Counter()
    known = true != UNKNOWN
    wrong = known & (columns["given_label"] != true)
    members = {name: columns["subset"] == subset for name, subset in SUBSETS.items()}
    members["answered"] = columns["answer"] >= 0
    counts = Counter[str]()
    after = np.where(members["answered"], columns["answer"], columns["given_label"])
    counts["answers_wrong"] = int((known & members["answered"] & (after != true)).sum())
    counts["purified_after_wrong"] = int((known & members["purified"] & (after != true)).sum())
    for name, rows in members.items():
        counts[name] = int(rows.sum())
        counts[f"{name}_known"] = int((rows & known).sum())
        counts[f"{name}_wrong"] = int((rows & wrong).sum())
    return counts


def subset_shares(counts: Counter[str]) -> dict[str, float]:
    """Shares of wrong labels after one epoch, from the sum of the counts of its parts.

    Returns:
        `clean`, `hard`, `purified`: labels trained on that are wrong, of the subset's examples of known truth.
        `purified_after`: of the purified examples again, with the annotator's answers in the place of their labels where
        there are any (the NoiseAL paper's 17.89 % before and 14.54 % after). `answered` and `answers`: the labels trained
        on, and the annotator's, of all examples that have an answer, in whatever subset they are now. Names without such
        an example are left out; {} without truth or subsets.
    """
    if not any(counts[name] for name in SUBSETS):  # not split yet
        return {}
    found = {
        name: counts[f"{name}_wrong"] / counts[f"{name}_known"]
        for name in (*SUBSETS, "answered")
        if counts[f"{name}_known"]
    }
    if "purified" in found:
        found["purified_after"] = counts["purified_after_wrong"] / counts["purified_known"]
    if "answered" in found:
        found["answers"] = counts["answers_wrong"] / counts["answered_known"]
    return found


def _has_subsets(names: Any) -> bool:
    return {"subset", "answer"} <= set(names)


def _first_with(name: str, epochs: Sequence[Folder], shards: Sequence[Sequence[str]]) -> Folder:
    return next(epoch for epoch, names in zip(epochs, shards, strict=True) if name in names)


def _true_labels(load: Folder, ids: _Labels) -> _Labels:
    """The true label of each id [N], in one pass over the truth, a shard in memory at a time."""
    true = np.full(len(ids), UNKNOWN, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    truth = load.sub("truth")
    for shard in truth.shards() if len(ids) else []:
        table = truth.read_table(shard, columns=["example_id", "true_label"]).drop_null()
        found = table["example_id"].to_numpy()
        place, mine = lookup(ordered, found)
        true[order[place[mine]]] = table["true_label"].to_numpy()[mine]
    return true
