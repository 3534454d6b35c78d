"""Figures of a load, from the summaries of its workers: what was rejected, what is there, and what noise went in."""

from collections import Counter
from typing import Any

import numpy as np

from rayclean.config import DatasetConfig
from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.labels import LabelMapping, truth_indices
from rayclean.datasets.second_pass import SecondPass
from rayclean.errors import DataError
from rayclean.folder import Folder
from rayclean.functional.noise import expected_rate
from rayclean.plugins import did_you_mean


def truths_by_role(
    dataset: DatasetConfig, summaries: list[PieceSummary], labels: LabelMapping
) -> dict[str, dict[str, int]]:
    """Index of each code in the truth column, by role.

    Raises:
        DataError: no value of the column is a label.
    """
    found: dict[str, Counter[str]] = {}
    for summary in summaries:
        found.setdefault(summary.role, Counter()).update(summary.truths)
    indices = {role: truth_indices(codes, labels) for role, codes in found.items()}
    if found.get("data") and not indices["data"]:
        values = [code[2:] for code in list(found["data"])[:10]]
        raise DataError(
            f"dataset.truth = {dataset.truth!r} holds {values}, none of which is a label; {did_you_mean(values[0], labels.names)}"
        )
    return indices


def write_truth(
    out: Folder, finish: SecondPass, summaries: list[PieceSummary], results: list[dict[str, Any]]
) -> None:
    """Figures about the truth; they stay in `truth/`, which only `evaluate` opens."""
    known = sum(result["truths"] for result in results)
    if not known:
        return
    outside = sum(
        count
        for summary in summaries
        for code, count in summary.truths.items()
        if code not in finish.truths.get(summary.role, {})
    )
    out.write_json({"known": known, "outside_label_set": outside}, "truth", "summary.json")
    noise = finish.job.config.noise
    if noise is None:
        return
    names = finish.labels.names
    pairs: Counter[tuple[int, int]] = Counter()
    for result in results:
        pairs.update({(before, after): count for before, after, count in result["transitions"]})
    before = np.zeros(len(names), np.int64)
    wrong = np.zeros(len(names), np.int64)
    for (true, given), count in pairs.items():
        before[true] += count
        wrong[true] += count * (true != given)
    total = max(int(before.sum()), 1)
    report = {
        "kind": noise.kind,
        "requested_rate": noise.rate,
        "expected_rate": expected_rate(noise.kind, noise.rate, before / total, finish.mapping),
        "realised_rate": int(wrong.sum()) / total,
        "seed": finish.job.seed if noise.seed is None else noise.seed,
        "examples": int(before.sum()),
        "per_class": {name: wrong[i] / before[i] if before[i] else None for i, name in enumerate(names)},
        # [true index, given index, count]; count / examples of the true class is the transition matrix
        "transitions": [[*pair, count] for pair, count in sorted(pairs.items())],
    }
    out.write_json(report, "truth", "noise.json")


def load_metrics(
    summaries: list[PieceSummary], results: list[dict[str, Any]], labels: LabelMapping
) -> dict[str, Any]:
    """The metrics of the verb: nothing in them depends on the truth."""
    splits: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    counts: list[Counter[int]] = [Counter(), Counter()]
    for summary in summaries:
        rejected.update({reason: entry["count"] for reason, entry in summary.rejected.items()})
    for result in results:
        splits.update(result["splits"])
        rejected.update(result["rejected"])
        for counter, pairs in zip(counts, result["labels"], strict=True):
            counter.update(dict(pairs))
    examples, kept = splits["train"] + splits["dev"], sum(splits.values())
    shortest = min((result["characters"][1] for result in results), default=0)
    names = labels.names
    warnings = [f"class {names[i]!r} is seen only once" for i in range(len(names)) if counts[0][i] == 1]
    warnings += [f"class {names[i]!r} has no example" for i in range(len(names)) if not counts[0][i]]
    warnings += [f"{name} holds no rows" for summary in summaries for name in summary.empty]
    if not splits["dev"]:
        warnings.append("there are no development examples (dataset.dev)")
    return {
        "rows": sum(summary.rows for summary in summaries),
        "examples": examples,
        "train": splits["train"],
        "dev": splits["dev"],
        "test": splits["test"],
        "classes": len(names),
        "per_class": {name: counts[0][index] for index, name in enumerate(names)},
        "per_class_test": {name: counts[1][index] for index, name in enumerate(names)},
        "rejected": dict(rejected.most_common()),
        "characters": {
            "min": shortest,
            "mean": round(sum(result["characters"][0] for result in results) / max(kept, 1), 1),
            "max": max((result["characters"][2] for result in results), default=0),
        },
        "warnings": warnings,
    }
