"""Experiments on robust training: the claims of the papers, at a scale that a small machine can repeat.

    python benchmarks/experiments.py --data FOLDER [--only E5 ...] [--seeds 3]     # FOLDER/<set>/{train,test}.parquet
    python benchmarks/experiments.py --small                                       # BBC News, one seed, a minute

Every file in `benchmarks/experiments/` is an experiment: sets with their noise, arms (methods with options and whom they
may ask), and claims of the form "this measure is greater in that arm". An arm that several experiments share is trained
once, and a run in the work folder is taken as long as the package's sources are those that it was trained with; every
run says at which commit that was. A claim is *reproduced* if the mean difference has the expected sign and at least two
thirds of the pairs (set, seed) agree; nothing is tuned until it is.

A claim of the form "this difference grows along that measure" has a pair for every two sets of a seed.

Scale: the strong network is a two-layer perceptron on frozen MiniLM features, the weak one a BiLSTM from scratch, as
written in each file, which may name `arms` of its own for a set. Noise is injected into training labels alone; development labels are those of the data set, right
where noise is injected and as noisy as the rest elsewhere; test accuracy is never used to select. Truth is opened by
this script, after training, and by the simulated annotator.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import RESULTS, claim, commit, sources, write_result
from benchmarks.experiment_measures import measure, table_of
from benchmarks.experiment_tables import RunOf, arms_of, judge, markdown, runs_of, seeds_of, summary

HERE = Path(__file__).parent / "experiments"
NOT_IDENTITY = ("endpoint", "commit")
"""Parts of a task on which its result does not depend."""
WORK = Path(os.environ.get("RAYCLEAN_EXPERIMENTS", "runs/experiments"))
SETS: dict[str, dict[str, Any]] = {
    "trec6": {"label": "label", "labels": ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]},
    "trec_weak": {"label": "noisy_label", "truth": "label", "labels": ["DESC", "ENTY", "HUM", "ABBR", "LOC", "NUM"], "unlabelled": [-1]},
    "hausa_news": {"label": "noisy_label", "truth": "label", "labels": ["africa", "health", "nigeria", "politics", "world"]},
    "bbc_news": {},
}  # fmt: skip


# -- data: loaded once per set, labels corrupted per (noise, seed) -------------------------------------------------------


def prepare(name: str, data: str | None, encoder: dict[str, Any]) -> str:
    """Load a set, compute its frozen features; returns the run's folder."""
    import rayclean
    from rayclean.config import PredictConfig
    from rayclean.fingerprints import fingerprint
    from rayclean.runtime.cluster import connected
    from rayclean.runtime.engines import Engines
    from rayclean.runtime.predict import compute_features

    options = dict(SETS[name])
    test: dict[str, Any] = {"share": 0.2}
    if name == "bbc_news":
        dataset: dict[str, Any] = {"path": "bbc_news", "test": test}
    else:
        assert data is not None, f"{name} needs --data FOLDER"
        dataset = {**options, "path": f"{data}/{name}/train.parquet"}
        dataset["test"] = {"path": f"{data}/{name}/test.parquet", "label": "label"}
    config = rayclean.parse_config(
        {"name": f"data-{name}", "output": str(WORK), "dataset": dataset, "encoder": encoder}
    )
    run = rayclean.load(config)
    load = run.require("load")
    made_of = fingerprint(config.encoder.model_dump(mode="json"), _texts_of(run), _sources())
    with connected(config.cluster):
        for part in ("examples", "test"):
            features = run.sub("features", part)
            if not (features.exists("done") and features.read_text("done") == made_of):
                features.remove()  # shards of another encoder, texts or code would be taken for finished ones
                engines = Engines(config.cluster, on_ray=True)
                compute_features(
                    engines, load.sub(part), features, config.encoder, seed=0, config=PredictConfig()
                )
                features.write_text(made_of, "done")
    return run.root


def _texts_of(run: Any) -> str:
    """What identifies the loaded examples: source files and options, as `load` fingerprints them."""
    manifest = run.manifest("load")
    assert manifest is not None
    return str(manifest.fingerprint)


