"""Experiments on robust training: the claims of the papers, at a scale that a small machine can repeat.

    python benchmarks/experiments.py --data FOLDER [--only E5 ...] [--seeds 3]     # FOLDER/<set>/{train,test}.parquet
    python benchmarks/experiments.py --small                                       # BBC News, one seed, a minute

Every file in `benchmarks/experiments/` is an experiment: sets with their noise, arms (methods with options and whom they
may ask), and claims of the form "this measure is greater in that arm". An arm that several experiments share is trained
once, and a run in the work folder is taken as long as the package's sources are those that it was trained with; every
run says at which commit that was. A claim is *reproduced* if the mean difference has the expected sign and at least two
thirds of the pairs (set, seed) agree; nothing is tuned until it is.

Scale: the strong network is a two-layer perceptron on frozen MiniLM features, the weak one a BiLSTM from scratch, as
written in each file. Noise is injected into training labels alone; development labels are those of the data set, right
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
import statistics
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import RESULTS, claim, commit, sources, write_result

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
    from rayclean.artifacts import fingerprint
    from rayclean.config import PredictConfig
    from rayclean.runtime.cluster import connected
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
                compute_features(load.sub(part), features, config.encoder, seed=0, config=PredictConfig())
                features.write_text(made_of, "done")
    return run.root


def _texts_of(run: Any) -> str:
    """What identifies the loaded examples: source files and options, as `load` fingerprints them."""
    manifest = run.manifest("load")
    assert manifest is not None
    return str(manifest.fingerprint)


def table_of(folder: Any, columns: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Columns of all shards, sorted by id; nulls are -1."""
    import pyarrow.compute as pc

    tables = [folder.read_table(shard, columns=["example_id", *columns]) for shard in folder.shards()]
    table = pa.concat_tables(tables)
    order = np.argsort(table["example_id"].to_numpy())
    found = {}
    for name in ["example_id", *columns]:
        column = table[name]
        values = (
            column
            if pa.types.is_string(column.type)
            else pc.fill_null(column, -1)
            if column.null_count
            else column
        )
        found[name] = values.to_numpy(zero_copy_only=False)[order]
    return found


def corrupted(root: str, noise: dict[str, Any] | None, seed: int, code: str) -> tuple[str | None, str]:
    """Folder of corrupted labels (None: the given ones stay) and folder of the truth that belongs to them; other texts or
    other code (`code`: its hash) have a folder of their own.
    """
    from rayclean.artifacts import Folder, Run, fingerprint
    from rayclean.functional.noise import corrupt
    from rayclean.schema import LabelSet

    load = Folder(root).sub("load")
    examples = table_of(load.sub("examples"), ["given_label", "split"])
    if noise is None:
        return None, load.url("truth")
    print_ = fingerprint(_texts_of(Run(root)), code)
    out = Folder(root).sub("noise", f"{noise['kind']}-{noise['rate']}-{seed}-{print_}")
    if not out.exists("done"):
        ids, given, train = examples["example_id"], examples["given_label"], examples["split"] == "train"
        classes = len(LabelSet.from_json(load.read_text("labels.json")).names)
        noisy = given.astype(np.int64)
        noisy[train] = corrupt(ids[train], noisy[train], classes, noise["kind"], noise["rate"], seed)
        for folder, name, values in (("labels", "noisy", noisy), ("truth", "true_label", given)):
            table = pa.table({"example_id": ids, name: pa.array(values, pa.int32())})
            out.sub(folder).write_table(table, "part-00000.parquet")
        out.write_text("", "done")
    return out.url("labels"), out.url("truth")


# -- one run: one arm on one set with one seed ---------------------------------------------------------------------------


