"""What a load reports: the metrics of the verb, and figures about truth and noise that stay in `truth/`."""

from collections import Counter
from typing import Any

import numpy as np

from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.labels import LabelMapping
from rayclean.datasets.second_pass import SecondPassJob
from rayclean.folder import Folder
from rayclean.functional.noise import expected_rate


def load_metrics(
    summaries: list[PieceSummary], shards: list[dict[str, Any]], labels: LabelMapping
) -> dict[str, Any]:
    """The metrics of the verb; none of them depends on the truth.

    Args:
        summaries: of all pieces, from the first pass.
        shards: counts of all shards, from the second pass.
        labels: the label set.
    """
    splits: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    per_class: list[Counter[int]] = [Counter(), Counter()]  # of examples, of test rows
    for summary in summaries:
        rejected.update({reason: entry["count"] for reason, entry in summary.rejected.items()})
    for shard in shards:
        splits.update(shard["splits"])
        rejected.update(shard["rejected"])
        for counter, pairs in zip(per_class, shard["labels"], strict=True):
            counter.update(dict(pairs))
    names = labels.names
    warnings = [f"class {name!r} is seen only once" for i, name in enumerate(names) if per_class[0][i] == 1]
    warnings += [f"class {name!r} has no example" for i, name in enumerate(names) if not per_class[0][i]]
    warnings += [f"{name} holds no rows" for summary in summaries for name in summary.empty]
    if not splits["dev"]:
        warnings.append("there are no development examples (dataset.dev)")
    characters = sum(shard["characters"][0] for shard in shards)
    return {
        "rows": sum(summary.rows for summary in summaries),
        "examples": splits["train"] + splits["dev"],
        "train": splits["train"],
        "dev": splits["dev"],
        "test": splits["test"],
        "classes": len(names),
        "per_class": {name: per_class[0][index] for index, name in enumerate(names)},
        "per_class_test": {name: per_class[1][index] for index, name in enumerate(names)},
        "rejected": dict(rejected.most_common()),
        "characters": {
            "min": min((shard["characters"][1] for shard in shards), default=0),
            "mean": round(characters / max(sum(splits.values()), 1), 1),
            "max": max((shard["characters"][2] for shard in shards), default=0),
        },
        "warnings": warnings,
    }


def write_truth_summary(
    out: Folder, job: SecondPassJob, summaries: list[PieceSummary], shards: list[dict[str, Any]]
) -> None:
    """Write `truth/summary.json` where a truth is known, and `truth/noise.json` where noise was injected.

    Args:
        out: the folder of `load`.
        job: the second pass.
        summaries: of all pieces, from the first pass.
        shards: counts of all shards, from the second pass.
    """
    known = sum(shard["truths"] for shard in shards)
    if not known:
        return
    outside = sum(
        count
        for summary in summaries
        for code, count in summary.truths.items()
        if code not in job.truths.get(summary.role, {})
    )
    out.write_json({"known": known, "outside_label_set": outside}, "truth", "summary.json")
    if job.load.config.noise is not None:
        out.write_json(_noise_report(job, shards), "truth", "noise.json")


def _noise_report(job: SecondPassJob, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Requested, expected and realised rate of the injected noise, and its transitions."""
    noise = job.load.config.noise
    assert noise is not None
    names = job.labels.names
    transitions: Counter[tuple[int, int]] = Counter()
    for shard in shards:
        transitions.update({(true, given): count for true, given, count in shard["transitions"]})
    examples = np.zeros(len(names), np.int64)
    wrong = np.zeros(len(names), np.int64)
    for (true, given), count in transitions.items():
        examples[true] += count
        wrong[true] += count * (true != given)
    total = max(int(examples.sum()), 1)
    return {
        "kind": noise.kind,
        "requested_rate": noise.rate,
        "expected_rate": expected_rate(noise.kind, noise.rate, examples / total, job.noise_mapping),
        "realised_rate": int(wrong.sum()) / total,
        "seed": job.load.seed if noise.seed is None else noise.seed,
        "examples": int(examples.sum()),
        "per_class": {name: wrong[i] / examples[i] if examples[i] else None for i, name in enumerate(names)},
        # [true index, given index, count]; count / examples of the true class is the transition matrix
        "transitions": [[*pair, count] for pair, count in sorted(transitions.items())],
    }
