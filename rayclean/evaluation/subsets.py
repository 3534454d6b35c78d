"""The noise of a method's subsets: the share of wrong labels in each of them, and among an annotator's answers.

`evaluate` computes these figures from the columns that a training leaves after each epoch (`train/epochs/`)
and the truth, where there is one. Some parts and counts are in memory at once, whatever the number of
examples.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.evaluation.counts import UNKNOWN
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup, lookup_values
from rayclean.measures import Measures

_Labels = npt.NDArray[np.int64]
EpochColumns = Mapping[str, npt.NDArray[Any]]

PARTS = 16
"""Parts of an epoch whose truth is looked up at once: the more, the less often the truth is read."""


def joined_subsets(
    load: Folder | None, epochs: Sequence[Folder], wanted: Sequence[str]
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]], _Labels]]:
    """All parts of some epochs of one training, with the truth.

    Args:
        load: the folder of `load`; there may be no truth in it. None: labels are not one class of each example,
            so that the columns hold none, and the truth is not looked up.
        epochs: folders of the same examples in the same parts, as the training loop writes them.
        wanted: columns that are read beside `example_id` and `given_label`.

    Yields:
        The position of the epoch in `epochs`, the columns [B] of a part, and its true labels [B], `UNKNOWN`
        where they are not known.
    """
    shards = [epoch.shards() for epoch in epochs]
    names = sorted(set().union(*shards))
    labels = [] if load is None else ["given_label"]
    names_read = list(dict.fromkeys(["example_id", *labels, *wanted]))
    for start in range(0, len(names), PARTS):
        block = names[start : start + PARTS]
        ids = [_first_with(name, epochs, shards).read_table(name, columns=["example_id"]) for name in block]
        parts = [table["example_id"].to_numpy() for table in ids]
        edges = np.cumsum([len(part) for part in parts])[:-1]
        true = np.split(_true_labels(load, np.concatenate(parts)), edges)
        for place, (epoch, epoch_shards) in enumerate(zip(epochs, shards, strict=True)):
            for name, part, known in zip(block, parts, true, strict=True):
                if name in epoch_shards:
                    table = epoch.read_table(name, columns=names_read)
                    columns = {column: table[column].to_numpy() for column in names_read}
                    if load is None:
                        columns["given_label"] = np.full(len(table), UNKNOWN, dtype=np.int64)
                    yield place, columns, lookup_values(part, known, columns["example_id"])


def count_subsets(columns: EpochColumns, true: _Labels, measures: Measures) -> Counter[str]:
    """Counts of some rows, to be added up for `subset_figures`.

    Args:
        columns: of `joined_subsets`.
        true: [B] true labels.
        measures: the columns of subsets and answers.

    Returns:
        `<subset>`: its examples, `<subset>_known`: those of known truth, `<subset>_wrong`: those of a wrong
        label; likewise `answered`, the examples with an answer, and `answers_wrong`, the wrong ones among the
        answers; `<subset>_after_wrong`: those that are wrong once answers have replaced labels. Empty where
        the method has neither subsets nor answers.
    """
    known, given = true != UNKNOWN, columns["given_label"]
    members: dict[str, npt.NDArray[np.bool_]] = {}
    counts = Counter[str]()
    if measures.subsets is not None:
        subset = columns[measures.subsets.column]
        members = {name: subset == value for name, value in measures.subsets.values.items()}
    if measures.answers is not None:
        answer = columns[measures.answers.column]
        members["answered"] = answer >= 0
        wrong_after = known & (np.where(members["answered"], answer, given) != true)
        counts["answers_wrong"] = int((members["answered"] & wrong_after).sum())
        for name in measures.answers.replace:
            counts[f"{name}_after_wrong"] = int((members[name] & wrong_after).sum())
    for name, rows in members.items():
        counts[name] = int(rows.sum())
        counts[f"{name}_known"] = int((rows & known).sum())
        counts[f"{name}_wrong"] = int((rows & known & (given != true)).sum())
    return counts


def subset_figures(counts: Counter[str], measures: Measures) -> dict[str, float | None]:
    """Sizes of subsets and shares of wrong labels after one epoch, from the sum of the counts of its parts.

    Args:
        counts: the sum of those of `count_subsets`.
        measures: the same as there.

    Returns:
        `<subset>`: its examples; `<subset>_wrong`: labels trained on that are wrong, of the subset's examples
        of known truth; `<subset>_after_wrong`, where answers replace labels: the same once more, with the
        annotator's answers in the place of labels where there are any. `answered`, `answered_wrong` and
        `answers_wrong`, where the method keeps answers: the examples with an answer, in whatever subset they
        are now, and the wrong ones among their labels, and among the answers. None before the first split,
        and for a share of no examples.
    """
    subsets = tuple(measures.subsets.values) if measures.subsets is not None else ()
    split = not subsets or any(counts[name] for name in subsets)

    def share(wrong: str, of: str) -> float | None:
        known = counts[f"{of}_known"]
        return counts[f"{wrong}_wrong"] / known if split and known else None

    shares = {name: name for name in subsets}
    if measures.answers is not None:
        shares |= {f"{name}_after": name for name in measures.answers.replace}
        shares |= {"answered": "answered", "answers": "answered"}
    sizes = (*subsets, *(("answered",) if measures.answers is not None else ()))
    return {
        **{name: counts[name] if split else None for name in sizes},
        **{f"{wrong}_wrong": share(wrong, of) for wrong, of in shares.items()},
    }


def _first_with(name: str, epochs: Sequence[Folder], shards: Sequence[Sequence[str]]) -> Folder:
    return next(epoch for epoch, names in zip(epochs, shards, strict=True) if name in names)


def _true_labels(load: Folder | None, ids: _Labels) -> _Labels:
    """The true label of each id [N], in one pass over the truth, a shard in memory at a time."""
    true = np.full(len(ids), UNKNOWN, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    truth = None if load is None else load.sub("truth")
    for shard in truth.shards() if truth is not None and len(ids) else []:
        assert truth is not None
        table = truth.read_table(shard, columns=["example_id", "true_label"]).drop_null()
        found = table["example_id"].to_numpy()
        place, mine = lookup(ordered, found)
        true[order[place[mine]]] = table["true_label"].to_numpy()[mine]
    return true