def corrupted(root: str, noise: dict[str, Any] | None, seed: int, code: str) -> tuple[str | None, str]:
    """Folder of corrupted labels (None: the given ones stay) and folder of the truth that belongs to them; other texts or
    other code (`code`: its hash) have a folder of their own.
    """
    from rayclean.datasets.instance_noise import out_of_fold_probabilities, text_features
    from rayclean.fingerprints import fingerprint
    from rayclean.folder import Folder
    from rayclean.functional.noise import NEEDS_FEATURES, corrupt
    from rayclean.run import Run
    from rayclean.schema import LabelSet

    load = Folder(root).sub("load")
    examples = table_of(load.sub("examples"), ["given_label", "split", "text"])
    if noise is None:
        return None, load.url("truth")
    print_ = fingerprint(_texts_of(Run(root)), code)
    out = Folder(root).sub("noise", f"{noise['kind']}-{noise['rate']}-{seed}-{print_}")
    if not out.exists("done"):
        ids, given, train = examples["example_id"], examples["given_label"], examples["split"] == "train"
        classes = len(LabelSet.from_json(load.read_text("labels.json")).names)
        noisy = given.astype(np.int64)
        features = None
        if noise["kind"] in NEEDS_FEATURES:  # as `load` makes it
            features = text_features(ids[train], examples["text"][train].tolist(), seed)
            if noise["kind"] == "idn_softmax":
                features = out_of_fold_probabilities(ids[train], features, given[train], classes, seed)
        noisy[train] = corrupt(
            ids[train], noisy[train], classes, noise["kind"], noise["rate"], seed, features=features
        )
        for folder, name, values in (("labels", "noisy", noisy), ("truth", "true_label", given)):
            table = pa.table({"example_id": ids, name: pa.array(values, pa.int32())})
            out.sub(folder).write_table(table, "part-00000.parquet")
        out.write_text("", "done")
    return out.url("labels"), out.url("truth")


# -- one run: one arm on one set with one seed ---------------------------------------------------------------------------


class Direct:
    """The annotator in this process, without Ray: a simulated one counts as what its accuracy is declared to be, any other
    at its word, since no `relabel` with control questions comes before.
    """

    def __init__(
        self,
        plugin: dict[str, Any],
        words: dict[str, str],
        endpoint: tuple[str, str] | None,
        root: str,
        output: str,
        truth: str,
        seed: int,
    ):
        import rayclean
        from rayclean.annotators import build_annotator
        from rayclean.annotators.engine import Engine
        from rayclean.annotators.ledger import Ledger
        from rayclean.annotators.served import ServedAnnotator
        from rayclean.annotators.simulated import SimulatedAnnotator
        from rayclean.folder import Folder
        from rayclean.schema import LabelSet

        if plugin["name"] == "simulated":
            plugin = {**plugin, "truth_path": truth, "seed": seed}
        self.labels = LabelSet.from_json(Folder(root).sub("load").read_text("labels.json")).described(
            words, {}
        )
        config = rayclean.parse_config({"dataset": {"path": "unused"}, "annotator": plugin, "seed": seed})
        self.annotator = build_annotator(config, tuple(self.labels))
        if endpoint is not None:
            assert isinstance(self.annotator, ServedAnnotator)
            self.annotator = self.annotator.at(*endpoint)
        is_simulated = isinstance(self.annotator, SimulatedAnnotator)
        self.measured = declared(self.annotator.config.accuracy, len(self.labels)) if is_simulated else None
        self.engine = Engine(self.annotator, Ledger(Folder(output).sub("ledger"), "experiment"))
        self.examples = Folder(root).sub("load", "examples").url()
        self.runner = asyncio.Runner()  # one loop for all epochs: connections to the server belong to it

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """What the annotator makes of the method's wish."""
        return self.annotator.demonstrations(count, selector)

    def __call__(self, asked: Any) -> Any:
        """Labels and figures."""
        from rayclean.annotators.between_epochs import answer_between_epochs

        return self.runner.run(
            answer_between_epochs(
                self.engine,
                asked,
                examples=self.examples,
                labels=self.labels,
                calibration=self.annotator.calibration("auto", len(self.labels)),
                measured=self.measured,
            )
        )


