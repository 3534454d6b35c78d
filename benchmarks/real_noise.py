"""What rayclean does on data sets with real noise, as they are; truth is used for evaluation alone.

    python benchmarks/real_noise.py --data FOLDER            # FOLDER/<set>/{train,test}.parquet
    python benchmarks/real_noise.py --small                  # BBC News with injected noise, no LLM, about a minute

For every set, annotator and seed (of folds, heads and questions): detection ROC-AUC and precision at 10 %, noise before and
after, harm, what was referred, how far the annotator was believed; what the labels would be if every answer were simply
believed (the rule before annotators were measured, on the same ledger); the same run after 50 suspects were judged by an
oracle; and under the first annotator, whether an audit of 50 + 50 calls the noise systematic, for ten samples. The language
model is asked under the first seed alone. As a reference made in the same run from the same features: scikit-learn's logistic
regression, out-of-fold ROC-AUC and precision at 10 % of 1 - self-confidence. Truth is opened by this script, after everything
else, by `evaluate`, by the oracle and by the simulated annotators, which are named so.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from common import claim, write_result
from rankings import rankings
from readme_table import figure, readme_table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import rayclean
import rayclean.pipeline
from rayclean.evaluation.label_metrics import measure_labels
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import matrix
from rayclean.verb_fingerprints import VERBS

SEED = 0
SETS = (
    "youtube_weak",
    "sms_weak",
    "hate_offensive_crowd",
    "medrel_distant",
    "hausa_news",
    "trec_weak",
    "bbc_news",
)
ANNOTATORS = (
    "posterior",
    "knn",
    "simulated 0.5",
    "simulated 0.65",
    "simulated 0.8",
    "simulated 0.9",
    "simulated 0.9, clean dev",
    "served",
)
"""`simulated A`: right with probability A where the truth is a candidate, and claims .8; `clean dev`: measured by questions
about the labels of a development set that are declared right, where the data come with one."""
CLEAN_DEV = ", clean dev"
WORTH_KEEPING = 0.005
"""Blind belief that repairs less than this share of the labels is no standard."""
ALONE = "-classifier"
"""Ending of the names of runs without the other experts."""
SAMPLES = 10
"""Audits of 50 + 50 that say whether the noise is systematic."""
MOST_BEHIND = 0.01
"""So much may the posterior's ROC-AUC lie behind a raw margin's."""
MOST_ADDED = 0.003
"""Most noise that any annotator may add in any seed."""
EXPECTED = {"trec_weak": True, "hausa_news": True, "youtube_weak": False, "bbc_news": False}
"""Whether an audit should call the noise systematic."""
CONFIGS = Path(__file__).parent.parent / "configs"
PRECISION_SHARE = 0.1


def reference(run: Run) -> dict[str, float]:
    """Logistic regression on the very features of the run: out-of-fold detection."""
    load, predict = run.require("load"), run.require("predict")
    rows = {"example_id": [], "given": [], "features": []}
    for shard in load.shards("examples"):
        table = load.read_table("examples", shard)
        rows["example_id"].append(table["example_id"].to_numpy())
        rows["given"].append(table["given_label"].to_numpy())
        rows["features"].append(matrix(predict.read_table("features", shard)["features"]))
    ids, given, features = (np.concatenate(rows[key]) for key in rows)
    truth = truth_of(load)
    true = np.array([truth.get(int(i), -1) for i in ids])
    probabilities = cross_val_predict(
        LogisticRegression(max_iter=1000),
        features,
        given,
        cv=StratifiedKFold(5, shuffle=True, random_state=SEED),
        method="predict_proba",
    )
    classes = {label: column for column, label in enumerate(np.unique(given))}
    doubt = 1 - probabilities[np.arange(len(given)), [classes[label] for label in given]]
    known = true >= 0
    wrong = (given != true)[known]
    top = np.argsort(-doubt[known], kind="stable")[: max(1, round(PRECISION_SHARE * known.sum()))]
    return {"roc_auc": float(roc_auc_score(wrong, doubt[known])), "precision_at_10": float(wrong[top].mean())}


def truth_of(load: Folder) -> dict[int, int]:
    """example_id -> true label, where known."""
    truth: dict[int, int] = {}
    for shard in load.shards("truth"):
        table = load.read_table("truth", shard)
        pairs = zip(table["example_id"].to_pylist(), table["true_label"].to_pylist(), strict=True)
        truth.update({key: value for key, value in pairs if value is not None})
    return truth


class SharedFeatures(Run):
    """A run whose frozen encoder reads every text once for all seeds."""

    def kept_features(self) -> Folder:
        """Beside the folders of all seeds."""
        name = self.name.removesuffix(ALONE)
        return Folder(str(Path(self.path()).parent.parent / "features" / name))


def classifier_alone(file: str, seed: int, overrides: list[str]) -> Run:
    """The predictions of a run without the other experts."""
    plain = [
        *overrides,
        f"seed={seed}",
        'annotator={name = "posterior"}',
        "cluster.ray=false",
        "predict.experts=[]",
    ]
    config = rayclean.load_config(CONFIGS / file, plain)
    config = config.model_copy(update={"name": config.name + ALONE})
    run = SharedFeatures(str(Path(config.output) / config.name))
    return rayclean.pipeline.run_verbs(config, VERBS[:2], run=run)


def one(
    file: str, annotator: str, seed: int, overrides: list[str], verbs: tuple[str, ...], samples: int
) -> tuple[dict[str, Any], Run]:
    """One run (its first verbs are shared by all annotators of a set and seed)."""
    start = time.monotonic()
    kind, _, accuracy = annotator.removesuffix(CLEAN_DEV).partition(" ")
    overrides = [*overrides, f"seed={seed}"]
    if kind == "served":
        overrides.append("annotator.name=served")  # with the options of the config
    elif not accuracy:
        overrides.append(f'annotator={{name = "{kind}"}}')
    else:  # one of this accuracy, whatever it says of itself, that knows the truth of this set
        config = rayclean.load_config(CONFIGS / file, [*overrides, 'annotator={name = "posterior"}'])
        rayclean.pipeline.run_verbs(config, VERBS[:1])
        truth = Path(config.output) / config.name / "load" / "truth"
        options = f'accuracy = {accuracy}, confidence = 0.8, truth_path = "{truth}"'
        overrides.append(f'annotator={{name = "simulated", {options}}}')
    config = rayclean.load_config(CONFIGS / file, overrides)
    run = SharedFeatures(str(Path(config.output) / config.name))
    everybody = config.relabel.model_copy(update={"ask_all": True})
    rayclean.pipeline.run_verbs(config.model_copy(update={"relabel": everybody}), VERBS[:4], run=run)
    blind = blindly(run)
    rayclean.pipeline.run_verbs(config, verbs, run=run)  # answers come from the ledger
    relabel = run.manifest("relabel")
    assert relabel is not None
    result = {
        "seconds": time.monotonic() - start,
        "labels": _labels(config, run),
        "believed_blindly": blind,
        "relabel": {
            name: relabel.metrics[name]
            for name in ("suspects", "changed", "kept", "referred", "abstained", "judged")
        },
        "audited": audited(config, run, samples),
    }
    if "evaluate" in verbs:
        metrics = run.read_json("metrics.json")
        result |= {name: metrics[name] for name in ("accuracy", "model_alone", "accuracy_difference")}
    return result, run


def _labels(config: Any, run: Run) -> dict[str, Any]:
    return short(measure_labels(config, run)[0])


def short(labels: dict[str, Any]) -> dict[str, Any]:
    """Of the figures of labels, those that the tables and claims are made from."""
    kept = {"noise": ("given", "final"), "detection": ("roc_auc", "precision_at_10")}
    found: dict[str, Any] = {
        part: {name: labels[part][name] for name in names} for part, names in kept.items()
    }
    return found | {name: labels[name] for name in ("harm", "repaired")}


def blindly(run: Run) -> float | None:
    """Noise after, were every answer for the suggested label believed; None where nobody answered."""
    truth, load, relabel = truth_of(run.require("load")), run.require("load"), run.require("relabel")
    rows = [
        row
        for shard in relabel.shards("annotations")
        for row in relabel.read_table("annotations", shard).to_pylist()
    ]
    if all(row["chosen_label"] is None for row in rows):
        return None
    changed = {
        row["example_id"]: row["suggested_label"]
        for row in rows
        if row["chosen_label"] == row["suggested_label"]
    }
    wrong = total = 0
    for shard in load.shards("examples"):
        for row in load.read_table("examples", shard, columns=["example_id", "given_label"]).to_pylist():
            if (true := truth.get(row["example_id"])) is not None:
                total += 1
                wrong += changed.get(row["example_id"], row["given_label"]) != true
    return wrong / total


def audited(config: Any, run: Run, samples: int) -> dict[str, Any]:
    """The labels after an oracle judged 50 suspects, in a copy of the run; and what `samples` audits call the noise."""
    with tempfile.TemporaryDirectory(prefix="rayclean-audit-") as folder:
        shutil.copytree(run.path(), Path(folder) / run.name)
        copy = config.model_copy(update={"output": folder, "audit": rayclean.parse_config(
            {"dataset": {"path": "x"}, "audit": {"suspects": 50, "random": 0}}).audit})  # fmt: skip
        rayclean.audit(copy, oracle=True)
        labels = _labels(copy, rayclean.pipeline.open_run(copy))
        called = []
        for seed in range(samples):
            sample = copy.audit.model_copy(update={"random": 50, "seed": seed})
            found = rayclean.audit(copy.model_copy(update={"audit": sample}), oracle=True).figures
            assert found is not None
            called.append(found["systematic"])
    return {"noise": labels["noise"]["final"], "harm": labels["harm"], "systematic": called}


def comparisons(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What a good annotator's repairs are worth beside blind belief, and a weak one's with an audit."""
    found = []
    for name, of_set in figures.items():
        weak = of_set["annotators"].get("simulated 0.65")
        for kind in ("simulated 0.9", f"simulated 0.9{CLEAN_DEV}"):
            good = of_set["annotators"].get(kind)
            if not good:
                continue
            given, after = (fmean(figure(run, key) for run in good) for key in ("before", "after"))
            blind = given - fmean(run["believed_blindly"] for run in good)
            if blind > WORTH_KEEPING:
                kept = (given - after) / blind
                what = f"{name}, {kind}: repairs beside those of believing every answer"
                found.append(claim(what, goal=">= 0.9", measured=round(kept, 3), holds=kept >= 0.9))
        if weak:
            plain, audited = (
                fmean(figure(run, "after") for run in weak),
                fmean(figure(run, "audited") for run in weak),
            )
            what = f"{name}, simulated 0.65: noise with 50 audited beside without"
            goal = f"< {plain:.4f}"
            found.append(claim(what, goal=goal, measured=round(audited, 4), holds=audited < plain))
    return found


