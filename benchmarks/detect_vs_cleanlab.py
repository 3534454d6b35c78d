"""Confident learning: rayclean's streaming version beside cleanlab's `find_label_issues` on the same arrays.

    python benchmarks/detect_vs_cleanlab.py            the whole comparison (minutes) -> results/detect_vs_cleanlab.json
    python benchmarks/detect_vs_cleanlab.py --small    seconds, for the smoke test

Every measured call runs in a process of its own. CPU seconds and wall time cover reading the arrays, all passes
and the mask, not imports and not the start of Ray; peak memory is that of the process from its start. Both sides
read the same .npy files. Data: class priors that fall off, 13 % wrong labels of which half go to the class that
resembles the true one, and probabilities of a model that is right on about nine examples of ten.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import claim, write_result
from measure import Tree, peak_mb
from synthetic import NOISE, SEED, ArrayShard, generate

RULES = ("prune_by_noise_rate", "prune_by_class", "confident_learning")


def write_mask(shard: ArrayShard, path: str, detector: Any, state: Any) -> int:
    """Write the shard's part of the mask where it belongs, as the verb's workers write their own shards."""
    mask = detector.mask(shard.read(), state)
    with open(path, "r+b") as file:
        file.seek(shard.start)
        file.write(mask.tobytes())
    return len(mask)


def in_process(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    return map(function, items)


def measure_ours(task: dict[str, Any]) -> dict[str, Any]:
    from rayclean.detectors.confident_learning import ConfidentLearning

    rows, size = task["rows"], task["shard"]
    shards = [ArrayShard(task["folder"], at, min(at + size, rows)) for at in range(0, rows, size)]
    if task["shuffle"]:
        np.random.default_rng(SEED).shuffle(shards)  # type: ignore[arg-type]
    detector = ConfidentLearning(ConfidentLearning.Config(rule=task["rule"]), task["classes"])
    with open(task["mask"], "wb") as file:
        file.truncate(rows)
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        mapper: Any = in_process
        if task["tasks"]:
            from rayclean.config import ClusterConfig
            from rayclean.runtime.cluster import connected
            from rayclean.runtime.ray_data import map_items

            stack.enter_context(connected(ClusterConfig(cpus=4)))
            mapper = partial(map_items, num_cpus=4 / task["tasks"])  # so many at a time
            list(mapper(warm_up, range(2 * task["tasks"])))
        tree = Tree()
        cpu, began = tree.look(), time.perf_counter()

        def watched(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            for found in mapper(function, items):
                if task["tasks"]:
                    tree.look()
                yield found

        state = detector.fit(shards, watched)
        write = partial(write_mask, path=task["mask"], detector=detector, state=state)
        assert sum(watched(write, shards)) == rows
        result |= {"cpu_s": round(tree.look() - cpu, 2), "wall_s": round(time.perf_counter() - began, 2)}
        result |= {"worker_peak_mb": round(tree.worker_mb, 1)} if task["tasks"] else {}
    return result | {
        "driver_peak_mb": peak_mb(),
        "estimated_noise_rate": detector.metrics(state)["estimated_noise_rate"],
    }


def warm_up(item: int) -> int:
    import rayclean.detectors.confident_learning  # noqa: F401  workers import it once, as they would in a run

    return item


def measure_cleanlab(task: dict[str, Any]) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    from cleanlab.filter import find_label_issues

    cpu, began = time.process_time(), time.perf_counter()
    labels = np.array(np.load(Path(task["folder"]) / "labels.npy", mmap_mode="r")[: task["rows"]])
    shard = ArrayShard(task["folder"], 0, task["rows"])
    mask = find_label_issues(labels, shard.read().probabilities, filter_by=task["rule"], n_jobs=1)
    result = {"cpu_s": round(time.process_time() - cpu, 2), "wall_s": round(time.perf_counter() - began, 2)}
    mask.tofile(task["mask"])
    return result | {"driver_peak_mb": peak_mb()}


def child(kind: str, task: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--task", json.dumps({"kind": kind, **task})]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {
        "who": kind,
        **{k: task[k] for k in ("rows", "classes", "rule", "shard", "tasks", "shuffle") if k in task},
    } | result


def compare(
    folder: Path, rows: int, classes: int, rules: tuple[str, ...], layouts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Mask, time and memory of cleanlab once and of rayclean in every layout, for each rule."""
    found = []
    wrong = np.load(folder / "wrong.npy", mmap_mode="r")[:rows]
    for rule in rules:
        task = {"folder": str(folder), "rows": rows, "classes": classes, "rule": rule}
        row = child("cleanlab", task | {"mask": str(folder / "theirs.mask")})
        theirs = np.fromfile(folder / "theirs.mask", dtype=np.bool_)
        row |= {"flagged": int(theirs.sum())} | quality(theirs, wrong)
        found.append(row)
        first = None
        for layout in layouts:
            row = child("rayclean", task | layout | {"mask": str(folder / "ours.mask")})
            ours = np.fromfile(folder / "ours.mask", dtype=np.bool_)
            first = ours if first is None else first
            row |= {"flagged": int(ours.sum()), "differs_from_cleanlab": int((ours != theirs).sum())}
            row |= {"differs_from_first_layout": int((ours != first).sum())} | quality(ours, wrong)
            found.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    return found


