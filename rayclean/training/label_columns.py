"""Reading the columns of labels that jobs train on, a shard at a time."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.schema import SPLIT_DEV, SPLIT_TRAIN
from rayclean.training.inputs import Rows


def known_labels(labels: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether each label is known [N]."""
    return np.asarray(labels.is_valid())


def largest_label(labels: pa.Array) -> int:
    """The largest index in labels of any form; -1 where there is none."""
    found = pc.max(labels.flatten() if pa.types.is_list(labels.type) else labels).as_py()
    return -1 if found is None else int(found)


def class_of_each(labels: pa.Array) -> Rows:
    """The class [N] of each label; -1 where it is not known, or labels are more than one class."""
    if pa.types.is_list(labels.type):
        return np.full(len(labels), -1, dtype=np.int64)
    return np.asarray(labels.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)


def shards_with(url: str, needed: list[str]) -> Iterator[pa.Table]:
    """The tables of a folder, which have some columns, one at a time."""
    folder = Folder(url)
    shards = folder.shards()
    if not shards:
        raise ArtifactError(f"{folder.url()} holds no shards: run the verb that writes it first")
    for shard in shards:
        table = folder.read_table(shard)
        if missing := set(needed) - set(table.column_names):
            raise ArtifactError(
                f"{folder.url(shard)} lacks {sorted(missing)}, found {table.column_names}: run its verb again"
            )
        yield table


def read_label_column(url: str, label_column: str) -> tuple[Rows, pa.Array, npt.NDArray[np.bool_]]:
    """Ids sorted, labels (null where not known) and whether the split is dev; a shard at a time."""
    ids, labels, dev = [], [], []
    for table in shards_with(url, ["example_id", label_column]):
        ids.append(table["example_id"].to_numpy())
        column = table[label_column].combine_chunks()
        labels.append(column if pa.types.is_list(column.type) else column.cast(pa.int64()))
        split = (
            table["split"].to_numpy(zero_copy_only=False) if "split" in table.column_names else SPLIT_TRAIN
        )
        dev.append(np.broadcast_to(np.asarray(split == SPLIT_DEV, dtype=np.bool_), len(ids[-1])))
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    return every[order], pa.concat_arrays(labels).take(pa.array(order)), np.concatenate(dev)[order]
