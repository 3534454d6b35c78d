"""What is measured of one trained arm, with the truth open: accuracy, detection, subsets and weights, per epoch."""

import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

HISTOGRAM_BINS = 20


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


def auc(wrong: npt.NDArray[np.bool_], doubt: npt.NDArray[Any]) -> float | None:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, doubt)) if 0 < wrong.sum() < len(wrong) else None


def measure(output: Any, root: Any, truth: str) -> dict[str, Any]:
    """Test accuracy of the best and the last epoch; detection and subsets per epoch."""
    from rayclean.folder import Folder

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
    result = output.read_json("result.json")
    found |= {"best_epoch": result["best_epoch"], "selected_by": result["selected_by"]}
    if (histograms := weight_histograms(epochs.sub(numbers[-1]), true)) is not None:
        found["histograms"] = histograms
    for key, values in series.items():
        usable = [value for value in values if value is not None]
        if usable:
            found |= {f"{key}_first": usable[0], f"{key}_last": usable[-1], f"{key}_max": max(usable)}
            found[f"{key}_epochs"] = values
    return found


def weight_histograms(folder: Any, true: dict[str, Any]) -> dict[str, dict[str, list[int]]] | None:
    """LANE's three (METHODS 4.9) at the end of an epoch, of right and of wrong labels: counts over `HISTOGRAM_BINS` bins
    of [0, 1]. None for methods without weights.
    """
    if "weight" not in folder.read_table(folder.shards()[0]).column_names:
        return None
    columns = table_of(folder, ["given_label", "weight", "weight_sum", "visits"])
    wrong, known = wrong_of(columns["example_id"], columns["given_label"], true)
    mean = columns["weight_sum"] / np.maximum(columns["visits"], 1)
    drawn = {
        "weight": (columns["weight"], known),
        "weight_below_one": (columns["weight"], known & (columns["weight"] < 1)),
        "mean_weight": (mean, known),
    }
    return {
        name: {
            kind: np.histogram(values[rows & chosen], HISTOGRAM_BINS, (0, 1))[0].tolist()
            for kind, chosen in (("right", ~wrong), ("wrong", wrong))
        }
        for name, (values, rows) in drawn.items()
    }


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
    from rayclean.functional.lookup import lookup_values

    label = lookup_values(true["example_id"], true["true_label"], ids)
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
        joint = q["strong"] + q["weak"]
        found["auc_co_prediction"] = auc(wrong, -joint)
        threshold = columns["threshold_strong"] + columns["threshold_weak"]
        found["auc_margin_co_prediction"] = auc(wrong, threshold - joint)  # the EMA margin of both
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
        found["weight_mass"] = float(columns["weight"].mean())  # what is left of the training set
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
