"""What a load says about its labels: values that count as one class, names that look alike, and values outside the label set.

Rows whose label is not in the label set are left out. A few are told in a warning; where they are many, or where they are how
a file spells a whole class, the load stops, since their loss would change what is measured.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rayclean.class_names import class_key, difference, is_number, near_groups, near_keys, visible
from rayclean.config import DatasetConfig
from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.labels import LabelCounts, LabelMapping
from rayclean.datasets.rejected_rows import NO_LABEL, UNKNOWN_LABEL
from rayclean.datasets.second_pass import StagedShard
from rayclean.errors import DataError

_SHOWN = 10
"""Most classes that are listed in warnings of one kind."""
_SPELLING = 0.8
"""Similarity from which an unknown name is taken for another spelling of a class (`difflib`)."""
_ROWS_OF_SPELLING = 2
"""A single row may hold a slip of the pen anywhere."""


def check_unknown_labels(
    dataset: DatasetConfig,
    labels: LabelMapping,
    summaries: Iterable[PieceSummary],
    shards: Iterable[tuple[StagedShard, Mapping[str, Any]]] | None = None,
) -> None:
    """Stop if labels outside the label set are many in the development or test files, or are a class in another spelling.

    Args:
        dataset: for `max_rejected`.
        labels: the label set.
        summaries: of all pieces.
        shards: with their counts of the second pass, where a label may name several classes; otherwise None.

    Raises:
        DataError: the most frequent such labels, with the nearest names.
    """
    rows = Counter[str]()
    for summary in summaries:
        rows[summary.role] += summary.rows - summary.rejected.get(NO_LABEL, {"count": 0})["count"]
    outside = Counter[str]()
    for role, codes in labels.unknown.items():
        outside[role] = sum(counts.count for counts in codes.values())
    if shards is not None:
        outside = Counter()
        for shard, counts in shards:
            outside[shard.role] += counts["rejected"].get(UNKNOWN_LABEL, 0)
    for role, codes in labels.unknown.items():
        if role != "data" and codes and outside[role] > dataset.max_rejected * rows[role]:
            raise DataError(
                f"{outside[role]:,} of {rows[role]:,} rows of the {role} files ({outside[role] / max(rows[role], 1):.1%}) carry "
                f"labels that are not in the label set, more than dataset.max_rejected = {dataset.max_rejected:.0%} allows:\n"
                f"{_listed(labels, codes)}\nThe label set comes from dataset.labels or the training data alone. Mend the labels, "
                "name all classes in dataset.labels, or raise dataset.max_rejected"
            )
        _check_spelling(labels, role, codes)


def check_truth_values(
    dataset: DatasetConfig,
    summaries: Iterable[PieceSummary],
    truths: Mapping[str, Mapping[str, int]],
    labels: LabelMapping,
) -> None:
    """Stop if many true labels are not in the label set, since figures would be measured on the others alone.

    Args:
        dataset: for `max_rejected`.
        summaries: of all pieces.
        truths: role -> code in the truth column -> index, of codes in the label set.
        labels: the label set.

    Raises:
        DataError: the most frequent such values, with the nearest names.
    """
    known, outside = Counter[str](), Counter[str]()
    for summary in summaries:
        for code, count in summary.truths.items():
            known[summary.role] += count
            if code not in truths.get(summary.role, {}):
                outside[code] += count
    total = sum(known.values())
    if outside.total() <= dataset.max_rejected * total:
        return
    places = {code: LabelCounts(count, "", 0) for code, count in outside.items()}
    raise DataError(
        f"dataset.truth = {dataset.truth!r}: {outside.total():,} of {total:,} true labels ({outside.total() / total:.1%}) are "
        f"none of the classes, more than dataset.max_rejected = {dataset.max_rejected:.0%} allows:\n{_listed(labels, places)}\n"
        "Figures would be measured on the others alone. Mend the column, name all classes in dataset.labels, or raise "
        "dataset.max_rejected"
    )


def label_warnings(
    dataset: DatasetConfig, labels: LabelMapping, summaries: Iterable[PieceSummary]
) -> list[str]:
    """What a reader should know about how the labels were read, in sentences."""
    return [
        *_first(_written_in_several_ways(labels)),
        *_first(_near_names(dataset, labels)),
        *_left_out(dataset, labels),
        *_unlabelled(dataset, summaries),
        *_numbers_among_names(dataset, labels),
    ]


def _check_spelling(labels: LabelMapping, role: str, codes: Mapping[str, LabelCounts]) -> None:
    """Stop if a class that no row of a role names is there under a name that is plainly another spelling of it."""
    named = {labels.names[index] for index in labels.codes[role].values()}
    missing = {name: near_keys(name) for name in labels.names if name not in named}
    for code, counts in sorted(codes.items(), key=lambda item: -item[1].count):
        value = code[2:]
        for name, keys in missing.items():
            is_near = any(a == b for a, b in zip(near_keys(value), keys, strict=True))
            if is_near or (counts.count >= _ROWS_OF_SPELLING and _is_spelling(near_keys(value)[0], keys[0])):
                fix = (
                    "set dataset.merge_labels = true, or mend the labels"
                    if is_near
                    else "mend the labels; if it is a class of its own, name it in dataset.labels, and list it in "
                    "dataset.unlabelled to leave its rows out"
                )
                raise DataError(
                    f"the {role} files write {visible(value)} ({counts.count:,} times, first in {counts.source} row {counts.row}) "
                    f"and never {name!r}, which is a class: without these rows nothing would be known of it. If both are one, {fix}"
                )


def _is_spelling(value: str, name: str) -> bool:
    """Whether two different names are probably one: similar, with the same digits ("class 1" and "class 11" are two)."""
    if [char for char in value if char.isdigit()] != [char for char in name if char.isdigit()]:
        return False
    return difflib.SequenceMatcher(None, value, name).ratio() >= _SPELLING


def _written_in_several_ways(labels: LabelMapping) -> list[str]:
    found = []
    for name, ways in labels.ways.items():
        if len(ways) == 1:
            continue
        listed = ", ".join(f"{way} {count:,}" for way, count in list(ways.items())[:_SHOWN])
        found.append(f"class {name!r} is written in {len(ways)} ways, which count as one: {listed}")
    return found


def _near_names(dataset: DatasetConfig, labels: LabelMapping) -> list[str]:
    if dataset.labels is not None:
        return []  # who names both has looked at them
    found = []
    for first, *others in (group for group in near_groups(labels.names) if len(group) > 1):
        differ = difference(first, others[0])
        listed = " and ".join(f"{name!r} ({labels.counts.get(name, 0):,})" for name in (first, *others))
        found.append(f"classes {listed} differ by {differ} only; dataset.merge_labels = true makes them one")
    return found


def _left_out(dataset: DatasetConfig, labels: LabelMapping) -> list[str]:
    where = "dataset.labels" if dataset.labels else "the training data"
    found = []
    for role, codes in labels.unknown.items():
        if codes:
            listed = "; ".join(
                _described(labels, code, counts) for code, counts in _most_frequent(codes, _SHOWN)
            )
            found.append(f"rows of the {role} files whose label is not in {where} are left out: {listed}")
    return found


def _unlabelled(dataset: DatasetConfig, summaries: Iterable[PieceSummary]) -> list[str]:
    seen = {key for summary in summaries for key in summary.unlabelled}
    return [
        f"dataset.unlabelled names {value!r}, which no label column holds"
        for value in dataset.unlabelled
        if class_key(str(value)) not in seen
    ]


def _numbers_among_names(dataset: DatasetConfig, labels: LabelMapping) -> list[str]:
    numbers = [name for name in labels.names if is_number(class_key(name))]
    names = [name for name in labels.names if not is_number(class_key(name))]
    if dataset.labels is not None or not numbers or not names:
        return []
    return [
        f"some classes are numbers ({', '.join(numbers[:_SHOWN])}) and some are names ({', '.join(map(repr, names[:_SHOWN]))}): "
        "check that no file writes the number of a class where others write its name, and list numbers that mean no label in "
        "dataset.unlabelled"
    ]


def _most_frequent(codes: Mapping[str, LabelCounts], most: int) -> list[tuple[str, LabelCounts]]:
    return sorted(codes.items(), key=lambda item: (-item[1].count, item[0]))[:most]


def _described(labels: LabelMapping, code: str, counts: LabelCounts) -> str:
    nearest = labels.classes.nearest(code[2:])
    hint = f" (did you mean {' or '.join(map(repr, nearest))}?)" if nearest else ""
    return f"{visible(code[2:])} {counts.count:,}{hint}"


def _listed(labels: LabelMapping, codes: Mapping[str, LabelCounts]) -> str:
    lines = [f"  {_described(labels, code, counts)}" for code, counts in _most_frequent(codes, 3)]
    known = f"  known: {', '.join(sorted(labels.names)[:50])}"
    return "\n".join([*lines, known])


def _first(found: list[str]) -> list[str]:
    """The first warnings of a kind, and how many more there are."""
    more = len(found) - _SHOWN
    return found if more <= 0 else [*found[:_SHOWN], f"{more:,} more classes likewise (load/manifest.json)"]
