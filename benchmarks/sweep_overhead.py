"""What a sweep from cached predictions costs beside the work of its trials.

    python benchmarks/sweep_overhead.py [--small] [--output FILE]

60 trials on BBC News: detect.budget x relabel.accept x 3 seeds. `load` and `predict`, which every sweep and every single
trial needs as well, are run beforehand and are in no figure. Then the clock runs over the whole command's work, from the
sweep file's plan to the written report: Ray is started and stopped, what trials share is run by 15 detects, every trial
relabels and measures, results are collected, the page is written. A second sweep, the same in another folder, runs where
Ray is already up, as on a cluster.

Compared with it is the work itself: the seconds that the trials measured, each in its worker from its first verb to its
result, and those that the shared detects measured. Both are taken while others run beside them, so a machine that is
slower under load is no overhead of the sweep. What is left is: starting Ray and its workers, planning, handing trials out,
reading their news, the report, and cores that had nothing to do.

With --small: four trials, a bag of words after one epoch instead of MiniLM.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
from rayclean.config import ClusterConfig
from rayclean.runtime.cluster import connected
from rayclean.sweeps.plan import Work
from rayclean.sweeps.spec import Sweep

BASE = """
name = "base"
[dataset]
path = "bbc_news"
test = { share = 0.2 }
noise = { kind = "sym", rate = 0.2 }
[encoder]
name = "transformer"
model = "minilm"
trainable = "head"
[predict]
folds = 2
[annotator]
name = "knn"
"""
SMALL = {"encoder": {"name": "bag_of_words"}, "predict.mode": "in_sample", "predict.training.epochs": 1}
BEFORE = ("load", "predict")
"""Verbs that are in no figure."""


def spec(folder: Path, small: bool) -> Sweep:
    folder.mkdir()
    base = folder / "base.toml"
    base.write_text(BASE)
    return Sweep(
        name="overhead",
        base=str(base),
        output=str(folder / "sweeps"),
        set=SMALL if small else {},
        seeds=[0] if small else [0, 1, 2],
        space={
            "relabel.accept": {"grid": [0.5, 0.8] if small else [0.5, 0.6, 0.7, 0.8]},
            "detect.budget": {"grid": [0.05, 0.1] if small else [0.02, 0.04, 0.06, 0.08, 0.1]},
        },
        tracking={"wandb": "off"},
    )


def prepare(works: list[Work], url: str) -> None:
    """Load and predict, once for each seed."""
    from rayclean import pipeline

    with connected(works[0].config.cluster):
        for work in {work.fingerprints["predict"]: work for work in works}.values():
            pipeline.run_verbs(work.config, BEFORE, run=work.run)


def run(of: Sweep) -> dict[str, Any]:
    """Seconds of the sweep, of its trials and of what they share."""
    from rayclean.folder import Folder
    from rayclean.runtime.threads import physical_threads
    from rayclean.sweeps import trial
    from rayclean.sweeps.plan import SharedWork, make_plan, sweep_root
    from rayclean.sweeps.sweep import run_sweep

    plan, url = make_plan(of), sweep_root(of)
    prepare([*plan.work.values()], url)
    shared = [item for level in SharedWork(plan.verbs, plan.work).levels() for item in level]
    began = time.time()
    start = time.perf_counter()
    found = run_sweep(of)
    wall = time.perf_counter() - start
    results = trial.trial_files(Folder(url), trial.RESULT).values()
    assert not found.failed
    assert len(results) == len(plan.work)
    manifests = [work.run.manifest(verb) for verb, work in shared]
    return {
        "trials": len(results),
        "cores": physical_threads(),
        "sweep_seconds": wall,
        "trials_seconds": sum(result["wall_seconds"] for result in results),
        "shared": [verb for verb, _ in shared],
        "shared_seconds": sum(manifest.seconds for manifest in manifests if manifest is not None),
        "seconds_until_the_first_trial": min(result["began"] for result in results) - began,
        "seconds_of_each_trial": [result["wall_seconds"] for result in results],
    }


def with_ratios(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of a sweep, with its work, its speed and the share of the cores' time that was work."""
    work = figures["trials_seconds"] + figures["shared_seconds"]
    return figures | {
        "work_seconds": work,
        "trials_per_minute": 60 * figures["trials"] / figures["sweep_seconds"],
        "share_of_the_cores_at_work": work / (figures["cores"] * figures["sweep_seconds"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="four trials")
    parser.add_argument("--output", help="file of the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        of, again = (spec(Path(folder) / name, arguments.small) for name in ("ray_starts", "ray_is_up"))
        figures = with_ratios(run(of))
        with connected(ClusterConfig()):
            figures["ray_is_up"] = with_ratios(run(again))
    for name, each in (("Ray starts", figures), ("Ray is up", figures["ray_is_up"])):
        print(
            f"{name}: {each['trials']} trials in {each['sweep_seconds']:.1f} s, {each['trials_per_minute']:.1f} a "
            f"minute; the work itself: {each['work_seconds']:.1f} s on {each['cores']} cores, "
            f"wall / (work / cores) = {1 / each['share_of_the_cores_at_work']:.2f}"
        )
    per_minute, busy = figures["trials_per_minute"], figures["ray_is_up"]["share_of_the_cores_at_work"]
    claims = [
        claim("hundreds of cached trials in minutes: trials per minute", goal=">= 60",
              measured=round(per_minute, 1), holds=per_minute >= 60),
        claim("wall time of the sweep / its work shared by the cores, where Ray is already up", goal="<= 2",
              measured=round(1 / busy, 2), holds=busy >= 0.5),
    ]  # fmt: skip
    said = of.model_dump(mode="json", include={"space", "set"}, exclude_none=True)
    config = {"base": BASE, **said, "before": list(BEFORE)}
    write_result(__file__, config, list(of.seeds), figures, claims, arguments.small, arguments.output)


if __name__ == "__main__":
    main()