def declared(accuracy: float, classes: int) -> Any:
    """What `relabel`'s control questions would have measured, had the annotator been right as often as declared."""
    from rayclean.annotators.choices import Measured
    from rayclean.config import RelabelConfig
    from rayclean.functional.worth import Worth

    asked = RelabelConfig().controls
    right = round(accuracy * asked)
    return Measured(Worth(right, asked), asked, right, np.zeros(classes), 0.0)


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Train an arm and measure everything that any claim may ask for."""
    import torch

    from rayclean.config import Plugin, TrainingConfig
    from rayclean.fingerprints import fingerprint
    from rayclean.folder import Folder
    from rayclean.schema import LabelSet
    from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec, job_key
    from rayclean.training.loop import finished_result, fit

    torch.set_num_threads(1)
    start = time.monotonic()
    root, seed = task["root"], task["seed"]
    labels, truth = corrupted(root, task["noise"], seed, task["code"])
    names = LabelSet.from_json(Folder(root).sub("load").read_text("labels.json")).names
    data = DataSpec(
        Folder(root).url("load", "examples"),
        labels,
        "noisy" if labels else "given_label",
        Folder(root).url("features", "examples"),
    )
    arm = dict(task["arm"])
    annotator, epochs = arm.pop("annotator", None), arm.pop("epochs", task["epochs"])
    identity = fingerprint({key: value for key, value in task.items() if key not in NOT_IDENTITY})
    output = Folder(str(WORK / "runs" / identity)).url()
    spec = FitSpec(
        Plugin(**task["encoder"]), Plugin(**arm), TrainingConfig(epochs=epochs, **task["training"]), tuple(names),
        (json.dumps(annotator, sort_keys=True),),
    )  # fmt: skip
    job = FitJob(
        "experiment", data, ExampleSelection("split"), seed, output, keep_last=True, keep_epochs=True, best_by="dev_accuracy"
    )  # fmt: skip
    consult = None
    if annotator:
        consult = Direct(annotator, task.get("words", {}), task.get("endpoint"), root, output, truth, seed)
    if (
        finished_result(job, job_key(job, spec)) is None
    ):  # what is only read keeps the commit that it was trained at
        Folder(output).write_json(task["commit"], "commit.json")
    fit(job, spec, consult=consult)
    found = measure(Folder(output), Folder(root), truth)
    trained_at = Folder(output).read_json("commit.json")
    return {**found, "seconds": round(time.monotonic() - start, 1), "commit": trained_at}


# -- experiments: tasks, claims, table -----------------------------------------------------------------------------------


def _task(
    experiment: dict[str, Any], number: int, arm: str, seed: int, roots: dict[str, str]
) -> dict[str, Any]:
    chosen = experiment["sets"][number]
    task = {
        "root": roots[chosen["name"]], "noise": chosen.get("noise"), "seed": seed, "arm": experiment["arms"][arm],
        "encoder": experiment["encoder"], "epochs": experiment["epochs"], "training": experiment.get("training", {}),
        "code": _sources(),
    }  # fmt: skip
    return {**task, "words": chosen["words"]} if "words" in chosen else task


@functools.cache
def _sources() -> str:
    """Read once: all runs of an invocation are of one code, this file's included."""
    return sources(further=[Path(__file__), Path(__file__).with_name("experiment_measures.py")])


