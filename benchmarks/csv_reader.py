"""How fast CSV is read with all checks of its records, beside Python's own `csv.reader`, which checks nothing.

    python benchmarks/csv_reader.py [--small] [--data FOLDER]

Three made files: plain texts, texts with a comma in quotes, texts with line breaks in quotes; with `--data` also the file
`imdb/train.parquet` of a folder of data sets, written as CSV. CPU seconds of one process, the median of three readings.
"""

import argparse
import csv
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import claim, write_result
from rayclean.datasets.base import FileSegment, ReadOptions, SourceFile
from rayclean.datasets.csv import Csv

SEED = 0
WORDS, LABELS = [f"word{number}" for number in range(500)], ("spam", "ham", "eggs")
DISTINCT = 20_000
"""Different rows of a made file, which are repeated up to its size."""
READINGS = 3
AT_LEAST = 0.2
"""Speed relative to `csv.reader` that each file must reach."""
KINDS: dict[str, Callable[[list[str]], str]] = {
    "plain": " ".join,
    "quoted": lambda words: f"{' '.join(words[:6])}, {' '.join(words[6:])}",
    "line breaks": lambda words: "\n".join([" ".join(words[:6]), " ".join(words[6:])]),
}


def write(path: Path, rows: Iterable[tuple[str, str]], times: int = 1) -> None:
    """A CSV of texts and labels, its rows several times."""
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        for _ in range(times):
            writer.writerows(rows)


def made(kind: str) -> list[tuple[str, str]]:
    """Rows of random words."""
    draw = random.Random(SEED)
    return [(KINDS[kind](draw.choices(WORDS, k=12)), draw.choice(LABELS)) for _ in range(DISTINCT)]


def read(path: Path) -> int:
    """Read with all checks; returns the number of rows."""
    reader = Csv(options=ReadOptions(columns=("text", "label"), labels=("label",)))
    segment = FileSegment(SourceFile(str(path), path.name, path.stat().st_size))
    ((row, _),) = deque(reader.rows(segment, ["text", "label"]), maxlen=1)
    return row + 1


def read_unchecked(path: Path) -> int:
    """Read with Python's reader; returns the number of rows."""
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="") as file:
        return sum(1 for _ in csv.reader(file)) - 1


def timed(function: Callable[[Path], int], path: Path) -> tuple[float, int]:
    """Median of the CPU seconds of some readings, and the number of rows."""
    seconds, rows = [], 0
    for _ in range(READINGS):
        start = time.process_time()
        rows = function(path)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="2 MB instead of 100 MB")
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rayclean-csv-") as folder:
        files = {}
        for kind in KINDS:
            files[kind] = Path(folder, f"{kind}.csv")
            write(files[kind], made(kind), 1 if arguments.small else 50)
        if arguments.data:
            table = pq.read_table(arguments.data / "imdb" / "train.parquet")
            rows = zip(table["text"].to_pylist(), map(str, table["label"].to_pylist()), strict=True)
            files["imdb"] = Path(folder, "imdb.csv")
            write(files["imdb"], rows)
        for kind, path in files.items():
            (checked, rows_read), (unchecked, rows_there) = timed(read, path), timed(read_unchecked, path)
            assert rows_read == rows_there, kind
            megabytes = path.stat().st_size / 1e6
            figures[kind] = {
                "megabytes": round(megabytes, 1),
                "rows": rows_read,
                "megabytes_per_second": round(megabytes / checked, 1),
                "csv_reader_megabytes_per_second": round(megabytes / unchecked, 1),
                "relative_speed": round(unchecked / checked, 3),
            }
    claims = [
        claim(
            f"{kind}: speed with all checks relative to csv.reader",
            goal=f">= {AT_LEAST}",
            measured=each["relative_speed"],
            holds=each["relative_speed"] >= AT_LEAST,
        )
        for kind, each in figures.items()
    ]
    config = {"words": 12, "distinct_rows": DISTINCT, "readings": READINGS, "data": bool(arguments.data)}
    write_result(__file__, config, SEED, figures, claims, arguments.small, arguments.output)


if __name__ == "__main__":
    main()
