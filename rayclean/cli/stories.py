"""The command `log`: what happened to one example."""

from typing import TYPE_CHECKING, Annotated

import typer

from rayclean.cli.arguments import JsonOption, OverridesArgument, RunArgument, place_of_row, read_run

if TYPE_CHECKING:
    from rayclean.stories.finding import Matches

TEXT_CHARACTERS = 1_000
"""Characters of the example's own text that are shown without `--full`."""


def log_example(
    run: RunArgument,
    overrides: OverridesArgument = None,
    key: Annotated[str | None, typer.Option("--id", help="Its key in your data (dataset.id).")] = None,
    row: Annotated[
        str | None,
        typer.Option(metavar="FILE:ROW", help="File and row, counted from 0; also of a rejected row."),
    ] = None,
    example_id: Annotated[int | None, typer.Option(help="Its id in the tables.")] = None,
    text: Annotated[str | None, typer.Option(help="A part of its text; several matches are listed.")] = None,
    neighbours: Annotated[
        int, typer.Option(min=0, help="Nearest neighbours to look for, in the features of predict; 0: none.")
    ] = 5,
    full: Annotated[bool, typer.Option("--full", help="Cut no text.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What happened to one example: all that the run knows of it, in order of time.

    With --json: the story's run, example_id, key, file, row, text, unfinished (verbs) and events, each with its name as
    "event"; or, where --text or --row means several, total and matches.
    """
    from rayclean.cli.terminal import print_json
    from rayclean.plain_values import plain_value
    from rayclean.run_lookup import existing_run
    from rayclean.stories.finding import find_examples
    from rayclean.stories.story import story_of_match

    looked_at = existing_run(read_run(run, overrides))
    place = None if row is None else place_of_row(row)
    matches = find_examples(looked_at, key=key, row=place, example_id=example_id, text=text)
    if matches.total > 1:
        if as_json:
            found = [plain_value(each) | {"name": each.name} for each in matches.found]
            print_json({"total": matches.total, "matches": found})
        else:
            _print_matches(matches)
        return
    story = story_of_match(looked_at, matches.found[0], neighbours=neighbours)
    if as_json:
        print_json(story.to_json())
        return
    from rich.console import Console

    from rayclean.cli.story_table import story_table

    table = story_table(story, None if full else TEXT_CHARACTERS)
    Console().print(table)


def _print_matches(matches: "Matches") -> None:
    """List what may be meant, with the ids to ask for."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rayclean.cli.terminal import as_data, cut

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("name", overflow="fold", max_width=24)
    table.add_column("--example-id", justify="right", no_wrap=True)
    table.add_column("text", overflow="fold")
    for each in matches.found:
        why = "" if each.rejected is None else f"(rejected, ask for it by --row) {each.rejected}: "
        number = "" if each.example_id is None else str(each.example_id)
        table.add_row(as_data(each.name), as_data(number), as_data(cut(f"{why}{each.text}", 200)))
    Console().print(table)
    if len(matches.found) < matches.total:
        typer.echo(f"the first {len(matches.found)} of {matches.total:,}; give a longer part of the text")
