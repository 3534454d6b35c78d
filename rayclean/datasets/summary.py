"""What a load reports: the metrics of the verb, and figures about truth and noise that stay in `truth/`."""

from collections import Counter
from typing import Any

from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.label_forms import LabelForm
from rayclean.datasets.labels import LabelMapping
from rayclean.datasets.load_remarks import left_out_by_role, left_out_warnings
from rayclean.datasets.second_pass import SecondPassJob, StagedShard
from rayclean.folder import Folder

_CLASSES_ALONE, _CLASSES_NAMED = 3, 10
"""More classes than these share a sentence, which names so many."""


def load_metrics(
    summaries: list[PieceSummary],
    staged: list[StagedShard],
    shards: list[dict[str, Any]],
    labels: LabelMapping,
    form: LabelForm,
    *,
    needs_labels: bool = True,
) -> dict[str, Any]:
    """The metrics of the verb; none of them depends on the truth.

    Args:
        summaries: of all pieces, from the first pass.
        staged: all shards of the first pass.
        shards: counts of the same shards, from the second pass.
        labels: the label set.
        form: of the labels.
        needs_labels: whether the examples are to be cleaned or trained on, so that each class should have some.
    """
    splits: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    per_class: list[Counter[int]] = [Counter(), Counter()]  # of examples, of test rows
    sums: list[Counter[str]] = [Counter(), Counter()]  # of the same
    for summary in summaries:
        rejected.update({reason: entry["count"] for reason, entry in summary.rejected.items()})
    for shard in shards:
        splits.update(shard["splits"])
        rejected.update(shard["rejected"])
        for counter, pairs in zip(per_class, shard["labels"], strict=True):
            counter.update(dict(pairs))
        for total, found in zip(sums, shard["sums"], strict=True):
            total.update(found)
    names = labels.names
    left_out = left_out_by_role(summaries, staged, shards)
    warnings = left_out_warnings(left_out, summaries, staged, shards)
    if needs_labels:
        warnings += _of_classes(
            [name for i, name in enumerate(names) if per_class[0][i] == 1],
            "is seen only once",
            "are seen only once",
        )
        warnings += _of_classes(
            [name for i, name in enumerate(names) if not per_class[0][i]], "has no example", "have no example"
        )
    warnings += [f"{name} holds no rows" for summary in summaries for name in summary.empty]
    forms = _forms(summaries)
    warnings += _form_warnings(forms)
    if needs_labels and not splits["dev"]:
        warnings.append("there are no development examples (dataset.dev)")
    warnings += form.warnings(*sums)
    lengths = ("characters", "tokens") if form.reads_tokens else ("characters",)
    return {
        "rows": sum(summary.rows for summary in summaries),
        "examples": splits["train"] + splits["dev"],
        "train": splits["train"],
        "dev": splits["dev"],
        "test": splits["test"],
        "without_label": sum(shard["without_label"] for shard in shards),
        "classes": len(names),
        "per_class": {name: per_class[0][index] for index, name in enumerate(names)},
        "per_class_test": {name: per_class[1][index] for index, name in enumerate(names)},
        "rejected": dict(rejected.most_common()),
        "left_out": left_out,
        "forms": {
            role: {words: found["files"] for words, found in by_words.items()}
            for role, by_words in forms.items()
        },
        **{name: _spread([shard[name] for shard in shards], sum(splits.values())) for name in lengths},
        **form.figures(*sums),
        "warnings": warnings,
    }


def _of_classes(names: list[str], of_one: str, of_many: str) -> list[str]:
    """What is to be said of some classes: a sentence for each of a few, or one for all."""
    if len(names) <= _CLASSES_ALONE:
        return [f"class {name!r} {of_one}" for name in names]
    return [f"{len(names):,} classes {of_many}: {', '.join(map(repr, names[:_CLASSES_NAMED]))} ..."]


def _forms(summaries: list[PieceSummary]) -> dict[str, dict[str, dict[str, Any]]]:
    """Role -> how its files are written, in words -> how many are, the first of them, and what about it was guessed."""
    forms: dict[str, dict[str, dict[str, Any]]] = {}
    for summary in summaries:
        for words, found in summary.forms.items():
            total = forms.setdefault(summary.role, {}).setdefault(words, {**found, "files": 0})
            total["files"] += found["files"]
    return forms


def _form_warnings(forms: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """What was guessed about files, and whether files of one role are written in different ways."""
    warnings = []
    for role, by_words in forms.items():
        for words, found in by_words.items():
            if found["remark"]:
                others = f" and {found['files'] - 1:,} more" if found["files"] > 1 else ""
                warnings.append(f"{found['first']}{others}: read as {words.split(':')[0]}: {found['remark']}")
        if len(by_words) > 1:
            found_forms = "; ".join(
                f"{words} ({found['files']:,}, {found['first']})" for words, found in by_words.items()
            )
            warnings.append(f"the {role} files are written in {len(by_words)} ways: {found_forms}")
    return warnings


def _spread(shards: list[list[int]], rows: int) -> dict[str, float]:
    """Least, mean and greatest length of all rows, from the sum, the least and the greatest of each shard."""
    return {
        "min": min((least for _, least, _ in shards), default=0),
        "mean": round(sum(total for total, _, _ in shards) / max(rows, 1), 1),
        "max": max((most for _, _, most in shards), default=0),
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
    outside = Counter[str]()
    for summary in summaries:
        for code, count in summary.truths.items():
            if code not in job.truths.get(summary.role, {}):
                outside[code[2:]] += count
    found = {
        "known": known,
        "outside_label_set": outside.total(),
        "most_frequent_outside": dict(outside.most_common(10)),
    }
    out.write_json(found, "truth", "summary.json")
    if job.noise is not None:
        transitions: Counter[tuple[int, ...]] = Counter()
        for shard in shards:
            transitions.update({tuple(key): count for *key, count in shard["transitions"]})
        rates = job.load.label_form.noise_rates(transitions, job.labels.names, job.noise)
        out.write_json(rates, "truth", "noise.json")
