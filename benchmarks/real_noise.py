"""What rayclean does on data sets with real noise, as they are; truth is used for evaluation alone.

    python benchmarks/real_noise.py --data FOLDER            # FOLDER/<set>/{train,test}.parquet
    python benchmarks/real_noise.py --small                  # BBC News with injected noise, no LLM, about a minute

For every set and annotator: detection ROC-AUC and precision at 10 %, noise before and after, harm, test accuracy of
the network trained on given / cleaned / true labels; and, as a reference made in the same run from the same features,
scikit-learn's logistic regression: out-of-fold ROC-AUC and precision at 10 % of 1 - self-confidence. Truth is opened by
`evaluate` and by this script, after everything else.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import rayclean
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import matrix

SEED = 0
SETS = ("trec_weak", "hausa_news", "youtube_weak", "medrel_distant", "hate_offensive_crowd")
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


def one(name: str, annotator: str, overrides: list[str]) -> tuple[dict[str, Any], Run]:
    """One run of all six verbs (the first three are shared by the annotators of a set)."""
    start = time.monotonic()
    config = rayclean.load_config(CONFIGS / name, [*overrides, f"annotator.name={annotator}", f"seed={SEED}"])
    run = rayclean.clean(config)
    metrics = run.read_json("metrics.json")
    return {"seconds": time.monotonic() - start, "metrics": metrics}, run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds one folder per data set")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--annotators", nargs="+", default=["knn", "served"], choices=["knn", "served"])
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--small", action="store_true", help="BBC News, no LLM")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if not args.small and args.data is None:
        parser.error("--data FOLDER or --small is needed")
    output = args.runs or Path(tempfile.mkdtemp(prefix="rayclean-real-noise-"))
    figures: dict[str, Any] = {}
    claims = []
    for name in ["bbc_news"] if args.small else args.sets:
        overrides = [f"output={output}"]
        file = "quickstart.toml"
        if args.small:
            overrides += ["encoder.name=bag_of_words", "predict.folds=2", "evaluate.compare=false"]
        else:
            file = f"{name}/cross_entropy.toml"
            overrides.append(f"dataset.path={args.data / name / 'train.parquet'}")
            if (args.data / name / "test.parquet").exists():
                overrides.append(f"dataset.test.path={args.data / name / 'test.parquet'}")
        figures[name] = {}
        for annotator in ["knn"] if args.small else args.annotators:
            result, run = one(file, annotator, overrides)
            figures[name][annotator] = result
            noise = result["metrics"]["noise"]
            claims.append(
                {
                    "claim": f"{name}: {annotator} lowers the label noise",
                    "goal": f"below {noise['given']:.4f}",
                    "measured": noise["final"],
                    "holds": noise["final"] < noise["given"],
                }
            )
        figures[name]["reference"] = reference(run)
    config = {"sets": args.sets, "annotators": args.annotators, "share": PRECISION_SHARE}
    write_result("real_noise", config=config, seed=SEED, figures=figures, claims=claims, small=args.small)


if __name__ == "__main__":
    sys.exit(main())
