"""The command `doctor`: what this machine has, what will be used, and what is missing."""

from dataclasses import asdict
from typing import Annotated

import typer


def show_machine(
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show what this machine has, what of it runs will use, and what is missing. Nothing is started.

    The exit code is 1 if something is missing without which a part cannot work. With --json: facts, each with name, value,
    advice (empty where all is well) and missing.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rayclean.cli.terminal import as_data, print_json
    from rayclean.runtime.machine import machine_facts

    facts = machine_facts()
    if as_json:
        print_json({"facts": [asdict(fact) for fact in facts]})
    else:
        table = Table(box=box.SIMPLE_HEAD, show_header=False, padding=(0, 1))
        for fact in facts:
            mark, style = ("✗", "red") if fact.missing else ("!", "yellow") if fact.advice else ("✓", "green")
            value = as_data(fact.value)
            if fact.advice:
                value.append(f"\n{fact.advice}", style=style)
            table.add_row(as_data(mark, style), as_data(fact.name), value)
        Console().print(table)
    if any(fact.missing for fact in facts):
        raise typer.Exit(1)
