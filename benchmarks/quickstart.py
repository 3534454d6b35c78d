"""The quickstart, timed verb by verb, with what it did to the labels.

    python benchmarks/quickstart.py [--repetitions 1] [--peer CHECKOUT] [--small]

`rayclean clean configs/quickstart.toml` in a process of its own, with an empty cache: what a newcomer waits for after the
installation. With `--peer` the checkout of another version runs it, too, in turn with this one, with the same packages. The time
of a verb is that of its manifest; `outside of verbs` is the start of the command and of Ray, and the report. The paragraph of
README about it is made from the result (`readme_paragraph`), and a test compares them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import claim, write_result

HERE = Path(__file__).resolve().parent.parent
VERBS = ("load", "predict", "detect", "relabel", "train", "evaluate")
FIGURES = ("counts", "noise", "harm", "model_alone", "accuracy", "accuracy_difference")
"""Of `metrics.json`, as far as a version writes it."""
SMALL = ["annotator.max_queries=60", "relabel.controls=20"]


def quickstart(checkout: Path, changes: list[str]) -> dict[str, Any]:
    """Run the quickstart of a checkout; its seconds, and its `metrics.json` where this version wrote it."""
    with tempfile.TemporaryDirectory(prefix="rayclean-quickstart-") as folder:
        paths = filter(None, [str(checkout), os.environ.get("PYTHONPATH")])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAYCLEAN_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", "rayclean", "clean", "configs/quickstart.toml"]
        begun = time.monotonic()
        subprocess.run([*command, f"output={folder}", *changes], cwd=checkout, env=environment, check=True)
        total = time.monotonic() - begun
        run = Path(folder) / "quickstart"
        verbs = {verb: json.loads((run / verb / "manifest.json").read_text())["seconds"] for verb in VERBS}
        metrics = json.loads((run / "evaluate" / "metrics.json").read_text())
        relabel = json.loads((run / "relabel" / "manifest.json").read_text())["metrics"]
    seconds = {"total": total, **verbs, "outside of verbs": total - sum(verbs.values())}
    return {
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "questions_per_second": relabel.get("queries_per_second"),
        **{name: metrics.get(name) for name in FIGURES},
    }


def readme_paragraph(figures: dict[str, Any]) -> str:
    """What README says that the quickstart does, on one line."""
    run = figures["runs"]["this version"][0]
    counts, accuracy, difference = run["counts"], run["accuracy"], run["accuracy_difference"]
    means = "a measurable difference" if difference["measurable"] else "no measurable difference"
    return (
        f"Wrong labels {_percent(run['noise']['given'])} → {_percent(run['noise']['final'])}, harm {_percent(run['harm'])} "
        f"({counts['harmed']} of {counts['known'] - counts['wrong_given']:,} right labels made wrong); the model alone would have "
        f"left {_percent(run['model_alone']['noise'])}. Test accuracy {_percent(accuracy['given'])} with the given, "
        f"{_percent(accuracy['cleaned'])} with the cleaned, {_percent(accuracy['true'])} with the true labels: on "
        f"{counts['test']} test examples {means}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    """Run, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--peer", type=Path, help="checkout of another version")
    parser.add_argument("--small", action="store_true", help="sixty questions")
    options = parser.parse_args()
    checkouts = {"this version": HERE} | ({"peer": options.peer.resolve()} if options.peer else {})
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for _ in range(1 if options.small else options.repetitions):
        for name, checkout in checkouts.items():
            runs[name].append(quickstart(checkout, SMALL if options.small else []))
            print(name, runs[name][-1]["seconds"], flush=True)
    medians = {
        name: {part: statistics.median(run["seconds"][part] for run in of) for part in of[0]["seconds"]}
        for name, of in runs.items()
    }
    first, total = runs["this version"][0], medians["this version"]["total"]
    noise, harm = round(first["noise"]["final"], 4), round(first["harm"], 4)
    claims = [
        claim("seconds, cold", goal="<= 300", measured=total, holds=total <= 300),
        claim("noise after", goal="<= 0.029", measured=noise, holds=noise <= 0.029),
        claim("harm", goal="<= 0.013", measured=harm, holds=harm <= 0.013),
    ]
    if options.peer:
        ratio = round(total / medians["peer"]["total"], 3)
        claims.append(claim("seconds beside the peer's", goal="<= 1", measured=ratio, holds=ratio <= 1))
    config = {"repetitions": options.repetitions, "peer": options.peer is not None}
    write_result(__file__, config, 0, {"median_seconds": medians, "runs": runs}, claims, small=options.small)


if __name__ == "__main__":
    main()