class Direct:
    """The annotator in this process, without Ray."""

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
        from rayclean.artifacts import Folder
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
        self.engine = Engine(self.annotator, Ledger(Folder(output).sub("ledger"), "experiment"))
        self.examples = Folder(root).sub("load", "examples").url()
        self.runner = asyncio.Runner()  # one loop for all epochs: connections to the server belong to it

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """What the annotator makes of the method's wish."""
        return self.annotator.demonstrations(count, selector)

    def __call__(self, asked: Any) -> Any:
        """Labels and figures."""
        from rayclean.annotators.consult import consult

        calibration = "none" if self.annotator.calibrated else "batch"
        return self.runner.run(
            consult(self.engine, asked, examples=self.examples, labels=self.labels, calibration=calibration)
        )


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Train an arm and measure everything that any claim may ask for."""
    import torch

    from rayclean.artifacts import Folder, fingerprint
    from rayclean.config import Plugin, TrainingConfig
    from rayclean.schema import LabelSet
    from rayclean.training.job import DataSpec, FitJob, FitSpec, Selection, job_key
    from rayclean.training.loop import finished, fit

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
    job = FitJob("experiment", data, Selection("split"), seed, output, keep_last=True, keep_epochs=True)
    consult = None
    if annotator:
        consult = Direct(annotator, task.get("words", {}), task.get("endpoint"), root, output, truth, seed)
    if finished(job, job_key(job, spec)) is None:  # what is only read keeps the commit that it was trained at
        Folder(output).write_json(task["commit"], "commit.json")
    fit(job, spec, consult=consult)
    found = measure(Folder(output), Folder(root), truth)
    trained_at = Folder(output).read_json("commit.json")
    return {**found, "seconds": round(time.monotonic() - start, 1), "commit": trained_at}


def auc(wrong: npt.NDArray[np.bool_], doubt: npt.NDArray[Any]) -> float | None:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, doubt)) if 0 < wrong.sum() < len(wrong) else None


def measure(output: Any, root: Any, truth: str) -> dict[str, Any]:
    """Test accuracy of the best and the last epoch; detection and subsets per epoch."""
    from rayclean.artifacts import Folder

    true = table_of(Folder(truth), ["true_label"])
    found: dict[str, Any] = {
        f"accuracy_{name}": test_accuracy(output.sub(folder), root)
        for name, folder in (("best", "model"), ("last", "model_last"))
    }
    epochs = output.sub("epochs")
    numbers = sorted(os.path.basename(path.rstrip("/")) for path in epochs.fs.ls(epochs.path(), detail=False))
    series: dict[str, list[Any]] = {}
    for number in numbers:
        for key, value in of_epoch(epochs.sub(number), true).items():
            series.setdefault(key, []).append(value)
    quality = table_of(output.sub("dynamics"), ["quality"])
    wrong, known = wrong_of(
        quality["example_id"], table_of(epochs.sub(numbers[-1]), ["given_label"])["given_label"], true
    )
    found["noise_realised"] = float(wrong[known].mean())
    found["auc_quality"] = auc(wrong[known], -quality["quality"][known])
    lines = [json.loads(line) for line in output.read_text("metrics.jsonl").splitlines()]
    found |= questions_of(lines)
    for key, values in series.items():
        usable = [value for value in values if value is not None]
        if usable:
            found |= {f"{key}_first": usable[0], f"{key}_last": usable[-1], f"{key}_max": max(usable)}
            found[f"{key}_epochs"] = values
    return found


def questions_of(lines: list[dict[str, Any]]) -> dict[str, float]:
    """What the method asked, whether an answer was paid in this run or stood in its ledger, and the tokens paid.

    Args:
        lines: the epochs' lines of `metrics.jsonl`.
    """
    return {
        "questions": sum(line.get("asked", 0) + line.get("from_ledger", 0) for line in lines),
        "tokens_paid": sum(line.get("tokens", 0) for line in lines),
    }


def wrong_of(ids: Any, given: Any, true: dict[str, Any]) -> tuple[Any, Any]:
    """Which labels are wrong, and of which examples the truth is known."""
    where = np.minimum(np.searchsorted(true["example_id"], ids), len(true["example_id"]) - 1)
    label = np.where(true["example_id"][where] == ids, true["true_label"][where], -1)
    return label != given, label >= 0


def of_epoch(folder: Any, true: dict[str, Any]) -> dict[str, float | None]:
    """Detection and memorisation by each network, quality of the subsets, weights of wrong and right labels."""
    from rayclean.functional.partition import Subset

    names = folder.read_table(folder.shards()[0]).column_names
    columns = table_of(folder, [name for name in names if name != "example_id"])
    wrong, known = wrong_of(columns["example_id"], columns["given_label"], true)
    columns = {name: values[known] for name, values in columns.items()}
    wrong = wrong[known]
    found: dict[str, float | None] = {}
    q = {
        n: columns[f"label_probability_{n}"]
        for n in ("strong", "weak")
        if f"label_probability_{n}" in columns
    }
    for name, values in q.items():
        found[f"auc_{name}"] = auc(wrong, -values)
        found[f"memorised_{name}"] = (
            float((values >= columns[f"confidence_{name}"])[wrong].mean()) if wrong.any() else None
        )
        found[f"learnt_{name}"] = float((values >= columns[f"confidence_{name}"])[~wrong].mean())
        found[f"auc_margin_{name}"] = auc(wrong, columns[f"threshold_{name}"] - values)
    if len(q) == 2:
        found["auc_co_prediction"] = auc(wrong, -(q["strong"] + q["weak"]))
    if "subset" in columns and (columns["subset"] >= 0).any():
        clean, purified = columns["subset"] == Subset.CLEAN, columns["subset"] == Subset.PURIFIED
        found["precision_clean"] = float(1 - wrong[clean].mean()) if clean.any() else None
        found["share_clean"] = float(clean.mean())
        found["recall_purified"] = float(purified[wrong].mean()) if wrong.any() else None
        found["noise_purified"] = float(wrong[purified].mean()) if purified.any() else None
        answered = columns["answer"] >= 0
        if answered.any():
            ids = columns["example_id"][answered]
            found["noise_answered"] = float(wrong[answered].mean())
            found["noise_answers"] = float(wrong_of(ids, columns["answer"][answered], true)[0].mean())
    if "weight" in columns and wrong.any():
        mean = columns["weight_sum"] / np.maximum(columns["visits"], 1)
        found |= {
            "weight_wrong": float(columns["weight"][wrong].mean()),
            "weight_right": float(columns["weight"][~wrong].mean()),
        }
        found |= {
            "mean_weight_wrong": float(mean[wrong].mean()),
            "mean_weight_right": float(mean[~wrong].mean()),
        }
        found["auc_margin"] = auc(wrong, -columns["margin_sum"] / np.maximum(columns["visits"], 1))
        found["weight_below_tenth"] = float((columns["weight"][wrong] < 0.1).mean())
    if "loss" in columns:
        found["auc_loss"] = auc(wrong, columns["loss"])
    return found


def test_accuracy(model: Any, root: Any) -> float:
    """Of a saved network on the test examples: their given labels, which a test set without noise has right."""
    import torch

    from rayclean.models.loading import load_encoder
    from rayclean.schema import matrix

    network = load_encoder(model.root)
    right = total = 0
    for shard in root.sub("load", "test").shards():
        table = root.sub("load", "test").read_table(shard)
        labels = table["given_label"].to_numpy()
        with torch.inference_mode():
            if network.frozen:
                features = matrix(root.sub("features", "test").read_table(shard)["features"]).copy()
                logits = network.logits(torch.from_numpy(features))
            else:
                from rayclean.models.inference import infer

                logits = torch.from_numpy(
                    infer([network], network.tokenizer(network.config), table["text"].to_pylist()).logits
                )
        right += int((logits.argmax(1).numpy() == labels).sum())
        total += len(labels)
    return right / total


# -- experiments: tasks, claims, table -----------------------------------------------------------------------------------


def judge(
    experiment: dict[str, Any], runs: dict[str, dict[str, Any]], seeds: list[int]
) -> list[dict[str, Any]]:
    """Every claim with its pairs and its verdict."""
    judged = []
    for one in experiment["claims"]:
        pairs = []
        for number in range(len(experiment["sets"])):
            if number in one.get("sets", range(len(experiment["sets"]))):
                for seed in seeds:
                    left, right = (
                        _value(experiment, runs, one[side], number, seed) for side in ("greater", "smaller")
                    )
                    if left is not None and right is not None:
                        pairs.append(left - right)
        mean = statistics.mean(pairs) if pairs else float("nan")
        agree = sum(pair > 0 for pair in pairs)
        holds = bool(pairs) and mean > one.get("by", 0.0) and agree >= 2 / 3 * len(pairs)
        judged.append({
            "text": one["text"], "mean_difference": mean, "agree": agree, "pairs": len(pairs), "reproduced": holds,
            "greater": one["greater"], "smaller": one["smaller"], "by": one.get("by", 0.0),
        })  # fmt: skip
    return judged


def _value(
    experiment: dict[str, Any], runs: dict[str, Any], side: str | float, number: int, seed: int
) -> Any:
    if not isinstance(side, str):
        return side
    arm, _, name = side.partition(".")
    return runs[_key(experiment, number, arm, seed)].get(name)


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
    """Read once: all runs of an invocation are of one code."""
    return sources()


def _key(experiment: dict[str, Any], number: int, arm: str, seed: int) -> str:
    task = _task(experiment, number, arm, seed, {s["name"]: s["name"] for s in experiment["sets"]})
    return json.dumps(task, sort_keys=True)


def summary(
    experiment: dict[str, Any], runs: dict[str, dict[str, Any]], seeds: list[int]
) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of every measure, per set and arm."""
    rows = []
    for number, chosen in enumerate(experiment["sets"]):
        noise = chosen.get("noise")
        label = chosen["name"] + (f" {noise['kind']} {noise['rate']:g}" if noise else "")
        for arm in experiment["arms"]:
            each = [runs[_key(experiment, number, arm, seed)] for seed in seeds]
            row: dict[str, Any] = {"set": label, "arm": arm}
            for name in each[0]:
                values = [run.get(name) for run in each]
                if all(isinstance(value, int | float) for value in values):
                    spread = statistics.stdev(values) if len(values) > 1 else 0.0
                    row[name] = [round(statistics.mean(values), 4), round(spread, 4)]
            rows.append(row)
    return rows


