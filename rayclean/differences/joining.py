"""The units of two runs side by side, in flat memory, whatever shards they are in.

Where a shard holds the same examples in both runs, as after loads of the same files, it is joined by itself. The rest is
divided by a hash of the id into parts of about `ROWS` rows, which are written to files under a temporary folder and joined one
after another.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.differences.sides import SIDE, Side
from rayclean.functional.hashing import mix

ROWS = 200_000
"""Examples of each run that are joined at once."""
MOST_PARTS = 200
"""Files that are open at once for each run."""


def side_by_side(a: Side, b: Side, rows: int = ROWS) -> Iterator[pa.Table]:
    """All units of two runs, in tables that hold whole examples.

    Args:
        a: a run.
        b: another one.
        rows: examples that are joined at once.

    Yields:
        The columns of `SIDE`, those of `b` with `_b` behind their names; null where a unit is in one run alone, whose `split`
        is null then.
    """
    in_both = set(a.shards) & set(b.shards)
    count = min(max(-(-max(a.count(), b.count()) // rows), 1), MOST_PARTS)
    with tempfile.TemporaryDirectory(prefix="rayclean-diff-") as folder:
        with ExitStack() as files:
            left, right = (_Parts(Path(folder) / name, count, files) for name in "ab")
            for shard in sorted(in_both):
                one, other = a.read(shard), b.read(shard)
                if _same_examples(one, other):
                    yield _joined(one, other)
                else:
                    left.add(one)
                    right.add(other)
            for side, parts in ((a, left), (b, right)):
                for shard in side.shards:
                    if shard not in in_both:
                        parts.add(side.read(shard))
        for number in range(count):
            yield _joined(left.read(number), right.read(number))


class _Parts:
    """Rows divided by a hash of their example, in files."""

    def __init__(self, folder: Path, count: int, files: ExitStack):
        self.folder, self.count, self.files = folder, count, files
        self.writers: dict[int, Any] = {}
        folder.mkdir()

    def add(self, table: pa.Table) -> None:
        part = mix(table["example_id"].to_numpy(), 0, "diff") % np.uint64(self.count)
        for number in np.unique(part).tolist():
            if number not in self.writers:
                writer = pa.ipc.new_stream(str(self._path(number)), SIDE)
                self.writers[number] = self.files.enter_context(writer)
            self.writers[number].write_table(table.filter(pa.array(part == np.uint64(number))))

    def read(self, number: int) -> pa.Table:
        """The rows of one part; the files are closed by then."""
        if number not in self.writers:
            return SIDE.empty_table()
        with pa.ipc.open_stream(self._path(number).read_bytes()) as stream:
            return stream.read_all()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:03d}.arrows"


def _same_examples(a: pa.Table, b: pa.Table) -> bool:
    one, other = (np.unique(table["example_id"].to_numpy()) for table in (a, b))
    return np.array_equal(one, other)


def _joined(a: pa.Table, b: pa.Table) -> pa.Table:
    return a.join(b, ["example_id", "part"], join_type="full outer", right_suffix="_b")