def quality(mask: Any, wrong: Any) -> dict[str, float]:
    hits = int((mask & wrong).sum())
    return {
        "precision": round(hits / max(1, int(mask.sum())), 4),
        "recall": round(hits / max(1, int(wrong.sum())), 4),
    }


def layout(shard: int, tasks: int = 0, shuffle: bool = False) -> dict[str, Any]:
    return {"shard": shard, "tasks": tasks, "shuffle": shuffle}


def claims_of(figures: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = [row for name in figures for row in figures[name]]
    ours = [row for row in rows if row["who"] == "rayclean"]
    theirs = {(r["rows"], r["classes"], r["rule"]): r for r in rows if r["who"] == "cleanlab"}
    versus = [
        (r, theirs[r["rows"], r["classes"], r["rule"]])
        for r in ours
        if (r["rows"], r["classes"], r["rule"]) in theirs
    ]
    share = max(r["differs_from_cleanlab"] / r["rows"] for r, _ in versus)
    drift = max(r["differs_from_first_layout"] for r in ours if "differs_from_first_layout" in r)
    plain = [(r, c) for r, c in versus if not r["tasks"]]
    spread = [(r, c) for r, c in versus if r["tasks"]]
    cpu = max(r["cpu_s"] / max(c["cpu_s"], 0.01) for r, c in plain)
    most = max(r["rows"] for r, _ in spread)
    ray_cpu = max(r["cpu_s"] / max(c["cpu_s"], 0.01) for r, c in spread if r["rows"] == most)
    memory = max(r["driver_peak_mb"] / c["driver_peak_mb"] for r, c in plain)
    result = [
        claim("the mask is cleanlab's, for every rule and size", goal="<= 1e-5 of rows differ", measured=share, holds=share <= 1e-5),
        claim("the mask is the same for every shard size, order and number of tasks", goal="0 rows differ", measured=drift, holds=drift == 0),
        claim("CPU time in process, over cleanlab's (worst)", goal="<= 1.5", measured=round(cpu, 2), holds=cpu <= 1.5),
        claim(f"CPU time of driver, workers and Ray itself at {most:,} rows, over cleanlab's (worst)", goal="<= 1.5", measured=round(ray_cpu, 2), holds=ray_cpu <= 1.5),
        claim("peak memory in process, over cleanlab's (worst)", goal="<= 1", measured=round(memory, 2), holds=memory <= 1),
    ]  # fmt: skip
    for tasks, name in ((0, "in process"), (2, "of the driver under Ray")):
        peaks = {r["rows"]: r["driver_peak_mb"] for r in figures["growth"] if r["tasks"] == tasks}
        low, high = peaks[min(peaks)], peaks[max(peaks)]
        text = f"peak memory {name} does not grow from {min(peaks):,} to {max(peaks):,} rows"
        result.append(
            claim(text, goal="<= 1.1 times", measured=round(high / low, 3), holds=high <= 1.1 * low)
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output")
    parser.add_argument("--folder", help="where the synthetic arrays go (default: a temporary folder)")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task = json.loads(options.task)
        print(json.dumps((measure_cleanlab if task["kind"] == "cleanlab" else measure_ours)(task)))
        return
    unit = 20_000 if options.small else 1_000_000
    shard = 2_500 if options.small else 100_000
    config = {"rows": unit, "shard": shard, "noise": NOISE, "rules": RULES}
    figures: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        many, few, wide = (Path(name) / part for part in ("many", "few", "wide"))
        generate(few, unit, 20)
        generate(many, 10 * unit, 10)
        generate(wide, unit // 10, 100 if options.small else 1000)
        plain = [layout(shard), layout(shard // 3, shuffle=True)]
        again = plain[1:] if options.small else plain
        ray = [layout(shard, tasks=2)] if options.small else [layout(shard, tasks=1), layout(shard, tasks=2)]
        figures["20_classes"] = compare(few, unit, 20, RULES[:1], plain + ray) + compare(
            few, unit, 20, RULES[1:], again
        )
        if not options.small:
            figures["10_classes"] = compare(many, 5 * unit, 10, RULES[:1], plain + ray) + compare(
                many, 5 * unit, 10, RULES[1:], plain
            )
        wide_classes = 100 if options.small else 1000
        figures["many_classes"] = compare(
            wide,
            unit // 10,
            wide_classes,
            RULES[:1],
            [layout(shard // 10), layout(shard // 30, shuffle=True)],
        )
        figures["growth"] = [
            child("rayclean", {"folder": str(many), "rows": rows, "classes": 10, "rule": RULES[0], "mask": str(many / "ours.mask"), **layout(shard, tasks)})
            for tasks in (0, 2) for rows in ((unit, 10 * unit) if options.small or tasks else (unit, 3 * unit, 10 * unit))
        ]  # fmt: skip
    write_result(__file__, config, SEED, figures, claims_of(figures), options.small, options.output)


if __name__ == "__main__":
    main()
