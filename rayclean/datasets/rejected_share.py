"""How many rows of a role a load may leave out: more are the fault of the config, and stop it."""

from collections import Counter
from typing import Any

from rayclean.config import DatasetConfig
from rayclean.datasets.columns import SCORING_HINT
from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.labels import LabelMapping
from rayclean.datasets.rejected_rows import BLANK_ROW, NO_LABEL, NULL_LABEL, UNKNOWN_LABEL
from rayclean.datasets.second_pass import StagedShard
from rayclean.errors import DataError

_FIXES = {
    "duplicate key": ". Keys (dataset.id) must differ between all rows of all files; without dataset.id a row's place is its key",
    "key is neither a string nor an integer": ". Write keys as texts or whole numbers",
    "text is not a string": ". Name the column of the texts in dataset.text",
    "label is neither a string nor a number": ". Name a value inside of it by its path, like dataset.label = "
    '"annotations.0.label", or write labels as texts',
}
"""Reason for rejecting rows -> what to do about it."""


def check_rejected(
    dataset: DatasetConfig,
    summaries: list[PieceSummary],
    labels: LabelMapping | None = None,
    shards: list[StagedShard] | None = None,
    written: list[dict[str, Any]] | None = None,
) -> None:
    """Stop if too many rows of a role are rejected; rows whose label is one of `dataset.unlabelled` do not count.

    Args:
        dataset: for `max_rejected`.
        summaries: of all pieces.
        labels: None as long as the label set is unknown.
        shards: with their duplicates; None as long as those are unknown.
        written: counts of the second pass, where a row may name several unknown labels; otherwise None.

    Raises:
        DataError: the three most frequent reasons, with an example of each.
    """
    for role in dict.fromkeys(summary.role for summary in summaries):
        own = [place for place, shard in enumerate(shards or []) if shard.role == role]
        _check_rejected_of_role(
            dataset,
            role,
            [summary for summary in summaries if summary.role == role],
            labels,
            [(shards or [])[place] for place in own],
            None if written is None else [written[place] for place in own],
        )


def _check_rejected_of_role(
    dataset: DatasetConfig,
    role: str,
    summaries: list[PieceSummary],
    labels: LabelMapping | None,
    shards: list[StagedShard],
    written: list[dict[str, Any]] | None,
) -> None:
    """`check_rejected` for the pieces and shards of one role."""
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for summary in summaries:
        for reason, entry in summary.rejected.items():
            reasons[reason] += entry["count"]
            examples.setdefault(reason, f"{entry['source']} row {entry['row']}: {entry['value']!r}")
    for code, counts in (labels.unknown.get(role, {}) if labels is not None else {}).items():
        assert labels is not None
        if written is None:
            reasons[UNKNOWN_LABEL] += counts.count
        place = f"{counts.source} row {counts.row}"
        examples.setdefault(UNKNOWN_LABEL, f"{place}: {labels.explain(code)}")
    for counts_of_shard in written or []:
        if unknown := counts_of_shard["rejected"].get(UNKNOWN_LABEL):
            reasons[UNKNOWN_LABEL] += unknown
    for shard in shards:
        for place in shard.duplicates.values():
            reasons["duplicate key"] += 1
            examples.setdefault("duplicate key", f"the key of {place}, which no other row may have")
    rows = sum(summary.rows for summary in summaries) - reasons.pop(BLANK_ROW, 0) - reasons.pop(NO_LABEL, 0)
    count = sum(reasons.values())
    if count <= dataset.max_rejected * rows and rows:
        return
    of_role = "" if role == "data" else f" of the {role} files"
    if not rows:
        raise DataError(
            f"every row{of_role} is blank or without label (dataset.unlabelled = {list(dataset.unlabelled)}): nothing to load; "
            "check dataset.label and dataset.unlabelled"
        )
    unlabelled = role == "data" and count == rows == reasons[NULL_LABEL]
    lines = [
        f"  {n:,} x {reason}, for example {examples[reason]}{_FIXES.get(reason, '')}"
        for reason, n in reasons.most_common(3)
    ]
    raise DataError(
        f"{count:,} of {rows:,} rows{of_role} ({count / rows:.1%}) cannot be used, more than dataset.max_rejected = "
        f"{dataset.max_rejected:.0%} allows:\n"
        + "\n".join(lines)
        + "\nMend the config or the data, or raise dataset.max_rejected"
        + (SCORING_HINT if unlabelled else "")
    )
