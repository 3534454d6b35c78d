"""The command `estimate`: what a run will take, before it begins."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rayclean.cli.arguments import (
    ConfigArgument,
    IdOption,
    LabelOption,
    OverridesArgument,
    TextOption,
    read_config,
    with_columns,
)

if TYPE_CHECKING:
    from rich.table import Table

    from rayclean.estimates.estimate import RunEstimate


def show_estimate(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    measure_model: Annotated[
        bool,
        typer.Option(
            "--measure-model", help="Start the language model that the run would serve, and time it."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Estimate time, questions, tokens and money of a run, by rehearsing it on a sample. The run folder stays as it is."""
    from rich.console import Console

    from rayclean.estimates.estimate import estimate_run
    from rayclean.progress import print_plain

    resolved = read_config(config, with_columns(config, overrides, text, label, id_))
    found = estimate_run(resolved, measure_model=measure_model)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
        return
    console = Console()
    print_plain(
        console, f"{found.name}: {found.examples:,} examples of {found.rows:,} rows ({found.rows_basis})"
    )
    console.print(times_table(found))
    if found.questions:
        console.print(questions_table(found))
    for note in found.notes:
        print_plain(console, f"- {note}")


def times_table(found: "RunEstimate") -> "Table":
    """Seconds of the verbs and their parts."""
    from rich import box
    from rich.table import Table

    from rayclean.evaluation.formatting import format_seconds

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("verb", "part", "time", "where it comes from"):
        table.add_column(name, justify="right" if name == "time" else "left", overflow="fold")
    for each in found.verbs:
        if each.is_done:
            table.add_row(each.verb, "", "0 s", "done before, reused")
        for number, part in enumerate(each.parts):
            table.add_row("" if number else each.verb, part.name, format_seconds(part.seconds), part.basis)
    for asked in found.questions:
        if asked.billable:
            known = "?" if asked.seconds is None else format_seconds(asked.seconds)
            table.add_row(asked.asker, f"answers of {asked.annotator}", known, asked.speed_basis)
    table.add_section()
    table.add_row("all", "", format_seconds(found.seconds), "", style="bold")
    return table


def questions_table(found: "RunEstimate") -> "Table":
    """Questions, tokens and money."""
    from rich import box
    from rich.table import Table

    from rayclean.evaluation.formatting import format_count, format_money

    table = Table(box=box.SIMPLE_HEAD, title="at most", title_justify="left")
    for name in ("asker", "annotator", "questions", "tokens", "money", "where it comes from"):
        right = name in ("questions", "tokens", "money")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for each in found.questions:
        count = "no limit" if each.questions is None else format_count(each.questions)
        tokens = format_count(each.tokens) if each.billable else "none"
        money = format_money(each.cost, each.currency) if each.cost else "none"
        table.add_row(each.asker, each.annotator, count, tokens, money, each.basis)
    return table
