"""The command `export`."""

from typing import Annotated

import typer

from rayclean.cli.arguments import OverridesArgument, RunArgument, read_run


def export_labels(
    run: RunArgument,
    overrides: OverridesArgument = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="A file (.parquet .csv .tsv .jsonl .conll, text also .gz .bz2 .xz .zst) or a folder, local or a URL (s3://...)"
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="parquet, csv, jsonl, conll or huggingface; without it, by the ending of the target."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Only these rows: changed, suspects, or referred (a person should look)."),
    ] = None,
    drop_referred: Annotated[
        bool, typer.Option("--drop-referred", help="Leave out rows that wait for a person.")
    ] = False,
    in_place_column: Annotated[
        bool,
        typer.Option(
            "--in-place-column",
            help="Write final labels into the label column, instead of a column of their own.",
        ),
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=NAME", help="Another name for an added column, like label=final (repeatable)."
        ),
    ] = None,
    spreadsheet_safe: Annotated[
        bool,
        typer.Option(
            "--spreadsheet-safe", help="Write a quote before cells of a CSV that a spreadsheet would run."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")] = False,
) -> None:
    """Write your own data set with the final labels: all rows and columns as they are, and beside them the labels by name, where
    they come from, how sure they are, and why.
    """
    from rayclean.evaluation.formatting import format_units
    from rayclean.run_actions import export

    chosen = {
        "format": format,
        "only": only,
        "drop_referred": drop_referred or None,
        "in_place_column": in_place_column or None,
        "names": _names(name) if name else None,
        "spreadsheet_safe": spreadsheet_safe or None,
        "overwrite": overwrite or None,
    }
    options = {key: value for key, value in chosen.items() if value is not None}
    exported = export(read_run(run, overrides), to, **options)
    typer.echo(f"{format_units(exported.rows, 'row')} in {exported.to}")
    for source, count in exported.sources.items():
        typer.echo(f"  {source}: {count:,}")
    typer.echo(f"columns added: {', '.join(exported.columns.values())}")


def _names(given: list[str]) -> dict[str, str]:
    """The names in `COLUMN=NAME`.

    Raises:
        BadParameter: one has no equals sign.
    """
    if wrong := [each for each in given if "=" not in each]:
        raise typer.BadParameter(f"--name {wrong[0]!r}: expected COLUMN=NAME, like --name label=final_label")
    return dict(each.split("=", 1) for each in given)