def claims_of(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What the figures of all sets show."""
    rises = {
        f"{name}, {annotator}, audited": max(run["audited"]["noise"] - figure(run, "before") for run in runs)
        for name, of_set in figures.items()
        for annotator, runs in of_set["annotators"].items()
    } | {
        f"{name}, {annotator}": max(figure(run, "after") - figure(run, "before") for run in runs)
        for name, of_set in figures.items()
        for annotator, runs in of_set["annotators"].items()
    }
    worst = max(rises, key=lambda cell: rises[cell])
    claims = [
        claim(f"noise after less noise before, the worst of {len(rises)} cells in its worst seed ({worst})",
              goal=f"<= {MOST_ADDED}", measured=round(rises[worst], 4), holds=rises[worst] <= MOST_ADDED)
    ]  # fmt: skip
    claims += comparisons(figures)
    for name, of_set in figures.items():
        ranked = {how: found["roc_auc"][0] for how, found in of_set["rankings"].items()}
        print(name, {how: found["roc_auc"] for how, found in of_set["rankings"].items()})
        best = max(ranked["margin"], ranked["margin, classifier"])
        what = f"{name}: ROC-AUC of the posterior beside the better raw margin"
        goal = f">= {best - MOST_BEHIND:.4f}"
        claims.append(
            claim(
                what, goal=goal, measured=ranked["posterior"], holds=ranked["posterior"] >= best - MOST_BEHIND
            )
        )
    for name, of_set in figures.items():
        called = next(iter(of_set["annotators"].values()))[0]["audited"]["systematic"]
        expected = EXPECTED.get(name)
        print(f"{name}: {sum(called)} of {len(called)} audits call the noise systematic")
        if expected is not None and called:
            right = sum(each == expected for each in called)
            what = "systematic" if expected else "not systematic"
            claims.append(
                claim(
                    f"{name}: audits of 100 that say {what}",
                    goal=">= 9 of 10",
                    measured=f"{right} of {len(called)}",
                    holds=right >= 0.9 * len(called),
                )
            )
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds one folder per data set")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--annotators", nargs="+", default=list(ANNOTATORS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--add",
        nargs="*",
        type=Path,
        default=[],
        help="results of this script whose annotators are added, such as served",
    )
    parser.add_argument("--questions", type=int, help="most questions to the language model, per set")
    parser.add_argument("--whole", action="store_true", help="train and evaluate, too")
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--small", action="store_true", help="BBC News, no LLM")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if not args.small and args.data is None:
        parser.error("--data FOLDER or --small is needed")
    output = args.runs or Path(tempfile.mkdtemp(prefix="rayclean-real-noise-"))
    verbs = VERBS if args.whole else VERBS[:4]
    figures: dict[str, Any] = {}
    for name in ["bbc_news"] if args.small else args.sets:
        found: dict[str, list[dict[str, Any]]] = {}
        run: Any = None  # the last one of the data as they are
        for seed in args.seeds:
            overrides, file = [f"output={output / f'seed-{seed}'}"], "quickstart.toml"
            if args.small:
                overrides += ['encoder={name = "bag_of_words"}', "predict.folds=2", "evaluate.compare=false"]
            elif name != "bbc_news":
                file = f"{name}/cross_entropy.toml"
                overrides.append(f"dataset.path={args.data / name / 'train.parquet'}")
                if (args.data / name / "test.parquet").exists():
                    overrides.append(f"dataset.test.path={args.data / name / 'test.parquet'}")
            for annotator in ["posterior", "simulated 0.5"] if args.small else args.annotators:
                if annotator == "served" and seed != args.seeds[0]:
                    continue
                here = [] if annotator == "served" else ["cluster.ray=false"]
                if annotator == "served" and args.questions is not None:
                    here.append(f"annotator.max_queries={args.questions}")
                if annotator.endswith(CLEAN_DEV):
                    dev = args.data / name / "validation.parquet"
                    if name == "bbc_news" or not dev.exists():
                        continue
                    here += [
                        f'dataset.dev={{path = "{dev}", label = "label", clean = true}}',
                        f"output={output / f'seed-{seed}-clean-dev'}",
                    ]
                samples = SAMPLES if annotator == args.annotators[0] and seed == args.seeds[0] else 0
                result, made = one(file, annotator, seed, [*overrides, *here], verbs, samples)
                run = run if annotator.endswith(CLEAN_DEV) else made
                found.setdefault(annotator, []).append(result)
                noise = result["labels"]["noise"]
                print(
                    f"{name} seed {seed} {annotator}: {noise['given']:.4f} -> {noise['final']:.4f}",
                    flush=True,
                )
        figures[name] = {
            "annotators": found,
            "reference": reference(run),
            "rankings": rankings(
                run, classifier_alone(file, args.seeds[-1], overrides), truth_of(run.require("load"))
            ),
        }
    for path in args.add:
        for name, of_set in json.loads(path.read_text())["figures"].items():
            figures[name]["annotators"] |= of_set["annotators"]
    claims = claims_of(figures)
    print(readme_table(figures))
    config = {
        "sets": args.sets,
        "annotators": args.annotators,
        "questions": args.questions,
        "share": PRECISION_SHARE,
        "verbs": list(verbs),
    }
    write_result("real_noise", config, args.seeds, figures, claims, args.small, args.output)


if __name__ == "__main__":
    sys.exit(main())
