"""The command `push`, which gives away what a run made."""

from typing import Annotated

import typer

from rayclean.cli.arguments import RunArgument, read_run


def push_run(
    run: RunArgument,
    repository: Annotated[
        str,
        typer.Argument(
            metavar="USER/NAME", help="Repository on the Hugging Face hub; it is made if it is not there."
        ),
    ],
    data: Annotated[
        bool, typer.Option("--data/--model", help="The cleaned data set, or (the default) the trained model.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Only who has access may see it.")] = False,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch to push to, which is made if it is not there. Without it: main."),
    ] = None,
) -> None:
    """Upload the trained model or the cleaned data of a run to the Hugging Face hub, with a card of what was measured."""
    from rayclean.publishing.push import push

    done = push(read_run(run), repository, "data" if data else "model", private=private, revision=revision)
    who = "private" if done.private else "public: everybody can see it"
    typer.echo(f"{done.url} ({who}; commit {done.commit[:12]})")