def _key(experiment: dict[str, Any], number: int, arm: str, seed: int) -> str:
    task = _task(experiment, number, arm, seed, {s["name"]: s["name"] for s in experiment["sets"]})
    return json.dumps(task, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default=os.environ.get("RAYCLEAN_TEST_DATA") and os.environ["RAYCLEAN_TEST_DATA"] + "/data"
    )
    parser.add_argument("--only", nargs="*", help="names of experiments; all but the served one by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=max(1, len(os.sched_getaffinity(0))))
    parser.add_argument("--small", action="store_true", help="BBC News, one seed, few epochs")
    parser.add_argument("--output", help="file of the result")
    arguments = parser.parse_args()
    seeds = [0] if arguments.small else list(range(arguments.seeds))
    experiments = []
    for path in sorted(HERE.glob("*.toml")):
        experiment = tomllib.loads(path.read_text())
        if arguments.small:
            experiment["sets"] = [{"name": "bbc_news", "noise": {"kind": "asym", "rate": 0.4}}]
            experiment["claims"] = [{k: v for k, v in c.items() if k != "sets"} for c in experiment["claims"]]
            experiment["epochs"] = 3
        wanted = (
            experiment["name"] in arguments.only if arguments.only else "served" not in experiment["name"]
        )
        if wanted:
            experiments.append(experiment)
    if arguments.small and not arguments.only:
        experiments = experiments[:1]
    names = sorted({chosen["name"] for experiment in experiments for chosen in experiment["sets"]})
    encoder = experiments[0]["encoder"]
    assert all(one["encoder"] == encoder for one in experiments), "features are computed with one encoder"
    roots = {name: prepare(name, arguments.data, encoder) for name in names}
    now = commit()
    tasks = {
        _key(experiment, number, arm, seed): {**_task(experiment, number, arm, seed, roots), "commit": now}
        for experiment in experiments
        for seed in seeds
        for number in range(len(experiment["sets"]))
        for arm in arms_of(experiment, number)
    }
    for task in tasks.values():  # before several processes would do it at once
        corrupted(task["root"], task["noise"], task["seed"], task["code"])
    print(f"{len(tasks)} runs", file=sys.stderr)
    start, runs = time.monotonic(), {}
    served = [key for key, task in tasks.items() if _is_served(task)]
    if served:
        plugin = tasks[served[0]]["arm"]["annotator"]
        assert all(tasks[key]["arm"]["annotator"] == plugin for key in served), "one served model at a time"
        with endpoint_of(plugin) as endpoint:  # one run after another: the server has the cores
            for done, key in enumerate(served, start=1):
                runs[key] = train({**tasks.pop(key), "endpoint": endpoint})
                print(f"{done}/{len(served)} served runs, {time.monotonic() - start:.0f} s", file=sys.stderr)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for done, (key, found) in enumerate(pool.imap_unordered(_run, tasks.items()), start=1):
            runs[key] = found
            left = (time.monotonic() - start) / done * (len(tasks) - done)
            print(f"{done}/{len(tasks)} runs, {left:.0f} s left", file=sys.stderr)
    known = {} if arguments.small else _known()
    for experiment in experiments:
        run_of = _reader(experiment, runs)
        every = runs_of(experiment, run_of, seeds)
        known[experiment["name"]] = {
            "title": experiment["title"],
            "commit": sorted({run["commit"] for run in every}),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "config": experiment,
            "rows": summary(experiment, run_of, seeds),
            "claims": judge(experiment, run_of, seeds),
            "runs": every,
        }
    known = dict(sorted(known.items()))
    claims = [
        claim(
            f"{name}: {one['text']}",
            goal=f"> {one['by']:g}, 2/3 of the pairs",
            measured="no pair"
            if one["mean_difference"] is None
            else f"{one['mean_difference']:+.4f}, {one['agree']} of {one['pairs']} pairs",
            holds=one["reproduced"],
        )
        for name, experiment in known.items()
        for one in experiment["claims"]
    ]
    every_seed = {name: seeds_of(experiment) for name, experiment in known.items()}
    path = write_result(__file__, {"seeds": every_seed}, 0, known, claims, arguments.small, arguments.output)
    if not arguments.small:
        path.with_suffix(".md").write_text(markdown(known))


def _reader(experiment: dict[str, Any], runs: dict[str, dict[str, Any]]) -> RunOf:
    return lambda number, arm, seed: runs.get(_key(experiment, number, arm, seed))


def _known() -> dict[str, Any]:
    """Experiments that stand in the result file: what does not run now stays, with the commits its runs were made at."""
    path = RESULTS / "experiments.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    return dict(figures)


def _is_served(task: dict[str, Any]) -> bool:
    return bool(task["arm"].get("annotator", {}).get("name") == "served")


@contextlib.contextmanager
def endpoint_of(plugin: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A real vLLM behind Ray Serve: address and tokenizer."""
    import rayclean
    from rayclean.annotators import build_annotator
    from rayclean.runtime.cluster import connected
    from rayclean.runtime.serve import hosted

    config = rayclean.parse_config({"dataset": {"path": "unused"}, "annotator": plugin})
    with connected(config.cluster), hosted(build_annotator(config, ())) as ready:
        yield ready.config.base_url, ready.config.tokenizer


def _run(item: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return item[0], train(item[1])


if __name__ == "__main__":
    main()
