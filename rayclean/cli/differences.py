"""The command `diff`: what two runs say differently."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayclean.cli.arguments import JsonOption, RunArgument, read_run

if TYPE_CHECKING:
    from rich.console import Console

    from rayclean.differences.labels import PairCount
    from rayclean.differences.runs import Differing, RunDifferences, SideOfUnit

PAIRS = 12
"""Pairs of labels that are shown."""


def diff_runs(
    run_a: RunArgument,
    run_b: RunArgument,
    limit: Annotated[int, typer.Option(min=0, help="Most examples of every kind that are listed.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """What two runs say differently: config, examples, given and final labels. The exit code is 0 whatever it is.

    With --json: a, b (folders), config (key, a, b), finished (verbs), classes_only_a, classes_only_b, comparable, units,
    examples (both, only_a, only_b, splits, shown_only_a, shown_only_b), and given, final, decision (count, labels, sources,
    shown).
    """
    from rayclean.cli.terminal import print_json
    from rayclean.differences.runs import diff

    found = diff(read_run(run_a), read_run(run_b), limit=limit)
    if as_json:
        print_json(found.to_json())
        return
    from rich.console import Console

    console = Console()
    _say(console, f"A: {found.a} ({', '.join(found.finished['a'])})")
    _say(console, f"B: {found.b} ({', '.join(found.finished['b'])})")
    _print_config(console, found)
    _print_examples(console, found)
    if not found.comparable:
        _say(console, "labels are of different forms (task), so they are not compared")
        return
    for title, part in (
        ("given labels differ", found.given),
        ("final labels differ", found.final),
        ("final labels are the same for different reasons", found.decision),
    ):
        _say(console, f"{title}: {part.count:,} {found.units}")
        _print_pairs(console, part)
        _print_units(console, part)


def _print_config(console: "Console", found: "RunDifferences") -> None:
    count = len(found.config)
    _say(console, f"config: {count or 'no'} {'values differ' if count > 1 else 'value differs'}")
    if found.config:
        rows = [(each.key, _json(each.a), _json(each.b)) for each in found.config]
        _print_rows(console, ("key", "A", "B"), rows)


def _print_examples(console: "Console", found: "RunDifferences") -> None:
    examples = found.examples
    _say(
        console,
        f"examples: {examples.both:,} in both, {examples.only_a:,} in A alone, {examples.only_b:,} in B alone",
    )
    if not examples.both and examples.only_a and examples.only_b:
        _say(
            console,
            "without a key of yours (dataset.id) examples are known by file and row: set it in both configs",
        )
    for pair in examples.splits:
        _say(console, f"  {pair.count:,} are {pair.a} in A and {pair.b} in B")
    rows = [("A", each.name, each.text) for each in examples.shown_only_a]
    rows += [("B", each.name, each.text) for each in examples.shown_only_b]
    if rows:
        _print_rows(console, ("only in", "example", "text"), rows)
    for name, classes in (("A", found.classes_only_a), ("B", found.classes_only_b)):
        if classes:
            _say(console, f"classes in {name} alone: {', '.join(classes)}")


def _print_pairs(console: "Console", part: "Differing") -> None:
    """How often which label of A stands against which one of B, and likewise the sources."""
    for kind, pairs in (("label", part.labels), ("source", part.sources)):
        different: list[PairCount] = [pair for pair in pairs if kind == "label" or pair.a != pair.b]
        if different:
            rows = [(_text(pair.a), _text(pair.b), f"{pair.count:,}") for pair in different[:PAIRS]]
            left = sum(pair.count for pair in different[PAIRS:])
            rows += [("others", "", f"{left:,}")] if left else []
            _print_rows(console, (f"{kind} in A", f"{kind} in B", "count"), rows)


def _print_units(console: "Console", part: "Differing") -> None:
    rows = [
        (
            f"{each.name} [{each.part}]" if each.part else each.name,
            _side(each.a),
            _side(each.b),
            each.text,
        )
        for each in part.shown
    ]
    if rows:
        _print_rows(console, ("example", "A", "B", "text"), rows)


def _side(side: "SideOfUnit") -> str:
    """What one run says of a unit, in a few lines."""
    lines = [_text(side.given) if side.final is None else side.final]
    if side.final is not None and side.final != side.given:
        lines.append(f"given {_text(side.given)}")
    if side.source is not None:
        lines.append(side.source + (f" {side.confidence:.2f}" if side.confidence is not None else ""))
    if side.decided_by is not None:
        lines.append(f"by {side.decided_by}")
    if side.reason:
        lines.append(f"reason: {side.reason}")
    return "\n".join(lines)


def _print_rows(console: "Console", head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich import box
    from rich.table import Table

    from rayclean.cli.terminal import as_data, cut

    table = Table(box=box.SIMPLE_HEAD)
    for name in head:
        table.add_column(name, overflow="fold", justify="right" if name == "count" else "left")
    for row in rows:
        table.add_row(*(as_data(cut(cell, 120)) for cell in row))
    console.print(table)


def _say(console: "Console", line: str) -> None:
    from rayclean.cli.terminal import readable
    from rayclean.progress import print_plain

    print_plain(console, readable(line))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: str | None) -> str:
    return "none" if value is None else value
