"""Where examples came from: by which name a person finds an example in the own data, and the other way round.

`load/origins/` has a row per example, in the shards of `load/examples/` (and of `load/test/`). The texts are not there.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.errors import ConfigError
from rayclean.folder import Folder

ORIGINS_FOLDER = "origins"
ORIGINS = pa.schema(
    [("example_id", pa.int64()), ("key", pa.string()), ("file", pa.string()), ("row", pa.int64())]
)
"""`load/origins/`: the user's key (null without `dataset.id`), the file and the 0-based row in it."""
_COMPARED, _LONGEST = 100, 64
"""Keys of a shard, and characters of a key, by which near keys are looked for."""


@dataclass(frozen=True)
class Origin:
    """Where one example came from."""

    key: str | None
    file: str
    row: int

    def __str__(self) -> str:
        """As people call it.

        >>> str(Origin("T-17", "a.csv", 3)), str(Origin(None, "a.csv", 3))
        ('T-17', 'a.csv:3')
        """
        return f"{self.file}:{self.row}" if self.key is None else self.key


class Origins:
    """The origins of the examples of a run; a run that was made by hand may have none.

    Args:
        load: folder of a finished load.
    """

    def __init__(self, load: Folder):
        self.load = load

    @property
    def keyed(self) -> bool:
        """Whether examples have keys of the user (`dataset.id`)."""
        for shard in self.load.shards(ORIGINS_FOLDER)[:1]:
            keys = self.load.read_table(ORIGINS_FOLDER, shard, columns=["key"])["key"]
            return bool(keys.null_count < len(keys))
        return False

    def shard(self, name: str, ids: pa.Array | pa.ChunkedArray) -> pa.Table:
        """The origins of the examples with these ids, in their order; nulls where they are not known.

        Args:
            name: of the shard that holds the examples.
            ids: [B] of examples, which may repeat.
        """
        if not self.load.exists(ORIGINS_FOLDER, name):
            nulls = [pa.nulls(len(ids), field.type) for field in ORIGINS if field.name != "example_id"]
            return pa.Table.from_arrays([_one(ids), *nulls], schema=ORIGINS)
        table = self.load.read_table(ORIGINS_FOLDER, name)
        return table.take(pc.index_in(_one(ids), value_set=_one(table["example_id"])))

    def of(self, ids: Iterable[int]) -> dict[int, Origin]:
        """The origins of a few examples by id; those that are not known are left out."""
        return {row.pop("example_id"): Origin(**row) for row in self._rows("example_id", ids)}

    def by_key(self, keys: Iterable[str]) -> list[int]:
        """Ids of the examples with these keys, as their column writes them.

        Raises:
            ConfigError: there is no example with one of them.
        """
        wanted = list(keys)
        found = self._rows("key", wanted)
        if missing := sorted(set(wanted) - {row["key"] for row in found}):
            near = self.near_keys(missing[0])
            why = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
            if not self.keyed:
                why = ": the config names no key (dataset.id), so give file and row"
            raise ConfigError(
                f"no example has the key {missing[0]!r}{why} (see {self.load.url(ORIGINS_FOLDER)})"
            )
        return [row["example_id"] for row in found]

    def by_row(self, places: Iterable[tuple[str, int]]) -> list[int]:
        """Ids of the examples that came from some rows, each given by its file and its 0-based row in it.

        Raises:
            ConfigError: no example came from one of these rows.
        """
        wanted = set(places)
        rows = self._rows("file", {file for file, _ in wanted})
        found = defaultdict(list)  # the data set and a development set may have files of the same name
        for row in rows:
            found[row["file"], row["row"]].append(row["example_id"])
        for file, number in sorted(wanted - found.keys()):
            raise ConfigError(
                f"no example came from row {number} of {file!r}: rows count from 0, as the report shows them; files are named as "
                f"in {self.load.url(ORIGINS_FOLDER)}, and unusable rows are in {self.load.url('rejected')}"
            )
        return [example for place in sorted(wanted) for example in found[place]]

    def near_keys(self, key: str) -> list[str]:
        """Up to three keys that somebody may have meant by one that there is not, the most similar first.

        A slip leaves the beginning and the end of a key as they were. Of every shard the `_COMPARED` keys with the longest
        common beginning and end are compared as a whole.
        """
        wanted = key.lower()[:_LONGEST]
        parts = range(1, len(wanted) + 1)
        near: list[str] = []
        for shard in self.load.shards(ORIGINS_FOLDER):
            keys = self.load.read_table(ORIGINS_FOLDER, shard, columns=["key"])["key"].drop_null()
            lower, common = pc.utf8_lower(keys), np.zeros(len(keys), dtype=np.int64)
            for length in parts:
                common += pc.starts_with(lower, wanted[:length]).to_numpy()
                common += pc.ends_with(lower, wanted[-length:]).to_numpy()
            alike = keys.take(pa.array(np.argsort(-common, kind="stable")[:_COMPARED])).to_pylist()
            near = difflib.get_close_matches(key, [*near, *alike], n=3)
        return near

    def _rows(self, column: str, wanted: Iterable[int | str]) -> list[dict[str, Any]]:
        """The rows whose value of a column is one of the wanted ones."""
        tables = self.load.rows_with(ORIGINS_FOLDER, column, wanted)
        return [row for _, table in tables for row in table.to_pylist()]


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
