"""The commands `config`, `status` and `revert`, which start no verb."""

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rayclean.cli.arguments import (
    AddressOption,
    ConfigArgument,
    IdOption,
    JsonOption,
    LabelOption,
    OverridesArgument,
    RunArgument,
    TextOption,
    place_of_row,
    read_config,
    read_run,
    with_columns,
)
from rayclean.cli.jobs import run_job
from rayclean.errors import RaycleanError, ResourceError

if TYPE_CHECKING:
    from rayclean.run_status import VerbStatus


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
    as_json: JsonOption = False,
) -> None:
    """Check the resolved config (defaults, file and overrides) and print it as JSON: one document, nothing else on stdout; with
    --json in ASCII, as every command prints it.
    """
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
    if as_json:
        from rayclean.cli.terminal import print_json

        print_json(resolved.model_dump(mode="json"))
    else:
        typer.echo(resolved.model_dump_json(indent=1))


def show_status(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    text: TextOption = None,
    label: LabelOption = None,
    id_: IdOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the finished verbs of a run, the next one, and the command that resumes the run.

    With --json: run (its folder), verbs (verb, state, seconds, detail), next (verb; null where all is done), go_on_with
    (command), report (file; null before the end), and job of the cluster (id, attempt, state, message; null where no server is
    named or has none).
    """
    from rayclean.pipeline import open_run
    from rayclean.run_status import status

    overrides = with_columns(config, overrides, text, label, id_)
    resolved = read_config(config, overrides)
    job = run_job(address, resolved)
    if job.jobs is not None and not as_json:
        typer.echo(job.described)
    try:
        rows = status(resolved)
    except Exception as error:  # every object store has its own exceptions
        if job.jobs is None or isinstance(error, RaycleanError):
            raise
        raise ResourceError(
            f"this machine cannot read the run folder or the data of {resolved.name!r}: {error}"
        ) from error
    following = next((row.verb for row in rows if row.state != "done"), None)
    at = ["--address", address] if address else []
    submitted = "submit" if job.jobs is not None else "clean"
    command = shlex.join(["rayclean", submitted, config, *(overrides or []), *at])
    report = None if following is not None else open_run(resolved).url("report.html")
    if as_json:
        from rayclean.cli.terminal import print_json
        from rayclean.plain_values import plain_value

        print_json({
            "run": open_run(resolved).url(),
            "verbs": plain_value(rows),
            "next": following,
            "go_on_with": None if following is None else command,
            "report": report,
            "job": job.to_json(),
        })  # fmt: skip
        return
    _print_status(f"{resolved.output}/{resolved.name}", rows)
    typer.echo(
        f"complete; report: {report}" if following is None else f"next: {following}\ngo on with: {command}"
    )


def _print_status(where: str, rows: "Sequence[VerbStatus]") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rayclean.progress import print_plain

    table = Table()
    for column in ("verb", "state", "seconds", ""):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for row in rows:
        seconds = f"{row.seconds:,.1f}" if row.seconds is not None else ""
        table.add_row(row.verb, row.state, seconds, escape(row.detail))
    console = Console()
    print_plain(console, where)  # no title, which would be broken into lines
    console.print(table)


def revert_labels(
    run: RunArgument,
    key: Annotated[
        list[str] | None,
        typer.Option("--id", help="Only the example with this key of yours (dataset.id; repeatable)."),
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
    annotator: Annotated[
        str | None, typer.Option(help="Only changes that this annotator, or this auditor, decided.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All changes of the run.")] = False,
    undo: Annotated[bool, typer.Option(help="Take earlier reverts of the selection back.")] = False,
) -> None:
    """Revert changes of labels: the final labels are computed again without the selected changes."""
    from rayclean.evaluation.formatting import format_units
    from rayclean.run_actions import revert

    result = revert(
        read_run(run),
        keys=key or None,
        rows=[place_of_row(each) for each in row] if row else None,
        example_ids=example_id or None,
        below=below,
        from_label=from_label,
        to_label=to_label,
        annotator=annotator,
        everything=everything,
        undo=undo,
    )
    what = "applied again" if undo else "reverted"
    remain = (
        f"{format_units(result['changed'], 'change')} {'remains' if result['changed'] == 1 else 'remain'}"
    )
    typer.echo(f"{format_units(result['reverted'], 'label')} {what}, {remain}")
    if result["copies"]:
        typer.echo(
            f"{result['copies']} of them are identical texts with the same label, which only a key of your own (dataset.id) "
            "would tell apart"
        )
    typer.echo(f"train and evaluate on them with: rayclean clean {shlex.quote(run)}")
