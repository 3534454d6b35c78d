"""What a load says about its labels: values that count as one class, names that look alike, and values outside the label set.

Rows whose label is not in the label set are left out. A few are told in a warning; where they are many, or where they are how
a file spells a whole class, the load stops, since their loss would change what is measured.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from typing import Any

from rayclean.class_names import (
    class_key,
    difference,
    is_misspelling,
    is_number,
    is_numeric,
    near_groups,
    near_keys,
    visible,
)
from rayclean.config import DatasetConfig
from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.labels import LabelCounts, LabelMapping, unlabelled_hint
from rayclean.datasets.rejected_rows import BLANK_ROW, NO_LABEL, UNKNOWN_LABEL
from rayclean.datasets.second_pass import StagedShard
from rayclean.errors import ConfigError, DataError

_SHOWN = 10
"""Most classes that are listed in warnings of one kind."""
_RARER, _LEAST_FREQUENT = 20, 20
"""A class that is so many times rarer than another one, of so many rows, may be a slip of the pen if its name looks like one."""
_COMPARED = 200
"""Most rare and most frequent names that are compared."""
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
        apart = sum(summary.rejected.get(reason, {"count": 0})["count"] for reason in (NO_LABEL, BLANK_ROW))
        rows[summary.role] += summary.rows - apart
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
        _check_spelling(
            labels, f"the label column of the {role} files", set(labels.codes[role].values()), codes
        )


def check_unlabelled(dataset: DatasetConfig, summaries: Iterable[PieceSummary]) -> None:
    """Stop at a value of `dataset.unlabelled` that is the number of a name that the files give themselves.

    Raises:
        ConfigError: there is one; numbers are read as their names, so it would mean nothing.
    """
    seen: set[str] = set()
    names: list[str] = []
    for summary in summaries:
        seen.update(summary.unlabelled)
        names = names or summary.label_names
    keys = {class_key(name) for name in names}
    for value in dataset.unlabelled:
        key = class_key(str(value))
        if is_number(key) and key not in seen | keys and 0 <= int(key) < len(names):
            raise ConfigError(
                f"dataset.unlabelled names the number {key}, but the files name their classes {names[:_SHOWN]}, and their "
                f"numbers are read as these names: write {names[int(key)]!r}, if that is what means no label"
            )


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
    total = known.total()
    places = {code: LabelCounts(count, "", 0) for code, count in outside.items()}
    if outside.total() <= dataset.max_rejected * total:
        named = {index for indices in truths.values() for index in indices.values()}
        _check_spelling(labels, f"dataset.truth = {dataset.truth!r}", named, places)
        return
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
        *_first(_slips(dataset, labels)),
        *_left_out(dataset, labels),
        *_unlabelled(dataset, labels, summaries),
        *_numbers_among_names(dataset, labels),
    ]


def _check_spelling(
    labels: LabelMapping, column: str, named: Collection[int], codes: Mapping[str, LabelCounts]
) -> None:
    """Stop if a class that a column never names is there under a name that is plainly another spelling of it.

    Args:
        labels: the label set.
        column: for messages.
        named: indices of the classes that the column names.
        codes: what else it holds.
    """
    missing = [name for index, name in enumerate(labels.names) if index not in named]
    by_near = {key: name for name in missing for key in enumerate(near_keys(name))}
    for code, counts in _most_frequent(codes, len(codes)):
        for key in enumerate(near_keys(code[2:])):
            if key in by_near:
                fix = "set dataset.merge_labels = true, or mend the column"
                _stop_at_spelling(column, code[2:], counts, by_near[key], fix)
    for code, counts in _most_frequent(codes, _SHOWN):
        name = next((name for name in missing if is_misspelling(code[2:], name)), None)
        if name is not None and counts.count >= _ROWS_OF_SPELLING:
            fix = (
                "mend the column; if it is a class of its own, name it in dataset.labels, or list it in dataset.unlabelled to "
                "leave its rows out"
            )
            _stop_at_spelling(column, code[2:], counts, name, fix)


def _stop_at_spelling(column: str, value: str, counts: LabelCounts, name: str, fix: str) -> None:
    place = f", first in {counts.source} row {counts.row}" if counts.source else ""
    raise DataError(
        f"{column} holds {visible(value)} ({counts.count:,} times{place}) and never the class {name!r}: these rows would be "
        f"left out, and none of that class would remain there. If the two names mean one class, {fix}"
    )


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
        differ = " and by ".join(dict.fromkeys(difference(first, other) for other in others))
        listed = " and ".join(f"{name!r} ({labels.counts.get(name, 0):,})" for name in (first, *others))
        found.append(f"classes {listed} differ by {differ} only; dataset.merge_labels = true makes them one")
    return found


def _slips(dataset: DatasetConfig, labels: LabelMapping) -> list[str]:
    """Rare classes that are probably frequent ones, typed wrong."""
    if dataset.labels is not None:
        return []
    near = {tuple(sorted(pair)) for group in near_groups(labels.names) for pair in combinations(group, 2)}
    by_count = sorted(labels.counts.items(), key=lambda item: (item[1], item[0]))
    found = []
    for rare, few in by_count[:_COMPARED]:
        for name, many in reversed(by_count[-_COMPARED:]):
            if many < max(_RARER * few, _LEAST_FREQUENT):
                break
            if is_misspelling(rare, name) and tuple(sorted((rare, name))) not in near:
                found.append(
                    f"class {rare!r} ({few:,}) may be {name!r} ({many:,}), typed wrong: mend the data, or name both in "
                    "dataset.labels if they are two"
                )
                break
    return found


def _left_out(dataset: DatasetConfig, labels: LabelMapping) -> list[str]:
    where = "dataset.labels" if dataset.labels else "the training data"
    found = []
    for role, codes in labels.unknown.items():
        if codes:
            listed = "; ".join(
                _described(labels, code, counts) for code, counts in _most_frequent(codes, _SHOWN)
            )
            hint = next(filter(None, map(unlabelled_hint, codes)), "")
            found.append(
                f"rows of the {role} files whose label is not in {where} are left out: {listed}{hint}"
            )
    return found


def _unlabelled(dataset: DatasetConfig, labels: LabelMapping, summaries: Iterable[PieceSummary]) -> list[str]:
    seen = {key for summary in summaries for key in summary.unlabelled}
    found = []
    for value in dataset.unlabelled:
        if class_key(str(value)) not in seen:
            index = labels.classes.find(str(value))
            hint = "" if index is None else f"; did you mean {labels.names[index]!r}?"
            found.append(f"dataset.unlabelled names {value!r}, which no label column holds{hint}")
    return found


def _numbers_among_names(dataset: DatasetConfig, labels: LabelMapping) -> list[str]:
    numbers = [name for name in labels.names if is_number(class_key(name))]
    names = [name for name in labels.names if not is_numeric(class_key(name))]
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
    lines = [
        f"  {_described(labels, code, counts)}{unlabelled_hint(code)}"
        for code, counts in _most_frequent(codes, 3)
    ]
    known = f"  known: {', '.join(sorted(labels.names)[:50])}"
    return "\n".join([*lines, known])


def _first(found: list[str]) -> list[str]:
    """The first warnings of a kind, and how many more there are."""
    more = len(found) - _SHOWN
    return found if more <= 0 else [*found[:_SHOWN], f"{more:,} more classes likewise (load/manifest.json)"]
