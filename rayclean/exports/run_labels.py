"""What a run says of the rows of a file, asked for in their order.

A shard of `load/` holds neighbouring rows of the source in their order, so a window of a few shards follows a reader through
a file of any size.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.exports.shard_labels import RunShards, rejected_rows_of, said_schema, valid_rows
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup
from rayclean.origins import ORIGINS_FOLDER
from rayclean.tasks.base import Task

_SHARD = re.compile(r"^(part-\d+-\d+)(-read|-label)?\.parquet$")
_ROW_BITS = 40
"""Bits of a place that are the number of a row; those above are the number of its file."""


def shards_by_piece(load: Folder) -> dict[str, tuple[str, ...]]:
    """The names of all shards of a run by the piece of the source that they hold, in the order of their rows."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in (*load.names(ORIGINS_FOLDER), *load.names("rejected")):
        if match := _SHARD.match(name):
            found[match[1].rpartition("-")[0]].add(match[1])
    return {piece: tuple(sorted(names)) for piece, names in found.items()}


class RowLabels:
    """What a run says of the rows of a piece of its source.

    Args:
        shards: of the piece.
        files: names of its files, in the order in which they are read.
        task: of the run.
    """

    def __init__(self, shards: RunShards, files: Sequence[str], task: Task):
        self.shards, self.task = shards, task
        self.numbers = {file: number for number, file in enumerate(dict.fromkeys(files))}
        self._unread = iter(shards.names)
        self._window: list[tuple[npt.NDArray[np.int64], pa.Table]] = []
        """Places and rows of the shards that are in memory."""

    def of(self, file: str, rows: npt.NDArray[np.int64]) -> pa.Table:
        """The columns of `said_schema` for some rows of a file, null for rows of which nothing is known.

        Args:
            file: its name.
            rows: [B] their numbers, rising, and after those asked for before.
        """
        places = (self.numbers[file] << _ROW_BITS) + rows
        while self._window and self._window[0][0][-1] < places[0]:
            del self._window[0]
        while not self._window or self._window[-1][0][-1] < places[-1]:
            name = next(self._unread, None)
            if name is None:
                break
            found, table = self._read(name)
            if len(found) and found[-1] >= places[0]:
                self._window.append((found, table))
        known = [found for found, _ in self._window] or [np.empty(0, np.int64)]
        position, hit = lookup(np.concatenate(known), places)
        tables = [table for _, table in self._window] or [said_schema(self.task).empty_table()]
        return pa.concat_tables(tables).take(pa.array(position, mask=~hit)).combine_chunks()

    def _read(self, name: str) -> tuple[npt.NDArray[np.int64], pa.Table]:
        """Places and rows of a shard, valid and rejected, in the order of the source."""
        table = pa.concat_tables(
            [valid_rows(self.shards, name, self.task), rejected_rows_of(self.shards, name, self.task)]
        )
        numbers = np.array([self.numbers[file] for file in table["file"].to_pylist()], np.int64)
        places = (numbers << _ROW_BITS) + table["row"].to_numpy()
        order = np.argsort(places, kind="stable")
        return places[order], table.take(pa.array(order))
