"""What a sweep costs beside the work of its trials.

    python benchmarks/sweep_overhead.py [--small]        # BBC News, 60 trials over detect.budget x relabel.accept x 3 seeds

Trials re-run detect and relabel from cached predictions. Compared: the wall time of the sweep's trials (Ray Tune, its
workers, collecting, the report) times the trials that ran side by side, against the sum of the seconds that the trials
themselves measured. The first part, loading and predicting what all trials share, is not part of it: it is the same for
a single trial.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result
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


def run(folder: Path, small: bool) -> dict[str, Any]:
    """One sweep; returns seconds, sum of the trials' own, and how many ran at once."""
    from rayclean.runtime import tune
    from rayclean.sweeps import sweep as module

    base = folder / "base.toml"
    base.write_text(BASE)
    budgets = [0.05, 0.1] if small else [0.02, 0.04, 0.06, 0.08, 0.1]
    accepts = [0.5, 0.8] if small else [0.5, 0.6, 0.7, 0.8]
    spec = Sweep(
        name="overhead",
        base=str(base),
        output=str(folder / "sweeps"),
        seeds=[0] if small else [0, 1, 2],
        space={"relabel.accept": {"grid": accepts}, "detect.budget": {"grid": budgets}},
        tracking={"wandb": "off"},
    )
    clock: dict[str, float] = {}
    plain = tune.run_trials

    def timed(*arguments: Any, **named: Any) -> None:
        clock["concurrent"] = arguments[2].concurrent
        start = time.perf_counter()
        plain(*arguments, **named)
        clock["trials"] = time.perf_counter() - start

    tune.run_trials = timed
    start = time.perf_counter()
    try:
        module.sweep(spec)
    finally:
        tune.run_trials = plain
    clock["sweep"] = time.perf_counter() - start
    results = json.loads((folder / "sweeps" / "overhead" / "results.json").read_text())
    clock["own"] = sum(result["wall_seconds"] for result in results)
    clock["count"] = len(results)
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="four trials")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clock = run(Path(folder), arguments.small)
    busy = clock["own"] / clock["concurrent"]
    per_trial = clock["trials"] / clock["count"]
    figures = {**clock, "busy_share": busy / clock["trials"], "seconds_per_trial": per_trial}
    claims = [
        claim("hundreds of cached trials in minutes: trials per minute", goal=">= 60",
              measured=round(60 / per_trial, 1), holds=60 / per_trial >= 60),
        claim("wall time of the trials / their own work side by side", goal="<= 2",
              measured=round(clock["trials"] / busy, 2), holds=clock["trials"] <= 2 * busy),
    ]  # fmt: skip
    write_result(__file__, {"trials": int(clock["count"])}, 0, figures, claims, arguments.small)


if __name__ == "__main__":
    main()