SHOWN = (
    "accuracy_best", "accuracy_last", "auc_quality", "auc_strong_max", "auc_weak_max", "auc_co_prediction_max",
    "precision_clean_last", "recall_purified_last", "noise_answered_last", "noise_answers_last", "questions", "asked",
    "weight_wrong_last", "weight_right_last",
)  # fmt: skip
"""Measures in the tables; all others stand in the JSON file. `asked` stands in older results instead of `questions`:
without those that the run's ledger answered."""


def markdown(figures: dict[str, Any], seeds: list[int]) -> str:
    """The tables: per experiment its claims, then mean +- standard deviation over the seeds."""
    lines = [
        "# Claims of the papers, at a small scale",
        "",
        f"Mean ± standard deviation over {len(seeds)} seeds; made by `benchmarks/experiments.py`, nothing by hand.",
        "",
    ]
    for name, experiment in figures.items():
        lines += [
            f"## {name}: {experiment['title']}",
            "",
            f"Trained at {', '.join(commit[:17] for commit in experiment['commit'])}.",
            "",
            "| claim | | mean difference | pairs that agree |",
            "|---|---|---|---|",
        ]
        for one in experiment["claims"]:
            verdict = "reproduced" if one["reproduced"] else "**not reproduced**"
            lines.append(
                f"| {one['text']} | {verdict} | {one['mean_difference']:+.4f} | {one['agree']} of {one['pairs']} |"
            )
        columns = [measure for measure in SHOWN if any(measure in row for row in experiment["rows"])]
        lines += ["", f"| set | arm | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
        for row in experiment["rows"]:
            cells = [f"{row[c][0]:.3f} ± {row[c][1]:.3f}" if c in row else "" for c in columns]
            lines.append(f"| {row['set']} | {row['arm']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


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
        for arm in experiment["arms"]
    }
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
        every = _runs(experiment, runs, seeds)
        known[experiment["name"]] = {
            "title": experiment["title"],
            "commit": sorted({run["commit"] for run in every}),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "config": experiment,
            "rows": summary(experiment, runs, seeds),
            "claims": judge(experiment, runs, seeds),
            "runs": every,
        }
    known = dict(sorted(known.items()))
    claims = [
        claim(
            f"{name}: {one['text']}",
            goal=f"> {one['by']:g}, 2/3 of the pairs",
            measured=f"{one['mean_difference']:+.4f}, {one['agree']} of {one['pairs']} pairs",
            holds=one["reproduced"],
        )
        for name, experiment in known.items()
        for one in experiment["claims"]
    ]
    path = write_result(__file__, {"seeds": seeds}, 0, known, claims, arguments.small)
    if not arguments.small:
        path.with_suffix(".md").write_text(markdown(known, seeds))


def _known() -> dict[str, Any]:
    """Experiments that stand in the result file: what does not run now stays, with the commits its runs were made at."""
    path = RESULTS / "experiments.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    return dict(figures)


def _runs(experiment: dict[str, Any], runs: dict[str, Any], seeds: list[int]) -> list[dict[str, Any]]:
    """Every run, without its course over the epochs."""
    found = []
    for number, chosen in enumerate(experiment["sets"]):
        for arm in experiment["arms"]:
            for seed in seeds:
                measured = runs[_key(experiment, number, arm, seed)]
                short = {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in measured.items()
                    if not key.endswith("_epochs")
                }
                found.append(
                    {"set": chosen["name"], "noise": chosen.get("noise"), "arm": arm, "seed": seed, **short}
                )
    return found


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
