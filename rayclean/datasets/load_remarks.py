"""What `load` says of the rows that it left out, and of texts that repeat, in sentences for terminal and report."""

from collections import Counter
from typing import Any

from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.left_out import Kinds, add_kinds, biased_losses, left_out_sentence
from rayclean.datasets.second_pass import StagedShard
from rayclean.datasets.shared_texts import TextCounts

_FEW_EXAMPLES = 20
"""With fewer examples, it is no wonder that one text is frequent."""


def text_remarks(counts: TextCounts) -> tuple[list[str], list[str]]:
    """What to say of texts that repeat: alarms about what can hardly be meant, and warnings."""
    alarms, warnings = [], []
    if counts.distinct == 1 < counts.examples:
        alarms.append(
            f"all {counts.examples:,} examples have the same text, from which no label can be learnt: check dataset.text"
        )
    elif counts.examples >= _FEW_EXAMPLES and 2 * counts.most_frequent > counts.examples:
        alarms.append(
            f"{counts.most_frequent:,} of {counts.examples:,} examples have one and the same text: check dataset.text, and "
            "remove rows that hold a placeholder"
        )
    if counts.shared_test == counts.test > 0:
        alarms.append(
            f"the texts of all {counts.test:,} test examples are in the training data, so nothing tells what a model makes of "
            "others: use dataset.test.share, or other files in dataset.test.path"
        )
    if counts.repeated:
        warnings.append(
            f"texts that occur more than once: {counts.repeated:,} ({counts.copies:,} examples)"
            + (
                f", of which {counts.conflicting:,} with different labels: at least {counts.least_wrong:,} labels are wrong"
                if counts.conflicting
                else ""
            )
        )
    if counts.shared_test:
        warnings.append(
            f"test examples whose text is in the training data: {counts.shared_test:,} of {counts.test:,}; they are left out of "
            "the headline test figures"
        )
    if counts.dev_in_test:
        warnings.append(
            f"test examples whose text is in the development files: {counts.dev_in_test:,} of {counts.test:,}; epochs are "
            "chosen by them, which flatters the test figures"
        )
    if counts.shared_dev:
        warnings.append(
            f"development examples whose text is in the training data: {counts.shared_dev:,} of {counts.dev:,}; no epoch of "
            "`train` is chosen by them"
        )
    return alarms, warnings


def left_out_by_role(
    summaries: list[PieceSummary], staged: list[StagedShard], shards: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Role -> number of its `rows`, and `reasons` -> number of rows that are left out for it."""
    found: dict[str, dict[str, Any]] = {}
    for summary in summaries:
        entry = found.setdefault(summary.role, {"rows": 0, "reasons": Counter()})
        entry["rows"] += summary.rows
        entry["reasons"].update({reason: each["count"] for reason, each in summary.rejected.items()})
    for shard, counts in zip(staged, shards, strict=True):
        found[shard.role]["reasons"].update(counts["rejected"])
    return {
        role: {"rows": entry["rows"], "reasons": dict(entry["reasons"].most_common())}
        for role, entry in found.items()
    }


def left_out_warnings(
    left_out: dict[str, dict[str, Any]],
    summaries: list[PieceSummary],
    staged: list[StagedShard],
    shards: list[dict[str, Any]],
) -> list[str]:
    """What was left out of each role, and losses that strike one kind of row.

    Args:
        left_out: of `left_out_by_role`.
        summaries: of all pieces, from the first pass.
        staged: all shards of the first pass.
        shards: counts of the same shards, from the second pass.
    """
    warnings = [
        f"{role}: {left_out_sentence(found['rows'], found['reasons'])} (load/rejected/ lists them)"
        for role, found in left_out.items()
        if found["reasons"]
    ]
    return warnings + [
        f"{role}: {bias}: rows of one kind are missing, which changes what is learnt; mend what load/rejected/ says of them"
        for role in left_out
        for bias in biased_losses(_kinds(role, summaries, staged, shards))
    ]


def _kinds(
    role: str, summaries: list[PieceSummary], staged: list[StagedShard], shards: list[dict[str, Any]]
) -> Kinds:
    """Rows read and left out of a role, by kind of row."""
    total: Kinds = {}
    for summary in summaries:
        if summary.role == role:
            add_kinds(total, summary.kinds)
    for shard, counts in zip(staged, shards, strict=True):
        if shard.role == role:
            add_kinds(total, counts["kinds"])
    return total
