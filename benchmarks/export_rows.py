"""Export of up to a million rows: time, the most memory of any process, and what a kill in the middle leaves.

    python benchmarks/export_rows.py                      100,000, 300,000 and 1,000,000 rows -> results/export_rows.json
    python benchmarks/export_rows.py --small              thousands of rows, for the smoke test

A table of five columns (an id, a text of some 20 words, a label of ten classes, a time, a number that is sometimes missing) as
Parquet; of it a run up to relabel with the annotator `posterior`, whose classifier is `bag_of_words`. Then, each in a process of
its own that runs no Ray, exports to a Parquet file, a CSV and a JSON Lines file. Memory that grows with the rows would show in
the ratio of the peaks.

Killed in the middle: an export of the largest table is killed with SIGKILL as soon as half of its parts are written. At its
target there must be nothing; the same command again must write only the parts that are missing, and the file that an
undisturbed export writes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from benchmarks.experts import CLASSES, SEED, texts
from benchmarks.measure import measured_alone, peak_mb

ROWS = (100_000, 300_000, 1_000_000)
FORMATS = ("parquet", "csv", "jsonl")
MOST_GROWTH = 1.25
"""Peak memory at the most rows, relative to that at the fewest."""


def make_run(folder: Path, rows: int) -> None:
    """A table of so many rows, and a finished run of it."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    import rayclean.pipeline
    from rayclean.config import parse_config

    content, labels = texts(rows)
    draw = np.random.default_rng(SEED)
    numbers = draw.random(rows)
    table = {
        "ticket": [f"T-{row}" for row in range(rows)],
        "text": content,
        "label": [f"c{label}" for label in labels],
        "at": pd.date_range("2020-01-01", periods=rows, freq="s"),
        "score": pa.array(numbers, mask=draw.random(rows) < 0.1),
    }
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "data.parquet", row_group_size=50_000, compression="none")
    config = parse_config(
        {
            "name": "run", "output": str(folder), "seed": SEED, "cluster": {"ray": False},
            "dataset": {"path": str(folder / "data.parquet"), "id": "ticket", "text": "text", "label": "label"},
            "encoder": {"name": "bag_of_words"}, "predict": {"folds": 2, "experts": []},
        }
    )  # fmt: skip
    rayclean.pipeline.run_verbs(config, ("load", "predict", "detect", "relabel"))


def export(folder: str, file: str) -> dict[str, Any]:
    """Export the run of a folder to a file beside it."""
    import pyarrow.dataset  # noqa: F401  (what an export would import in the time that is measured)

    import rayclean.exports.export  # noqa: F401
    from rayclean import RunResults

    began, cpu = time.perf_counter(), time.process_time()
    RunResults(f"{folder}/run").export(f"{folder}/{file}")
    return {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}


def killed(folder: Path, whole: str) -> dict[str, Any] | None:
    """Kill an export when half of its parts are written, and go on with it.

    Args:
        folder: of the run.
        whole: the file of an undisturbed export, to compare with.
    """
    from rayclean.datasets.sources import cut_into_pieces, find_sources
    from rayclean.results import RunResults

    pieces = len(cut_into_pieces(find_sources(RunResults(str(folder / "run")).config.dataset)[:1]))
    if pieces < 2:  # a small run: there is no middle
        return None
    command = [sys.executable, __file__, "--task", json.dumps(["export", str(folder), "killed.parquet"])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(_finished(folder)) < pieces / 2 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = _finished(folder)
    there = sorted(path.name for path in folder.iterdir() if path.name.startswith("killed"))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    written_again: set[str] = set()
    while process.poll() is None:
        now = _finished(folder)
        written_again |= {name for name in before.keys() & now.keys() if before[name] != now[name]}
        time.sleep(0.005)
    return {
        "pieces": pieces,
        "finished_before_the_kill": len(before),
        "written_again": len(written_again),
        "at_the_target_after_the_kill": there,
        "same_as_undisturbed": _hash(folder / "killed.parquet") == _hash(folder / whole),
    }


def _finished(folder: Path) -> dict[str, int]:
    """The finished pieces of an export under way -> when they were written."""
    found = {}
    for path in folder.glob("run/.partial/export-*/*.json"):
        with contextlib.suppress(FileNotFoundError):  # the export has just ended
            found[path.name] = path.stat().st_mtime_ns
    return found


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        _, folder, file = options.task
        print(json.dumps(export(folder, file) | {"peak_mb": peak_mb()}))
        return
    sizes = sorted(options.rows or ((2_000, 6_000) if options.small else ROWS))
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        os.environ["RAYCLEAN_CACHE"] = f"{work}/cache"
        for rows in sizes:
            folder = Path(work) / str(rows)
            made = time.perf_counter()
            make_run(folder, rows)
            print(f"{rows} rows: table and run in {time.perf_counter() - made:.0f} s", flush=True)
            for format in FORMATS:
                found = measured_alone(__file__, ["export", str(folder), f"whole.{format}"])
                size = (folder / f"whole.{format}").stat().st_size / 2**20
                figures.append({"rows": rows, "format": format, **found, "file_mb": size})
                print(figures[-1], flush=True)
        kill = killed(folder, "whole.parquet")
    print(kill)
    claims = [
        claim(
            f"{format}: peak memory at {sizes[-1]:,} rows over that at {sizes[0]:,}",
            goal=f"<= {MOST_GROWTH}",
            measured=(growth := round(peak(figures, format, sizes[-1]) / peak(figures, format, sizes[0]), 2)),
            holds=growth <= MOST_GROWTH,
        )
        for format in FORMATS
    ]
    if kill is not None:
        claims.append(
            claim(
                "killed in the middle: files at the target, pieces written again, same file in the end",
                goal="0, 0, yes",
                measured=f"{len(kill['at_the_target_after_the_kill'])}, {kill['written_again']}, "
                + ("yes" if kill["same_as_undisturbed"] else "no"),
                holds=not kill["at_the_target_after_the_kill"]
                and not kill["written_again"]
                and kill["same_as_undisturbed"]
                and 0 < kill["finished_before_the_kill"] < kill["pieces"],
            )
        )
    config = {"rows": sizes, "columns": 5, "classes": CLASSES, "threads": 1}
    write_result(
        __file__,
        config,
        SEED,
        {"exports": figures, "killed": kill},
        claims,
        small=options.small,
        output=options.output,
    )


def peak(figures: list[dict[str, Any]], format: str, rows: int) -> float:
    """Peak memory in MB."""
    return next(
        float(each["peak_mb"]) for each in figures if (each["format"], each["rows"]) == (format, rows)
    )


if __name__ == "__main__":
    main()
