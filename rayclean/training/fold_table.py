"""The table `predict/folds/`: which fold each example belongs to, written once before any network is trained."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.functional.folds import stand_for_copies, stratified_folds
from rayclean.functional.lookup import lookup
from rayclean.functional.types import Bools, Ids
from rayclean.hashing import text_group
from rayclean.schema import FOLDS
from rayclean.training.label_columns import class_of_each

_Rows = tuple[str, Ids, Ids, Ids, npt.NDArray[np.int64]]
_Mapper = Callable[[Callable[[str], _Rows], Iterable[str]], Iterator[_Rows]]


def write_folds(examples: Folder, out: Folder, mapper: _Mapper, seed: int, count: int) -> None:
    """Write the folds of all examples, in shards of the same names; 37 bytes per example are in memory.

    Copies of a text (`hashing.text_group`) share a fold, or all examples of a group where `load` knows some. Where labels are
    one class, each class is spread over all folds, and one example stands for all copies of its text.

    Args:
        examples: folder of example shards, beside which `groups/` lies, if there are any.
        out: folder that is written; whole shards of an earlier attempt are kept.
        mapper: reads the shards.
        seed: seed of the run.
        count: number of folds.
    """
    shards = examples.shards()
    if out.shards() == shards:
        return
    found = sorted(mapper(partial(_read, examples.url()), shards), key=lambda rows: rows[0])
    ids, groups, same, labels = (np.concatenate([rows[column] for rows in found]) for column in (1, 2, 3, 4))
    folds = stratified_folds(ids, groups, labels, seed, count)
    stands = stand_for_copies(ids, same, labels)
    start = 0
    for shard, own, group, copies, _ in found:
        part = slice(start, start + len(own))
        out.write_table(pa.table([own, group, copies, folds[part], stands[part]], schema=FOLDS), shard)
        start += len(own)


@dataclass(frozen=True)
class ExampleFolds:
    """What `predict/folds/` says of some examples, in their order."""

    group: Ids
    """[N] The number that all examples share which must be in one fold."""
    copies: Ids
    """[N] The number that copies of a text share. Whatever learns visits examples in its order, so that it does not depend on
    how often a text occurs, or where."""
    fold: npt.NDArray[np.int16]
    """[N]"""
    stands: Bools
    """[N] Whether an example stands for the copies of its text; models learn from these alone."""


def read_folds(url: str, ids: Ids) -> ExampleFolds:
    """The folds of some examples [N].

    Raises:
        ArtifactError: an example is missing.
    """
    folder = Folder(url)
    table = pa.concat_tables([FOLDS.empty_table(), *(folder.read_table(shard) for shard in folder.shards())])
    table = table.sort_by("example_id")
    position, known = lookup(table["example_id"].to_numpy(), ids)
    if not known.all():
        raise ArtifactError(
            f"{folder.url()} holds {len(table)} examples and lacks {int((~known).sum())} of {len(ids)}: remove it and "
            "run `rayclean predict` again"
        )
    names = ("group", "copies", "fold", "stands")
    return ExampleFolds(*(table[name].to_numpy()[position] for name in names))


def _read(examples: str, shard: str) -> _Rows:
    """Name, ids, groups, groups of copies and classes (-1 where labels are more than one class, or there is none) of a shard."""
    table = Folder(examples).read_table(shard, columns=["example_id", "text", "given_label"])
    copies = np.array([text_group(text) for text in table["text"].to_pylist()], dtype=np.int64)
    ids, groups = table["example_id"].to_numpy(), copies
    load = Folder(examples.rstrip("/").rpartition("/")[0])
    if load.exists("groups", shard):  # examples of separate development files belong to none
        named = load.read_table("groups", shard).sort_by("example_id")
        position, hit = lookup(named["example_id"].to_numpy(), ids)
        groups = np.where(hit, named["group"].to_numpy()[position], copies)
    return shard, ids, groups, copies, class_of_each(table["given_label"])
