"""The commands `config`, `status` and `revert`, which start no verb."""

import json
import shlex
from typing import Annotated

import typer

from rayclean.cli.arguments import (
    AddressOption,
    ConfigArgument,
    IdOption,
    LabelOption,
    OverridesArgument,
    TextOption,
    read_config,
    with_columns,
)
from rayclean.cli.jobs import show_job
from rayclean.errors import ConfigError, RaycleanError, ResourceError


def show_config(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG", help="Config file, run folder or data file; not needed with --schema."
        ),
    ] = None,
    overrides: OverridesArgument = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of configs instead, for editors.")
    ] = False,
) -> None:
    """Check the resolved config (defaults, file and overrides) and print it as JSON."""
    from rayclean.verb_fingerprints import check_plugins

    if schema:
        from rayclean.cli.schema import config_schema

        typer.echo(json.dumps(config_schema(), indent=1, ensure_ascii=False))
        return
    if config is None:
        raise typer.BadParameter(
            "give a config, like tickets.toml; or --schema for the schema of all configs"
        )
    resolved = read_config(config, with_columns(config, overrides, text, label, id_))
    check_plugins(resolved)
    typer.echo(resolved.model_dump_json(indent=1))


def show_status(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    address: AddressOption = None,
) -> None:
    """Show the finished verbs of a run, the next one, and the command that resumes the run."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rayclean.pipeline import open_run
    from rayclean.progress import print_plain
    from rayclean.run_status import status

    overrides = with_columns(config, overrides, text, label, id_)
    resolved = read_config(config, overrides)
    answered = show_job(address, resolved)
    try:
        rows = status(resolved)
    except Exception as error:  # every object store has its own exceptions
        if not answered or isinstance(error, RaycleanError):
            raise
        raise ResourceError(
            f"this machine cannot read the run folder or the data of {resolved.name!r}: {error}"
        ) from error
    table = Table()
    for column in ("verb", "state", "seconds", ""):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for row in rows:
        seconds = f"{row.seconds:,.1f}" if row.seconds is not None else ""
        table.add_row(row.verb, row.state, seconds, escape(row.detail))
    console = Console()
    print_plain(console, f"{resolved.output}/{resolved.name}")  # no title, which would be broken into lines
    console.print(table)
    following = next((row.verb for row in rows if row.state != "done"), None)
    if following is None:
        typer.echo(f"complete; report: {open_run(resolved).url('report.html')}")
        return
    at = ["--address", address] if address else []
    command = shlex.join(["rayclean", "submit" if answered else "clean", config, *(overrides or []), *at])
    typer.echo(f"next: {following}\ngo on with: {command}")


def revert_labels(
    config: ConfigArgument,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Only the example with this key of yours (dataset.id; repeatable)."),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE:ROW",
            help="Only the example of this row, counted from 0 as in the report (repeatable).",
        ),
    ] = None,
    example_id: Annotated[list[int] | None, typer.Option(help="Only these examples (repeatable).")] = None,
    below: Annotated[float | None, typer.Option(help="Only changes with a confidence below this.")] = None,
    from_label: Annotated[str | None, typer.Option(help="Only changes away from this label.")] = None,
    to_label: Annotated[str | None, typer.Option(help="Only changes to this label.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All changes of the run.")] = False,
    undo: Annotated[bool, typer.Option(help="Take earlier reverts of the selection back.")] = False,
) -> None:
    """Revert changes of labels: the final labels are computed again without the selected changes."""
    from rayclean.pipeline import revert

    result = revert(
        read_config(config, None),
        keys=key or None,
        rows=[_place(each) for each in row] if row else None,
        example_ids=example_id or None,
        below=below,
        from_label=from_label,
        to_label=to_label,
        everything=everything,
        undo=undo,
    )
    what = "applied again" if undo else "reverted"
    typer.echo(f"{result['reverted']} labels {what}, {result['changed']} changes remain")
    if result["copies"]:
        typer.echo(
            f"{result['copies']} of them are identical texts with the same label, which only a key of your own (dataset.id) "
            "would tell apart"
        )
    typer.echo(f"train and evaluate on them with: rayclean clean {shlex.quote(config)}")


def _place(text: str) -> tuple[str, int]:
    """File and row of `FILE:ROW`; a file's name may hold colons itself.

    Raises:
        ConfigError: there is no row.
    """
    file, colon, row = text.rpartition(":")
    if not (colon and file and row.isdecimal()):
        raise ConfigError(f"--row {text!r}: expected a file and a row of it, such as --row tickets.csv:17")
    return file, int(row)
