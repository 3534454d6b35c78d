"""Figures of a load, from the summaries of its workers: what was rejected, what is there, and what noise went in."""

from collections import Counter
from typing import Any

import numpy as np

from rayclean.artifacts import Folder
from rayclean.config import DatasetConfig
from rayclean.datasets.labels import Labels, truth_indices
from rayclean.datasets.rows import NO_LABEL
from rayclean.datasets.shards import Finish, Shard
from rayclean.datasets.stage import Summary
from rayclean.errors import DataError
from rayclean.functional.noise import expected_rate
from rayclean.plugins import nearest


def check_rejected(
    dataset: DatasetConfig, summaries: list[Summary], labels: Labels | None, shards: list[Shard]
) -> None:
    """Stop if too many rows cannot be used; rows whose label is one of `unlabelled` do not count.

    Args:
        dataset: for `max_rejected`.
        summaries: of all pieces.
        labels: None before the label set is known.
        shards: with their duplicates.

    Raises:
        DataError: the three most frequent reasons, with an example of each.
    """
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for summary in summaries:
        for reason, entry in summary.rejected.items():
            reasons[reason] += entry["count"]
            examples.setdefault(reason, f"{entry['source']} row {entry['row']}: {entry['value']!r}")
    for codes in (labels.unknown if labels else {}).values():
        for code, seen in codes.items():
            reasons["unknown label"] += seen.count
            assert labels is not None
            examples.setdefault("unknown label", f"{seen.source} row {seen.row}: {labels.explain(code)}")
    for shard in shards:
        for where in shard.duplicates.values():
            reasons["duplicate key"] += 1
            examples.setdefault("duplicate key", f"the key of {where} comes again")
    rows = sum(summary.rows for summary in summaries) - reasons.pop(NO_LABEL, 0)
    count = sum(reasons.values())
    if count <= dataset.max_rejected * rows and rows:
        return
    if not rows:
        raise DataError(
            f"every row is without label (dataset.unlabelled = {list(dataset.unlabelled)}): nothing to load"
        )
    lines = [f"  {n:,} x {reason}, for example {examples[reason]}" for reason, n in reasons.most_common(3)]
    raise DataError(
        f"{count:,} of {rows:,} rows ({count / rows:.1%}) cannot be used, more than dataset.max_rejected = "
        f"{dataset.max_rejected:.0%} allows:\n"
        + "\n".join(lines)
        + "\nMend the config or the data, or raise dataset.max_rejected"
    )


def check_roles(
    metrics: dict[str, Any], summaries: list[Summary], labels: Labels, shards: list[Shard]
) -> None:
    """Stop if nothing of the development or test files is left: nobody gives files that are not to be used.

    Raises:
        DataError: why the first row of them cannot be used.
    """
    for role in ("dev", "test"):
        read = sum(summary.rows for summary in summaries if summary.role == role)
        if not read or metrics[role]:
            continue
        repeated = [where for shard in shards if shard.role == role for where in shard.duplicates.values()]
        unknown = sum(seen.count for seen in labels.unknown.get(role, {}).values())
        why = f"{unknown:,} have an unknown label" if unknown else "see the reasons in rejected/"
        if repeated:
            why = (
                f"{len(repeated):,} have a key that came before, the first that of {repeated[0]}: keys (dataset.id) must differ "
                "between all files; without dataset.id a row's text and place are its key"
            )
        raise DataError(f"none of the {read:,} rows of the {role} files can be used: {why}")


def check_truth(dataset: DatasetConfig, summaries: list[Summary]) -> None:
    """Stop if no row at all holds the truth that the config speaks of (JSON Lines may leave it out row by row).

    Raises:
        DataError: it is nowhere.
    """
    if dataset.truth is not None and not any(summary.truths for summary in summaries):
        raise DataError(
            f"dataset.truth = {dataset.truth!r}: no row has a value there; leave dataset.truth out, or check its name"
        )


def truths(dataset: DatasetConfig, summaries: list[Summary], labels: Labels) -> dict[str, dict[str, int]]:
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
            f"dataset.truth = {dataset.truth!r} holds {values}, none of which is a label; {nearest(values[0], labels.names)}"
        )
    return indices


def write_truth(out: Folder, finish: Finish, summaries: list[Summary], results: list[dict[str, Any]]) -> None:
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


def metrics(summaries: list[Summary], results: list[dict[str, Any]], labels: Labels) -> dict[str, Any]:
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
