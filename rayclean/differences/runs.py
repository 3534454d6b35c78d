"""`rayclean.diff`: what two runs say differently, with names, texts and reasons."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayclean.differences.configs import ConfigDifference, config_differences
from rayclean.differences.joining import side_by_side
from rayclean.differences.labels import PairCount, Tally, label_differences
from rayclean.differences.sides import Side
from rayclean.origins import Origins
from rayclean.plain_values import plain_value
from rayclean.run import VERBS, Run
from rayclean.run_lookup import RunOrConfig, config_of, existing_run
from rayclean.stories.finding import EXAMPLE_PARTS
from rayclean.tasks import TASKS

SHOWN = 20
"""Examples of every kind that are shown by default."""
_EXCERPT = 200
"""Characters of a text by which people recognise it."""


@dataclass(frozen=True)
class ExampleOfOne:
    """An example that is in one run alone."""

    example_id: int
    name: str
    """The user's key, else file and row, else the id."""
    text: str
    """Its beginning."""


@dataclass(frozen=True)
class SideOfUnit:
    """What one run says of a unit."""

    given: str | None
    final: str | None
    """None before relabel, and of test examples; likewise the following."""
    source: str | None
    """Where the final label is from (`relabel/labels/`)."""
    confidence: float | None
    decided_by: str | None
    """Annotator or auditor."""
    reason: str | None
    """The detectors that vote against the given label; None where the run has not looked."""


@dataclass(frozen=True)
class DifferingUnit:
    """A unit of which two runs say different things."""

    example_id: int
    name: str
    part: str
    """What of the example it is, by the name of a class; empty where the example is the unit."""
    text: str
    a: SideOfUnit
    b: SideOfUnit


@dataclass(frozen=True)
class Differing:
    """All units of one kind of difference."""

    count: int
    labels: tuple[PairCount, ...]
    """By both labels, the most frequent first."""
    sources: tuple[PairCount, ...]
    """By both sources, the most frequent first."""
    shown: tuple[DifferingUnit, ...]


@dataclass(frozen=True)
class ExamplesDiffer:
    """Which examples two runs have."""

    both: int
    only_a: int
    only_b: int
    splits: tuple[PairCount, ...]
    """Those of both that are of another split, by both splits."""
    shown_only_a: tuple[ExampleOfOne, ...]
    shown_only_b: tuple[ExampleOfOne, ...]


@dataclass(frozen=True)
class RunDifferences:
    """What two runs, `a` and `b`, say differently."""

    a: str
    """Folder of the first run."""
    b: str
    config: tuple[ConfigDifference, ...]
    finished: Mapping[str, tuple[str, ...]]
    """`a` and `b`: their finished verbs. Labels are compared as far as both have got."""
    classes_only_a: tuple[str, ...]
    classes_only_b: tuple[str, ...]
    comparable: bool
    """Whether labels were compared: those of different forms, such as one class and tags, cannot be."""
    units: str
    """What is doubted, in words; `examples` in classification."""
    examples: ExamplesDiffer
    given: Differing
    final: Differing
    """The surest first."""
    decision: Differing
    """The same final label for different reasons."""

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values: dict[str, Any] = plain_value(self)
        return values


def diff(a: RunOrConfig, b: RunOrConfig, *, limit: int = SHOWN) -> RunDifferences:
    """What two runs say differently: which config values, which examples, which given and which final labels, with reasons.

    Examples are the same where their ids are: by the user's key (`dataset.id`), else by file and row.

    Args:
        a: a run, its config, its folder or its config file.
        b: the other one, likewise.
        limit: most examples of every kind that are returned; all are counted.

    Raises:
        ConfigError: a config cannot be read.
        ArtifactError: there is no run, or it has loaded nothing.
    """
    runs = [existing_run(each) for each in (a, b)]
    configs = [config_of(run) for run in runs]
    forms = {TASKS.resolve(config.task.name).label_form for config in configs}
    one, other = (Side(run, config, len(forms) == 1) for run, config in zip(runs, configs, strict=True))
    found = label_differences(side_by_side(one, other), limit)
    classes = one.task.labels.names, other.task.labels.names
    return RunDifferences(
        a=one.run.url(),
        b=other.run.url(),
        config=config_differences(one.config, other.config),
        finished={"a": _finished(one.run), "b": _finished(other.run)},
        classes_only_a=tuple(name for name in classes[0] if name not in classes[1]),
        classes_only_b=tuple(name for name in classes[1] if name not in classes[0]),
        comparable=len(forms) == 1,
        units=one.task.units_are_called,
        examples=ExamplesDiffer(
            found.both,
            found.only_a,
            found.only_b,
            found.splits,
            _of_one(one, found.first_only_a.tolist()),
            _of_one(other, found.first_only_b.tolist()),
        ),
        given=_differing(found.given, one, other),
        final=_differing(found.final, one, other),
        decision=_differing(found.decision, one, other),
    )


def _finished(run: Run) -> tuple[str, ...]:
    return tuple(verb for verb in VERBS if run.manifest(verb) is not None)


def _of_one(side: Side, ids: list[int]) -> tuple[ExampleOfOne, ...]:
    names, texts = _names(side, ids), _texts(side, ids)
    return tuple(ExampleOfOne(each, names.get(each, str(each)), texts[each]) for each in ids)


def _differing(tally: Tally, one: Side, other: Side) -> Differing:
    rows = tally.first.to_pylist()
    ids = sorted({row["example_id"] for row in rows})
    names = _names(other, ids) | _names(one, ids)
    texts = _texts(one, ids)
    reasons = [
        _reasons(side, [row[name] for row in rows]) for side, name in ((one, "unit_id"), (other, "unit_id_b"))
    ]
    shown = tuple(
        DifferingUnit(
            row["example_id"],
            names.get(row["example_id"], str(row["example_id"])),
            row["part"],
            texts[row["example_id"]],
            _side(row, "", reasons[0].get(row["unit_id"])),
            _side(row, "_b", reasons[1].get(row["unit_id_b"])),
        )
        for row in rows
    )
    return Differing(tally.count, tally.labels, tally.sources, shown)


def _side(row: Mapping[str, Any], suffix: str, reason: str | None) -> SideOfUnit:
    return SideOfUnit(
        given=row[f"given{suffix}"],
        final=row[f"final{suffix}"],
        source=row[f"source{suffix}"],
        confidence=row[f"confidence{suffix}"],
        decided_by=row[f"annotator{suffix}"],
        reason=reason,
    )


def _names(side: Side, ids: Iterable[int]) -> dict[int, str]:
    """The user's keys, else files and rows."""
    return {each: str(origin) for each, origin in Origins(side.load).of(ids).items()}


def _texts(side: Side, ids: list[int]) -> dict[int, str]:
    columns = ["example_id", "text"]
    return {
        row["example_id"]: row["text"][:_EXCERPT]
        for part in EXAMPLE_PARTS
        for _, table in side.load.rows_with(part, "example_id", ids, columns=columns)
        for row in table.to_pylist()
    }


def _reasons(side: Side, unit_ids: list[int]) -> dict[int, str]:
    if side.run.manifest("detect") is None:
        return {}
    detect, columns = side.run.sub("detect"), ["unit_id", "reason"]
    tables: list[pa.Table] = [
        table for _, table in detect.rows_with("findings", "unit_id", unit_ids, columns=columns)
    ]
    return {row["unit_id"]: row["reason"] for table in tables for row in table.to_pylist()}
